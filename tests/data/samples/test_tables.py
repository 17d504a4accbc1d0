"""Users' tables: what goes in comes out under any file format, and what does not fit is named."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsedge.data.errors import RequestError
from rsedge.data.sets.sample_sources import load_samples

BANDS = ("blue", "nir")
FRAMES = 3
SERIES = {"layout": "TC", "frames": FRAMES, "bands": {b: f"{b}_{{t}}" for b in BANDS}}


def write(path: Path, columns: dict[str, Any]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as f:
            csv.writer(f).writerows([columns, *zip(*columns.values(), strict=True)])
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({k: list(v) for k, v in columns.items()}), path)


def series_columns(values: np.ndarray) -> dict[str, Any]:
    return {f"{b}_{t}": values[:, t, i].tolist() for t in range(FRAMES) for i, b in enumerate(BANDS)}


@settings(deadline=None, max_examples=25)
@given(values=arrays(np.float32, (4, FRAMES, len(BANDS)), elements=st.floats(-1e4, 1e4, width=32)))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_series_comes_back_as_it_was_written(
    values: np.ndarray, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"t{suffix}"
    write(path, series_columns(values) | {"crop": ["maize", "rice", "maize", "rice"], "zone": [7, 7, 8, 9]})
    samples = load_samples(str(path), **SERIES, label="crop", group="zone", classes=["rice", "maize"])
    assert np.array_equal(samples.values, values)
    assert samples.bands == BANDS and samples.layout == "TC"
    assert samples.labels is not None and samples.labels.tolist() == [1, 0, 1, 0]
    assert samples.group is not None and len(set(samples.group)) == 3


def test_scale_missing_places_and_targets(tmp_path: Path) -> None:
    columns = {
        "b": [1000, 65535],
        "lon": [10.5, -3.0],
        "lat": [50.0, 1.0],
        "moisture": [12.5, 30.0],
        "part": ["train", "test"],
    }
    write(tmp_path / "t.csv", columns)
    samples = load_samples(
        "t.csv", root=tmp_path, bands={"blue": "b"}, scale={"blue": 1e-4}, offset={"blue": -0.1}, missing=65535,
        longitude="lon", latitude="lat", label="moisture", task="regression", split="part",
    )  # fmt: skip
    assert samples.values[0, 0] == pytest.approx(0.0, abs=1e-7) and np.isnan(samples.values[1, 0])
    assert samples.places is not None and samples.places.tolist() == [[10.5, 50.0], [-3.0, 1.0]]
    assert samples.labels is not None and samples.labels.tolist() == [[12.5], [30.0]]
    assert (
        samples.classes == ("moisture",) and samples.split is not None and samples.split.tolist() == ["train", "test"]
    )


def test_images_come_from_npz(tmp_path: Path) -> None:
    x = np.arange(2 * 2 * 4 * 4, dtype=np.uint16).reshape(2, 2, 4, 4)
    y = np.zeros((2, 4, 4), np.uint8)
    write(tmp_path / "t.npz", {"x": x, "y": y, "tags": np.eye(2)})
    options = {"bands": list(BANDS), "layout": "CHW", "values": "x", "scale": {"nir": 0.5}}
    samples = load_samples(
        str(tmp_path / "t.npz"), **options, label="y", task="segmentation", classes=["land", "water"]
    )
    assert np.array_equal(samples.values[:, 1], x[:, 1] * np.float32(0.5)) and np.array_equal(
        samples.values[:, 0], x[:, 0]
    )
    assert samples.labels is not None and samples.labels.dtype == np.uint8 and samples.labels.shape == (2, 4, 4)
    tagged = load_samples(str(tmp_path / "t.npz"), **options, label="tags", task="multilabel", classes=["a", "b"])
    assert tagged.labels is not None and tagged.labels.tolist() == [[1, 0], [0, 1]]


def test_masks_of_0_and_255_are_no_class_maps(tmp_path: Path) -> None:
    y = np.zeros((2, 4, 4), np.uint8)
    y[:, 2:] = 255
    write(tmp_path / "t.npz", {"x": np.ones((2, 2, 4, 4), np.uint16), "y": y})
    options = {"bands": list(BANDS), "layout": "CHW", "values": "x", "label": "y", "classes": ["land", "water"]}
    with pytest.raises(RequestError, match="holds 0 and 255 alone"):
        load_samples(str(tmp_path / "t.npz"), **options, task="segmentation")


def test_class_numbers_from_numbers_with_gaps(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", {"b": [1, 2, 3, 4], "c": [11, "", 40, 12]})
    samples = load_samples(str(tmp_path / "t.csv"), bands={"blue": "b"}, label="c", classes=["11", "12"])
    assert samples.labels is not None and samples.labels.tolist() == [0, -1, -1, 1]
    assert samples.notes == ("1 of the samples have no label: 'c' holds values that classes does not name: '40' (1)",)
    assert load_samples(str(tmp_path / "t.csv"), bands={"blue": "b"}, label="c").classes == ("11", "12", "40")


GOOD = {"bands": {"blue": "b"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": {"blue": "B"}}, r"t\.csv: no column 'B'.*it has b, name"),
        ({"bands": {"blue": "name"}}, r"column 'name' holds <U1, not numbers"),
        ({"bands": ["blue"]}, r"bands: give each band's column"),
        (GOOD | {"layout": "CHW"}, r"images \(CHW\) go into an \.npz"),
        (GOOD | {"longitude": "b"}, "longitude and latitude go together"),
        (GOOD | {"scale": {"nir": 1}}, "scale: no such band: nir"),
        (GOOD | {"frames": 3}, "layout C has no times"),
        (GOOD | {"lable": "name"}, r"'.*t\.csv': lable: Extra inputs"),
        (GOOD | {"label": "name", "classes": ["maize"]}, "holds none of the classes maize"),
        (GOOD | {"label": ["b", "name"]}, "several columns go with multilabel or regression"),
        ({}, r"bands: Field required"),
    ],
)
def test_a_wrong_option_is_named_with_file_and_fix(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", {"b": [1, 2], "name": ["x", "y"]})
    with pytest.raises(RequestError, match=message):
        load_samples(str(tmp_path / "t.csv"), **options)


def test_broken_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "none.csv").write_text("")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR0")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    for name, message in {
        "objects.npz": "only plain numbers and texts", "none.csv": "empty", "ragged.csv": "ragged.csv:3: 1 fields",
        "broken.parquet": "not a readable Parquet", "broken.npz": "not a whole .npz", "absent.csv": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(RequestError, match=message) as error:
            load_samples(name, root=tmp_path, bands={"blue": "a"})
        assert name in str(error.value)


def test_arrays_of_another_layout_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", flat=rng.random((6, 2)), series=rng.random((6, 4, 2)), one=np.float64(3))
    for values, layout in (("flat", "TC"), ("series", "C"), ("one", "C"), ("series", "CHW")):
        with pytest.raises(RequestError, match="has the shape"):
            load_samples("t.npz", root=tmp_path, bands=["a", "b"], layout=layout, values=values)
    with pytest.raises(RequestError, match="bands: names 3"):
        load_samples("t.npz", root=tmp_path, bands=["a", "b", "c"], layout="TC", values="series")
    assert load_samples("t.npz", root=tmp_path, bands=["a", "b"], layout="TC", values="series").values.shape == (
        6,
        4,
        2,
    )


def test_absurd_numbers_of_a_table_are_missing_and_noted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1e30,3\n")
    found = load_samples("t.csv", root=tmp_path, bands={"a": "a", "b": "b"})
    assert np.isnan(found.values[1, 0]) and "1 samples hold" in found.notes[0]
