"""Networks that give one vector per input: samples from an ``.npz``, or a scene cut into chips side by side.

What a vector is depends on the bundle's task: class scores, answers to several yes-or-no questions, numbers or an embedding.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.arrays import read_arrays
from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import atomic_path, write_bytes
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.answers import Place, answers, finite
from rsedge.runtimes.inference.geoparquet import SUFFIX, check, write_chip_table
from rsedge.runtimes.inference.raster_out import check_grid, write_grid
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.style import PLAIN, Style
from rsedge.runtimes.inference.tiles import Scene
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


def check_samples(path: Path) -> None:
    """Before any work: whether :func:`write_samples` can write there.

    Raises:
        RequestError: another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise RequestError(f"{path}: outputs of samples are written as {' or '.join(SUFFIXES)}")


def write_samples(path: Path, task: str, vectors: Vectors, names: Sequence[str]) -> None:
    """Writes ``outputs`` (N, K), ``names`` and what was ``decided`` as ``.npz``, or the same as columns of a ``.csv``.

    Raises:
        RequestError: another suffix.
    """
    check_samples(path)
    words = decided(task, vectors, names)
    if path.suffix == ".npz":
        with atomic_path(path) as temporary, temporary.open("wb") as f:
            np.savez_compressed(f, outputs=vectors, names=np.array(names), decided=np.array(words), allow_pickle=False)
    else:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["sample", "decided", *names])
        table.writerows(
            [i, word, *(f"{x:.6g}" for x in v)] for i, (word, v) in enumerate(zip(words, vectors, strict=True))
        )
        write_bytes(path, text.getvalue().encode())


def chip_vectors(
    session: Session, reader: Scene, progress: Progress | None = None, run: SceneRun | None = None
) -> Vectors:
    """The outputs of a scene's chips side by side (K, rows, columns); NaN where a chip is nodata.

    Args:
        run: is told what becomes of chips; without one a chip that fails is an error.

    Raises:
        RequestError: the scene is smaller than a chip, or nodata as a whole.
        IntegrityError: the model gives NaN or infinity for every chip.
    """
    run = run or SceneRun(strict=True)
    tile = session.input_spec.tile
    rows, cols = reader.height // tile, reader.width // tile
    if not rows or not cols:
        raise RequestError(
            f"{reader.path}: {reader.height}x{reader.width} pixels are smaller than a chip of {tile}x{tile}"
        )
    grid: Vectors | None = None
    run.every = rows * cols
    for place, outputs in answers(session, run.reads(_chips(reader, tile, rows, cols), reader), run):
        if outputs is not None and grid is None:
            grid = np.full((outputs[LOGITS].shape[1], rows, cols), np.nan, dtype=np.float32)
        seen = outputs is not None and outputs[VALID].any()
        vector = finite(outputs, place, reader, run) if seen else None
        if vector is not None and grid is not None:
            grid[:, place.i, place.j] = vector
        if progress is not None:
            progress(place.i * cols + place.j + 1, rows * cols)
    if not run.tiles:
        raise RequestError(f"{reader.path}: every chip holds nodata, there is nothing to look at")
    run.check_any(reader.path)
    assert grid is not None
    return grid


def check_chips(out_path: Path, reader: Scene) -> None:
    """Before any work: whether :func:`write_chips` can say there where the scene lies; raises as
    :func:`rsedge.runtimes.inference.raster_out.check_grid` and :func:`rsedge.runtimes.inference.geoparquet.check`."""
    if out_path.suffix.lower() == SUFFIX:
        check(out_path, reader.crs)
    else:
        check_grid(reader, out_path)


def write_chips(
    out_path: Path, reader: Scene, task: str, grid: Vectors, names: Sequence[str], tile: int, style: Style = PLAIN
) -> dict[str, int]:
    """Writes one pixel per chip (a raster on the scene's CRS), or a row per chip (``.parquet``).

    Returns how many chips are of each class.

    With one class per chip (classification) a uint8 map, 255 where a chip is nodata or reaches over the scene's edge; else
    one float32 band per output, NaN there.

    Raises:
        RequestError: it cannot be written there.
    """
    if out_path.suffix.lower() == SUFFIX:
        write_chip_table(out_path, reader, grid, names, tile, style.tags)
        return {}
    if task == "classification" and len(names) > 1:
        best = np.where(np.isfinite(grid[0]), np.nan_to_num(grid, nan=-np.inf).argmax(0), NODATA_CLASS).astype(np.uint8)
        write_grid(out_path, reader, ["class"], best[None], names, tile, style)
        return {name: int((best == i).sum()) for i, name in enumerate(names)}
    write_grid(out_path, reader, list(names), grid, names, tile, style)
    return {}


def _chips(reader: Scene, tile: int, rows: int, cols: int) -> Iterator[tuple[Place, Array]]:
    """Chips from left to right and top to bottom, but for those that hold nodata."""
    for row in range(rows):
        strip, missing = reader.read(row * tile, 0, tile, cols * tile)
        for col in range(cols):
            here = slice(col * tile, (col + 1) * tile)
            if not missing[:, here].any():
                place = Place(0, row, col, row * tile, col * tile, missing[:, here])
                yield place, np.ascontiguousarray(strip[None, :, :, here])
