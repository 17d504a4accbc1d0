"""NumPy's files of strangers: what a header declares is held against the bytes that are there before any memory is taken."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.zip_bounds import ZipBounds, bounded_zip, chunks

Array = npt.NDArray[Any]
_KINDS = "biufUS"
_HEADER = 64 << 10
_DEFLATE = 1100


def read_arrays(
    path: Path, names: Iterable[str] | None = None, content: bytes | None = None, most_bytes: int | None = None
) -> dict[str, Array]:
    """Arrays of an ``.npz`` by name; all of them where ``names`` is None.

    Args:
        content: the file's bytes, where they were read already; ``path`` then only names them.
        most_bytes: of all arrays together, unpacked.

    Raises:
        RequestError: no ``.npz``, a damaged or an encrypted one, arrays that are not there or are no plain numbers and texts.
        IntegrityError: no whole zip, or one out of bounds.
        MissingCapability: more than half of this machine's memory.
    """
    found, left = {}, _memory() // 2
    bounds = ZipBounds(ratio=_DEFLATE) if most_bytes is None else ZipBounds(ratio=_DEFLATE, total=most_bytes)
    with bounded_zip(path, bounds, content) as (archive, infos):
        known = {info.filename.removesuffix(".npy"): info for info in infos}
        if len(known) < len(infos):
            held = [info.filename.removesuffix(".npy") for info in infos]
            twice = next(name for name in held if held.count(name) > 1)
            raise RequestError(f"{path}: has two arrays '{twice}' ('{twice}' and '{twice}.npy'); remove one")
        wanted = list(known) if names is None else list(names)
        if missing := [name for name in wanted if name not in known]:
            raise RequestError(
                f"{path}: has no array '{missing[0]}' (it has: {', '.join(sorted(known)[:20]) or 'none'})"
            )
        for name in wanted:
            where, info = f"{path}: array '{name}'", known[name]
            pieces = chunks(path, archive, info)
            head = b""
            while len(head) < min(_HEADER, info.file_size):
                head += next(pieces, b"")
            shape, fortran, dtype, start = _header(io.BytesIO(head), info.file_size, where)
            left = _room(left, info.file_size, where)
            buffer, place = bytearray(info.file_size - start), 0
            for piece in (head[start:], *pieces):
                buffer[place : place + len(piece)] = piece
                place += len(piece)
            found[name] = _shaped(buffer, shape, fortran, dtype)
    return found


def array_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of the arrays of an ``.npz`` by name; their numbers stay where they are. Raises as :func:`read_arrays`."""
    found = {}
    with bounded_zip(path, ZipBounds(ratio=_DEFLATE)) as (archive, infos):
        for info in infos:
            pieces, head = chunks(path, archive, info), b""
            while len(head) < min(_HEADER, info.file_size):
                head += next(pieces, b"")
            name = info.filename.removesuffix(".npy")
            shape, _, dtype, _ = _header(io.BytesIO(head), info.file_size, f"{path}: array '{name}'")
            found[name] = (shape, dtype)
    return found


def read_array(path: Path) -> Array:
    """The array of an ``.npy``; raises as :func:`read_arrays`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            shape, fortran, dtype, start = _header(file, size, str(path))
            _room(_memory() // 2, size, str(path))
            file.seek(start)
            buffer = bytearray(size - start)
            if file.readinto(buffer) != len(buffer):
                raise IntegrityError(f"{path}: shorter than it was a moment ago; copy it again")
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _shaped(buffer, shape, fortran, dtype)


def _header(file: BinaryIO, size: int, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, dtype and where the numbers begin; they fill exactly what is left of ``size`` bytes."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = readers[version](file)
    except (
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        SyntaxError,
        TokenError,
        RecursionError,
        MemoryError,
        EOFError,
    ) as error:
        raise RequestError(f"{where}: not an array in NumPy's format ({str(error)[:200]})") from error
    if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.subdtype is not None:
        raise RequestError(f"{where}: holds {str(dtype)[:60]}; only plain numbers and texts are read")
    if any(isinstance(n, bool) or n < 0 for n in shape) or len(shape) > 32:
        raise RequestError(f"{where}: shape {str(shape)[:80]} is none")
    # NumPy counts with every axis, also beside one of length 0.
    if math.prod(max(1, n) for n in shape) * dtype.itemsize > sys.maxsize:
        raise RequestError(f"{where}: shape {str(shape)[:80]} is larger than an array can be")
    start = file.tell()
    if math.prod(shape) * dtype.itemsize != size - start:
        raise RequestError(
            f"{where}: declares {dtype} of shape {str(shape)[:80]}, which {size - start} bytes are not; copy it again"
        )
    return shape, fortran, dtype, start


def _room(left: int, wanted: int, where: str) -> int:
    if wanted > left:
        raise MissingCapability(
            f"{where}: needs {wanted / 2**30:.1f} GiB, more than half of this machine's memory; split it into several files"
        )
    return left - wanted


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _shaped(buffer: bytearray, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> Array:
    flat: Array = np.frombuffer(buffer, dtype=dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
