"""The measured part of docs/replacing.md, from the rows that are kept; no figure is typed by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured import MeasuredPage

PAGE = MeasuredPage(
    "replacing.json", "replacing.md", "make bench-replace", ("runs", "activations", "tokens", "kernels", "folds")
)
Rows = Mapping[str, Mapping[str, Any]]
WHAT = """\
Random weights, one thread, OpenVINO on this machine's CPU, processor time in turns: time over that of the network as it is (95 %
interval), and milliseconds of that."""
RUNS = """\
What the step decided in runs on real weights and real inputs: time over that before, on every target; likeness to the teacher on
selection before, with the replacement as it is, and after recovery."""
LEFT = "*Left*: tokens that the halves of the blocks see, as a share of all, mean over blocks."
FOLDS = """\
Batch norms in torch, and operators of the model that OpenVINO is given: all that compute, convolutions, batch norms, and products
of a convolution's output with constants, as a batch norm's scale would be."""
KERNELS = "Each depthwise 7x7 convolution as several of the same receptive field."


def lines(stored: Mapping[str, Rows]) -> list[str]:
    """The measured part, from its rows."""
    return [
        *_section("Activations in place of SiLU and GELU", WHAT, stored["activations"], _timed),
        *_section("Merged tokens", f"{WHAT} {LEFT}", stored["tokens"], _timed),
        *_section("Decisions", RUNS, stored["runs"], _decisions),
        *_section("Split kernels, left out", f"{KERNELS} {WHAT}", stored["kernels"], _timed),
        *_section("Folding, left out", FOLDS, stored["folds"], _folds),
    ]


def _section(title: str, text: str, rows: Rows, table: Any) -> list[str]:
    made = sorted({f"{row['date']}, commit {row['commit']}, {row['cpu']}" for row in rows.values()})
    lines = [f"### {title}", "", text, "", f"Made {'; '.join(made)}." if made else "Nothing has been measured yet.", ""]
    return [*lines, *table(rows), ""] if rows else lines


def _timed(rows: Rows) -> list[str]:
    left = any("left" in row for row in rows.values())
    lines = [
        f"| network | precision | as it is | with |{' left |' if left else ''} time over |",
        "|---|---|---|---|---|" + "---|" * left,
    ]
    for name, row in rows.items():
        for precision in ("f32", "int8"):
            found = row[precision]
            noise = f" ({found['noise']})" if found["noise"] else ""
            for way, ratio in found["ratios"].items():
                share = f" {row['left'][way]:.2f} |" if left else ""
                said = f"a share of {way} merged" if left else way
                lines.append(
                    f"| {name} | {precision} | {found['ms']:.3g} ms | {said} |{share} {_ratio(ratio)}{noise} |"
                )
    return lines


def _ratio(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _decisions(rows: Rows) -> list[str]:
    lines = ["| run | tried | time over | before | as it is | recovered | |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        score = row["before"]
        for trial in row["trials"]:
            times = ", ".join(f"{t}: {_ratio(r)}, {r['provenance']}" for t, r in trial["latency"].items())
            figures = [f"{v:.4f}" if v is not None else "" for v in (score, trial["score"], trial["recovered"])]
            lines.append(f"| {name} | {trial['what']} | {times} | {' | '.join(figures)} | {_said(trial)} |")
            if trial["outcome"] == "applied":
                score = trial["score"] if trial["recovered"] is None else trial["recovered"]
    return lines


def _said(trial: Mapping[str, Any]) -> str:
    return "kept" if trial["outcome"] == "applied" else f"undone: {trial['reason']}"


def _folds(rows: Rows) -> list[str]:
    lines = [
        "| network | in torch | precision | operators | convolutions | batch norms | scales |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        for precision in ("f32", "int8"):
            figures = " | ".join(str(row[precision][key]) for key in ("operators", "convolutions", "norms", "scales"))
            lines.append(f"| {name} | {row['torch']} | {precision} | {figures} |")
    return lines
