"""Scenes of recipes are read as in flight: the same values, units, masks, labels and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.scene import Scene
from rsedge.recipe.data import SceneSection, TestSection
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.scenes import section_scene

NAMES, CLASSES = ("blue", "green", "red", "nir"), ("land", "water")
SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0.0, sensor="sentinel-2") for n in NAMES),
    tile=32,
    gsd_range_m=(8, 70),
)
DN = np.random.default_rng(0).integers(200, 9000, (4, 64, 64)).astype(np.uint16)


def write(path: Path, values: np.ndarray = DN, names: tuple[str | None, ...] = NAMES, **profile: Any) -> Path:
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    profile = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10), "dtype": values.dtype, **profile}
    count, height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, **profile) as f:
        f.write(values)
        f.descriptions = names
        if scales:
            f.scales, f.offsets = scales, offsets
    return path


def section(kind: type[Any], path: Path, fields: dict[str, Any]) -> Any:
    return kind.model_validate_json(json.dumps({"path": path, **fields}, default=str))


def train(path: Path, spec: InputSpec = SPEC, **fields: Any) -> Scene:
    return section_scene(section(SceneSection, path, fields), spec, CLASSES)


def judge(path: Path, spec: InputSpec = SPEC, **fields: Any) -> Scene:
    return section_scene(section(TestSection, path, fields), spec, CLASSES)


def flown(path: Path, spec: InputSpec = SPEC, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    with SceneReader(path, spec, **options) as reader:
        return reader.read(0, 0, reader.height, reader.width)


def test_a_scene_of_another_sensor_is_told_of_in_training_and_in_test(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif")
    for read in (train, judge):
        assert any("is of landsat-7" in w and "sentinel-2" in w for w in read(path, sensor="landsat-7").warnings)
        assert not any("is of" in w for w in read(path).warnings)


@pytest.mark.parametrize(
    ("values", "profile", "options"),
    [
        (DN, {}, {}),
        (DN, {"names": ("B2", "B3", "B4", "B8")}, {}),
        (DN, {"names": (None,) * 4}, {"bands": ["blue", "green", "red", "nir"]}),
        (DN, {"names": ("R", "G", "B", "NIR")}, {}),
        (DN + 1000, {"scales": (1e-4,) * 4, "offsets": (-0.1,) * 4}, {}),
        ((DN * 1e-4).astype(np.float32), {}, {}),
        ((DN * 1e-2).astype(np.float32), {}, {"scale": 0.01}),
        (DN.astype(np.int16), {"nodata": -9999}, {}),
        (DN, {"crs": "EPSG:2263", "transform": from_origin(987000, 200000, 100, 100)}, {}),
        (DN, {"crs": "EPSG:4326", "transform": from_origin(9, 48, 1e-4, 1e-4)}, {}),
    ],
)
def test_a_bundle_runs_on_the_very_file_it_was_trained_on(
    tmp_path: Path, values: np.ndarray, profile: dict[str, Any], options: dict[str, Any]
) -> None:
    values = values.copy()
    if "nodata" in profile:
        values[1, :3, :3] = profile["nodata"]
    path = write(tmp_path / "s.tif", values, **profile)
    dn, missing = flown(path, **options)
    for read in (train, judge):
        scene = read(path, **options)
        assert scene.bands == NAMES and np.array_equal(~scene.valid, missing)
        again = np.where(scene.valid, SPEC.to_dn(scene.image), SPEC.missing_dn()[:, None, None])
        assert np.array_equal(again, dn) and again.dtype == dn.dtype
        with SceneReader(path, SPEC, **options) as reader:
            assert scene.gsd_m == reader.gsd_m


@pytest.mark.parametrize(
    ("values", "profile", "said"),
    [
        ((DN // 40).astype(np.uint8), {}, "scale: and offset:"),
        (np.full_like(DN, 65535), {}, "outside -0.2 to 2.5"),
        ((DN * 1e-2).astype(np.float32), {}, "scale: 0.01"),
        (DN.astype(np.float32), {}, "scale: 0.0001"),
        (np.where(np.arange(64) == 0, -99, DN * 1e-4).astype(np.float32), {}, "declare the fill value with nodata: V"),
        (
            DN,
            {"scales": (1e-4, 1e-4, 0.0, 1e-4), "offsets": (0.0,) * 4},
            "tags make no values .scales 0.0001, 0, offsets 0.; give both",
        ),
        (np.where(np.arange(64) == 0, -9999, DN).astype(np.int16), {}, "nodata: -9999"),
        (np.where(np.arange(64) == 0, np.nan, DN * 1e-4).astype(np.float32), {}, "nan_nodata: true"),
        (DN, {"names": (None,) * 4}, r"bands: \[blue, green, red, nir\]"),
        (DN, {"crs": None}, "gsd_m: 10"),
        (DN, {"transform": from_origin(5e5, 5.4e6, 100, 100)}, "any_gsd: true"),
    ],
)
def test_what_flight_would_refuse_training_refuses_in_words_of_the_recipe(
    tmp_path: Path, values: np.ndarray, profile: dict[str, Any], said: str
) -> None:
    path = write(tmp_path / "s.tif", values, **profile)
    for read in (train, judge):
        with pytest.raises(RequestError, match=said) as caught:
            read(path)
        assert "--" not in str(caught.value) and str(path) in str(caught.value)


def test_the_advice_of_a_refusal_works_as_a_field_of_the_section(tmp_path: Path) -> None:
    hole = np.where(np.arange(64) == 0, -9999, DN).astype(np.int16)
    assert (~judge(write(tmp_path / "a.tif", hole), nodata=-9999).valid[:, 0]).all()
    stray = np.where(np.arange(64) == 0, np.nan, DN * 1e-4).astype(np.float32)
    assert (~judge(write(tmp_path / "b.tif", stray), nan_nodata=True).valid[:, 0]).all()
    assert judge(write(tmp_path / "c.tif", crs=None), gsd_m=10).gsd_m == 10
    far = write(tmp_path / "d.tif", transform=from_origin(5e5, 5.4e6, 100, 100))
    assert judge(far, any_gsd=True).gsd_m == pytest.approx(100, rel=1e-3)


def test_ground_may_be_finer_or_lack_bands_and_what_judges_may_not(tmp_path: Path) -> None:
    fine = write(tmp_path / "fine.tif", transform=from_origin(5e5, 5.4e6, 2, 2))
    assert train(fine).gsd_m == pytest.approx(2, rel=1e-3)
    with pytest.raises(RequestError, match="made for 8 to 70 m"):
        judge(fine)
    part = write(tmp_path / "part.tif", DN[:3], NAMES[:3])
    assert train(part).bands == NAMES[:3]
    with pytest.raises(RequestError, match="'nir' is missing"):
        judge(part)


def test_saturation_is_told_and_refused(tmp_path: Path) -> None:
    some = DN.copy()
    some[0, :4] = 65535
    scene = judge(write(tmp_path / "some.tif", some), scale=1e-4)
    found = {v.name: v for v in scene.values}
    assert found["blue"].saturated == pytest.approx(4 / 64) and found["red"].saturated == 0
    assert "6% of 'blue'" in scene.warnings[0]
    with pytest.raises(RequestError, match="saturated in the model's digital numbers: 100% of 'blue'"):
        judge(tmp_path / "some.tif", scale=1.0)
    with pytest.raises(RequestError, match="100% of 'blue'"):
        flown(tmp_path / "some.tif", scale=1.0)


def test_labels_beside_a_scene(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif")
    mask = np.where(DN[:1] > 4000, 255, 0).astype(np.uint8)
    write(tmp_path / "mask.tif", mask, (None,))
    with pytest.raises(RequestError, match=r"map: \{0: land, 255: water\}"):
        judge(path, labels=tmp_path / "mask.tif")
    scene = judge(path, labels={"path": tmp_path / "mask.tif", "map": {0: "land", 255: "water"}})
    assert scene.labels is not None and np.array_equal(scene.labels, mask[0] // 255)
    shifted = write(tmp_path / "far.tif", mask // 255, (None,), transform=from_origin(5e5 + 10, 5.4e6, 10, 10))
    with pytest.raises(RequestError, match=r"1\.00 pixels off"):
        judge(path, labels=shifted)


def test_sections_survive_json() -> None:
    given = section(TestSection, Path("s.tif"), {"labels": {"path": "l.tif", "map": {255: "water", 0: 0}}})
    again = TestSection.model_validate_json(given.model_dump_json())
    assert again == given and again.label_file is not None and again.label_file.map == {255: "water", 0: 0}


def test_labels_as_the_documentation_writes_them(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    data = next(part for part in text.split("```yaml\n")[1:] if "labels: {path" in part).split("```")[0]
    assert "water.tif" in data
    teacher = "teacher: {name: ukis-csmask-4b-l2a}"
    (tmp_path / "r.yaml").write_text(f"name: t\n{teacher}\n{data}steps: [distill]\ntargets: [openvino-cpu-f32]\n")
    given = load_recipe(tmp_path / "r.yaml").scenes.test.label_file
    assert given is not None and given.path == tmp_path / "water.tif"
    assert given.map == {0: "land", 255: "water", 9: "ignore"}
    (tmp_path / "r.yaml").write_text(
        (tmp_path / "r.yaml").read_text().replace("{path: water.tif, map", "{file: water.tif, map")
    )
    with pytest.raises(RequestError, match=r"labels"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (DN // 40, "its digital numbers end at 224, as 8-bit pictures do"),
        (np.ones_like(DN), "fills less than 4 of the model's digital numbers in blue, green, red, nir"),
        ((DN * 1e-9).astype(np.float32), "fills less than 4 of the model's digital numbers in blue, green, red, nir"),
    ],
)
def test_values_that_fill_next_to_nothing_of_the_contract_are_told(
    tmp_path: Path, values: np.ndarray, said: str
) -> None:
    (warning,) = train(write(tmp_path / "s.tif", values)).warnings
    assert said in warning and "give scale: S" in warning


def test_truth_values_are_no_classes_of_a_map() -> None:
    with pytest.raises(ValueError, match="write a class of that name in quotes"):
        section(TestSection, Path("s.tif"), {"labels": {"path": "l.tif", "map": {0: False, 1: True}}})


def test_units_that_leave_a_contract_without_levels_are_told(tmp_path: Path) -> None:
    bare = SPEC.model_copy(update={"bands": tuple(b.model_copy(update={"scale": 1.0}) for b in SPEC.bands)})
    (warning,) = train(write(tmp_path / "s.tif"), bare, scale=1e-4).warnings
    assert "fills less than 4 of the model's digital numbers in blue, green, red, nir" in warning


def test_what_is_wrong_in_a_list_is_told_once() -> None:
    with pytest.raises(RequestError) as caught:
        load_recipe("quickstart", ["data.train=[{}]"])
    assert "give exactly one of" in str(caught.value) and "at least 1 item" not in str(caught.value)
