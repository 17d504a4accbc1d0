"""Files that are either whole or absent: atomic writes, hashes and an exclusive folder lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsedge.data.errors import MissingCapability, RequestError


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``target``; on success it is synced and renamed onto ``target``.

    A crash, a full disk or ``kill -9`` leaves ``target`` as it was.

    Raises:
        MissingCapability: the disk is full (nothing is left behind).
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MissingCapability(
                f"{target}: no space left on the disk; free some and run the same command again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: str | Path, content: bytes) -> None:
    """Writes ``content`` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_json(target: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    write_bytes(target, (json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Reads JSON; a missing or broken file is a :class:`RequestError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RequestError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: not valid JSON ({error})") from error


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Holds ``folder`` for this process; the lock goes with the process, however it ends.

    Raises:
        RequestError: another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as f:
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
        yield
