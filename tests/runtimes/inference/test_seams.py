"""Seams are found where there are some, and none where a network sees a pixel alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.runtimes import Session
from rsedge.runtimes.inference.seams import LEAST_SEEN, part_of_scene, seams
from rsedge.runtimes.inference.works.arrays import ArrayScene
from rsedge.runtimes.session import INPUT, LOGITS, VALID
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
EDGE = 5 * SPEC.tile


class PerPixel:
    """Classes by the first band's values; ``border`` pixels at a tile's edge are called another class instead."""

    device, input_spec = "CPU", SPEC

    def __init__(self, border: int = 0) -> None:
        self.border = border

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        dn = inputs[INPUT]
        classes = (dn[:, 0] > np.median(dn[:, 0])).astype(int)
        for edge in (slice(0, self.border), slice(SPEC.tile - self.border, SPEC.tile)) if self.border else ():
            classes[:, edge] = classes[:, :, edge] = 2
        logits = 20.0 * (np.arange(3)[None, :, None, None] == classes[:, None])
        return {LOGITS: logits.astype(np.float32), VALID: np.ones(classes.shape, np.uint8)}

    def stream(self, inputs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        return map(self, inputs)


def found(border: int, edge: int = EDGE) -> Any:
    # Half the pixels of every tile lie above its median, so that the classes do not depend on the tile.
    dn = np.where(np.indices((edge, edge)).sum(0) // 2 % 2, 4000, 1000).astype(SPEC.dtype)
    dn = np.broadcast_to(dn, (SPEC.channels, edge, edge))
    session: Session = PerPixel(border)  # type: ignore[assignment]
    part = part_of_scene(ArrayScene(dn, SPEC))
    return None if part is None else seams(session, part, tiny.CLASSES)


def test_a_network_that_sees_single_pixels_has_no_seams() -> None:
    one = found(0)
    assert one.extent == one.inside == 0 and one.pixels == EDGE**2
    assert one.over == pytest.approx(1, abs=0.05)


def test_a_network_that_errs_at_its_edges_shows_them() -> None:
    one = found(SPEC.tile // 8)
    assert one.extent > 0.02 and one.inside > 0.02
    assert abs(one.over - 1) > 0.1


def test_small_scenes_say_nothing() -> None:
    assert found(0, 2 * SPEC.tile) is None


def test_a_real_session_is_taken_as_it_is(bundle: Any) -> None:
    import rsedge

    dn = tiny.random_scene(SPEC, EDGE, EDGE)
    with rsedge.load(bundle()) as opened:
        part = part_of_scene(ArrayScene(dn, SPEC))
        assert part is not None
        one = seams(opened.session, part, opened.classes)
    assert one.extent == 0 and one.over == pytest.approx(1, abs=0.1)


def test_what_is_seen_is_looked_at_and_counted() -> None:
    """A turned scene has corners without data: the part with most pixels is taken, and shares are of its pixels alone."""
    dn = np.full((SPEC.channels, EDGE * 2, EDGE * 2), SPEC.missing_dn()[:, None, None], SPEC.dtype)
    edge = 3 * SPEC.tile
    dn[:, -edge:, -edge:] = tiny.random_scene(SPEC, edge, edge)
    part = part_of_scene(ArrayScene(dn, SPEC))
    assert part is not None and part.row + part.height == part.col + part.width == 2 * EDGE
    session: Session = PerPixel(SPEC.tile // 8)  # type: ignore[assignment]
    one = seams(session, part, tiny.CLASSES)
    assert 0.99 * edge**2 < one.pixels <= edge**2 and one.extent > 0.02


def test_scenes_of_which_hardly_anything_is_seen_say_nothing() -> None:
    dn = np.full((SPEC.channels, EDGE, EDGE), SPEC.missing_dn()[:, None, None], SPEC.dtype)
    assert part_of_scene(ArrayScene(dn, SPEC)) is None
    dn[:, : SPEC.tile, : 3 * SPEC.tile] = tiny.random_scene(SPEC, SPEC.tile, 3 * SPEC.tile)
    assert part_of_scene(ArrayScene(dn, SPEC)) is None


@settings(deadline=None, max_examples=25)
@given(st.integers(180, 330), st.integers(180, 330), st.integers(0, 9))
def test_the_part_is_the_one_with_most_seen_pixels(height: int, width: int, seed: int) -> None:
    """Of all that begin at a tile or end at the scene's edge, counted as they are read."""
    rng = np.random.default_rng(seed)
    dn = np.full((SPEC.channels, height, width), SPEC.missing_dn()[:, None, None], SPEC.dtype)
    rows, cols = rng.integers(0, height, 5), rng.integers(0, width, 5)
    for row, col in zip(rows, cols, strict=True):
        dn[:, row : row + int(rng.integers(1, height)), col : col + int(rng.integers(1, width))] = 1000
    scene = ArrayScene(dn, SPEC)
    seen = ~scene.read(0, 0, height, width)[1]
    edges = [min(n, 6 * SPEC.tile) for n in (height, width)]
    counts = [
        int(seen[row : row + edges[0], col : col + edges[1]].sum())
        for row in {*range(0, height - edges[0], SPEC.tile), height - edges[0]}
        for col in {*range(0, width - edges[1], SPEC.tile), width - edges[1]}
    ]
    part = part_of_scene(scene)
    assert (part is None) is (max(counts) < LEAST_SEEN * SPEC.tile**2)
    if part is not None:
        assert int((~part.read(0, 0, part.height, part.width)[1]).sum()) == max(counts)
