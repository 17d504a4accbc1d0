"""Bands of unlike range keep their resolution: each is scaled to the widest before the first layer, whose weights take it back.

A quantizer in front of a layer has one range for all its channels. A band with a hundredth of another's range would be left with
two or three of 256 levels, whatever the 12 or 16 bits of its digital numbers. Scaled up before the quantizer it has all of
them, and the network computes the same: the first layer's weights of that channel are divided by the scale. Nearly equal ranges
gain as well: bands of a cloud have nearly equal values, whose rounding errors on one grid are equal too and add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as opset

from rsedge.runtimes.openvino.core import settings, shared_core

UNLIKE = 1.05
"""Times that one band's range exceeds another's from which they are scaled."""
SAMPLES = 32
Floats = npt.NDArray[np.float32]


def scale_bands(model: ov.Model, layers: Sequence[str], samples: Sequence[Any]) -> ov.Model:
    """A copy in which inputs of first layers are scaled channel by channel; ``model`` itself where they are alike.

    Args:
        layers: names of the first layers.
        samples: inputs of the model, from which ranges are taken: of a channel the mean over samples of the largest size.
    """
    found = model.clone()
    changed = False
    for value, readers in _inputs(found, layers):
        axis = _axis(readers[0], len(value.get_partial_shape()))
        scale = scale_of(_ranges(found, value, axis, samples))
        if scale is not None:
            _apply(value, readers, axis, scale)
            changed = True
    return found if changed else model


def _inputs(model: ov.Model, layers: Sequence[str]) -> Iterator[tuple[Any, list[Any]]]:
    """Values that first layers read, with those of their readers that have constant weights; of one kind each."""
    readers: dict[tuple[str, int, str], tuple[Any, list[Any]]] = {}
    for op in model.get_ordered_ops():
        if op.get_friendly_name() in layers and _weights(op) is not None:
            value = op.input_value(0)
            key = value.get_node().get_friendly_name(), value.get_index(), op.get_type_name()
            readers.setdefault(key, (value, []))[1].append(op)
    yield from readers.values()


def _axis(op: Any, count: int) -> int:
    """The axis of an input's channels."""
    if op.get_type_name() != "MatMul":
        return 1
    return count - 2 if count > 1 and op.get_attributes()["transpose_a"] else count - 1


def _weights(op: Any) -> Floats | None:
    node = op.input_value(1).get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.asarray(node.get_data(), np.float32) if node.get_type_name() == "Constant" else None


def _ranges(model: ov.Model, value: Any, axis: int, samples: Sequence[Any]) -> npt.NDArray[np.float64]:
    part = ov.Model([value], model.get_parameters())
    compiled = shared_core().compile_model(part.clone(), "CPU", settings("CPU", "f32", None))
    step = max(1, len(samples) // SAMPLES)
    found = []
    for sample in samples[::step][:SAMPLES]:
        maps = np.abs(compiled(sample if isinstance(sample, dict) else {0: sample})[0])
        found.append(np.moveaxis(maps, axis, 0).reshape(maps.shape[axis], -1).max(1))
    return np.asarray(np.mean(found, 0), np.float64)


def scale_of(ranges: npt.NDArray[np.float64]) -> Floats | None:
    """What brings every channel to the widest; None where they are alike. Channels that hold nothing stay as they are.

    Args:
        ranges: of each channel (C,) the mean over samples of the largest size.
    """
    used = ranges > 0
    if not used.any() or ranges.max() < UNLIKE * ranges[used].min():
        return None
    return np.where(used, ranges.max() / np.where(used, ranges, 1.0), 1.0).astype(np.float32)


def _apply(value: Any, readers: Sequence[Any], axis: int, scale: Floats) -> None:
    shape = [1] * len(value.get_partial_shape())
    shape[axis] = len(scale)
    scaled = opset.multiply(value, scale.reshape(shape), name=f"{readers[0].get_friendly_name()}/bands")
    for op in readers:
        op.input(0).replace_source_output(scaled.output(0))
        op.input(1).replace_source_output(opset.constant(_divided(op, scale)).output(0))


def _divided(op: Any, scale: Floats) -> Floats:
    weights = _weights(op)
    assert weights is not None
    shape = [1] * weights.ndim
    if op.get_type_name() == "GroupConvolution":  # (groups, outputs, inputs of a group, ...)
        shape[0], shape[2] = weights.shape[0], weights.shape[2]
    elif op.get_type_name() == "ConvolutionBackpropData":
        shape[0] = len(scale)
    elif op.get_type_name() == "Convolution":
        shape[1] = len(scale)
    elif weights.ndim == 1:  # a product of vectors, which is never transposed
        shape[0] = len(scale)
    else:
        shape[-1 if op.get_attributes()["transpose_b"] else -2] = len(scale)
    return np.asarray(weights / scale.reshape(shape), np.float32)
