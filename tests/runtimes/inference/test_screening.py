"""A filter bundle before a larger one: what is hidden, what is spared, and that nothing else changes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

import rsedge
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference import screening
from rsedge.runtimes.inference.screening import Screen, filter_text
from tests.runtimes import tiny_models as tiny

DROPPED = "cloud"
NUMBER = tiny.CLASSES.index(DROPPED)


def a_scene(path: Path, height: int = 100, width: int = 150) -> Path:
    """Noise, with a quarter of one value that the tiny model calls a cloud."""
    image = tiny.random_scene(tiny.spec(), height, width)
    contract = tiny.spec()
    logits, _ = tiny.reference(contract, image)
    clouds = np.argwhere((logits.argmax(0) == NUMBER) & contract.valid(image))[0]
    image[:, : height // 2, : width // 2] = image[:, clouds[0], clouds[1]][:, None, None]
    return Path(tiny.write_scene(path, image, tiny.NAMES))


def test_the_map_is_the_one_without_a_filter_with_what_it_drops_hidden(
    bundle: Callable[..., Path], tmp_path: Path
) -> None:
    """The filter has another tile; the tiny models look at one pixel alone, so both name the same clouds."""
    scene = a_scene(tmp_path / "scene.tif")
    with rsedge.load(bundle()) as main, rsedge.load(bundle(tile=48)) as small:
        plain = main.predict(scene)
        asked = {"filter": small, "filter_drops": [DROPPED]}
        record = main.predict(scene, tmp_path / "map.tif", filter_least=0, **asked)
        spared = main.predict(scene, tmp_path / "few.tif", filter_least=0.9, **asked)
        assert np.array_equal(main.predict(scene, filter_least=0, **asked), read(tmp_path / "map.tif"))
    assert (plain == NUMBER).mean() > 0.25
    expected = np.where(plain == NUMBER, NODATA_CLASS, plain)
    assert np.array_equal(read(tmp_path / "map.tif"), expected)
    found = record["filter"]
    assert found["spared_tiles"] > 0 and found["hidden_pixels"] == (plain == NUMBER).sum()
    assert found["tiles"] - found["spared_tiles"] == record["run"]["tiles"] > 0
    assert "tiles spared" in filter_text(found) and found["saved_processor_s"] is not None
    few = read(tmp_path / "few.tif")
    assert spared["filter"]["spared_tiles"] > found["spared_tiles"]
    assert np.array_equal(few[few != NODATA_CLASS], expected[few != NODATA_CLASS]) and (few != expected).any()


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def test_a_scene_that_the_filter_drops_whole_is_nodata_and_no_error(
    bundle: Callable[..., Path], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    scene, output = a_scene(tmp_path / "scene.tif"), tmp_path / "map.tif"
    ask = ["--filter", bundle(tile=48), "--filter-drops", ",".join(tiny.CLASSES)]
    code, text, _ = cli("infer", bundle(), scene, "-o", output, *ask, "--json")
    record = json.loads(text)
    assert code == 0 and record["filter"]["spared_share"] == 1 and record["run"]["tiles"] == 0
    assert (read(output) == NODATA_CLASS).all() and record["filter"]["saved_processor_s"] is None
    code, text, _ = cli("infer", bundle(), scene, "-o", output, *ask)
    assert code == 0 and "spared (100%)" in text


@pytest.mark.parametrize(("height", "width"), [(100, 20), (20, 100)])
def test_tiles_that_reach_over_the_scene_are_spared_too(
    bundle: Callable[..., Path], tmp_path: Path, height: int, width: int
) -> None:
    scene = a_scene(tmp_path / "scene.tif", height, width)
    with rsedge.load(bundle()) as main, rsedge.load(bundle(tile=48)) as small:
        record = main.predict(scene, tmp_path / "map.tif", filter=small, filter_drops=tiny.CLASSES)
    assert record["filter"]["spared_share"] == 1 and (read(tmp_path / "map.tif") == NODATA_CLASS).all()


def test_tiles_on_which_the_filter_fails_are_counted(
    bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, rows = a_scene(tmp_path / "scene.tif", 40, 40), screening.predict_rows

    def one_lost(*given: Any, run: Any, **more: Any) -> Any:
        run.fail(0, 0, RequestError("the device lost this tile"))
        yield from rows(*given, run=run, **more)

    monkeypatch.setattr(screening, "predict_rows", one_lost)
    with rsedge.load(bundle()) as main:
        found = main.predict(scene, tmp_path / "map.tif", filter=main, filter_drops=[DROPPED])["filter"]
    assert found["failed_tiles_count"] == 1 and "1 tiles of the filter FAILED" in filter_text(found)


def test_many_scenes_are_done_anew_with_another_filter(bundle: Callable[..., Path], tmp_path: Path) -> None:
    scene = a_scene(tmp_path / "scene.tif")
    with rsedge.load(bundle()) as main, rsedge.load(bundle(tile=48)) as small:
        for asked, status in [
            ({}, "done"),
            ({"filter": small, "filter_drops": (DROPPED,)}, "done"),
            ({"filter": small, "filter_drops": (DROPPED,)}, "skipped"),
            ({"filter": small, "filter_drops": ("shadow",)}, "done"),
        ]:
            found = main.predict_all([scene], tmp_path / "out", **asked)
            assert [record["status"] for record in found["scenes"]] == [status]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter_drops": ["clouds"]}, "--filter-drops clouds: no class of the filter.*did you mean 'cloud'"),
        ({}, "--filter-drops names what need not be seen, of background, cloud, shadow"),
        ({"filter_drops": ["cloud"], "filter_least": 1}, "--filter-least 1: a share"),
    ],
)
def test_what_a_filter_cannot_be_asked(
    bundle: Callable[..., Path], tmp_path: Path, options: dict[str, object], message: str
) -> None:
    scene = a_scene(tmp_path / "scene.tif", 40, 40)
    with rsedge.load(bundle()) as main, pytest.raises(RequestError, match=message):
        main.predict(scene, filter=main, **options)  # type: ignore[arg-type]


def test_an_output_that_cannot_be_written_is_found_before_the_filter_runs(
    bundle: Callable[..., Path], tmp_path: Path
) -> None:
    scene, tiles = a_scene(tmp_path / "scene.tif", 40, 40), list[int]()
    with rsedge.load(bundle()) as main, pytest.raises(RequestError, match=r"map\.png: what is written is a GeoTIFF"):
        main.predict(
            scene,
            tmp_path / "map.png",
            filter=main,
            filter_drops=[DROPPED],
            progress=lambda done, _: tiles.append(done),
        )
    assert not tiles


def test_options_of_a_filter_need_one(
    bundle: Callable[..., Path], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    scene = a_scene(tmp_path / "scene.tif", 40, 40)
    code, _, text = cli("infer", bundle(), scene, "-o", tmp_path / "m.tif", "--filter-drops", "cloud")
    assert code == 2 and "without --filter" in text
    with rsedge.load(bundle()) as main, pytest.raises(RequestError, match="give filter as well"):
        main.predict(scene, filter_drops=["cloud"])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_window_of_the_bits_is_that_of_the_mask(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((height, width)) < 0.5
    screen = Screen(None, width, np.packbits(mask, axis=1))  # type: ignore[arg-type]
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    size = data.draw(st.integers(1, 48))
    wide = np.zeros((height + 48, width + 48), bool)
    wide[:height, :width] = mask
    assert np.array_equal(screen.hidden(row, col, size, size), wide[row : row + size, col : col + size])


def test_probabilities_beside_tiles_that_were_spared_are_those_of_the_others(
    bundle: Callable[..., Path], tmp_path: Path
) -> None:
    """The tiny model looks at one pixel alone, so that all tiles that cover it give the same."""
    scene = a_scene(tmp_path / "scene.tif")
    with rsedge.load(bundle()) as main, rsedge.load(bundle(tile=48)) as small:
        main.predict(scene, tmp_path / "a.tif", probabilities=tmp_path / "plain.tif")
        for least in (0, 0.9):
            asked = {"filter": small, "filter_drops": [DROPPED], "filter_least": least}
            record = main.predict(scene, tmp_path / "b.tif", probabilities=tmp_path / "few.tif", **asked)
            with rasterio.open(tmp_path / "plain.tif") as plain, rasterio.open(tmp_path / "few.tif") as few:
                every, found = plain.read(), few.read()
            seen = np.isfinite(found)
            assert record["filter"]["spared_tiles"] > 0 and seen.any()
            # Where every tile ran, not a bit is another.
            assert (
                np.array_equal(found[seen], every[seen])
                if least == 0
                else np.allclose(found[seen], every[seen], atol=1e-5)
            )


def test_no_room_for_the_map_of_the_filter_is_said_before_it_is_written(
    bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that a full disk stands behind ends the process where it is written (seen on a small tmpfs)."""

    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, f"no room for {size}")

    scene = a_scene(tmp_path / "scene.tif")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with rsedge.load(bundle()) as main, pytest.raises(MissingCapability, match="no space left"):
        main.predict(scene, filter=main, filter_drops=[DROPPED])
