"""The real sample sets, read in place, and what any set must satisfy."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.root import data_root
from rsedge.data.samples.samples import Samples
from rsedge.data.sets.sample_sets import S2_TEN, SAMPLE_SETS
from rsedge.data.sets.sample_sources import load_samples
from rsedge.models.zoo import teacher_row

DATA = data_root()
real = pytest.mark.skipif(not DATA.is_dir(), reason="no scenes under RSEDGE_DATA (default ../shared/data)")
geoclip = pytest.mark.skipif(importlib.util.find_spec("geoclip") is None, reason="geoclip is not installed")


def band(samples: Samples, name: str) -> np.ndarray:
    return np.take(samples.values, samples.bands.index(name), axis=1 + samples.layout.index("C"))


@real
@pytest.mark.parametrize("name", [n for n, s in SAMPLE_SETS.items() if s.wheel is None])
def test_a_set_is_what_its_entry_says(name: str) -> None:
    samples, entry = load_samples(name), SAMPLE_SETS[name]
    assert (samples.name, samples.layout, samples.bands, samples.gsd_m) == (
        name,
        entry.layout,
        entry.bands,
        entry.gsd_m,
    )
    assert samples.values.dtype == np.float32 and len(samples) > 100
    assert not np.isinf(samples.values).any()
    assert samples.group is not None and 1 < len(set(samples.group)) < len(samples)
    # No row is missing altogether, and a missing value is never one of time or place.
    assert not np.isnan(samples.values.reshape(len(samples), -1)).all(axis=1).any()
    assert load_samples(name).sha256 == samples.sha256


@real
def test_worldcereal_rows_are_months_of_one_pixel() -> None:
    pytest.importorskip("pyarrow")
    samples = load_samples("worldcereal-crop")
    assert samples.values.shape == (315, 12, 20)
    assert samples.labels is not None and samples.places is not None and samples.group is not None
    assert samples.labels.sum() == 89 and samples.classes == ("other", "crop")
    assert len(set(samples.group)) == 24
    month = band(samples, "month")
    assert ((month[:, 1:] - month[:, :-1]) % 12 == 1).all()
    for name in ("elevation", "slope", "latitude", "longitude", "land_cover"):
        assert (band(samples, name) == band(samples, name)[:, :1]).all(), name
    assert np.allclose(samples.places[:, 0], band(samples, "longitude")[:, 0], atol=1e-4)
    assert np.isnan(band(samples, "blue")).mean() == pytest.approx(0.095, abs=1e-3)
    assert not np.isnan(samples.values[..., 12:]).any()
    # Cross-polarised backscatter is weaker, and northern summers are warmer than winters.
    assert np.nanmedian(band(samples, "vv") - band(samples, "vh")) == pytest.approx(6.5, abs=2)
    assert -25 < np.nanmedian(band(samples, "vv")) < -5
    north = samples.places[:, 1] > 30
    warm = [band(samples, "temperature")[north][month[north] == m].mean() for m in (0, 6)]
    assert 265 < warm[0] < warm[1] - 8 < 295


@real
def test_fuel_moisture_keeps_the_publishers_split_and_no_place_in_both() -> None:
    samples = load_samples("fuel-moisture")
    assert samples.values.shape == (2313, 3, 21) and not np.isnan(samples.values).any()
    assert samples.split is not None and samples.group is not None and samples.labels is not None
    assert {s: int((samples.split == s).sum()) for s in ("train", "test")} == {"train": 1578, "test": 735}
    assert not set(samples.group[samples.split == "train"]) & set(samples.group[samples.split == "test"])
    assert samples.labels.shape == (2313, 1) and 30 < np.median(samples.labels) < 200
    # The order of the optical bands, by what the sky and water vapour do to them.
    mean = {name: band(samples, name).mean() for name in samples.bands}
    assert mean["red"] < mean["rededge1"] < mean["rededge2"] < mean["rededge3"] < mean["nir08"]
    assert mean["watervapour"] < mean["blue"] and mean["swir22"] < mean["swir16"]


@geoclip
def test_the_gallery_is_on_the_globe_latitude_first() -> None:
    samples = load_samples("geoclip-gallery")
    assert samples.values.shape == (100_000, 2) and samples.bands == ("latitude", "longitude")
    assert samples.places is not None and samples.labels is None
    assert np.allclose(samples.values[:, ::-1], samples.places, atol=1e-4)
    assert np.abs(samples.values[:, 0]).max() <= 90 < np.abs(samples.values[:, 1]).max() <= 180


@real
def test_patches_are_cut_without_overlap() -> None:
    samples = load_samples("sentinel2-lcz-patches")
    assert samples.values.shape == (252, 10, 32, 32) and samples.bands == S2_TEN
    assert samples.group is not None
    assert {g: int((samples.group == g).sum()) for g in sorted(set(samples.group))} == {
        "s2-chip-33188": 64, "s2-chip-445": 60, "sen1floods11-spain": 128,
    }  # fmt: skip
    assert np.nanmin(samples.values) > -0.1 and np.nanmax(samples.values) < 1.5
    assert samples.block is not None
    blocks = np.char.add(samples.group, samples.block)
    assert {int((blocks == name).sum()) for name in set(blocks)} <= {1, 3, 4}, "blocks are two patches wide and high"


def test_unknown_names_and_absent_files_are_errors_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"'worldcereal' are unknown \(nearest: 'worldcereal-crop'\)"):
        load_samples("worldcereal")
    with pytest.raises(MissingCapability, match=r"labelled_series\.parquet does not exist; set RSEDGE_DATA"):
        load_samples("worldcereal-crop", root=tmp_path)
    with pytest.raises(RequestError, match="fill: 'none' or 'time', not 'space'"):
        load_samples("fuel-moisture", fill="space")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="take no options, found months"):
        load_samples("fuel-moisture", months=3)


def test_gaps_are_filled_between_times() -> None:
    values = np.array([[[np.nan, np.nan], [2, np.nan], [np.nan, np.nan], [4, np.nan]]], np.float32)
    samples = Samples("gaps", values, ("blue", "nir"), "TC", "0")
    filled = samples.filled()
    assert filled.values[0, :, 0].tolist() == [2, 2, 3, 4] and np.isnan(filled.values[0, :, 1]).all()
    assert np.isnan(samples.values[0, 0, 0])
    stacked = Samples("gaps", values[..., None, None].repeat(3, -1), ("blue", "nir"), "TCHW", "0")
    assert np.array_equal(stacked.filled().values[..., 0, 2], filled.values, equal_nan=True)
    with pytest.raises(RequestError, match="layout C has no times"):
        Samples("places", np.zeros((2, 1), np.float32), ("latitude",), "C", "0").filled()


@given(values=arrays(np.float32, (3, 5, 2), elements=st.floats(0, 1, width=32) | st.just(np.nan)))
def test_filling_keeps_what_was_measured(values: np.ndarray) -> None:
    filled = Samples("any", values, ("blue", "nir"), "TC", "0").filled().values
    known = ~np.isnan(values)
    assert np.array_equal(filled[known], values[known])
    assert np.array_equal(np.isnan(filled), np.broadcast_to(~known.any(1, keepdims=True), filled.shape))


ROWS = {"worldcereal-crop": ("presto", "presto-worldcereal-crop", "galileo-nano-series"),
        "geoclip-gallery": ("geoclip-location", "satclip-l40"), "sentinel2-lcz-patches": ("so2sat-resnet20",)}  # fmt: skip


@real
@geoclip
@pytest.mark.parametrize(("source", "name"), [(s, n) for s, names in ROWS.items() for n in names])
def test_sets_come_under_their_teachers_band_contracts(source: str, name: str) -> None:
    spec = teacher_row(name).input_spec
    samples = load_samples(source, fill="time" if name.startswith("galileo") else "none")
    dn = samples.dn(spec)
    assert dn.shape == (len(samples), *spec.shape) and dn.dtype == np.dtype(spec.dtype)
    axis = 1 + samples.layout.index("C")
    for i, one in enumerate(spec.bands):
        values = spec.to_physical(dn).take(i, axis)
        expected = band(samples, one.name)
        if spec.dtype == "uint16":
            expected = np.maximum(expected, one.offset)  # what its digital numbers can hold
        assert np.allclose(values[~np.isnan(expected)], expected[~np.isnan(expected)], atol=one.scale), one.name
        if one.valid_range is not None:
            known = values[~np.isnan(expected)]
            outside = (known < one.valid_range[0]) | (known > one.valid_range[1])
            assert outside.mean() < 0.01, one.name
