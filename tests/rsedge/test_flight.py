"""A bundle in Python: files and arrays, and what is refused."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

import rsedge
from rsedge import flight
from rsedge.devices.onboard.metering import metered
from tests.devices import fake_sysfs
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return tiny.write_scene(tmp_path / "scene.tif", tiny.random_scene(SPEC, 70, 80), tiny.NAMES)


def test_an_array_and_its_file_give_the_same(bundle: Callable[..., Path], scene: Path, tmp_path: Path) -> None:
    with rsedge.load(bundle()) as opened:
        assert opened.task == "segmentation" and opened.spec == SPEC and opened.target == "openvino-cpu-f32"
        record = opened.predict(scene, output=tmp_path / "mask.tif", overlap=8)
        mask = opened.predict(scene, overlap=8)
        found = opened.predict(tiny.random_scene(SPEC, 70, 80), overlap=8)
        assert mask.shape == (70, 80) and mask.dtype == np.uint8
        assert np.array_equal(mask, found) and int((mask == 255).sum()) == record["nodata_pixels"] == 6
        with rasterio.open(tmp_path / "mask.tif") as file:
            assert np.array_equal(file.read(1), mask)


def test_physical_values_are_what_their_digital_numbers_are(bundle: Callable[..., Path]) -> None:
    dn = tiny.random_scene(SPEC, 40, 40)
    physical = SPEC.to_physical(dn)
    physical[:, ~SPEC.valid(dn)] = np.nan
    with rsedge.load(bundle()) as opened:
        assert np.array_equal(opened.predict(physical), opened.predict(dn))
        both = opened.predict(np.stack([dn, dn[:, ::-1]]))
        assert both.shape == (2, 40, 40) and np.array_equal(both[0], opened.predict(dn))


def test_scenes_are_mapped_for_throughput_where_the_engine_knows_it(bundle: Callable[..., Path]) -> None:
    def hint(target: str, **given: str) -> str | None:
        with rsedge.load(bundle(target), **given) as opened:
            opened.tune_for_many(Path("scene.tif"))
            return opened._opening.hint

    assert hint("openvino-cpu-f32") == "throughput" and hint("openvino-cpu-f32", hint="latency") == "latency"
    assert hint("onnxruntime-cpu-f32") is None  # it has none, and would refuse it


@settings(max_examples=20, deadline=None)
@given(shape=st.lists(st.integers(0, 5), min_size=0, max_size=5), kind=st.sampled_from(["u2", "f4", "i8", "U3", "?"]))
def test_other_arrays_are_refused_in_words(_shared: rsedge.Bundle, shape: list[int], kind: str) -> None:
    values = np.zeros(shape, dtype=kind)
    fits = len(shape) in (3, 4) and shape[-3] == SPEC.channels and values.size and kind in ("u2", "f4", "i8")
    if not fits:
        with pytest.raises(rsedge.RequestError, match="needed is"):
            _shared.predict(values)


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> rsedge.Bundle:
    return rsedge.load(tiny.make_bundle(tmp_path_factory.mktemp("flight") / "b", SPEC, "openvino-cpu-f32"))


def test_what_would_be_ignored_or_overwritten_is_refused(bundle: Callable[..., Path], scene: Path) -> None:
    image = tiny.random_scene(SPEC, 40, 40)
    with rsedge.load(bundle()) as opened:
        for arguments, words in (
            ({"source": scene, "score": 0.5}, "score would be ignored, as this gives class maps of scenes"),
            ({"source": image, "scale": 1.0}, "scale would be ignored"),
            ({"source": image, "output": "x.tif"}, "an array lies nowhere on the earth"),
            ({"source": scene, "probabilities": "p.tif"}, "written beside output"),
            ({"source": scene, "output": scene}, "scene.tif"),
            ({"source": image.astype(np.int64) * -1 - 1}, "no uint16 digital numbers"),
            ({"source": "none.tif"}, "none.tif"),
        ):
            with pytest.raises(rsedge.RequestError, match=words):
                opened.predict(**arguments)


def test_odd_scenes_are_warned_of(bundle: Callable[..., Path], scene: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as file:
        profile, values, names = {**file.profile, "crs": None}, file.read(), file.descriptions
    with rasterio.open(tmp_path / "bare.tif", "w", **profile) as file:
        file.write(values)
        file.descriptions = names
    with rsedge.load(bundle()) as opened, pytest.warns(UserWarning, match="no place on a map"):
        opened.predict(tmp_path / "bare.tif")


PROBE = """
import sys
import rsedge
assert not {"numpy", "torch", "pydantic"} & set(sys.modules), "import rsedge is not cheap"
rsedge.load, rsedge.Bundle, rsedge.InputSpec
assert not {"torch", "torchvision", "timm", "onnx", "typer"} & set(sys.modules), "what flies loads what trains"
assert rsedge.export is sys.modules["rsedge.export"] and callable(rsedge.export)
import rsedge.export.signing
assert callable(rsedge.export) and rsedge.export.signing.sign
assert set(rsedge.__all__) == set(dir(rsedge)) and all(hasattr(rsedge, name) for name in rsedge.__all__)
try:
    rsedge.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""


def test_importing_is_cheap_and_all_that_is_promised_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_stage_depends_on_the_front_door() -> None:
    """Else every change of it would have all stages done again."""
    from rsedge.cache.code_closure import closure

    reached = closure(("rsedge.stages.distill", "rsedge.stages.bundle", "rsedge.stages.verify"))[0]
    assert "rsedge" in reached and not {"rsedge.api", "rsedge.api_data", "rsedge.flight"} & set(reached)


def test_options_written_out_as_they_are_do_not_make_a_scene_new(
    bundle: Callable[..., Path], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """The command line writes all options out, Python those that are given."""
    scene = tiny.write_scene(tmp_path / "scene.tif", tiny.random_scene(SPEC, 40, 40), tiny.NAMES)
    assert cli("infer", bundle(), scene, "--output-dir", tmp_path / "out")[0] == 0
    with rsedge.load(bundle()) as opened:
        for options, status in (({}, "skipped"), ({"overlap": 2}, "done"), ({"overlap": None}, "done")):
            found = opened.predict_all([scene], tmp_path / "out", **options)
            assert [record["status"] for record in found["scenes"]] == [status]


def test_what_a_filter_saved_is_worth_goes_by_one_stretch(
    bundle: Callable[..., Path], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joules and processor seconds are of the same block, which is longer than the run that the record tells of."""
    monkeypatch.setattr(flight, "metered", functools.partial(metered, fake_sysfs.jetson(tmp_path / "sensors")))
    with rsedge.load(bundle()) as opened, rsedge.load(bundle(tile=48)) as small:
        record = opened.predict(scene, tmp_path / "m.tif", filter=small, filter_drops=["cloud"])
    energy, run = record["run"]["energy"], record["run"]
    assert energy["watts"] == pytest.approx(5.04) and energy["processor_s"] >= run["processor_s"] > 0
    # Opening two models and their self-tests are part of the one, not of the other.
    assert energy["processor_s"] >= run["processor_s"] + record["filter"]["processor_s"] - 0.01
    worth = record["filter"]["saved_processor_s"] * energy["joules"] / energy["processor_s"]
    assert record["filter"]["predicted_saved_joules"] == pytest.approx(worth, abs=1e-3)
    assert run["throttled"] == [] and run["throttle_counts"] == {}
