"""Tiles on the map's grid: what a pixel is called does not depend on where the scene was cut, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

import rsedge
from rsedge.data.scenes.raster_file import Transform
from rsedge.runtimes.inference.scene import predict_rows
from rsedge.runtimes.inference.works.arrays import ArrayScene
from rsedge.runtimes.session import INPUT, LOGITS, VALID
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
TILE = SPEC.tile


class WholeTile:
    """Logits that depend on all pixels of a tile, as those of a deep network do."""

    device, input_spec = "CPU", SPEC

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        dn = inputs[INPUT].astype(np.float32) / 5000
        context = dn.mean((2, 3), keepdims=True) + dn.cumsum(2) / TILE - dn.cumsum(3) / TILE
        logits = (dn + context)[:, :3] * np.array([1.0, 1.1, 0.9], np.float32)[None, :, None, None]
        return {LOGITS: logits.astype(np.float32), VALID: np.ones(dn[:, 0].shape, np.uint8)}

    def stream(self, inputs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        return map(self, inputs)


def mapped(dn: np.ndarray, first: tuple[int, int] | None, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    scene: Any = ArrayScene(dn, SPEC)
    if first is not None:
        scene.first_pixel = first
    session: Any = WholeTile()
    rows = list(predict_rows(session, scene, overlap, classes=tiny.CLASSES, probabilities=True))
    only = np.concatenate([r.classes for r in predict_rows(session, scene, overlap)])
    assert np.array_equal(only, np.concatenate([r.classes for r in rows]))
    return only, np.concatenate([r.probabilities for r in rows], axis=1)


@settings(max_examples=40, deadline=None)
@given(
    origin=st.tuples(st.integers(-500, 500), st.integers(-500, 500)), cut=st.tuples(st.integers(0, 70), st.integers(0, 70)),
    size=st.tuples(st.integers(3 * TILE, 5 * TILE), st.integers(3 * TILE, 5 * TILE)), overlap=st.integers(0, TILE // 2),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_window_is_mapped_as_it_is_within_the_whole(
    origin: tuple[int, int], cut: tuple[int, int], size: tuple[int, int], overlap: int, seed: int
) -> None:
    (top, left), (height, width) = cut, size
    whole = np.random.default_rng(seed).integers(1, 9000, (SPEC.channels, top + height + 9, left + width + 40))
    whole = whole.astype(SPEC.dtype)
    classes, shares = mapped(whole, origin, overlap)
    first = (origin[0] + top, origin[1] + left)
    window = mapped(whole[:, top : top + height, left : left + width], first, overlap)
    inner = (slice(TILE, height - TILE), slice(TILE, width - TILE))
    there = (slice(top + TILE, top + height - TILE), slice(left + TILE, left + width - TILE))
    assert np.array_equal(window[0][inner], classes[there])
    assert np.array_equal(window[1][:, inner[0], inner[1]], shares[:, there[0], there[1]])


def test_without_it_the_extent_shows() -> None:
    """So the property above is one of the grid, not of this network."""
    whole = np.random.default_rng(0).integers(1, 9000, (SPEC.channels, 5 * TILE, 5 * TILE)).astype(SPEC.dtype)
    classes, window = mapped(whole, None, 4)[0], mapped(whole[:, 5:, 7:], None, 4)[0]
    inner = slice(TILE, -TILE)
    assert (classes[5:, 7:][inner, inner] != window[inner, inner]).any()


@pytest.mark.parametrize("step", [(10.0, -10.0), (0.00025, -0.00025), (30.0, -30.0)])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_all_windows_of_a_grid_count_pixels_alike(step: tuple[float, float], start: float) -> None:
    a, e = step
    grid = Transform(a, 0.0, (52_310 + start) * a, 0.0, e, (-480_120 + start) * -e)
    row, col = grid.first_pixel
    for down, across in ((0, 1), (17, 0), (1234, 987), (99_999, 88_888)):
        assert grid.shifted(across, down).first_pixel == (row + down, col + across)


def test_a_scene_and_a_part_of_it_from_files(bundle: Any, tmp_path: Path) -> None:
    scene = tiny.write_scene(tmp_path / "scene.tif", tiny.random_scene(SPEC, 4 * TILE, 4 * TILE), tiny.NAMES)
    with rasterio.open(scene) as file:
        part = Window(11, 6, 3 * TILE, 3 * TILE)
        profile = {**file.profile, "width": 3 * TILE, "height": 3 * TILE, "transform": file.window_transform(part)}
        with rasterio.open(tmp_path / "part.tif", "w", **profile) as cut:
            cut.write(file.read(window=part))
            cut.descriptions = file.descriptions
    with rsedge.load(bundle()) as opened:
        whole, alone = (opened.predict(p, align_tiles=True) for p in (scene, tmp_path / "part.tif"))
        assert np.array_equal(whole[6 : 6 + 3 * TILE, 11 : 11 + 3 * TILE], alone)
        with pytest.raises(rsedge.RequestError, match="align_tiles"):
            opened.predict(tiny.random_scene(SPEC, 40, 40), align_tiles=True)
