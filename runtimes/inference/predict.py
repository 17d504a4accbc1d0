"""What a bundle does with what it is given: a scene, several dates of it, samples, a picture, or an array.

``rsedge infer`` and ``rsedge.load(...).predict(...)`` are this module, the one with files and the other with arrays too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics.verdict import verdict_record
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.geotiff_dates import DatesReader, one_date
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.detect import detect_scene, infer_boxes
from rsedge.runtimes.inference.images import image_rows, infer_image
from rsedge.runtimes.inference.scene import Progress, Scene, infer_scene, predict_rows
from rsedge.runtimes.inference.vectors import infer_chips, read_samples, run_samples, write_samples
from rsedge.runtimes.inference.works import work_of
from rsedge.runtimes.session import Session

Array = npt.NDArray[Any]
Warn = Callable[[str], object]


@dataclass(frozen=True)
class Asked:
    """How a scene is to be read, and what is asked of the bundle; each is left as the file or the bundle has it by default.

    Attributes:
        after: later dates, on the grid of the first.
        bands: names of all the scene's bands in their order.
        overlap: of neighbouring tiles (pixels).
        probabilities: a GeoTIFF to write class probabilities into.
        score: certainty that an object needs.
        prompt: the question about a picture.
    """

    after: tuple[Path, ...] = ()
    bands: tuple[str, ...] | None = None
    sensor: str | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    nan_nodata: bool = False
    any_gsd: bool = False
    overlap: int | None = None
    probabilities: Path | None = None
    score: float | None = None
    prompt: str | None = None

    @property
    def given(self) -> list[str]:
        """Names of what is not left at its default."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]

    @property
    def reading(self) -> dict[str, Any]:
        names = ("sensor", "scale", "offset", "nodata", "nan_nodata", "any_gsd")
        return {name: getattr(self, name) for name in names}


@contextlib.contextmanager
def open_scene(
    scenes: Sequence[Path], spec: InputSpec, asked: Asked, warn: Warn
) -> Iterator[SceneReader | DatesReader]:
    """One scene, or several dates of it; ``warn`` is told what is odd about it."""
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(SceneReader(scene, one_date(spec), bands=asked.bands, **asked.reading))
            for scene in scenes
        ]
        reader = readers[0] if spec.layout == "CHW" and len(readers) == 1 else DatesReader(readers, spec)
        for warning in reader.warnings:
            warn(warning)
        yield reader


def write_answer(
    bundle: Bundle,
    session: Callable[[], SelfTested],
    source: Path,
    output: Path,
    asked: Asked,
    progress: Progress | None,
    warn: Warn,
) -> dict[str, Any]:
    """Writes what a bundle gives for a scene or samples: a map or chips (.tif), objects (.geojson, .csv), answers (.npz, .csv).

    Args:
        session: opens the bundle's model, or gives the one that is open; called when the source is known to be readable.

    Returns:
        What was written and found, from what, by what, and how long it took.
    """
    work, names, task = work_of(bundle, source), bundle.manifest.classes, bundle.manifest.task
    verdict = {"verdict": verdict_record(bundle.manifest.verdict)}
    if work == "samples":
        return _write_samples(bundle, session(), source, output, progress) | verdict
    with open_scene([source, *asked.after], bundle.manifest.input_spec, asked, warn) as reader:
        model = session()
        if work == "objects":
            found = _write_objects(bundle, model, reader, output, asked, progress)
        elif work == "images":
            found = infer_image(model, reader, output, bundle.manifest, asked.overlap, progress)
        elif work == "chips":
            found = infer_chips(model, reader, output, task, names, progress)
        else:
            found = infer_scene(model, reader, output, names, asked.overlap, asked.probabilities, progress)
        return {**found, **provenance(bundle, model, reader), **verdict}


def read_answer(
    bundle: Bundle,
    session: Callable[[], SelfTested],
    source: Path,
    asked: Asked,
    progress: Progress | None,
    warn: Warn,
) -> Array:
    """As :func:`write_answer`, but the answer itself: see :func:`answer_array`.

    Raises:
        RequestError: a scene of chips, whose answers are written only.
    """
    work = work_of(bundle, source)
    if work == "samples":
        dn = read_samples(source, bundle.manifest.input_spec)
        return run_samples(session(), dn, progress)
    if work == "chips":
        raise RequestError(f"{source}: a scene of chips is written as a GeoTIFF; give output, or the chips as an array")
    with open_scene([source, *asked.after], bundle.manifest.input_spec, asked, warn) as reader:
        return _answer(bundle, session(), reader, asked, progress)


def answer_array(bundle: Bundle, session: SelfTested, values: Array, asked: Asked, progress: Progress | None) -> Array:
    """What a bundle gives for an array: one image (C, H, W) of any size, or several (N, C, H, W); samples of the contract's shape.

    Whole numbers are digital numbers, floats for a contract of whole numbers physical values (NaN where missing), as in files.

    Returns:
        Class numbers (H, W) uint8, 255 where nothing is seen; boxes (n, 6) float32 of x0, y0, x1, y1 (pixels), score and class
        number; a finer image (K, k H, k W) float32 in physical values, NaN where nothing is seen; or vectors (K,); of several
        inputs an array, or for boxes a list, of these.

    Raises:
        RequestError: another shape or type; says what is needed.
    """
    spec = bundle.manifest.input_spec
    manifest = bundle.manifest
    dense = manifest.task == "segmentation" or manifest.boxes is not None or manifest.finer is not None
    dn = _dn(np.asarray(values), spec, dense)
    one = dn.ndim == len(spec.shape)
    batch = dn[None] if one else dn
    if not dense:
        found: Any = run_samples(session, batch, progress)
    else:
        answers = [_answer(bundle, session, _ArrayScene(image, spec), asked, progress) for image in batch]
        found = answers if bundle.manifest.boxes is not None and not one else np.stack(answers)
    return found[0] if one else found


