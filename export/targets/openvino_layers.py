"""One layer as an OpenVINO model of its own, to be timed alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsedge.models.layer_shape import LayerShape

COPIES = 4
"""Of the layer, side by side with weights of their own: the call and the copies at the model's ends then weigh a quarter, and
weights come from memory, as they do in a network. Attention stands alone."""


def layer_model(shape: LayerShape, seed: int = 0) -> tuple[Any, int]:
    """A model with one layer's work, random weights, and how many times it holds the layer.

    Convolutions are added up, as residual sums that the runtime takes into them; linear layers have an output each.
    """
    import openvino as ov
    from openvino import opset13 as op

    x = op.parameter(list(shape.input), np.float32)
    if shape.kind == "attention":
        others = [op.parameter(list(shape.input), np.float32) for _ in range(2)]
        made = op.scaled_dot_product_attention(x, *others, causal=False)
        return ov.Model([made], [x, *others], "attention"), 1
    rng = np.random.default_rng(seed)
    layers = [_layer(op, x, shape, rng) for _ in range(COPIES)]
    if shape.kind == "linear":
        return ov.Model(layers, [x], "linear"), COPIES
    total = layers[0]
    for other in layers[1:]:
        total = op.add(total, other)
    return ov.Model([total], [x], shape.kind), COPIES


def _layer(op: Any, x: Any, shape: LayerShape, rng: np.random.Generator) -> Any:
    def weights(*sizes: int) -> Any:
        return op.constant(rng.standard_normal(sizes, dtype=np.float32))

    if shape.kind == "linear":
        return op.matmul(x, weights(shape.out, shape.cin), False, True)
    strides, pads, dilations = list(shape.stride), list(shape.padding), list(shape.dilation)
    inner, outer = shape.cin // shape.groups, shape.out // shape.groups
    if shape.kind == "transposed":
        grouped = (shape.groups,) if shape.groups > 1 else ()
        build = op.group_convolution_backprop_data if grouped else op.convolution_backprop_data
        kernel = weights(*grouped, inner, outer, *shape.kernel)
        return build(x, kernel, strides=strides, pads_begin=pads, pads_end=pads, dilations=dilations)
    if shape.groups > 1:
        kernel = weights(shape.groups, outer, inner, *shape.kernel)
        return op.group_convolution(x, kernel, strides, pads, pads, dilations)
    return op.convolution(x, weights(shape.out, inner, *shape.kernel), strides, pads, pads, dilations)
