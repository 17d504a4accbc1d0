"""Layers alone on a target: timed where it is this machine's CPU, else predicted; in one order either way."""

from __future__ import annotations

import pytest

from rsedge.models.layer_shape import LayerShape
from rsedge.recipe.schema import parse_target
from rsedge.stages.layer_latency import layers_here, layers_predicted

SHAPES = (
    LayerShape("conv", (1, 64, 32, 32), 64, (3, 3), (1, 1), (1, 1), (1, 1)),
    LayerShape("conv", (1, 64, 32, 32), 64, (3, 3), (1, 1), (1, 1), (1, 1), groups=64),
    LayerShape("conv", (1, 64, 32, 32), 64, (3, 3), (2, 2), (1, 1), (1, 1), groups=2),
    LayerShape("transposed", (1, 64, 16, 16), 32, (2, 2), (2, 2), (0, 0), (1, 1)),
    LayerShape("linear", (1, 196, 192), 768),
    LayerShape("attention", (1, 3, 196, 64), 3),
)


@pytest.mark.parametrize("measured", [True, False])
def test_layers_take_time(measured: bool) -> None:
    ms = layers_here(SHAPES, "f32", 1) if measured else layers_predicted(SHAPES, parse_target("openvino-cpu-f32"))
    assert all(0 < each < 100 for each in ms)
    assert ms[0] > 1.5 * ms[1]  # a full convolution over a depthwise one
