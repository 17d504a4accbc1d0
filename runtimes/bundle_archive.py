"""Bundles as ``.zip`` files: what is unpacked, and how large it may be."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.manifest import MANIFEST, UNLISTED, Manifest, built_later, check_member_name

_SMALL_FILE = 64 << 20


def extract(path: Path, folder: Path) -> None:
    """Unpacks only what the manifest lists, each file no larger than it says, and nothing outside ``folder``."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            for name in sorted(UNLISTED & set(members)):
                _copy(path, archive, members[name], folder / name, _SMALL_FILE)
            if MANIFEST not in members:
                raise RequestError(f"{path}: no {MANIFEST} in it, so it is no rsedge bundle")
            manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes(), f"{path}/{MANIFEST}")
            if extra := sorted(set(members) - UNLISTED - built_later(manifest) - set(manifest.files)):
                raise IntegrityError(f"{path}: files that {MANIFEST} does not list: {', '.join(extra)}")
            for name, entry in manifest.files.items():
                if name in members:
                    _copy(path, archive, members[name], folder / name, entry.bytes)
            for name in sorted(built_later(manifest) & set(members) - set(manifest.files)):
                _copy(path, archive, members[name], folder / name, members[name].file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise IntegrityError(f"{path}: not a whole .zip file ({error}); copy the bundle again") from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Files by name inside the bundle; one common top folder is dropped."""
    infos = [i for i in archive.infolist() if not i.is_dir()]
    for info in infos:
        try:
            check_member_name(info.filename)
        except ValueError as error:
            raise IntegrityError(f"{path}: {error}") from error
        if (info.external_attr >> 16) & 0o170000 == 0o120000:
            raise IntegrityError(f"{path}: '{info.filename}' is a symbolic link")
    tops = {PurePosixPath(i.filename).parts[0] for i in infos}
    nested = len(tops) == 1 and all(len(PurePosixPath(i.filename).parts) > 1 for i in infos)
    names = [str(PurePosixPath(*PurePosixPath(i.filename).parts[1:])) if nested else i.filename for i in infos]
    if len(set(names)) != len(names):
        raise IntegrityError(f"{path}: the .zip holds a name twice")
    return dict(zip(names, infos, strict=True))


def _copy(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, limit: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = limit
    with archive.open(info) as source, target.open("wb") as sink:
        for chunk in _chunks(source):
            left -= len(chunk)
            if left < 0:
                raise IntegrityError(f"{path}: '{info.filename}' is larger than {limit} bytes, which {MANIFEST} allows")
            sink.write(chunk)


def _chunks(source: Any) -> Iterator[bytes]:
    while chunk := source.read(1 << 20):
        yield chunk
