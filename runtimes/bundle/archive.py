"""Bundles as they arrive: what is read of a folder or a ``.zip`` before its signature is looked at, and what is unpacked then."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import no_room
from rsedge.data.zip_bounds import MAX_DEPTH, ZipBounds, bounded_zip, chunks, read_member
from rsedge.runtimes.bundle.manifest import MANIFEST, PUBLIC_KEY, SIGNATURE, UNLISTED, Manifest, unlisted
from rsedge.runtimes.bundle.signature import MAX_MANIFEST, MAX_SIGNATURE, Envelope
from rsedge.runtimes.bundle.trust import MAX_KEY_BYTES

BOUNDS = ZipBounds()
_SMALL = {MANIFEST: MAX_MANIFEST, SIGNATURE: MAX_SIGNATURE, PUBLIC_KEY: MAX_KEY_BYTES}
_SPARE = 64 << 20
"""Bytes that stay free on the disk after unpacking."""


def folder_envelope(path: Path) -> Envelope:
    """What a bundle's folder is asked for first.

    Raises:
        RequestError: no manifest in it.
        IntegrityError: one of the three files is too large or no plain file.
    """
    found = {name: _small_file(path / name, most) for name, most in _SMALL.items()}
    return _envelope(path, found)


def _envelope(path: Path, found: Mapping[str, bytes | None]) -> Envelope:
    manifest = found[MANIFEST]
    if manifest is None:
        raise RequestError(f"{path}: no {MANIFEST} in it, so it is no rsedge bundle")
    return Envelope(manifest, found[SIGNATURE], found[PUBLIC_KEY])


def _small_file(file: Path, most: int) -> bytes | None:
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise IntegrityError(f"{file}: cannot be read as a plain file ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IntegrityError(f"{file}: is no plain file")
    with os.fdopen(handle, "rb") as opened:
        content = opened.read(most + 1)
    if len(content) > most:
        raise IntegrityError(f"{file}: larger than {most} bytes; this is no {file.name} of a bundle")
    return content


def folder_files(path: Path, folder: Path) -> set[str]:
    """Names of all files in a bundle's folder.

    Raises:
        IntegrityError: more of them, or folders in folders, than a bundle has.
    """
    found: set[str] = set()
    waiting, seen = [(folder, 1)], 0
    while waiting:
        inner, depth = waiting.pop()
        for entry in os.scandir(inner):
            seen += 1
            if seen > BOUNDS.files or depth > MAX_DEPTH:
                raise IntegrityError(
                    f"{path}: holds more than {BOUNDS.files} files or {MAX_DEPTH} folders in folders; this is no bundle"
                )
            if entry.is_dir(follow_symlinks=False):
                waiting.append((Path(entry.path), depth + 1))
            else:
                found.add(Path(entry.path).relative_to(folder).as_posix())
    return found


@dataclass(frozen=True)
class BundleZip:
    """A bundle's zip, within bounds, of which only the envelope has been read."""

    path: Path
    envelope: Envelope
    _archive: zipfile.ZipFile
    _members: dict[str, zipfile.ZipInfo]

    def unpack(self, manifest: Manifest, folder: Path) -> None:
        """Unpacks what the manifest lists, and nothing else, into ``folder``.

        Raises:
            IntegrityError: a file is missing, is not listed, or has another size than the manifest says.
            MissingCapability: the disk is too small.
        """
        if extra := set(self._members) - UNLISTED - set(manifest.files):
            raise unlisted(self.path, extra)
        for name, entry in manifest.files.items():
            if name not in self._members:
                raise IntegrityError(f"{self.path}: '{name}' is missing; copy the bundle again")
            if (size := self._members[name].file_size) != entry.bytes:
                raise IntegrityError(
                    f"{self.path}: '{name}' has {size} bytes, {MANIFEST} says {entry.bytes}; it is truncated or altered, copy "
                    "the bundle again"
                )
        wanted = sorted(manifest.files)
        _check_space(self.path, folder, sum(self._members[name].file_size for name in wanted))
        try:
            self._unpack(folder, wanted)
        except OSError as error:
            where = f"{self.path}: cannot be unpacked into {tempfile.gettempdir()}"
            raise no_room(where, error) or MissingCapability(f"{where} ({error.strerror or error})") from error

    def _unpack(self, folder: Path, wanted: Sequence[str]) -> None:
        envelope = {MANIFEST: self.envelope.manifest, SIGNATURE: self.envelope.signature, PUBLIC_KEY: self.envelope.key}
        for name, content in envelope.items():
            if content is not None:
                (folder / name).write_bytes(content)
        for name in wanted:
            self._copy(self._members[name], folder / name)

    def _copy(self, info: zipfile.ZipInfo, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as sink:
            for chunk in chunks(self.path, self._archive, info):
                sink.write(chunk)


@contextlib.contextmanager
def bundle_zip(path: Path) -> Iterator[BundleZip]:
    """Opens a bundle's zip and reads its envelope; nothing is unpacked.

    Raises:
        RequestError: no manifest in it.
        IntegrityError: no whole zip, or one out of bounds.
    """
    with bounded_zip(path, BOUNDS) as (archive, infos):
        members = _inside(infos)
        small = {
            name: read_member(path, archive, members[name], most) if name in members else None
            for name, most in _SMALL.items()
        }
        yield BundleZip(path, _envelope(path, small), archive, members)


def _inside(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Files by name inside the bundle; one common top folder is dropped."""
    tops = {PurePosixPath(i.filename).parts[0] for i in infos}
    nested = len(tops) == 1 and all(len(PurePosixPath(i.filename).parts) > 1 for i in infos)
    return {str(PurePosixPath(*PurePosixPath(i.filename).parts[1:])) if nested else i.filename: i for i in infos}


def _check_space(path: Path, folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + _SPARE > free:
        raise MissingCapability(
            f"{path}: unpacks to {wanted / 2**20:.0f} MiB, and {_SPARE >> 20} have to stay free, but {tempfile.gettempdir()} has "
            f"{free / 2**20:.0f} MiB free; free some, or set TMPDIR to a folder on a larger disk"
        )
