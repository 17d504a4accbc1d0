"""Finer images of whole scenes: tiles blended on the finer grid, in physical values; and how near they come to a finer scene."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.image_bands import ImageBands
from rsedge.data.metrics.figures import statistics_of
from rsedge.data.metrics.images import ImageComparison
from rsedge.data.metrics.statistics import estimate
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.grids import FinerGrid, check_same_grid
from rsedge.runtimes.bundle.manifest import Manifest
from rsedge.runtimes.inference.blending import Sums
from rsedge.runtimes.inference.mosaic import Panels, blend_rows
from rsedge.runtimes.inference.raster_out import writing_rows
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.style import PLAIN, Style
from rsedge.runtimes.inference.tiles import Progress, Scene, panels
from rsedge.runtimes.session import Array, Session

Floats = npt.NDArray[np.float32]
BLOCK = 128
"""Edge, in pixels of the finer grid, of what :func:`evaluate_image` compares at a time and draws for intervals."""


def image_rows(
    session: Session,
    reader: Scene,
    manifest: Manifest,
    overlap: int | None = None,
    progress: Progress | None = None,
    panels: Panels | None = None,
    run: SceneRun | None = None,
) -> Iterator[tuple[int, Floats]]:
    """The finer image of a scene, panel after panel (all columns at a time when not given) from top to bottom: the first column,
    and physical values [K, h, w], NaN where the scene is nodata. ``run``: as :func:`rsedge.runtimes.inference.mosaic.blend_rows`.

    Raises:
        RequestError, MissingCapability, IntegrityError: as :func:`rsedge.runtimes.inference.scene.predict_rows`, and where the
            model gives other bands or another grid than its manifest says.
    """
    assert manifest.finer is not None
    bands, edge = ImageBands.of(manifest.input_spec, manifest.classes), manifest.finer * manifest.input_spec.tile

    def values(logits: Array) -> Floats:
        if logits.shape != (len(bands.names), edge, edge):
            raise IntegrityError(
                f"the model gives {logits.shape}, its manifest says {(len(bands.names), edge, edge)}; runtime {session.runtime}"
            )
        return bands.physical(logits)

    with contextlib.closing(
        blend_rows(session, reader, Sums(values, len(bands.names), manifest.finer), overlap, progress, panels, run)
    ) as strips:
        for rows in strips:
            rows.values[:, ~rows.seen] = np.nan
            yield rows.col, rows.values


def infer_image(
    session: Session,
    reader: Scene,
    output: Path,
    manifest: Manifest,
    overlap: int | None = None,
    progress: Progress | None = None,
    style: Style = PLAIN,
) -> dict[str, Any]:
    """Writes the finer image of a scene: float32 bands of physical values (NaN = nodata) on the finer grid of the same CRS.

    Returns:
        ``output``, ``height``, ``width``, ``finer``, ``bands``, ``nodata_pixels``, ``seconds``, and ``run`` as
        :func:`rsedge.runtimes.inference.scene.infer_scene`.

    Raises:
        RequestError, MissingCapability, IntegrityError: as :func:`image_rows`; it would overwrite the scene, or cannot be written.
    """
    assert manifest.finer is not None
    began, missing, run = time.perf_counter(), 0, SceneRun()
    with writing_rows(output, reader, manifest.classes, manifest.finer, style) as sink:
        for col, rows in image_rows(session, reader, manifest, overlap, progress, panels, run):
            missing += int(np.isnan(rows[0]).sum())
            with run.stage("compress"):
                sink.add(rows, col)
    return {
        "output": str(output),
        "height": manifest.finer * reader.height,
        "width": manifest.finer * reader.width,
        "finer": manifest.finer,
        "bands": list(manifest.classes),
        "nodata_pixels": missing,
        "seconds": round(time.perf_counter() - began, 3),
        "run": run.record(session.device),
    }


def evaluate_image(
    session: Session,
    reader: Scene,
    truth: Path,
    manifest: Manifest,
    overlap: int | None = None,
    progress: Progress | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Runs a scene and compares its finer image with a finer scene, block by block.

    Args:
        truth: a GeoTIFF on the finer grid with the image's bands; units are found as those of scenes are.
        reading: how it is to be read, as :class:`rsedge.data.scenes.geotiff.SceneReader` takes it.

    Returns:
        ``psnr`` and ``ssim``, each with ``_interval`` (95 %, over blocks), ``blocks``, ``block_pixels``, ``bands``, ``finer``.

    Raises:
        RequestError: it lies on another grid, lacks a band, or no pixel has both values.
    """
    assert manifest.finer is not None
    bands = ImageBands.of(manifest.input_spec, manifest.classes)
    spec = _of_bands(manifest.input_spec, bands.names)
    found, known, held = list[Floats](), list[Floats](), _Held(len(bands.names), manifest.finer * reader.width)
    with SceneReader(truth, spec, **(reading | {"any_gsd": True})) as file:
        check_same_grid(file, truth, FinerGrid.over(reader, manifest.finer), "the finer scene")
        start = 0
        for _, rows in image_rows(session, reader, manifest, overlap, progress):
            dn, missing = file.read(start, 0, rows.shape[1], rows.shape[2])
            values = spec.to_physical(dn)
            values[:, missing] = np.nan
            start += rows.shape[1]
            for pair in held.blocks(np.stack([rows, values]), last=start == file.height):
                if np.isfinite(pair).all(0).any():
                    found.append(pair[0])
                    known.append(pair[1])
    if not found:
        raise RequestError(f"{truth}: no pixel has both a value and a prediction")
    compared = ImageComparison("image", found, known, bands.peak, np.arange(len(found)))
    record: dict[str, Any] = {}
    for name, statistic in statistics_of(compared).items():
        figure = estimate(statistic)
        record |= {name: figure.value, f"{name}_interval": None if figure.interval is None else list(figure.interval)}
    return {
        **record,
        "blocks": len(found),
        "block_pixels": BLOCK,
        "bands": list(bands.names),
        "finer": manifest.finer,
    }


def _of_bands(spec: InputSpec, names: tuple[str, ...]) -> InputSpec:
    """The contract of some of its bands, in the given order."""
    return spec.model_copy(update={"bands": tuple(spec.bands[spec.band_names.index(n)] for n in names)})


class _Held:
    """Rows of prediction and truth, (2, K, h, W), until they fill a row of blocks."""

    def __init__(self, bands: int, width: int) -> None:
        self._rows = np.zeros((2, bands, 0, width), np.float32)

    def blocks(self, rows: Floats, last: bool) -> Iterator[Floats]:
        self._rows = np.concatenate([self._rows, rows], axis=2)
        while self._rows.shape[2] >= BLOCK or (last and self._rows.shape[2]):
            strip, self._rows = self._rows[:, :, :BLOCK], self._rows[:, :, BLOCK:]
            for column in range(0, strip.shape[3], BLOCK):
                yield strip[..., column : column + BLOCK]
