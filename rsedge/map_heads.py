"""Heads for every pixel of scenes, fitted on the maps of features that an encoder's bundle gives for labelled scenes.

A head is linear and so is bilinear enlarging: a head fitted on features enlarged at labelled pixels is the one whose outputs are
enlarged on board. Pixels are drawn at random from all that are labelled; whole blocks of a scene stay together when a penalty is
chosen and when the head is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.metrics.samples import kind_of
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.grids import check_same_grid
from rsedge.data.scenes.kinds import files_read
from rsedge.data.scenes.label_files import UNKNOWN, LabelMap, LabelReader
from rsedge.data.scenes.raster import open_raster
from rsedge.flight import Bundle, Warn
from rsedge.heads import HeadSamples, check_names, made_record
from rsedge.runtimes.bundle.head import HeadRecord
from rsedge.runtimes.inference.answers import Place, answers, finite
from rsedge.runtimes.inference.enlarging import neighbours
from rsedge.runtimes.inference.evaluate import block_edge
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.tiles import Progress, tile_starts, walk_tiles
from rsedge.runtimes.session import VALID, Array

PIXELS = 8000
"""Labelled pixels that a head is fitted on at most, drawn from all of them: more hardly change a few hundred weights."""
Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class LabelledScene:
    """A scene and what is known of it: class numbers or values on its grid (GeoTIFF of one band)."""

    scene: Path
    labels: Path


@dataclass(frozen=True)
class Reading:
    """How scenes and labels are to be read.

    Attributes:
        scene: keyword arguments of :class:`rsedge.data.scenes.geotiff.SceneReader`.
        ignore, mapping: as :class:`rsedge.data.scenes.label_files.LabelReader` takes them.
    """

    scene: dict[str, Any] = field(default_factory=dict)
    ignore: int | None = UNKNOWN
    mapping: LabelMap | None = None


def fitted_map_head(
    bundle: Bundle,
    scenes: Sequence[LabelledScene],
    name: str,
    classes: Sequence[str],
    task: Literal["classification", "regression"] = "classification",
    reading: Reading | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    warn: Warn = lambda text: None,
) -> HeadRecord:
    """A linear head for every pixel, and what it reaches on blocks of the scenes that it had not seen (five parts; intervals draw
    whole blocks).

    Args:
        classes: names of the outputs in the order of the labels' numbers; one alone is a yes or no, labels of 1 or 0.
        seed: of the pixels that are drawn.
        progress: called with the number of tiles done and all, of all scenes.

    Raises:
        RequestError: the bundle gives no maps of features; scenes or labels cannot be read or do not go together; labels without
            one of the classes, or in one block alone.
        IntegrityError: the model gives NaN or infinity. MissingCapability: scikit-learn is not installed.
    """
    manifest, reading = bundle.manifest, reading or Reading()
    if manifest.stride is None:
        raise RequestError(
            f"{bundle.path}: gives no maps of features, but is for {bundle.task}; give it labelled samples"
        )
    if not classes:
        raise RequestError("classes: name the outputs, in the order of the labels' numbers")
    names = tuple(classes)
    check_names(names)
    known = [_labelled(bundle, one, names, task, reading, warn) for one in scenes]
    drawn = _drawn([np.flatnonzero(_counts(values)) for values in known], np.random.default_rng([seed, 21]))
    cut = list(zip(scenes, known, drawn, strict=True))
    done = list[tuple[Floats, Array, npt.NDArray[np.str_]]]()
    for number, (one, values, pixels) in enumerate(cut):
        steps = None if progress is None else _steps(progress, number, len(cut))
        found = _features(bundle, one.scene, reading, values, pixels, steps)
        done += [(vectors, known_as, np.char.add(f"{number}/", block)) for vectors, known_as, block in found]
    if not done:
        raise RequestError(f"{scenes[0].labels}: no labelled pixel is seen in its scene")
    vectors, labels, groups = (np.concatenate(column) for column in zip(*done, strict=True))
    files = [file for one in scenes for file in (*files_read(one.scene), one.labels)]
    about = HeadSamples(
        ", ".join(one.scene.name for one in scenes),
        sha256_of([sha256_file(file) for file in files]),
        vectors,
        labels,
        groups,
    )
    return made_record(bundle, name, task, names, kind_of(task, len(names), None), about)


def _steps(progress: Progress, number: int, scenes: int) -> Progress:
    """The steps of one scene of several, as of all together: each counts alike."""
    return lambda done, every: progress(number * every + done, scenes * every)


def _labelled(
    bundle: Bundle, one: LabelledScene, names: Sequence[str], task: str, reading: Reading, warn: Warn
) -> npt.NDArray[Any]:
    """What is known of a scene's pixels (H, W): class numbers, :data:`UNKNOWN` without one; or values, NaN without one."""
    values: npt.NDArray[Any]
    with SceneReader(one.scene, bundle.spec, **reading.scene) as scene:
        if task == "regression":
            notes, values = list(scene.warnings), _values(one.labels, scene)
        else:
            both = (f"no {names[0]}", *names) if len(names) == 1 else names
            with LabelReader(one.labels, scene, both, mapping=reading.mapping, ignore=reading.ignore) as labels:
                notes, values = [*scene.warnings, *labels.warnings], labels.whole()
    for note in notes:
        warn(note)
    return values


