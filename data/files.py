"""Files that are either whole or absent: atomic writes, hashes and an exclusive folder lock."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsedge.data.errors import MissingCapability, NoRoom, RequestError, RsedgeError
from rsedge.data.json_text import read_json as read_json
from rsedge.data.temporary import TemporaryFolder

NO_ROOM = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "larger than a file may be here (ulimit -f, or the file system's limit)",
}
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
LOCK = ".lock"
GDAL_VIRTUAL = "/vsi"
"""How names begin that GDAL takes for archives, memory and networks."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_AT_FDCWD, _EXCHANGE = -100, 2


@contextlib.contextmanager
def atomic_path(target: str | Path, *, private: bool = False, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary path of the same name; on success it is synced and renamed onto ``target``, the folder synced too.

    A crash, a full disk, ``kill -9`` or a power cut leaves ``target`` as it was, or the new one whole. Its mode is what the
    umask says.

    Args:
        private: readable by its owner alone.
        replace: False refuses a target that exists, even if it appears meanwhile.

    Raises:
        RequestError: the target is a link, a folder or a device, exists though it must not, or cannot be written there.
        MissingCapability: the disk is full (nothing is left behind).
    """
    target = Path(target)
    check_place(target, replace)
    with writing(target):
        make_folder(target.parent)
        temporary_folder = TemporaryFolder(target.parent)
    with temporary_folder as inside:
        temporary = inside / target.name
        with writing(target):
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666))
        try:
            yield temporary
        except OSError as error:
            if (full := no_room(target, error)) is None:
                raise
            raise full from error
        place(temporary, target, replace=replace)


def place(made: Path, target: Path, *, replace: bool = True) -> None:
    """Syncs the file ``made`` to the disk and renames it onto ``target``, on the same disk, whose folder is synced too.

    Raises:
        RequestError, MissingCapability: as :func:`atomic_path`.
    """
    with writing(target):
        _sync(made)
        check_place(target, replace)
        if replace:
            made.replace(target)
        else:
            _claim(made, target)
        sync_folder(target.parent)


def check_place(target: Path, replace: bool = True) -> None:
    """Refuses what must not be written over: links, folders, devices, pipes, sockets; with ``replace`` False all that exists.

    Raises:
        RequestError: says what is there, or that the name is no text or an address.
    """
    check_name(target)
    check_no_address(target)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(target, error) from error
    if stat.S_ISLNK(mode):
        raise RequestError(f"{target}: is a link, which is not written over; name the file itself")
    if stat.S_ISDIR(mode):
        raise RequestError(f"{target}: is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise RequestError(f"{target}: is a device, pipe or socket, which is not written over; name a file")
    if not replace:
        raise RequestError(f"{target}: exists already and is never overwritten; choose another name")


def check_name(path: Path) -> None:
    """Refuses a name that is no UTF-8, which GDAL and JSON cannot hold.

    Raises:
        RequestError: shows the name with its odd bytes escaped.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise RequestError(
            f"{shown}: a name that is no UTF-8; rename the file or its folder, or choose another name"
        ) from error


def check_no_address(target: Path) -> None:
    """Refuses names of things elsewhere, which would make a folder called `https:` here and which GDAL takes to the network.

    Raises:
        RequestError: an address such as `s3://place/file.tif`, or one of GDAL's `/vsi` names.
    """
    if _ADDRESS.match(str(target)) or str(target.absolute()).startswith(GDAL_VIRTUAL):
        raise RequestError(f"{target}: is an address, and outputs are files on this machine; name a file")


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns the system's refusals to write ``target`` into ours.

    Raises:
        RequestError, MissingCapability: as :func:`atomic_path`.
    """
    try:
        yield
    except OSError as error:
        raise (no_room(target, error) or _refused(target, error)) from error


def no_room(target: Path | str, error: OSError) -> NoRoom | None:
    """Our error where the disk is full; None for other errors."""
    if error.errno not in NO_ROOM:
        return None
    mend = "raise the limit" if error.errno == errno.EFBIG else "free some"
    return NoRoom(f"{target}: {NO_ROOM[error.errno]}; {mend} and run the same command again")


def _refused(target: Path, error: OSError) -> RsedgeError:
    if error.errno == errno.EIO:
        return MissingCapability(f"{target}: the disk fails ({error.strerror}); check it, or choose another place")
    return RequestError(f"{target}: cannot be written ({error.strerror or error}); choose another place")


def _claim(temporary: Path, target: Path) -> None:
    """Gives a file a name that nothing has."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        check_place(target, replace=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        temporary.replace(target)  # a file system without hard links


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, and syncs where they were entered."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Brings a folder's entries to the disk, where its file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_folder(source: Path, target: Path) -> Path:
    """Copies a folder and all in it to a new one, which is returned.

    Raises:
        OSError: the first that the system has, with its number, by which a full disk is known (``shutil.copytree`` loses it).
    """
    target.mkdir()
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copy2(path, place)
    return target


def replace_folder(made: Path, folder: Path) -> None:
    """Gives the folder ``made``, in a :class:`TemporaryFolder` beside it, the name ``folder``; what bore it goes with that.

    Everything is synced first, and the two names change at once where the system can: a kill leaves the old or the new one.

    Raises:
        OSError: it cannot; the old folder is still there.
    """
    for path in [p for p in made.rglob("*") if not p.is_symlink()]:
        sync_folder(path) if path.is_dir() else _sync(path)
    sync_folder(made)
    if not folder.exists():
        made.rename(folder)
    elif not _exchanged(made, folder):
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent)) / "old"
        folder.rename(aside)
        try:
            made.rename(folder)
        except OSError:
            aside.rename(folder)
            aside.parent.rmdir()
            raise
        aside.rename(made)
        aside.parent.rmdir()
    sync_folder(folder.parent)


