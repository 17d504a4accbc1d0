"""The measured part of docs/quantization.md, from the rows that are kept; no figure is typed by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured import MeasuredPage

PAGE = MeasuredPage("int8.json", "quantization.md", "make bench-int8", ("students", "networks", "weights"))
Rows = Mapping[str, Mapping[str, Any]]
BANDS = """\
Pixels that INT8 gives another class than f32, selection and test tiles, bands as they are and scaled; time with scaled bands over
time without (95 % interval, turns by processor time on one thread)."""
ALONE = """\
Damage of the worst layers alone and of all together (RMS over standard deviation of the outputs), as the run's record has it; and
pixels that simulated fp16 (weights and every layer's outputs rounded, in torch) gives another class."""
NETWORKS = """\
Random weights, 224 x 224, one thread, processor time in turns (95 % interval). *Slow*: layers whose INT8 is no faster than their
float by the profile of nodes, and the share of the time that they would save by it; *whole*: time of the network with all of them
in float over time without. *bf16*: time with bf16 for what is left in float over that with f32."""
WEIGHTS = """\
Real weights, real inputs, one thread. *Kept*: share of the network's variance over inputs that is given again on inputs that fitted
nothing, seed by seed (a seed draws which ones fit). *Bytes* of all constants, *time* over that of INT8 weights (95 % interval,
first seed)."""


def lines(stored: Mapping[str, Rows]) -> list[str]:
    """The measured part, from its rows."""
    return [*_students(stored["students"]), *_networks(stored["networks"]), *_weights(stored["weights"])]


def _made(rows: Rows) -> str:
    made = sorted({f"{row['date']}, commit {row['commit']}, {row['cpu']}" for row in rows.values()})
    return f"Made {'; '.join(made)}." if made else "Nothing has been measured yet."


def _percent(pair: list[float]) -> str:
    return " / ".join(f"{100 * value:.2f} %" for value in pair)


def _ratio(row: Mapping[str, Any]) -> str:
    noise = f" ({row['noise']})" if row["noise"] else ""
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}){noise}"


def _students(rows: Rows) -> list[str]:
    lines = ["### Students of runs", "", BANDS, "", _made(rows), ""]
    lines += [
        "| run | setting | selection, as they are / scaled | test, as they are / scaled | time |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        for setting, found in row["bands"].items():
            value, low, high = found["time"]
            cells = [_percent(found["selection"]), _percent(found["test"]), f"{value:.3f} ({low:.3f} to {high:.3f})"]
            lines.append(f"| {name} | {setting} | {' | '.join(cells)} |")
    lines += ["", ALONE, "", "| run | layers | worst | next | together | fp16, selection | fp16, test |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        alone, fp16 = row["alone"], row["fp16"]
        figures = [f"{v:.4f}" for v in (*alone["worst"], alone["together"])]
        shares = [f"{100 * fp16[role]:.4f} %" for role in ("selection", "test")]
        lines.append(f"| {name} | {alone['parts']} | {' | '.join([*figures, *shares])} |")
    return [*lines, ""]


def _networks(rows: Rows) -> list[str]:
    lines = ["### Networks", "", NETWORKS, "", _made(rows), ""]
    lines += ["| network | rest in | layers | slow | would save | whole | bf16 |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        for rest in (r for r in ("f32", "bf16") if r in row):
            found = row[rest]
            whole = _ratio(found["whole"]) if "whole" in found else ""
            bf16 = _ratio(row["bf16 over f32"]) if rest == "bf16" else ""
            lines.append(
                f"| {name} | {rest} | {found['layers']} | {found['slow']} | {100 * found['saves']:.1f} % | {whole} | {bf16} |"
            )
    return [*lines, ""]


def _weights(rows: Rows) -> list[str]:
    lines = ["### Weights alone", "", WEIGHTS, "", _made(rows), ""]
    lines += ["| network | way | kept | bytes | time |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        seeds = list(row["seeds"].values())
        for way, first in seeds[0].items():
            if "refused" in first:
                lines.append(f"| {name} | {way} | refused: `{first['refused']}` |  |  |")
                continue
            kept = " / ".join(f"{found[way]['kept']:.4f}" for found in seeds)
            time = "{:.2f} ({:.2f} to {:.2f})".format(*first["time"]) if "time" in first else "1"
            lines.append(f"| {name} | {way} | {kept} | {first['bytes']:,} | {time} |")
    return [*lines, ""]
