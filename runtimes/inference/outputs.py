"""Where a command may write: never onto what it reads, into a bundle, over a run's own files, or over anything that is not a plain
file; and a page or record of ours only over one of its kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rsedge.data.errors import RequestError
from rsedge.data.files import check_place
from rsedge.data.run_names import run_of
from rsedge.runtimes.bundle.manifest import MANIFEST, SIGNATURE

_MANIFEST_FIELD, _MOST_BYTES = b'"model_file"', 1 << 20


def check_outputs(outputs: Sequence[Path | None], inputs: Sequence[Path | None] = (), *, replace: bool = True) -> None:
    """Holds wanted files against what is there, before any work; an existing plain file is what a write replaces whole.

    Args:
        outputs: None where an option is not given.
        inputs: files and folders that the command reads; they may be reached by links, hard links or relative paths.
        replace: False refuses files that exist.

    Raises:
        RequestError: an output is an input or another output, lies in a bundle, is a run's own file, is `-`, a link, folder,
            device, pipe or socket, or its folder cannot be written.
    """
    read = {_key(p): p for p in inputs if p is not None}
    written = set[object]()
    for path in (p for p in outputs if p is not None):
        if str(path) == "-":
            raise RequestError("-: outputs are files and are not written to stdout; give the file a name")
        check_place(path, replace)
        key = _key(path)
        if key in read:
            raise RequestError(f"{path}: would overwrite {read[key]}, which this command reads; choose another name")
        if key in written:
            raise RequestError(f"{path}: two outputs name the same file; choose another name")
        written.add(key)
        check_outside_bundles(path)
        check_outside_runs(path)
        _check_writable(path)


def check_outside_runs(path: Path) -> None:
    """Refuses a run's own file or folder, which only the run writes: its record, its report, its stages.

    Raises:
        RequestError: names the run.
    """
    if (run := run_of(Path(os.path.realpath(path)))) is not None:
        raise RequestError(f"{path}: is the run {run}'s own, which only `rsedge run` writes; choose another place")


def check_replaces(path: Path, mark: bytes, writer: str) -> None:
    """Refuses a file that is there and is not such a one as would replace it.

    Args:
        mark: what every file of the kind has in its first MiB.
        writer: the command that writes them.

    Raises:
        RequestError: names the file. Else as :func:`rsedge.data.files.check_place`.
    """
    check_place(path)
    try:
        with path.open("rb") as f:
            ours = mark in f.read(_MOST_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RequestError(f"{path}: is there and cannot be read ({error.strerror}); choose another name") from error
    if not ours:
        raise RequestError(
            f"{path}: is there, and `{writer}` did not write it; choose another name, or remove it first"
        )


def check_outside_bundles(path: Path) -> None:
    """Refuses a file or folder in a bundle, whose content is what its manifest lists.

    Raises:
        RequestError: names the bundle.
    """
    real = Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        if _is_bundle(folder):
            raise RequestError(f"{path}: lies in the bundle {folder}, which would be damaged; choose another place")


def _is_bundle(folder: Path) -> bool:
    """Whether it is one, damaged or not; other programs have files called manifest.json too."""
    manifest = folder / MANIFEST
    try:
        if not manifest.is_file():
            return False
        if (folder / SIGNATURE).exists():
            return True
        with manifest.open("rb") as f:
            return _MANIFEST_FIELD in f.read(_MOST_BYTES)
    except OSError:
        return False  # not readable, so not writable for this user either


def _key(path: Path) -> object:
    """What two names of one file share, be they links, hard links or relative."""
    found = _stat(path)
    return os.path.realpath(path) if found is None else (found.st_dev, found.st_ino)


def _check_writable(path: Path) -> None:
    place = next(p for p in path.absolute().parents if _stat(p) is not None)
    if not place.is_dir():
        raise RequestError(f"{path}: cannot be written, as {place} is no folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        why = "lies on a read-only file system" if os.statvfs(place).f_flag & os.ST_RDONLY else "does not let you write"
        raise RequestError(f"{path}: cannot be written, as {place} {why}; choose another place")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