def _dn(values: Array, spec: InputSpec, any_size: bool) -> Array:
    """Digital numbers of the contract's type; a pixel that one band misses is missing in all, as in files."""
    axes = len(spec.shape)
    sizes = ["H" if n == "H" else "W" if n == "W" else str(s) for n, s in zip(spec.layout, spec.shape, strict=True)]
    wanted = f"({', '.join(sizes if any_size else map(str, spec.shape))}) or several of these ({spec.layout}, bands "
    wanted += f"{', '.join(spec.band_names)}; {spec.dtype} digital numbers, or physical values as floats)"
    shape = values.shape[-axes:]
    fits = values.ndim in (axes, axes + 1) and all(
        (any_size and name in "HW" and got) or got == size
        for name, got, size in zip(spec.layout, shape, spec.shape, strict=True)
    )
    if not fits or not values.size or values.dtype.kind not in "iuf":
        raise RequestError(f"predict: got {values.dtype} {values.shape}; needed is {wanted}")
    axis = values.ndim - axes + spec.layout.index("C")
    if values.dtype.kind == "f" and np.dtype(spec.dtype).kind != "f":
        gone = ~np.isfinite(values)
        dn = spec.to_dn(np.where(gone, 0, values))
    else:
        info = np.iinfo(spec.dtype) if np.dtype(spec.dtype).kind in "iu" else None
        if info is not None and (values.min() < info.min or values.max() > info.max):
            raise RequestError(
                f"predict: {values.min()} to {values.max()} are no {spec.dtype} digital numbers; needed is {wanted}"
            )
        dn = values.astype(spec.dtype)
        gone = ~np.isfinite(values)
        for i, band in enumerate(spec.bands):
            if band.nodata is not None:
                here = (slice(None),) * axis + (i,)
                gone[here] |= values[here] == band.nodata
    if spec.is_image:
        gone = np.broadcast_to(gone.any(axis, keepdims=True), gone.shape)
    missing = spec.missing_dn().reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return np.ascontiguousarray(np.where(gone, missing, dn))


class _ArrayScene:
    """An image in memory as :class:`rsedge.runtimes.inference.scene.Scene`, dates one after the other; it lies nowhere."""

    def __init__(self, dn: Array, spec: InputSpec) -> None:
        self.spec, self.path, self.crs, self.transform = spec, Path("array"), None, Affine.identity()
        self.height, self.width = dn.shape[-2:]
        dates = dn.reshape(-1, spec.channels, self.height, self.width)
        self._dn = dn.reshape(-1, self.height, self.width)
        self._missing = np.logical_or.reduce([~one_date(spec).valid(date) for date in dates])

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        here = (slice(row, row + height), slice(col, col + width))
        return self._dn[:, here[0], here[1]].copy(), self._missing[here].copy()


def _answer(bundle: Bundle, session: Session, scene: Scene, asked: Asked, progress: Progress | None) -> Array:
    if bundle.manifest.boxes is not None:
        return detect_scene(session, scene, box_settings(bundle, asked.score), asked.overlap, progress)
    if bundle.manifest.finer is not None:
        return np.concatenate(list(image_rows(session, scene, bundle.manifest, asked.overlap, progress)), axis=1)
    return np.concatenate([rows.classes for rows in predict_rows(session, scene, asked.overlap, progress)])


def _write_objects(
    bundle: Bundle, session: Session, scene: Scene, output: Path, asked: Asked, progress: Progress | None
) -> dict[str, Any]:
    settings = box_settings(bundle, asked.score)
    about = {"bundle": bundle.manifest.name, "target": bundle.manifest.target.name, "scene": scene.path.name,
             **settings.model_dump()}  # fmt: skip
    return infer_boxes(session, scene, output, bundle.manifest.classes, settings, about, asked.overlap, progress)


def box_settings(bundle: Bundle, score: float | None) -> BoxSettings:
    """The bundle's, with another certainty where one is given.

    Raises:
        RequestError: a certainty outside 0 to 1.
    """
    settings = bundle.manifest.boxes
    assert settings is not None
    if score is None:
        return settings
    if not 0 < score <= 1:
        raise RequestError(f"--score {score}: must lie above 0 and be at most 1")
    return settings.model_copy(update={"score": score})


def _write_samples(
    bundle: Bundle, session: SelfTested, path: Path, output: Path, progress: Progress | None
) -> dict[str, Any]:
    manifest = bundle.manifest
    dn = read_samples(path, manifest.input_spec)
    began = time.perf_counter()
    found = run_samples(session, dn, progress)
    seconds = time.perf_counter() - began
    write_samples(output, manifest.task, found, manifest.classes)
    return {"output": str(output), "samples": len(dn), "outputs": found.shape[1], "seconds": round(seconds, 3),
            "target": manifest.target.name, "device": session.device, "runtime": session.runtime,
            "self_test": session.record(), **bundle.signature.record()}  # fmt: skip


def provenance(bundle: Bundle, session: SelfTested, reader: SceneReader | DatesReader) -> dict[str, Any]:
    """What was read, by which bundle and runtime, and what was odd about it."""
    manifest = bundle.manifest
    return {
        "scene": str(reader.path),
        "units": reader.units.source,
        "gsd_m": reader.gsd_m,
        "bundle": str(bundle.path),
        "target": manifest.target.name,
        **bundle.signature.record(),
        "device": session.device,
        "runtime": session.runtime,
        "runtime_version": session.runtime_version,
        "self_test": session.record(),
        "warnings": reader.warnings,
    }
