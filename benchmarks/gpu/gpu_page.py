"""docs/gpu.md from the record of the last `make on-gpu` that had a GPU; no figure is typed by hand.

python benchmarks/gpu/gpu_page.py
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
DOCUMENT = ROOT / "docs" / "gpu.md"
TOOLS = ("torch", "tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf")

HEAD = """\
# On a CUDA GPU

Written by `make on-gpu`, one command of less than ten minutes; do not edit. It says that it is skipped where there is no GPU.
Parts are measured one after the other; one that could not run is told by its message.
"""
NOTHING = "\nNo run with a GPU is kept here yet.\n"


def stamp() -> dict[str, Any]:
    """Date and versions of what is installed here."""
    from importlib import metadata

    versions = {}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "versions": versions}


def keep(found: Mapping[str, Any]) -> None:
    """Keeps a run's record in the place of the last one and writes the document."""
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write()


def write() -> None:
    """Writes the document."""
    DOCUMENT.write_text(document(stored()), encoding="utf-8")
    print(DOCUMENT)


def stored() -> dict[str, Any] | None:
    """The last run's record."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else None


def document(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return HEAD + NOTHING
    card = found["card"]
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    about = f"{card['name']} ({card['memory_gb']} GB, compute capability {card['compute_capability']})"
    lines = [HEAD, f"{about}, driver {card['driver']}, {card['date']}; {versions}."]  # fmt: skip
    for name, (title, section) in SECTIONS.items():
        if name in found["parts"]:
            part = found["parts"][name]
            lines += ["", f"## {title}", "", *([part["error"]] if "error" in part else section(part))]
    return "\n".join(lines) + "\n"


def _training(part: Mapping[str, Any]) -> list[str]:
    rows = [[name, f"{row['steps_per_second']:.2f}", f"{row['apart']:.1e}", f"{row['loss'][0]:.4f}", f"{row['loss'][-1]:.4f}",
             f"{row['score']:.4f}", row["autocast"]] for name, row in part["rows"].items()]  # fmt: skip
    heads = ["", "steps a second", "loss apart from the CPU's (median)", "first loss", "last loss", "score", "autocast"]
    return [
        f"{part['steps']} steps of the quickstart's student, {part['threads']} CPU threads.",
        "",
        *_table(heads, rows),
    ]


def _teacher(part: Mapping[str, Any]) -> list[str]:
    rows = [
        [row["precision"], f"{row['batch']}", f"{row['images_per_second']:g}", f"{row['peak_gb']}"]
        for row in part["speed"]
    ]
    cache = part["cache"]
    return [
        f"`{part['name']}` ({part['params'] / 1e6:.0f} million parameters, drawn weights): bf16 is {part['bf16_off']:.1e} off f32 "
        f"(relative norm). Its answers are made for {cache['made_per_second']:g} views a second and read again from the cache at "
        f"{cache['read_per_second']:g}.",
        "", *_table(["precision", "batch", "images a second", "peak memory, GB"], rows),
    ]  # fmt: skip


def _students(part: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, rows in part["students"].items():
        lines += ["", f"### {name}", "", *_table(
            ["", "p50 ms", "p99 ms", "largest difference / largest logit", "same class", ""],
            [[way, *_student_cells(row)] for way, row in rows.items()])]  # fmt: skip
    return lines[1:]


def _student_cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return ["", "", "", "", row["error"]]
    apart = ["", ""]
    if "logit_scale" in row:
        apart = [f"{row['max_abs_difference']:.1e} / {row['logit_scale']:.0f}", f"{row['classes_agree']:.5f}"]
    notes = [row["execution"]] if row.get("execution") else []
    if spread := row.get("spread"):
        low, high = spread["max_abs_difference"]
        notes.append(f"{spread['builds']} builds, {spread['distinct_engines']} distinct, {low:.2g} to {high:.2g} from the golden "
                     f"vector, {spread['build_seconds']:g} s each, {row['build_with_timing_cache_seconds']:g} s with kernel "
                     "times kept")  # fmt: skip
    return [f"{row['p50']:.3f}", f"{row['p99']:.3f}", *apart, "; ".join(notes)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in rows]


SECTIONS = {
    "training": ("Distillation", _training),
    "teacher": ("A large teacher", _teacher),
    "students": ("Students", _students),
}

if __name__ == "__main__":
    write()
