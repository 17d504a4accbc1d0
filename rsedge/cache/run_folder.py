"""The folder of one run: where things lie in it, and that one process at a time works there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsedge.data.errors import RequestError
from rsedge.data.files import LOCK, check_no_address, folder_lock
from rsedge.data.run_names import DISAGREEMENT, OWN_NAMES, RECIPE, REPORT, SOAK, STAGES, TRACKING
from rsedge.data.temporary import collect_leftovers
from rsedge.runtimes.inference.outputs import check_outside_bundles


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder."""

    root: Path

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def report_json(self) -> Path:
        return self.root / REPORT

    @property
    def report_markdown(self) -> Path:
        return self.root / "report.md"

    @property
    def log(self) -> Path:
        """Every line that runs in this folder said, with its time."""
        return self.root / "run.log"

    @property
    def resolved_recipe(self) -> Path:
        return self.root / RECIPE

    @property
    def stages(self) -> Path:
        return self.root / STAGES

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def cache(self) -> Path:
        """The teacher's outputs on the training views, where this user has no folder for them; may be deleted."""
        return self.root / "cache"

    @property
    def inputs(self) -> Path:
        """Arrays that calls in Python were given."""
        return self.root / "inputs"

    @property
    def exported(self) -> Path:
        """Bundles that calls in Python exported, by target."""
        return self.root / "exported"

    @property
    def soak(self) -> Path:
        """What ``rsedge soak --output`` left for the report, one ``<target>.json`` each."""
        return self.root / SOAK

    @property
    def disagreement(self) -> Path:
        """Where teacher and student differ, on the map: a raster per target."""
        return self.root / DISAGREEMENT

    @property
    def tracking(self) -> Path:
        """What MLflow or TensorBoard is given, where no other place is named."""
        return self.root / TRACKING

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
        collect_leftovers(root, deep=True)
        yield RunFolder(root)


def check_run_folder(root: Path) -> None:
    """Refuses a folder that is not for runs.

    Raises:
        RequestError: it is an address or a file, or holds things that no run wrote.
    """
    if root.exists() and not root.is_dir():
        raise RequestError(f"{root}: is a file; choose another --run-dir")
    check_no_address(root)
    check_outside_bundles(root)
    if (reason := _foreign(root)) is not None:
        raise RequestError(
            f"{root}: is not a run folder ({reason}), nothing in it is touched; choose another --run-dir"
        )


def _foreign(root: Path) -> str | None:
    """Why a folder is none of a run's; stages empty their folders, which must not be someone else's."""
    found = sorted(root.iterdir()) if root.exists() else []
    for path in found:
        if not _own(path.name):
            return f"it holds '{path.name}'"
    names = {path.name for path in found}
    if names & set(OWN_NAMES) and not names & {LOCK, RECIPE}:
        return f"it holds '{min(names & set(OWN_NAMES))}' and no {RECIPE}"
    inside = [path for name in (STAGES, "bundles") if (root / name).is_dir() for path in (root / name).iterdir()]
    links = [path for path in (*found, *inside) if path.is_symlink() and not path.name.startswith(".")]
    return f"'{links[0].relative_to(root)}' is a link" if links else None


def _own(name: str) -> bool:
    return name.startswith(".") or name in OWN_NAMES
