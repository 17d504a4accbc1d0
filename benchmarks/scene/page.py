"""The measured part of docs/scenes.md, from the rows that are kept; no figure is typed by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured import MeasuredPage

PAGE = MeasuredPage("scene.json", "scenes.md", "make bench-scene", ("speed", "memory", "seams"))
Rows = Mapping[str, Mapping[str, Any]]
SPEED = """\
From the model open to the map written, seconds by the clock, the median of rounds in which the ways take turns, each in a
process of its own and through the same session. *Bound*: processor seconds of unpacking the scene alone, running its tiles alone
from memory, and packing the map alone, over the cores; beside other work on the machine seconds by the clock are longer than those
of the processor, of every way. *Agree*: share of pixels with the class that rsedge gives; the others do
not blend what tiles that overlap say, or (`tiler`) weigh it otherwise."""
STAGES = """\
Processor seconds of a run of rsedge by stage, as `rsedge infer --json` tells them. Opening the scene, with the first look at its
values, comes before."""
MEMORY = """\
What the process holds at most, of scenes of which a row of blocks and those on the diagonal are seen."""

SEAMS = """\
Shares of neighbouring pixels of unlike class across the lines where tiles begin or end, and across all others. *Extent*: share of a
window's pixels that get another class when the window is cut out and mapped alone, so that tiles begin elsewhere; *inside*, of
those a tile away from where it was cut."""


def lines(stored: Mapping[str, Rows]) -> list[str]:
    """The measured part, from its rows."""
    return [
        *_section("Speed", SPEED, stored["speed"], _speed),
        *_section("Where the time goes", STAGES, stored["speed"], _stages),
        *_section("Memory", MEMORY, stored["memory"], _memory),
        *_section("Seams and extents", SEAMS, stored["seams"], _seams),
    ]


def _section(title: str, text: str, rows: Rows, table: Any) -> list[str]:
    made = sorted({f"{row['date']}, commit {row['commit']}, {row['cpu']}" for row in rows.values()})
    lines = [f"### {title}", "", text, "", f"Made {'; '.join(made)}." if made else "Nothing has been measured yet.", ""]
    return [*lines, *table(rows), ""] if rows else lines


def bound_s(ways: Mapping[str, Any]) -> float:
    """Seconds that none can do without, spread over the cores."""
    alone = ways["bound"]
    return float(sum(alone[name] for name in ("decode_s", "infer_s", "encode_s")) / alone["cores"])


def _speed(rows: Rows) -> list[str]:
    titles = ("bundle, scene", "cores", "rounds", "way", "seconds", "over the bound", "processor seconds", "over the bound",
              "peak memory", "agree")  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in rows.items():
        ways, cores = row["ways"], row["ways"]["bound"]["cores"]
        bound = bound_s(ways)
        lines.append(
            f"| {name} | {cores} | {row['rounds']} | bound | {bound:.2f} | 1 | {bound * cores:.2f} | 1 | - | - |"
        )
        for way, found in ways.items():
            if way != "bound":
                agree = f"{found['agree']:.4f}" if "agree" in found else "-"
                wall, processor = found["wall_s"], found["processor_s"]
                lines.append(
                    f"| | | | {way} | {wall:.2f} | {wall / bound:.2f} | {processor:.2f} | {processor / (bound * cores):.2f} | "
                    f"{found['peak_mb']:.0f} MB | {agree} |"
                )
    return lines


def _stages(rows: Rows) -> list[str]:
    names = list(next(iter(rows.values()))["ways"]["rsedge"]["run"]["seconds"])
    lines = [
        f"| bundle, scene | {' | '.join(names)} | tiles | alone: decode, infer, encode |",
        "|---" * (len(names) + 3) + "|",
    ]
    for name, row in rows.items():
        run, alone = row["ways"]["rsedge"]["run"], row["ways"]["bound"]
        seconds = " | ".join(f"{run['seconds'][n]:.2f}" for n in names)
        bare = ", ".join(f"{alone[n]:.2f}" for n in ("decode_s", "infer_s", "encode_s"))
        lines.append(f"| {name} | {seconds} | {run['tiles']} | {bare} |")
    return lines


def _memory(rows: Rows) -> list[str]:
    lines = ["| bundle, scene | on disk | peak memory | seconds | tiles, skipped |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        run = row["run"]
        lines.append(
            f"| {name} | {row['scene_mb']:.1f} MB | {row['peak_mb']:.0f} MB | {row['wall_s']:.1f} | {run['tiles']:,}, "
            f"{run['skipped_tiles']:,} |"
        )
    return lines


def _seams(rows: Rows) -> list[str]:
    lines = ["| bundle, scene | at seams | elsewhere | ratio | extent | inside |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['at']:.4f} | {row['elsewhere']:.4f} | {row['over']:.3f} | {row['extent']:.4f} | "
            f"{row['inside']:.4f} |"
        )
    return lines
