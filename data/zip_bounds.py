"""Zip files of strangers: bounded before anything in them is unpacked.

A zip can lie about every size in it, name one file twice, name files outside, lay many entries over the same bytes, and hold a
thousand times more than it weighs. Here all that is said of the entries is read first, bounded itself, and held against the file;
what then is read of an entry ends at the size that it declared.
"""

from __future__ import annotations

import contextlib
import io
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rsedge.data.errors import IntegrityError, RequestError

MAX_NAME_BYTES, MAX_DEPTH = 200, 8
_DIRECTORY = 1 << 20
"""Bytes of a zip's list of entries: that of a thousand names of full length is a quarter of it."""
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_HEADER = 30
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, LookupError,
)  # fmt: skip
"""What the standard library raises where a zip is not what it should be."""


@dataclass(frozen=True)
class ZipBounds:
    """How much a zip may hold.

    Attributes:
        files: entries, folders among them.
        total: bytes of all files, unpacked.
        ratio: unpacked bytes per packed one, of a file that is larger than ``free``; deflate reaches 1032.
        free: bytes up to which a file may be packed as tightly as it likes.
    """

    files: int = 1000
    total: int = 1 << 40
    ratio: int = 200
    free: int = 16 << 20


class _Guarded:
    """A file that refuses to be read in pieces larger than a zip's list of entries may be."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.limit = file, size, _DIRECTORY

    def read(self, count: int = -1) -> bytes:
        wanted = self._size - self._file.tell() if count is None or count < 0 else count
        if wanted > self.limit:
            raise zipfile.BadZipFile(f"its list of entries is larger than {self.limit} bytes")
        return self._file.read(count)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


@contextlib.contextmanager
def bounded_zip(
    path: Path, bounds: ZipBounds, content: bytes | None = None
) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Yields an open zip and its files (no folders), all within bounds and with safe names, in the zip's order.

    Args:
        content: the zip's bytes, where they were read already; ``path`` then only names them.

    Raises:
        RequestError: the file cannot be read.
        IntegrityError: no zip, not a whole one, or one out of bounds.
    """
    with contextlib.ExitStack() as stack:
        with _told_broken(path):
            opened: BinaryIO = path.open("rb") if content is None else io.BytesIO(content)
            file = stack.enter_context(opened)
            size = file.seek(0, 2)
            guarded = _Guarded(file, size)
            archive = zipfile.ZipFile(guarded)  # type: ignore[arg-type]
            guarded.limit = max(size, _DIRECTORY)
            files = _files(path, archive, bounds)
        yield archive, files


@contextlib.contextmanager
def _told_broken(path: Path) -> Iterator[None]:
    try:
        yield
    except RequestError:
        raise
    except _BROKEN as error:
        raise IntegrityError(f"{path}: not a whole {path.suffix or '.zip'} file ({error}); copy it again") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror or error})") from error


def _files(path: Path, archive: zipfile.ZipFile, bounds: ZipBounds) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > bounds.files:
        raise IntegrityError(f"{path}: holds {len(infos)} files, more than {bounds.files}")
    for info in infos:
        _check_entry(path, info, bounds)
    files = [i for i in infos if not i.is_dir()]
    if (total := sum(i.file_size for i in files)) > bounds.total:
        raise IntegrityError(f"{path}: unpacks to {total} bytes, more than {bounds.total}")
    _check_apart(path, infos, archive.start_dir)
    _check_names(path, [i.filename for i in files])
    return files


def _check_entry(path: Path, info: zipfile.ZipInfo, bounds: ZipBounds) -> None:
    try:
        check_member_name(info.filename.rstrip("/") if info.is_dir() else info.filename)
    except ValueError as error:
        raise IntegrityError(f"{path}: {error}") from error
    name = f"{path}: '{info.filename}'"
    if info.orig_filename.split("\0")[0] != info.orig_filename:
        raise IntegrityError(f"{name} has another name behind a zero byte")
    kind = (info.external_attr >> 16) & 0o170000
    if kind == 0o120000:
        raise IntegrityError(f"{name} is a symbolic link")
    if kind not in (0, 0o100000, 0o040000):
        raise IntegrityError(f"{name} is no plain file")
    if info.flag_bits & 0x41:
        raise IntegrityError(f"{name} is encrypted; pack it without a password")
    if info.compress_type not in _METHODS:
        raise IntegrityError(f"{name} is packed by method {info.compress_type}; pack it by deflate, or not at all")
    if info.file_size > max(bounds.free, info.compress_size * bounds.ratio):
        raise IntegrityError(
            f"{name} is larger than {bounds.ratio} times its packed size ({info.file_size} of {info.compress_size} bytes); "
            "it would unpack without end"
        )


def _check_apart(path: Path, infos: list[zipfile.ZipInfo], directory: int) -> None:
    """Every entry lies in bytes of its own: laid over each other, a small zip unpacks to any size."""
    ordered = sorted(infos, key=lambda i: i.header_offset)
    starts = [*(i.header_offset for i in ordered[1:]), directory]
    for info, following in zip(ordered, starts, strict=True):
        if info.header_offset + _HEADER + len(info.filename) + info.compress_size > following:
            raise IntegrityError(f"{path}: '{info.filename}' is laid over another part of the zip; pack it anew")


def _check_names(path: Path, names: list[str]) -> None:
    """No name twice (upper and lower case are one for some disks), none that is a folder of another."""
    folders = {str(p).casefold() for name in names for p in PurePosixPath(name).parents}
    seen: set[str] = set()
    for name in (n.casefold() for n in names):
        if name in seen or name in folders:
            raise IntegrityError(f"{path}: the .zip holds a name twice: '{name}'")
        seen.add(name)


def check_member_name(name: str) -> None:
    """Refuses names that could lead out of a folder, hide what they are, or that a disk cannot hold.

    Raises:
        ValueError: absolute, with ``..``, a backslash, a drive letter or an empty part; too long or too deep; with signs that
            cannot be seen, or that could be written in another way.
    """
    shown = name if len(name) <= 60 else name[:60] + "..."
    path = PurePosixPath(name)
    unsafe = not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name
    if unsafe or str(path) != name:
        raise ValueError(f"unsafe file name {shown!r}")
    if len(name) > MAX_NAME_BYTES or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise ValueError(f"file name of over {MAX_NAME_BYTES} bytes: {shown!r}")
    if len(path.parts) > MAX_DEPTH:
        raise ValueError(f"file name with over {MAX_DEPTH} folders: {shown!r}")
    if not name.isprintable() or unicodedata.normalize("NFC", name) != name:
        raise ValueError(f"file name with signs that cannot be seen or have two spellings: {shown!r}")


def read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """A small file of a zip, of at most ``most`` bytes.

    Raises:
        IntegrityError: it is larger.
    """
    if info.file_size > most:
        raise IntegrityError(
            f"{path}: '{info.filename}' has {info.file_size} bytes, more than {most}; it is no such file"
        )
    return b"".join(chunks(path, archive, info))


def chunks(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of an entry in pieces; never more than it declares, and never less.

    Raises:
        IntegrityError: it is broken, or holds more or less than it declares.
    """
    left = info.file_size
    with contextlib.ExitStack() as stack:
        with _told_broken(path):
            source = stack.enter_context(archive.open(info))
        while left >= 0:
            with _told_broken(path):
                chunk = source.read(1 << 20)
            if not chunk:
                break
            left -= len(chunk)
            if left >= 0:
                yield chunk
    if left:
        more = "larger" if left < 0 else "smaller"
        raise IntegrityError(f"{path}: '{info.filename}' is {more} than {info.file_size} bytes, which it declares")