def _exchanged(first: Path, second: Path) -> bool:
    """Swaps two names at once; False where the C library or the file system cannot."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if swap(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def write_bytes(target: str | Path, content: bytes, *, private: bool = False, replace: bool = True) -> None:
    """Writes ``content`` as :func:`atomic_path` says."""
    with atomic_path(target, private=private, replace=replace) as temporary:
        temporary.write_bytes(content)


def write_json(target: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    write_bytes(target, (json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n").encode())


def require_file(path: str | Path) -> Path:
    """The path, where it is a plain file that may be read; a pipe or a device is none, since reading it could wait for ever.

    Raises:
        RequestError: nothing there, or something else than a plain file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"{str(path)!r}: is no file ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISDIR(mode):
        raise RequestError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise RequestError(f"{path}: is no plain file (a pipe, socket or device); copy its content into one")
    if not os.access(path, os.R_OK):
        raise RequestError(f"{path}: may not be read by this user; change its permissions")
    return path


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(hashed_text(value).encode()).hexdigest()


def hashed_text(value: Any) -> str:
    """The text that :func:`sha256_of` hashes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


@contextlib.contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Holds ``folder`` for this process; the lock goes with the process, however it ends.

    Raises:
        RequestError: another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            f.seek(0)
            owner = f.read().strip() or "unknown"
            raise RequestError(
                f"{folder}: another run (process {owner}) is using this folder; wait for it or choose another --run-dir"
            ) from error
        f.truncate(0)
        f.write(str(os.getpid()))
        f.flush()
        with contextlib.suppress(OSError):  # a file system without them
            fcntl.fcntl(f, fcntl.F_OFD_SETLK, record_lock(fcntl.F_WRLCK))
        yield


def lock_owner(folder: str | Path) -> str | None:
    """The process that holds ``folder`` by :func:`folder_lock`, as its lock file names it; None where none does.

    Asking takes no lock and waits for none, so that whoever looks is never in the way of a process that begins. A lock for
    processes cannot be asked after, only tried; so the holder has another on the same file, which the kernel tells of.
    """
    try:
        with (Path(folder) / LOCK).open() as f:
            found = fcntl.fcntl(f, fcntl.F_OFD_GETLK, record_lock(fcntl.F_RDLCK))
            free = struct.unpack(_FLOCK, found)[0] == fcntl.F_UNLCK
            return None if free else f.read().strip() or "unknown"
    except OSError:  # no lock was ever taken there, or the file system has none
        return None


_FLOCK = "hhqqi4x"
"""``struct flock`` of the kernel: type, whence, start, length, process."""


def record_lock(kind: int, start: int = 0, length: int = 0) -> bytes:
    """A lock of some bytes of a file, of all from ``start`` on where ``length`` is 0. It goes with what was opened, as that of
    :func:`fcntl.flock` does."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)
