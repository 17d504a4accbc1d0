"""Survey data sets: the table against torchgeo's classes, and every set read by them from its published layout."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.data.band_names import sensor_key
from rsedge.data.boxes.geometry import outlines, places, upright
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.samples.samples import Samples
from rsedge.data.sets.datasets import DatasetRow, dataset_row, datasets, scene_reference
from rsedge.data.sets.sample_sources import load_samples
from rsedge.data.sets.scene_sources import load_scene
from tests.data import tiny_sets

torchgeo = pytest.importorskip("torchgeo.datasets")
JPEG = ("dior", "resisc45", "patternnet")
TILES = {"oscd": 16, "vaihingen": 16, "dota": 32, "dota-1.0": 32}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny set by name, written and read once."""
    known: dict[str, Samples] = {}

    def load(name: str) -> Samples:
        if name not in known:
            root = tmp_path_factory.mktemp("set")
            tiny_sets.WRITERS[name](root)
            options = {"tile": TILES[name]} if name in TILES else {}
            known[name] = load_samples(f"torchgeo:{name}", root=root, **options)
        return known[name]

    return load


@pytest.mark.parametrize("row", datasets().values(), ids=list(datasets()))
def test_a_row_fits_torchgeos_class(row: DatasetRow) -> None:
    cls = getattr(torchgeo, row.cls)
    taken = set(inspect.signature(cls.__init__).parameters)
    assert set(row.arguments) | {"root"} | ({"split"} if row.splits else set()) <= taken
    for attribute in ("splits", "valid_splits", "split_filenames"):
        assert set(row.splits.values()) <= set(getattr(cls, attribute, row.splits.values()))
    for attribute in ("all_bands", "all_band_names", "band_names"):
        if hasattr(cls, attribute) and "bands" not in row.arguments:
            assert len(getattr(cls, attribute)) == len(row.bands)
    if hasattr(cls, "class_sets"):
        assert tuple(cls.class_sets[19]) == row.classes
    elif row.classes and hasattr(cls, "classes") and not isinstance(cls.classes, property):
        assert tuple(c for c in cls.classes if c != "no-data") == row.classes


@pytest.mark.parametrize("row", datasets().values(), ids=list(datasets()))
def test_a_row_has_the_sensor_that_its_title_names(row: DatasetRow) -> None:
    named = None if "Sentinel-1 and" in row.title else sensor_key(row.title)
    assert named in (row.sensor, None) and (row.sensor is None or not {"vv", "vh"} & set(row.bands))


def test_every_row_has_a_tiny_set() -> None:
    assert set(tiny_sets.WRITERS) == set(datasets())


@pytest.mark.parametrize("name", tiny_sets.WRITERS)
def test_every_band_of_a_set_is_where_its_name_says(name: str, loaded: Any) -> None:
    samples, row = loaded(name), dataset_row(name)
    assert samples.sensors == ((row.sensor,) if row.sensor else ())
    assert samples.bands == row.bands and samples.layout == row.layout and samples.gsd_m == row.gsd_m
    scale = np.broadcast_to(np.asarray(row.scale), (len(row.bands),))
    for i, band in enumerate(row.bands):
        values = samples.values[..., i, :, :] if row.frames == 1 else samples.values[:, 0, i]
        if row.frames == 4 and i == 0:
            continue
        expected = tiny_sets.VALUE[band] * scale[i] + row.offset
        assert np.allclose(values, expected, atol=3 * scale[i] if name in JPEG else 1e-4 * scale[i]), band
    assert samples.split is None or set(samples.split) == set(row.splits)
    assert (samples.split is None) == (not row.splits)


@pytest.mark.parametrize("name", [n for n, r in datasets().items() if r.frames == 4])
def test_seasons_come_in_the_order_of_their_dates(name: str, loaded: Any) -> None:
    samples, row = loaded(name), dataset_row(name)
    assert samples.values.shape[1] == 4 and samples.labels is None
    first = samples.values[0, :, 0, 0, 0] / (row.scale if isinstance(row.scale, float) else row.scale[0])
    assert first.round().tolist() == [1, 2, 3, 4]


def labels(samples: Samples) -> np.ndarray:
    assert samples.labels is not None
    return samples.labels


@pytest.mark.parametrize("name", ["eurosat", "resisc45", "ucmerced", "patternnet"])
def test_classes_keep_their_numbers_where_folders_are_absent(name: str, loaded: Any) -> None:
    samples = loaded(name)
    expected = {"eurosat": ("Forest", "River"), "ucmerced": ("beach", "river"), "resisc45": ("beach", "wetland")}
    names = {samples.classes[i] for i in labels(samples)}
    assert names == set(expected.get(name, ("beach", "wastewater_treatment_plant")))


