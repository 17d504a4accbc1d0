"""Finer images of scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.images import evaluate_image, image_rows, infer_image
from rsedge.runtimes.inference.raster_out import check_rasters
from rsedge.runtimes.inference.scene_run import SceneRun, text_of
from rsedge.runtimes.inference.tiles import Scene
from rsedge.runtimes.inference.works.arrays import Array
from rsedge.runtimes.inference.works.base import Call, Evaluation, Labels, Reader, SceneInference


class ImageInference(SceneInference):
    """A finer image (K, k H, k W) float32 in physical values, NaN where nothing is seen; written as a GeoTIFF."""

    def check(self, call: Call, reader: Reader, output: Path) -> None:
        check_rasters(reader, [output])

    def write_scene(self, call: Call, session: SelfTested, reader: Reader, output: Path) -> dict[str, Any]:
        return infer_image(
            session, reader, output, call.bundle.manifest, call.options.overlap, call.progress, call.style
        )

    def answer(self, call: Call, session: SelfTested, scene: Scene, run: SceneRun) -> Array:
        rows = image_rows(session, scene, call.bundle.manifest, call.options.overlap, call.progress, run=run)
        return np.concatenate([values for _, values in rows], axis=1)

    def text(self, record: dict[str, Any]) -> str:
        size = f"{record['width']}x{record['height']} pixels, {record['finer']} times finer"
        return (
            f"{record['output']}: {size}, {record['nodata_pixels']:,} nodata\n"
            f"{record['seconds']:.1f} s on {record['device']} ({record['target']})\n{text_of(record['run'])}"
        )


class ImageEvaluation(Evaluation):
    """PSNR and SSIM, against a finer scene."""

    def compare(self, call: Call, session: SelfTested, reader: Reader, labels: Labels) -> dict[str, Any]:
        options, manifest = call.options, call.bundle.manifest
        return evaluate_image(session, reader, labels.path, manifest, options.overlap, call.progress, **options.reading)

    def text(self, record: dict[str, Any]) -> str:
        psnr, ssim = _figure(record, "psnr", " dB", 2), _figure(record, "ssim", "", 4)
        return f"{psnr}, {ssim}; {record['blocks']} blocks, bands {', '.join(record['bands'])}"


def _figure(record: dict[str, Any], name: str, unit: str, places: int) -> str:
    interval = record[f"{name}_interval"]
    within = f" ({interval[0]:.{places}f} to {interval[1]:.{places}f})" if interval else ""
    return f"{name.upper()} {record[name]:.{places}f}{unit}{within}"
