"""A recipe whose scene and labels are objects reads what files here would give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from obstore.fsspec import FsspecStore

from rsedge.data.files import write_json
from rsedge.recipe.reading import load_recipe, resolved
from rsedge.recipe.scenes import section_scene
from tests.data.object_store import BUCKET, Store
from tests.runtimes import tiny_models as tiny

CLASSES = ("land", "water")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    FsspecStore.clear_instance_cache()
    running = Store()
    for name, value in {**running.variables, "RSEDGE_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    yield running
    running.close()


def test_the_scene_is_the_same(tmp_path: Path, store: Store) -> None:
    spec = tiny.spec()
    scene = Path(tiny.write_scene(tmp_path / "scene.tif", tiny.random_scene(spec, 96, 64), tiny.NAMES))
    with rasterio.open(scene) as like, rasterio.open(
        tmp_path / "labels.tif", "w", driver="GTiff", height=96, width=64, count=1, dtype="uint8", crs=like.crs,
        transform=like.transform,
    ) as file:  # fmt: skip
        file.write(np.arange(96 * 64, dtype=np.uint8).reshape(96, 64) % 2, 1)
    store.put({path.name: path.read_bytes() for path in (scene, tmp_path / "labels.tif")})
    found = []
    for place in ("", f"s3://{BUCKET}/"):
        recipe = {
            "name": "objects", "teacher": {"name": "ukis-csmask-4b-l1c"}, "student": {"name": "slim-unet"},
            "targets": ["openvino-cpu-f32"],
            "data": {"train": [{"path": f"{place}scene.tif"}],
                     "test": {"path": f"{place}scene.tif", "labels": {"path": f"{place}labels.tif"}, "fraction": 0.2}},
            "steps": [{"distill": {"steps": 1, "views": 1}}], "gates": [{"metric": "agreement", "min": 0.5}],
        }  # fmt: skip
        write_json(tmp_path / "recipe.json", recipe)
        read = load_recipe(tmp_path / "recipe.json", [])
        found.append(section_scene(read.scenes.test, spec, CLASSES))
    here, there = found
    assert np.array_equal(here.image, there.image) and np.array_equal(here.labels, there.labels)
    assert (here.sha256, here.name, here.bounds) == (there.sha256, there.name, there.bounds)
    assert resolved(read)["data"]["train"][0]["path"] in (f"s3:/{BUCKET}/scene.tif", f"s3://{BUCKET}/scene.tif")
