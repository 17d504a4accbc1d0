"""The measured part of docs/scale.md, from the rows that are kept; no figure is typed by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured import ROOT, MeasuredPage
from paper import archive, paper

from rsedge.data.files import read_json

PAGE = MeasuredPage("scale.json", "scale.md", "make bench-scale", ("memory", "teachers", "archive"))
RESULTS = ROOT / "benchmarks" / "results" / "recipes.json"
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
    found = ["### Larger scenes", "", *scenes(stored["memory"]), "### Larger teachers", ""]
    for row in stored["teachers"].values():
        found += teacher(row)
    for row in stored["archive"].values():
        found += ["### An archive", "", *archive(row)]
    return [*found, "### On paper", "", *paper(stored["archive"], _recipes())]


def _recipes() -> list[dict[str, Any]]:
    """What the ready recipes took, as `make recipes` keeps it."""
    rows: list[dict[str, Any]] = read_json(RESULTS)["rows"]
    return rows


def teacher(row: Mapping[str, Any]) -> list[str]:
    """What a recipe took whose teacher has so many parameters."""
    found = [
        f"{row['title']}, {row['params']:,} parameters in f32, {row['threads']} threads. Made {row['date']}, commit "
        f"{row['commit']}, {row['cpu']}; the whole took {row['seconds']:.0f} s, {row['anon'] / 1e9:.1f} GB of memory of its own "
        f"and {row['file'] / 1e9:.1f} GB of pages of files at most, {row['allowed'] / 1e9:.0f} GB were allowed.",
        "",
        "| stage | seconds | memory of its own, most |",
        "|---|---|---|",
    ]
    for name, stage in row["stages"].items():
        found.append(f"| {name} | {stage['seconds']:.1f} | {stage['memory_bytes'] / 1e9:.1f} GB |")
    return [*found, ""]


def scenes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Memory by the size of the scene."""
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
