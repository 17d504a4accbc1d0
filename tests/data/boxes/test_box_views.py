"""What is done to a view is done to its boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.boxes.geometry import centred, places
from rsedge.data.boxes.views import BoxViews
from rsedge.data.samples.views import SampleViewSettings
from tests.data.boxes.test_oriented_boxes import inside

SIZE = 32
SPEC = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), tile=SIZE, dtype="uint8")


def views(seed: int, **options: float) -> BoxViews:
    """Tiles of dark ground with bright boxes that stay clear of each other."""
    rng = np.random.default_rng(seed)
    dn, truth = np.full((3, 2, SIZE, SIZE), 10, np.uint8), []
    for tile in dn:
        boxes = []
        for y, x in ((0, 0), (0, 16), (16, 0), (16, 16)):
            w, h = rng.integers(4, 12, 2)
            a, b = x + rng.integers(2, 15 - w), y + rng.integers(2, 15 - h)
            tile[:, b : b + h, a : a + w] = 200
            boxes.append([a, b, a + w, b + h, rng.integers(2)])
        truth.append(np.array(boxes, np.float32))
    return BoxViews(dn, SPEC, SampleViewSettings(gain=0.0, noise=0.0, plain=0.0, **options), seed, tuple(truth))


@given(st.integers(0, 10_000), st.sampled_from([{"mix": 0.0}, {"mix": 1.0}, {"mix": 0.0, "zoom": 1.0}]))
@settings(max_examples=60, deadline=None)
def test_boxes_lie_around_what_they_show(seed: int, options: dict[str, float]) -> None:
    drawn, boxes = views(seed, **options).drawn(seed)
    assert drawn.shape == SPEC.shape and drawn.dtype == np.uint8
    bright = (drawn[0] > 100).astype(int)
    for x0, y0, x1, y1, _ in boxes:
        inner = bright[int(np.ceil(y0)) + 1 : max(0, int(y1) - 1), int(np.ceil(x0)) + 1 : max(0, int(x1) - 1)]
        assert inner.size == 0 or inner.mean() == 1
    covered = np.zeros_like(bright)
    for x0, y0, x1, y1, _ in boxes:
        covered[int(max(y0 - 1, 0)) : int(np.ceil(y1)) + 1, int(max(x0 - 1, 0)) : int(np.ceil(x1)) + 1] = 1
    if options == {"mix": 0.0}:
        # Nothing was cut: every bright pixel belongs to a box.
        assert (bright <= covered).all() and len(boxes) == 4


def test_the_same_number_is_the_same_view_and_settings_matter() -> None:
    some = views(1, mix=0.5, zoom=0.5)
    assert all((some(i) == some.drawn(i)[0]).all() and (some.boxes(i) == some.drawn(i)[1]).all() for i in range(5))
    assert len({some(i).tobytes() for i in range(10)}) > 5
    bare = BoxViews(some.dn, SPEC, some.settings, 1)
    assert bare.boxes(0).shape == (0, 5)


def test_plain_views_are_the_samples() -> None:
    some = views(2)
    plain = BoxViews(some.dn, SPEC, SampleViewSettings(plain=1.0), 0, some.truth)
    assert any((plain(0) == tile).all() for tile in some.dn) and len(plain.boxes(0)) == 4


@pytest.mark.parametrize("seed", range(3))
def test_little_of_a_box_is_no_object(seed: int) -> None:
    joined = views(seed, mix=1.0)
    for i in range(20):
        boxes = joined.boxes(i)
        assert ((boxes[:, 2:4] - boxes[:, :2]) > 0).all()


@given(st.integers(0, 10_000), st.sampled_from([{"mix": 0.0}, {"mix": 1.0}, {"mix": 0.0, "zoom": 1.0}]))
@settings(max_examples=40, deadline=None)
def test_turned_boxes_lie_around_what_they_show(seed: int, options: dict[str, float]) -> None:
    rng = np.random.default_rng(seed)
    dn, truth = np.full((2, 2, SIZE, SIZE), 10, np.uint8), []
    pixels = np.stack(np.meshgrid(*[np.arange(SIZE) + 0.5] * 2), -1).reshape(-1, 2)
    for tile in dn:
        box = np.array([*rng.uniform(12, 20, 2), rng.uniform(12, 18), rng.uniform(4, 7), rng.uniform(-1.5, 1.5)])
        tile[:, inside(box, pixels).reshape(SIZE, SIZE)] = 200
        half = box[2:4] / 2
        truth.append(np.array([[*box[:2] - half, *box[:2] + half, 1, box[4]]], np.float32))
    some = BoxViews(dn, SPEC, SampleViewSettings(gain=0.0, noise=0.0, plain=0.0, **options), seed, tuple(truth))
    drawn, boxes = some.drawn(seed)
    assert boxes.shape[1] == 6
    shown = drawn[0].ravel() > 100
    wide = centred(places(boxes, 5)) + np.array([0, 0, 2, 2, 0])
    narrow = wide - np.array([0, 0, 5, 5, 0])
    if options == {"mix": 0.0}:
        assert len(boxes) == 1 and not (shown & ~inside(wide[0], pixels)).any()
    if "zoom" not in options and options["mix"] == 0:
        assert shown[inside(narrow[0], pixels)].all()
    for box in narrow if options["mix"] == 0 else []:
        seen = inside(box, pixels)
        assert (
            not seen.any() or shown[seen].mean() > 0.4
        )  # The box of what an edge cut off slantwise is wider than that.
