"""The measured part of docs/scale.md, from the rows that are kept; no figure is typed by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured import MeasuredPage

PAGE = MeasuredPage("scale.json", "scale.md", "make bench-scale", ("memory",))
BANDS = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "watervapour",
    "cirrus",
    "swir16",
    "swir22",
)


def lines(stored: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The measured part, from its rows."""
    rows = stored["memory"]
    if not rows:
        return ["Nothing has been measured yet.", ""]
    ordered = sorted(rows.values(), key=lambda row: row["pixels"])
    made = sorted({f"{row['date']}, commit {row['commit']}, {row['cpu']}" for row in ordered})
    out = [
        f"Made {'; '.join(made)}.",
        "",
        "| scene | file | times the pixels | memory allowed | memory of its own, most | pages of files, most |",
        "|---|---|---|---|---|---|",
    ]
    for row in ordered:
        allowed, own, pages = (f"{row[kind] / 1e9:.2f} GB" for kind in ("allowed", "anon", "file"))
        times = row["pixels"] / ordered[0]["pixels"]
        scene = f"{row['edge']} x {row['edge']} x {len(BANDS)} | {row['file_bytes'] / 1e9:.2f} GB"
        out.append(f"| {scene} | {times:.0f} | {allowed} | {own} | {pages} |")
    return [*out, ""]
