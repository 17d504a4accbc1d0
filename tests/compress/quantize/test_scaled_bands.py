"""Bands of unlike range keep 8 bits each before the first layer, and the network computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsedge.compress.quantize.bands import scale_bands
from rsedge.compress.quantize.ptq import PtqSettings, first_layers, quantize
from tests.compress.real_tiles import compile_f32

ops: Any = ov.opset13
KINDS = ("convolution", "group", "product", "transposed product", "product of vectors", "deconvolution")


def network(kind: str, rng: np.random.Generator) -> tuple[ov.Model, int]:
    """A pre-processed input of four bands and one layer; and the axis of its bands."""
    weights = {"convolution": (5, 4, 3, 3), "group": (2, 3, 2, 3, 3), "product": (4, 6), "transposed product": (6, 4),
               "product of vectors": (4,), "deconvolution": (4, 5, 3, 3)}[kind]  # fmt: skip
    kernel = rng.normal(size=weights).astype(np.float32)
    dn = ops.parameter([1, 9, 4] if "product" in kind else [1, 4, 9, 9], np.float32, name="dn")
    x, ends = ops.multiply(dn, np.float32(2.0)), ([1, 1], [0, 0], [0, 0], [1, 1])
    if "product" in kind:
        layer = ops.matmul(x, kernel, False, kind != "product", name="layer")
    elif kind == "group":
        layer = ops.group_convolution(x, kernel, *ends, name="layer")
    elif kind == "deconvolution":
        layer = ops.convolution_backprop_data(x, kernel, [1, 1], name="layer")
    else:
        layer = ops.convolution(x, kernel, *ends, name="layer")
    return ov.Model([ops.relu(layer)], [dn]), 2 if "product" in kind else 1


def tiles(shape: tuple[int, ...], axis: int, ranges: list[float], rng: np.random.Generator) -> list[Any]:
    """Three inputs in which every band reaches both ends of its range."""
    found = rng.uniform(-1, 1, (3, *shape)).astype(np.float32)
    bands = np.moveaxis(found, axis, 1).reshape(3, 4, -1)
    bands[..., 0], bands[..., 1] = -1, 1
    bands *= np.reshape(ranges, (4, 1)).astype(np.float32)
    rest = [n for i, n in enumerate(shape, 1) if i != axis]
    return list(np.moveaxis(bands.reshape(3, 4, *rest), 1, axis))


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS), st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4), st.integers(0, 9))
def test_the_network_computes_the_same(kind: str, ranges: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, axis = network(kind, rng)
    samples = tiles(tuple(model.input(0).shape)[1:], axis, ranges, rng)
    scaled = scale_bands(model, first_layers(model), [one[None] for one in samples])
    assert scaled is not model or max(ranges) < 1.5 * min(ranges)
    before, after = (compile_f32(one)(samples[0][None])[0] for one in (model, scaled))
    assert np.abs(before - after).max() <= 1e-5 * max(1.0, np.abs(before).max())


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["convolution", "product"]), st.lists(st.floats(0.01, 1.0), min_size=2, max_size=2))
def test_a_band_with_a_hundredth_of_the_range_keeps_eight_bits_of_its_own(kind: str, more: list[float]) -> None:
    """Of the INT8 graph: the step of the quantizer, taken back through the scale, is at most 1/255 of the band's own range."""
    rng = np.random.default_rng(0)
    model, axis = network(kind, rng)
    ranges = [1.0, 0.01, *more]
    samples = tiles(tuple(model.input(0).shape)[1:], axis, ranges, rng) * 3
    int8 = quantize(model, samples, PtqSettings(preset="mixed"))
    rounder = next(op for op in int8.get_ops() if op.get_friendly_name() == "layer").input_value(0).get_node()
    assert rounder.get_type_name() == "FakeQuantize"
    low, high = (float(rounder.input_value(i).get_node().get_data()) for i in (1, 2))
    seen = [compile_f32(ov.Model([rounder.input_value(0)], int8.get_parameters()))(one[None])[0] for one in samples]
    seen = np.moveaxis(np.stack(seen), axis + 1, 0).reshape(4, -1)
    assert np.all((high - low) / 255 <= 1.02 * (seen.max(1) - seen.min(1)) / 255)
    rounded = compile_f32(ov.Model([rounder], int8.get_parameters()))(samples[0][None])[0]
    levels = [len(np.unique(band)) for band in np.moveaxis(rounded, axis, 0)]
    most = rounded.size // 4
    assert min(levels) > 0.7 * 255 * (1 - np.exp(-most / 255)), "as many of the 256 levels as so many pixels can show"


def test_bands_that_hold_nothing_and_inputs_that_are_alike_stay() -> None:
    rng = np.random.default_rng(0)
    model, axis = network("convolution", rng)
    alike = [np.broadcast_to(np.reshape([1.0, 0.98, 1.02, 0.0], (4, 1, 1)), (4, 9, 9)).astype(np.float32)]
    assert scale_bands(model, ["layer"], [one[None] for one in alike]) is model
    empty = tiles((4, 9, 9), axis, [1.0, 0.1, 0.9, 0.0], rng)
    scaled = scale_bands(model, ["layer"], [one[None] for one in empty])
    scale = next(op for op in scaled.get_ops() if op.get_friendly_name() == "layer/bands").input_value(1).get_node()
    assert scale.get_data().ravel()[[0, 3]].tolist() == [1.0, 1.0] and 9 < scale.get_data().ravel()[1] < 11
