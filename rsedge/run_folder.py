"""The folder of one run: where things lie in it, and that one process at a time works there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsedge.data.errors import RequestError
from rsedge.data.files import folder_lock

# A folder that holds anything but these is not ours, and nothing in it is touched.
OWN_NAMES = (
    "stages",
    "bundles",
    "report.html",
    "report.json",
    "recipe.resolved.yaml",
    "model_card.md",
    "keys",
    "cache",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder."""

    root: Path

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def report_json(self) -> Path:
        return self.root / "report.json"

    @property
    def resolved_recipe(self) -> Path:
        return self.root / "recipe.resolved.yaml"

    @property
    def stages(self) -> Path:
        return self.root / "stages"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def cache(self) -> Path:
        """The teacher's outputs on the training views; may be deleted, it is made again."""
        return self.root / "cache"

    @property
    def keys(self) -> Path:
        return self.root / "keys"


@contextlib.contextmanager
def open_run_folder(root: str | Path) -> Iterator[RunFolder]:
    """Holds the run folder ``root`` for this process, making it when it is new.

    Raises:
        RequestError: another process works there, it is a file, or it holds things that no run wrote.
    """
    root = Path(root)
    check_run_folder(root)
    with folder_lock(root):
        yield RunFolder(root)


def check_run_folder(root: Path) -> None:
    """Refuses a folder that is not for runs.

    Raises:
        RequestError: it is a file, or holds things that no run wrote.
    """
    if root.exists() and not root.is_dir():
        raise RequestError(f"{root}: is a file; choose another --run-dir")
    foreign = sorted(p.name for p in root.iterdir() if not _own(p.name)) if root.exists() else []
    if foreign:
        reason = f"it holds '{foreign[0]}'"
        raise RequestError(
            f"{root}: is not a run folder ({reason}), nothing in it is touched; choose another --run-dir"
        )


def _own(name: str) -> bool:
    return name.startswith(".") or name in OWN_NAMES
