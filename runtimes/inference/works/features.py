"""Maps of features of scenes, and what heads make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsedge.runtimes.bundle.head import beside
from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.features import WholePlaces, feature_rows, infer_features, infer_heads
from rsedge.runtimes.inference.raster_out import check_rasters
from rsedge.runtimes.inference.scene_run import SceneRun, text_of
from rsedge.runtimes.inference.tiles import Scene
from rsedge.runtimes.inference.works.arrays import Array
from rsedge.runtimes.inference.works.base import Call, Reader, SceneInference


class FeatureInference(SceneInference):
    """With heads a raster of each on the scene's grid; without, the features (D, H / stride, W / stride) float32, NaN where nothing
    is seen."""

    def check(self, call: Call, reader: Reader, output: Path) -> None:
        check_rasters(reader, [beside(output, head) for head in call.options.heads] or [output])

    def write_scene(self, call: Call, session: SelfTested, reader: Reader, output: Path) -> dict[str, Any]:
        options, manifest = call.options, call.bundle.manifest
        if options.heads:
            return infer_heads(
                session, reader, output, options.heads, manifest, options.overlap, call.progress, call.style
            )
        return infer_features(session, reader, output, manifest, options.overlap, call.progress, call.style)

    def answer(self, call: Call, session: SelfTested, scene: Scene, run: SceneRun) -> Array:
        places = WholePlaces(scene, call.bundle.manifest.stride or 1)
        rows = feature_rows(session, places, call.bundle.manifest, call.options.overlap, call.progress, run)
        return np.concatenate(list(rows), axis=1)

    def text(self, record: dict[str, Any]) -> str:
        end = f"{record['seconds']:.1f} s on {record['device']} ({record['target']})\n{text_of(record['run'])}"
        if "heads" in record:
            rows = [_head_text(name, found) for name, found in record["heads"].items()]
            return "\n".join([*rows, "the encoder's own map is not written; leave heads out for it", end])
        size = f"{record['width']}x{record['height']} places of {record['stride']}x{record['stride']} pixels"
        return f"{record['output']}: {record['features']} features, {size}, {record['nodata_pixels']:,} nodata\n{end}"


def _head_text(name: str, found: dict[str, Any]) -> str:
    total = max(sum(found["pixels"].values()), 1)
    shares = "".join(f", {n} {count / total:.1%}" for n, count in found["pixels"].items())
    missing = f", {found['nodata_pixels']:,} nodata pixels"
    return f"{name} (head, signature: {found['signature']}): {found['output']}{shares}{missing}"