def _counts(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(values) if values.dtype.kind == "f" else values != UNKNOWN)


def _values(path: Path, scene: SceneReader) -> Floats:
    """A raster of values on a scene's grid, NaN where missing.

    Raises:
        RequestError: it has several bands, or lies on another grid.
    """
    with open_raster(path) as file:
        if file.count != 1:
            raise RequestError(f"{path}: has {file.count} bands, values for a head have one")
        check_same_grid(file, path, scene, "the values")
        window = Window(0, 0, file.width, file.height)
        stored = file.read([1], window)
        values = stored.astype(np.float32) * file.scales[0] + file.offsets[0]
        return np.where(file.missing([1], window, stored, [])[0], np.float32(np.nan), values[0]).astype(np.float32)


def _drawn(candidates: Sequence[Numbers], rng: np.random.Generator) -> list[Numbers]:
    """Of all labelled pixels at most :data:`PIXELS`, each as likely as any other; numbers per scene, sorted."""
    ends = np.cumsum([len(one) for one in candidates])
    if ends[-1] <= PIXELS:
        return list(candidates)
    picks = np.sort(rng.choice(ends[-1], PIXELS, replace=False))
    return [
        one[picks[(picks >= end - len(one)) & (picks < end)] - (end - len(one))]
        for one, end in zip(candidates, ends, strict=True)
    ]


def _features(
    bundle: Bundle, path: Path, reading: Reading, values: Array, pixels: Numbers, progress: Progress | None
) -> Iterator[tuple[Floats, Array, npt.NDArray[np.str_]]]:
    """Tile by tile what the bundle gives at the pixels that are seen (n, D), what is known of them (n,), and their blocks (n,)."""
    wanted, tile, run = np.zeros(values.shape, bool), bundle.spec.tile, SceneRun(strict=True)
    wanted.flat[pixels] = True
    edge = block_edge(*values.shape)
    with SceneReader(path, bundle.spec, **reading.scene) as reader:
        rows, cols = tile_starts(reader.height, tile, 0), tile_starts(reader.width, tile, 0)
        walk = (
            (Place(0, i, j, rows[i], cols[j], missing), dn.reshape(1, *bundle.spec.shape))
            for i, j, dn, missing in walk_tiles(reader, tile, rows, cols)
        )
        for place, outputs in answers(bundle.session, walk, run):
            features = finite(outputs, place, reader, run)
            assert features is not None and outputs is not None  # a strict run raises
            here = wanted[place.row : place.row + tile, place.col : place.col + tile]
            seen = (outputs[VALID][0] > place.missing)[: here.shape[0], : here.shape[1]]
            row, col = np.nonzero(here & seen)
            here[row, col] = False  # tiles at the far edges overlap, and a pixel counts once
            block = np.char.add(
                np.char.add(((place.row + row) // edge).astype(str), "/"), ((place.col + col) // edge).astype(str)
            )
            if len(row):
                yield at_pixels(features, row, col, tile), values[place.row + row, place.col + col], block
            if progress is not None:
                progress(place.i * len(cols) + place.j + 1, len(rows) * len(cols))


def at_pixels(features: Array, row: Numbers, col: Numbers, tile: int) -> Floats:
    """A tile's features (D, h, w) at pixels of it as :func:`rsedge.runtimes.inference.enlarging.enlarged` gives them: (n, D)."""
    (top, bottom, down), (left, right, across) = (neighbours(length, tile) for length in features.shape[1:])
    upper, lower = (
        features[:, rows[row], left[col]] * (1 - across[col]) + features[:, rows[row], right[col]] * across[col]
        for rows in (top, bottom)
    )
    return np.ascontiguousarray((upper * (1 - down[row]) + lower * down[row]).T, np.float32)
