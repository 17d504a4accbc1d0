"""Files of prompts and of samples that cannot be: each is named, with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.warp import transform

from rsedge.data.errors import RequestError
from rsedge.data.scenes.raster_file import Transform
from rsedge.runtimes.inference import masks
from rsedge.runtimes.inference.prompts import read_prompts
from rsedge.runtimes.inference.works.wholes import read_apart

SCENE: Any = SimpleNamespace(
    path=Path("scene.tif"),
    width=40,
    height=30,
    crs=CRS.from_epsg(4326),
    transform=Transform(0.1, 0, 10, 0, -0.1, 50),
)
F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def geojson(folder: Path, *features: dict[str, Any]) -> Path:
    path = folder / "prompts.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", **f} for f in features]}))
    return path


def test_two_prompts_of_one_name_are_two(tmp_path: Path) -> None:
    place = {"type": "Point", "coordinates": [11, 49]}
    path = geojson(tmp_path, *[{"geometry": place, "properties": {"prompt": "car"}}] * 2)
    first, second = read_prompts(path, SCENE)
    assert first != second and [first, second].index(second) == 1


def test_prompts_and_masks_lie_on_scenes_without_gdal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their place is no ``Affine``, and their system a text."""
    scene = SimpleNamespace(**{**vars(SCENE), "crs": "EPSG:4326"})
    path = geojson(tmp_path, {"geometry": {"type": "Point", "coordinates": [11, 49]}, "properties": {"prompt": "car"}})
    (prompt,) = read_prompts(path, scene)
    assert np.allclose(prompt.points, [[10, 10]], atol=1e-3)
    mask = masks.Mask(prompt, 8, 6, np.ones((2, 3), bool), 0.5)
    monkeypatch.setattr(masks, "masks_of", lambda *_: [mask])
    masks.infer_masks(SimpleNamespace(prove=lambda: None), scene, [prompt], tmp_path / "m.geojson", {})
    (feature,) = json.loads((tmp_path / "m.geojson").read_text())["features"]
    ring = np.array(feature["geometry"]["coordinates"][0][0])
    assert np.allclose([ring.min(0), ring.max(0)], [[10.6, 49.0], [10.9, 49.2]])


def test_prompts_of_an_old_file_lie_in_the_system_that_it_names(tmp_path: Path) -> None:
    (x,), (y,) = transform("EPSG:4326", "EPSG:32632", [11], [49])
    path = geojson(tmp_path, {"geometry": {"type": "Point", "coordinates": [x, y]}})
    for name in ("urn:ogc:def:crs:EPSG::32632", str(tmp_path / "crs.wkt")):
        (tmp_path / "crs.wkt").write_text(CRS.from_epsg(32632).to_wkt())
        path.write_text(json.dumps(json.loads(path.read_text()) | {"crs": {"properties": {"name": name}}}))
        if name.startswith("urn"):
            (prompt,) = read_prompts(path, SCENE)
            assert np.allclose(prompt.points, [[10, 10]], atol=1e-3)
    with pytest.raises(RequestError, match=r"prompts\.geojson: crs\.properties\.name is .* write an EPSG code"):
        read_prompts(path, SCENE)


def test_a_prompt_where_the_scenes_system_holds_no_place_is_named(tmp_path: Path) -> None:
    scene = SimpleNamespace(
        **{**vars(SCENE), "crs": CRS.from_epsg(32632), "transform": Transform(10, 0, 5e5, 0, -10, 5e6)}
    )
    path = geojson(tmp_path, {"geometry": {"type": "MultiPoint", "coordinates": [[9, 45], [-81, 0]]}})
    with pytest.raises(
        RequestError, match="feature 1: lies where the scene's coordinate reference system does not reach"
    ):
        read_prompts(path, scene)


def test_masks_without_longitude_and_latitude_are_refused_before_any_work(tmp_path: Path) -> None:
    plane = CRS.from_wkt('LOCAL_CS["plane",UNIT["metre",1]]')
    with pytest.raises(
        RequestError, match=r"scene\.tif: its coordinate reference system has no longitude and latitude"
    ):
        masks.check_output(tmp_path / "m.geojson", SimpleNamespace(**{**vars(SCENE), "crs": plane}))
    masks.check_output(tmp_path / "m.tif", SimpleNamespace(**{**vars(SCENE), "crs": plane}))


@pytest.mark.parametrize(
    ("coordinates", "properties", "words"),
    [
        ([11, 49], ["car"], "feature 1: its properties are no object"),
        ([11, 49], "car", "feature 1: its properties are no object"),
        ([[11], [49]], {}, "no pairs of longitude and latitude"),
    ],
)
def test_odd_features_are_named(coordinates: Any, properties: Any, words: str, tmp_path: Path) -> None:
    kind = "MultiPoint" if isinstance(coordinates[0], list) else "Point"
    path = geojson(tmp_path, {"geometry": {"type": kind, "coordinates": coordinates}, "properties": properties})
    with pytest.raises(RequestError, match=words):
        read_prompts(path, SCENE)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"seed": np.int64(3), "text": np.zeros((1, 4), np.float32)}, r"'seed' is \(\) int64"),
        ({"seed": np.arange(2), "text": np.array([[0, 1, 2, 3], [0, np.nan, 2, 3]], np.float32)}, "infinity in sample 1"),
    ],
)  # fmt: skip
def test_odd_samples_are_named(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(RequestError, match=words):
        read_apart(tmp_path / "samples.npz", {"seed": ((), I64), "text": ((4,), F32)})


def test_a_scene_is_no_file_of_samples(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_bytes(b"II*\0")
    with pytest.raises(RequestError, match=r"scene\.tif: samples are one \.npz; needed are 'text'"):
        read_apart(tmp_path / "scene.tif", {"text": ((4,), F32)})
