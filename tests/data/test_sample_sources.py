"""The real sample sets, read in place, and what any set must satisfy."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.sample_sets import S2_TEN, SAMPLE_SETS
from rsedge.data.sample_sources import SAMPLE_SOURCES, load_samples
from rsedge.data.samples import Samples

DATA = Path(os.environ.get("RSEDGE_DATA", "absent"))
real = pytest.mark.skipif(not DATA.is_dir(), reason="RSEDGE_DATA is not set")
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
    assert samples.values.shape == (256, 10, 32, 32) and samples.bands == S2_TEN
    assert samples.group is not None
    assert {g: int((samples.group == g).sum()) for g in sorted(set(samples.group))} == {
        "s2-chip-33188": 64, "s2-chip-445": 64, "sen1floods11-spain": 128,
    }  # fmt: skip
    assert np.nanmin(samples.values) > -0.1 and np.nanmax(samples.values) < 1.5


def test_unknown_names_and_absent_files_are_errors_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"'worldcereal' are unknown \(nearest: 'worldcereal-crop'\)"):
        load_samples("worldcereal")
    with pytest.raises(MissingCapability, match=r"labelled_series\.parquet does not exist; set RSEDGE_DATA"):
        load_samples("worldcereal-crop", root=tmp_path)
    with pytest.raises(RequestError, match="take no options, found months"):
        load_samples("fuel-moisture", months=3)


def test_the_listing_needs_no_torch() -> None:
    assert set(SAMPLE_SETS) <= set(SAMPLE_SOURCES) and all(SAMPLE_SOURCES.values())
    import subprocess

    probe = "import sys, rsedge.data.sample_sources; print('torch' in sys.modules, 'torchgeo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False False", done.stderr
