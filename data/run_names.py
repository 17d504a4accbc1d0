"""Names in a run's folder: for runs, which write there, and for everything else, which must not."""

from __future__ import annotations

from pathlib import Path

RECIPE, REPORT, STAGES, SOAK = "recipe.resolved.yaml", "report.json", "stages", "soak"
DISAGREEMENT, TRACKING = "disagreement", "tracking"
# A folder that holds anything but these is not ours, and nothing in it is touched.
OWN_NAMES = (
    STAGES,
    "bundles",
    "run.log",
    "report.html",
    REPORT,
    "report.md",
    RECIPE,
    "model_card.md",
    "keys",
    "cache",
    "inputs",
    "exported",
    DISAGREEMENT,
    TRACKING,
    SOAK,
)
_MARKS = (".lock", "run.log", STAGES)
"""What every run leaves beside its recipe."""
_REPORT_FIELD, _MOST_BYTES = b'"rsedge_version"', 1 << 16


def run_of(path: Path) -> Path | None:
    """The run folder of which a path (without links) is an own file, there already or not; None where it is none's. What lies in
    ``soak/`` was put there by commands, and is not.
    """
    for folder in path.parents:
        name = path.relative_to(folder).parts[0]
        if name in OWN_NAMES and name != SOAK and _is_run(folder):
            return folder
    return None


def _is_run(folder: Path) -> bool:
    """Whether it is one, damaged or not. A copy of a recipe alone makes none, and other programs have files called report.json."""
    try:
        if (folder / RECIPE).is_file() and any((folder / mark).exists() for mark in _MARKS):
            return True
        with (folder / REPORT).open("rb") as f:
            return _REPORT_FIELD in f.read(_MOST_BYTES)
    except OSError:
        return False  # no such file, or not readable, so not writable for this user either
