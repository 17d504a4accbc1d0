"""Networks that give one vector per input: samples from an ``.npz``, or a scene cut into chips side by side.

What a vector is depends on the bundle's task: class scores, answers to several yes-or-no questions, numbers or an embedding.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.arrays import read_arrays
from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import atomic_path, write_bytes
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.scene import Scene, write_grid
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Array, Session

Progress = Callable[[int, int], None]
Vectors = npt.NDArray[np.float32]
SUFFIXES = (".npz", ".csv")


def read_samples(path: Path, spec: InputSpec) -> Array:
    """The array ``dn`` (N, *spec.shape) of an ``.npz``: digital numbers in the contract's type.

    Raises:
        RequestError: no such file, no such array, or another shape or type; says what is needed.
    """
    wanted = f"an array 'dn' of shape (N, {', '.join(map(str, spec.shape))}) and type {spec.dtype} ({spec.layout})"
    try:
        dn = read_arrays(path, [INPUT])[INPUT]
    except RequestError as error:
        raise RequestError(f"{error}; {wanted} is needed") from error
    if dn.shape[1:] != spec.shape or str(dn.dtype) != spec.dtype or not len(dn):
        raise RequestError(f"{path}: 'dn' is {dn.shape} {dn.dtype}; {wanted} is needed")
    return dn


def run_samples(session: Session, dn: Array, progress: Progress | None = None) -> Vectors:
    """The outputs (N, K) of every sample.

    Raises:
        IntegrityError: the model gives NaN or infinity.
    """
    found = []
    for i, outputs in enumerate(session.stream({INPUT: np.ascontiguousarray(one[None])} for one in dn)):
        found.append(_finite(outputs[LOGITS][0], f"sample {i}"))
        if progress is not None:
            progress(i + 1, len(dn))
    return np.stack(found)


def _finite(vector: Array, where: str) -> Vectors:
    if not np.isfinite(vector).all():
        raise IntegrityError(f"{where}: the model gives NaN or infinity; check the bundle with `rsedge verify`")
    return vector.astype(np.float32)


def decided(task: str, vectors: Vectors, names: Sequence[str]) -> list[str]:
    """What is told of each input in words: its class, or the labels that hold; empty for numbers and embeddings."""
    if task != "classification":
        return ["" for _ in vectors]
    if len(names) == 1:
        return [names[0] if v[0] > 0 else f"no {names[0]}" for v in vectors]
    return [names[int(v.argmax())] for v in vectors]


def write_samples(path: Path, task: str, vectors: Vectors, names: Sequence[str]) -> None:
    """Writes ``outputs`` (N, K), ``names`` and what was ``decided`` as ``.npz``, or the same as columns of a ``.csv``.

    Raises:
        RequestError: another suffix.
    """
    words = decided(task, vectors, names)
    if path.suffix == ".npz":
        with atomic_path(path) as temporary, temporary.open("wb") as f:
            np.savez_compressed(f, outputs=vectors, names=np.array(names), decided=np.array(words), allow_pickle=False)
    elif path.suffix == ".csv":
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["sample", "decided", *names])
        table.writerows(
            [i, word, *(f"{x:.6g}" for x in v)] for i, (word, v) in enumerate(zip(words, vectors, strict=True))
        )
        write_bytes(path, text.getvalue().encode())
    else:
        raise RequestError(f"{path}: outputs of samples are written as {' or '.join(SUFFIXES)}")


def infer_chips(
    session: Session, reader: Scene, out_path: Path, task: str, names: Sequence[str], progress: Progress | None = None
) -> dict[str, Any]:
    """Cuts a scene into chips side by side and writes one pixel per chip (GeoTIFF on the scene's CRS).

    With one class per chip (classification) a uint8 map, 255 where a chip is nodata or reaches over the scene's edge; else
    one float32 band per output, NaN there.

    Returns:
        ``output``, ``height``, ``width`` (chips), ``pixels`` by class, ``nodata_pixels`` (chips), ``seconds``.

    Raises:
        RequestError: the scene is smaller than a chip, or the output cannot be written.
        IntegrityError: the model gives NaN or infinity.
    """
    began, tile = time.perf_counter(), session.input_spec.tile
    rows, cols = reader.height // tile, reader.width // tile
    if not rows or not cols:
        raise RequestError(
            f"{reader.path}: {reader.height}x{reader.width} pixels are smaller than a chip of {tile}x{tile}"
        )
    grid = np.full((len(names), rows, cols), np.nan, dtype=np.float32)
    places: list[tuple[int, int]] = []
    for outputs in session.stream(_chips(reader, tile, rows, cols, places)):
        row, col = places.pop(0)
        if outputs[VALID].any():
            grid[:, row, col] = _finite(outputs[LOGITS][0], f"{reader.path}: chip {row}, {col}")
        if progress is not None:
            progress(row * cols + col + 1, rows * cols)
    seen = np.isfinite(grid[0])
    counts: dict[str, int] = {}
    if task == "classification" and len(names) > 1:
        best = np.where(seen, np.nan_to_num(grid, nan=-np.inf).argmax(0), NODATA_CLASS).astype(np.uint8)
        counts = {name: int((best == i).sum()) for i, name in enumerate(names)}
        write_grid(out_path, reader, ["class"], best[None], names, tile)
    else:
        write_grid(out_path, reader, list(names), grid, names, tile)
    return {"output": str(out_path), "height": rows, "width": cols, "pixels": counts,
            "nodata_pixels": int((~seen).sum()), "seconds": round(time.perf_counter() - began, 3)}  # fmt: skip


def _chips(reader: Scene, tile: int, rows: int, cols: int, places: list[tuple[int, int]]) -> Iterator[dict[str, Array]]:
    """Chips from left to right and top to bottom, but for those that are nodata; ``places`` says which was given."""
    for row in range(rows):
        strip, missing = reader.read(row * tile, 0, tile, cols * tile)
        for col in range(cols):
            here = slice(col * tile, (col + 1) * tile)
            if not missing[:, here].any():
                places.append((row, col))
                yield {INPUT: np.ascontiguousarray(strip[None, :, :, here])}
