"""Arrays that may be larger than memory: large ones lie in a file without a name, of which the kernel holds what is looked at.

Pages of a file can be written back and given to others, those of a process's own memory cannot. The file is gone with the array,
however the process ends. What goes over such an array does so a strip of rows at a time (:func:`strips`), so that nothing of
its size is made on the way.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import NoRoom
from rsedge.data.files import hashed_text

LARGE = 64 << 20
"""Bytes from which on an array lies in a file."""
STRIP = 64 << 20
"""Bytes of a strip."""
_DISK = Path("/var/tmp")
_PIECE = 16 << 20


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros, as those of numpy; in a file from :data:`LARGE` bytes on.

    Raises:
        NoRoom: there is no room for it, in words that say where.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.zeros(shape, dtype)
    place = folder()
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk says so here, and not by a signal later
            return np.asarray(np.memmap(file, np.dtype(dtype), "r+", shape=shape))
    except OSError as error:
        raise NoRoom(
            f"{place}: {size / 1e9:.3g} GB of a large scene are kept there while it is worked on, and could not be: "
            f"{error.strerror}; make room, or name a folder on a larger disk: TMPDIR=/a/folder rsedge ..."
        ) from error


def folder() -> Path:
    """Where large arrays lie: ``TMPDIR``, else ``/var/tmp``, since ``/tmp`` is memory on many machines."""
    if os.environ.get("TMPDIR") or not os.access(_DISK, os.W_OK | os.X_OK):
        return Path(tempfile.gettempdir())
    return _DISK


def strips(height: int, row_bytes: int) -> Iterator[slice]:
    """Rows from the first to the last, about :data:`STRIP` bytes at a time."""
    rows = max(1, STRIP // max(1, row_bytes))
    for row in range(0, height, rows):
        yield slice(row, min(row + rows, height))


def read_npy(file: IO[bytes]) -> npt.NDArray[Any]:
    """The array of a file in numpy's format, as :func:`numpy.load` reads it without pickles; a large one as of :func:`zeros`.

    Raises:
        ValueError: the file is another one, cut off, or holds objects. NoRoom: as :func:`zeros`.
    """
    header = (
        np.lib.format.read_array_header_1_0
        if np.lib.format.read_magic(file) == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = header(file)
    if dtype.hasobject or fortran:
        raise ValueError("no plain array of numbers, row by row")
    out = zeros(shape, dtype)
    left = out.reshape(-1).view(np.uint8)
    while len(left):
        piece = np.frombuffer(file.read(min(len(left), _PIECE)), np.uint8)
        if not len(piece):
            raise ValueError(f"ends {len(left)} bytes too early")
        left[: len(piece)] = piece
        left = left[len(piece) :]
    return out


def places(
    mask: npt.NDArray[np.bool_], numbers: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the pixels of these numbers among those that are set in a mask (H, W), counted row by row.

    Args:
        numbers: ascending, each less than how many are set.
    """
    ends = np.cumsum(np.count_nonzero(mask, axis=1))
    rows = np.searchsorted(ends, numbers, side="right")
    cols = np.empty(len(numbers), np.intp)
    for row in np.unique(rows):
        here = slice(*np.searchsorted(rows, [row, row + 1]))
        before = ends[row - 1] if row else 0
        cols[here] = np.flatnonzero(mask[row])[numbers[here] - before]
    return rows, cols


def sha256_with_arrays(values: Sequence[Any]) -> str:
    """As :func:`rsedge.data.files.sha256_of` of a list in which an array stands as the hex of its bytes; it is not copied."""
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        digest.update(b"," if number else b"")
        if not isinstance(value, np.ndarray):
            digest.update(hashed_text(value).encode())
            continue
        digest.update(b'"')
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        for at in range(0, len(flat), _PIECE):
            digest.update(flat[at : at + _PIECE].tobytes().hex().encode())
        digest.update(b'"')
    digest.update(b"]")
    return digest.hexdigest()