def test_multi_labels_are_zeros_and_ones(loaded: Any) -> None:
    for name in ("bigearthnet", "bigearthnet-s1", "bigearthnet-v2"):
        found = labels(loaded(name))
        assert found.shape == (3, 19) and found.dtype == np.float32
        for row in found:
            # "Burnt areas" of the 43 classes is none of the 19.
            assert {loaded(name).classes[i] for i in np.flatnonzero(row)} == {"Pastures", "Marine waters"}


def test_zones_of_so2sat(loaded: Any) -> None:
    assert labels(loaded("so2sat")).tolist() == [16, 2] * 3
    assert loaded("so2sat").values.shape == (6, 10, 32, 32)


def test_class_maps_have_unknown_pixels_and_start_at_nought(loaded: Any) -> None:
    maps = labels(loaded("loveda"))
    assert maps.shape == (4, 32, 32) and maps.dtype == np.uint8
    assert maps[0, 0, :3].tolist() == [255, 0, 6]
    modis = labels(loaded("sen12ms"))[0]
    assert (modis[0, 0], modis[0, 1], modis[0, 200]) == (255, 16, 0)
    for name in ("potsdam", "vaihingen"):
        assert labels(loaded(name))[0, 0, :3].tolist() == [5, 0, 1]


@pytest.mark.parametrize("name", ["levir-cd", "levir-cd-plus", "oscd"])
def test_pairs_have_two_times_and_a_map_of_change(name: str, loaded: Any) -> None:
    samples = loaded(name)
    assert samples.values.shape[1] == 2 and samples.layout == "TCHW"
    found = labels(samples)
    assert set(np.unique(found)) == {0, 1} and found.shape == (len(samples), *samples.values.shape[-2:])
    if name.startswith("levir"):
        # The second image was written with its colours reversed.
        assert np.allclose(samples.values[:, 1], samples.values[:, 0, ::-1])
        assert (found[:, :4] == 1).all() and (found[:, 4:] == 0).all()


def test_tiles_keep_their_image_as_group(loaded: Any) -> None:
    samples = loaded("oscd")
    assert samples.group is not None and samples.split is not None
    # 40x64 pixels give 2x4 tiles of 16, 32x36 give 2x2.
    assert [int((samples.split == s).sum()) for s in ("train", "test")] == [8, 4]
    assert len(set(samples.group)) == 2


def test_boxes_go_with_the_tile_of_their_centre(loaded: Any) -> None:
    samples = loaded("dota")
    assert samples.boxes is not None and len(samples.boxes) == len(samples) == 4 + 3
    ship, plane = samples.boxes[:2]
    assert ship[:, 4].tolist() == [samples.classes.index("ship")] and plane[0, 4] == samples.classes.index("plane")
    corners = np.array([[[4, 6], [20, 2], [22, 10], [6, 14]]])
    apart = np.linalg.norm(outlines(places(ship, 5))[0][:, None] - corners[0], axis=2)
    assert (apart.min(0) < 0.01).all() and np.degrees(abs(np.tan(ship[0, 5]))) == pytest.approx(
        np.degrees(0.25), abs=0.1
    )
    np.testing.assert_allclose(upright(places(plane, 5)), [[8, 4, 28, 30]], atol=1e-4)
    assert all(len(b) == 0 for b in samples.boxes[2:4])
    turned = samples.take(np.array([1, 0]))
    assert turned.boxes is not None and np.array_equal(turned.boxes[1], samples.boxes[0])
    whole = loaded("dior")
    assert whole.boxes is not None and whole.boxes[0].tolist() == [[4, 2, 22, 14, whole.classes.index("ship")]]


def test_drawn_images_are_the_same_every_time(tmp_path: Path, loaded: Any) -> None:
    tiny_sets.WRITERS["satlas-sentinel1"](tmp_path)
    again = [load_samples("torchgeo:satlas-sentinel1", root=tmp_path).sha256 for _ in range(3)]
    assert len(set(again)) == 1 == len({*again, loaded("satlas-sentinel1").sha256})


def test_limits_spread_over_the_splits(tmp_path: Path) -> None:
    tiny_sets.WRITERS["so2sat"](tmp_path)
    samples = load_samples("torchgeo:so2sat", root=tmp_path, limit=3)
    assert samples.split is not None and len(samples) == 3 and set(samples.split) == {"train", "validation", "test"}
    train = load_samples("torchgeo:so2sat", root=tmp_path, splits=["train"])
    assert len(train) == 2 and train.sha256 != samples.sha256
    assert len(load_samples("torchgeo:so2sat", root=tmp_path, limit=1)) == 1


