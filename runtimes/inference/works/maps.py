"""Class maps of scenes, of one date or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.many import identity
from rsedge.runtimes.inference.raster_out import check_rasters
from rsedge.runtimes.inference.scene import infer_scene, predict_rows
from rsedge.runtimes.inference.scene_run import SceneRun, text_of
from rsedge.runtimes.inference.tiles import Scene
from rsedge.runtimes.inference.works.arrays import Array
from rsedge.runtimes.inference.works.base import Call, Evaluation, Labels, Reader, SceneInference, score_text


class MapInference(SceneInference):
    """Class numbers (H, W) uint8, 255 where nothing is seen; written as a GeoTIFF."""

    def check(self, call: Call, reader: Reader, output: Path) -> None:
        check_rasters(reader, [p for p in (output, call.options.probabilities) if p is not None])

    def write_scene(self, call: Call, session: SelfTested, reader: Reader, output: Path) -> dict[str, Any]:
        options, classes = call.options, call.bundle.manifest.classes
        return infer_scene(
            session, reader, output, classes, options.overlap, options.probabilities, call.progress, call.style,
            None if options.filter is not None else lambda: _made_from(call, session, reader),
        )  # fmt: skip

    def answer(self, call: Call, session: SelfTested, scene: Scene, run: SceneRun) -> Array:
        rows = predict_rows(session, scene, call.options.overlap, call.progress, run=run)
        return np.concatenate([part.classes for part in rows])

    def text(self, record: dict[str, Any]) -> str:
        total = sum(record["pixels"].values())
        shares = ", ".join(f"{n} {c / max(total, 1):.1%}" for n, c in record["pixels"].items())
        speed = record["height"] * record["width"] / 1e6 / max(record["seconds"], 1e-9)
        return (
            f"{record['output']}: {shares}; {record['nodata_pixels']:,} nodata pixels\n"
            f"{record['seconds']:.1f} s, {speed:.2f} megapixels/s on {record['device']} ({record['target']})\n"
            f"{text_of(record['run'])}"
        )


def _made_from(call: Call, session: SelfTested, reader: Reader) -> dict[str, Any]:
    """What a map without a filter depends on: bundle, runtime, scenes and how they are read."""
    options = call.options
    by = {"bundle": call.bundle.manifest_sha256, "runtime": session.runtime, "version": session.runtime_version,
          "device": session.device}  # fmt: skip
    reading = {"bands": options.bands, **options.reading}
    return identity(reader.path, by, options.files) | {"reading": reading}


class MapEvaluation(Evaluation):
    """Kappa, accuracy, IoU per class and the confusion matrix, against class numbers on the scene's grid."""

    def compare(self, call: Call, session: SelfTested, reader: Reader, labels: Labels) -> dict[str, Any]:
        from rsedge.runtimes.inference.evaluate import evaluate_scene

        record = evaluate_scene(
            session, reader, labels.path, call.bundle.manifest.classes, call.options.overlap, labels.ignore, labels.mapping,
            call.progress,
        )  # fmt: skip
        for warning in record["label_warnings"]:
            call.warn(warning)
        return record

    def text(self, record: dict[str, Any]) -> str:
        interval = record["kappa_interval"]
        within = (
            f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f}, {record['blocks']} blocks)" if interval else ""
        )
        kappa, accuracy = (score_text(record[name]) for name in ("kappa", "accuracy"))
        figures = f"kappa {kappa}{within}, accuracy {accuracy}, n = {record['n']:,} pixels"
        return f"{figures}\n{_confusion(record)}"


def _confusion(record: dict[str, Any]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="rows: label, columns: prediction", title_justify="left")
    for column in ("", *record["classes"], "IoU"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in zip(record["classes"], record["confusion"], strict=True):
        value = record["iou"][name]
        table.add_row(name, *(f"{v:,}" for v in row), "-" if value is None else f"{value:.3f}")
    console = Console()
    with console.capture() as capture:
        console.print(table)
    return capture.get().removesuffix("\n")