def test_frames_and_tiles_per_image(tmp_path: Path) -> None:
    tiny_sets.WRITERS["ssl4eo-l-oli-sr"](tmp_path)
    one = load_samples("torchgeo:ssl4eo-l-oli-sr", root=tmp_path, frames=1, tile=64, tiles_per_image=3)
    assert one.layout == "CHW" and one.values.shape == (3, 7, 64, 64)
    assert (one.values[:, 0] * 255).round().max() == 1
    two = load_samples("torchgeo:ssl4eo-l-oli-sr", root=tmp_path, frames=2)
    assert two.values.shape == (1, 2, 7, 264, 264)


@pytest.mark.parametrize("name", datasets())
def test_an_empty_folder_is_refused_with_layout_and_publisher(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingCapability) as error:
        load_samples(f"torchgeo:{name}", root=tmp_path)
    row = dataset_row(name)
    assert row.folders in str(error.value) and row.where in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("loveda", {"splits": ["test"]}, "no test; it has train, validation"),
        ("eurosat", {"tile": 32}, "labels are of whole images"),
        ("loveda", {"tiles_per_image": 2}, "goes with tile"),
        ("levir-cd", {"frames": 1}, "change sets need all"),
        ("loveda", {"limit": 0}, "limit: Input should be greater"),
        ("vaihingen", {}, r"images differ in size \(32x48, 48x40 \.\.\.\); give tile, e\.g\. tile: 32"),
        ("vaihingen", {"tile": 100}, "every image is smaller than the tile of 100"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny_sets.WRITERS[name](tmp_path)
    with pytest.raises(RequestError, match=message):
        load_samples(f"torchgeo:{name}", root=tmp_path, **options)


def test_unknown_sets_missing_files_and_strange_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"'torchgeo:eurosta' is unknown \(nearest: 'eurosat'\)"):
        load_samples("torchgeo:eurosta", root=tmp_path)
    tiny_sets.WRITERS["loveda"](tmp_path / "a")
    (tmp_path / "a/Train/Urban/masks_png/1.png").unlink()
    with pytest.raises(RequestError, match=r"sample \d of train cannot be read .*masks_png"):
        load_samples("torchgeo:loveda", root=tmp_path / "a")
    tiny_sets.scenes(tmp_path / "b", "PatternNet/images", "", "jpg", ("moon",))
    with pytest.raises(RequestError, match="class folder 'moon' is none of airplane"):
        load_samples("torchgeo:patternnet", root=tmp_path / "b")
    monkeypatch.setattr("rsedge.data.sets.torchgeo.MAX_BYTES", 100_000)
    tiny_sets.WRITERS["so2sat"](tmp_path / "c")
    with pytest.raises(RequestError, match=r"6 images would take .* GiB of memory.*give limit"):
        load_samples("torchgeo:so2sat", root=tmp_path / "c")


def test_images_with_class_maps_are_scenes(tmp_path: Path) -> None:
    tiny_sets.WRITERS["vaihingen"](tmp_path)
    scene = load_scene("torchgeo:vaihingen/test/0", tmp_path)
    assert scene.image.shape == (3, 32, 48) and scene.bands == ("nir", "red", "green") and scene.gsd_m == 0.09
    assert scene.labels is not None and scene.labels[0, :3].tolist() == [5, 0, 1] and scene.valid.all()
    assert np.allclose(scene.image[:, 0, 0] * 255, [tiny_sets.VALUE[b] for b in scene.bands])
    assert scene_reference("torchgeo:loveda/train/3-5").names == [f"torchgeo:loveda/train/{i}" for i in (3, 4, 5)]
    for name, message in {
        "torchgeo:vaihingen/test/1": "test has 1 images, numbered from 0",
        "torchgeo:vaihingen/test/0-1": "one image is wanted here, not 2",
        "torchgeo:vaihingen/test/2-1": "first number is larger",
        "torchgeo:vaihingen/valid/0": "no split 'valid'; it has train, test",
        "torchgeo:eurosat/train/0": "'eurosat' has no class maps; sets that have: sen12ms, potsdam",
        "torchgeo:vaihingen": "write torchgeo:SET/SPLIT/NUMBER",
    }.items():
        with pytest.raises(RequestError, match=message):
            load_scene(name, tmp_path)
    with pytest.raises(MissingCapability, match="split 'train' was not found"):
        load_scene("torchgeo:potsdam/train/0", tmp_path)
