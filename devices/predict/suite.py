"""The calibration suite: small ONNX networks, each made of one kind of kernel or block at one size.

Weights are random, because a latency does not depend on their values. With ``int8`` every convolution and constant
matrix product stands between quantize/dequantize pairs: activations uint8 per tensor, weights int8 per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import missing_extra
from rsedge.runtimes.backend import GraphStyle

PLAIN = GraphStyle()


class Builder:
    """Grows one ONNX graph; every method takes tensor names and gives the name of its result."""

    def __init__(self, style: GraphStyle = PLAIN) -> None:
        try:
            import onnx
        except ModuleNotFoundError as error:
            raise missing_extra("onnx", "compress", "making the calibration suite") from error
        self.onnx: Any = onnx
        self.style = style
        self.float: Any = np.float16 if style.half else np.float32
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []

    def input(self, *shape: int) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape))
        return self.half(name)

    def half(self, x: str) -> str:
        return self.node("Cast", x, to=self.onnx.TensorProto.FLOAT16) if self.style.half else x

    def single(self, x: str) -> str:
        return self.node("Cast", x, to=self.onnx.TensorProto.FLOAT) if self.style.half else x

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: npt.NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(values, name))
        return name

    def weight(self, *shape: int, axis: int = 0) -> str:
        """A weight; quantized per channel along ``axis`` in int8."""
        if not self.style.int8:
            return self.constant(self.random.normal(0, 0.05, shape).astype(self.float))
        codes = self.constant(self.random.integers(-127, 128, shape, dtype=np.int8))
        scale = self.constant(np.full(shape[axis], 4e-4, self.float))
        zero = self.constant(np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", codes, scale, zero, axis=axis)

    def rounded(self, x: str) -> str:
        """An activation as the quantized product reads it."""
        if not self.style.int8:
            return x
        middle = np.array(0, np.int8) if self.style.signed else np.array(128, np.uint8)
        scale, zero = self.constant(np.array(0.04, self.float)), self.constant(middle)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, scale, zero), scale, zero)

    def conv(
        self, x: str, cin: int, cout: int, k: int = 3, stride: int = 1, groups: int = 1, act: str | None = "Relu"
    ) -> str:
        weight = self.weight(cout, cin // groups, k, k)
        bias = self.constant(np.zeros(cout, self.float))
        pads, sizes = [k // 2] * 4, {"kernel_shape": [k, k], "strides": [stride] * 2, "group": groups}
        made = self.node("Conv", self.rounded(x), weight, bias, pads=pads, **sizes)
        return self.node(act, made) if act else made

    def linear(self, x: str, cin: int, cout: int) -> str:
        product = self.node("MatMul", self.rounded(x), self.weight(cin, cout, axis=1))
        return self.node("Add", product, self.constant(np.zeros(cout, self.float)))

    def norm(self, x: str, width: int) -> str:
        one, zero = (self.constant(np.full(width, v, np.float32)) for v in (1.0, 0.0))
        return self.half(self.node("LayerNormalization", self.single(x), one, zero, axis=-1))

    def softmax(self, x: str, axis: int) -> str:
        return self.half(self.node("Softmax", self.single(x), axis=axis))

    def gelu(self, x: str) -> str:
        half, one, root = (self.constant(np.array(v, self.float)) for v in (0.5, 1.0, 2.0**0.5))
        erf = self.node("Add", self.node("Erf", self.node("Div", x, root)), one)
        return self.node("Mul", self.node("Mul", x, erf), half)

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))

    def resize(self, x: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        return self.node("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric")

    def attention(self, x: str, tokens: int, width: int, heads: int) -> str:
        """Self-attention with its projections, ``(1, tokens, width)`` to the same."""
        dim, parts = width // heads, []
        for order in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
            split = self.reshape(self.linear(x, width, width), 1, tokens, heads, dim)
            parts.append(self.node("Transpose", split, perm=order))
        scale = self.constant(np.array(dim**-0.5, self.float))
        scores = self.node("Mul", self.node("MatMul", parts[0], parts[1]), scale)
        mixed = self.node("MatMul", self.softmax(scores, -1), parts[2])
        joined = self.reshape(self.node("Transpose", mixed, perm=(0, 2, 1, 3)), 1, tokens, width)
        return self.linear(joined, width, width)

    def save(self, output: str, path: Path) -> None:
        make = self.onnx.helper
        made = make.make_tensor_value_info(self.single(output), self.onnx.TensorProto.FLOAT, None)
        graph = make.make_graph(self.nodes, "suite", self.inputs, [made], self.constants)
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", self.style.opset)], ir_version=9)
        self.onnx.save_model(self.onnx.shape_inference.infer_shapes(model), str(path))


Net = Callable[[Builder], str]


def _convs(cin: int, cout: int, size: int, k: int, groups: int = 1, n: int = 3) -> Net:
    def build(b: Builder) -> str:
        x = b.conv(b.input(1, cin, size, size), cin, cout, k, groups=groups)
        for _ in range(n - 1):
            x = b.conv(x, cout, cout, k, groups=groups)
        return x

    return build


def _stem(size: int, cout: int, k: int, stride: int) -> Net:
    return lambda b: b.conv(b.input(1, 3, size, size), 3, cout, k, stride)


def _linears(tokens: int, width: int, hidden: int) -> Net:
    def build(b: Builder) -> str:
        x = b.input(1, tokens, width)
        for _ in range(2):
            x = b.linear(b.gelu(b.linear(x, width, hidden)), hidden, width)
        return x

    return build


def _attentions(tokens: int, width: int, heads: int) -> Net:
    return lambda b: b.attention(b.input(1, tokens, width), tokens, width, heads)


def _residual(width: int, size: int, n: int) -> Net:
    def build(b: Builder) -> str:
        x = b.conv(b.input(1, width, size, size), width, width)
        for _ in range(n):
            y = b.conv(b.conv(x, width, width), width, width, act=None)
            x = b.node("Relu", b.node("Add", y, x))
        return x

    return build


def _bottleneck(width: int, size: int, n: int) -> Net:
    def build(b: Builder) -> str:
        x, inner = b.input(1, width, size, size), width // 4
        for _ in range(n):
            y = b.conv(b.conv(b.conv(x, width, inner, 1), inner, inner), inner, width, 1, act=None)
            x = b.node("Relu", b.node("Add", y, x))
        return x

    return build


def _inverted(width: int, size: int, k: int, gate: bool, n: int = 3) -> Net:
    """MobileNet's inverted bottleneck; with ``gate`` squeeze-and-excite and a hard swish."""

    def build(b: Builder) -> str:
        x, wide, act = b.input(1, width, size, size), 4 * width, "HardSwish" if gate else "Relu"
        for _ in range(n):
            y = b.conv(b.conv(x, width, wide, 1, act=act), wide, wide, k, groups=wide, act=act)
            if gate:
                g = b.conv(b.node("GlobalAveragePool", y), wide, width, 1)
                y = b.node("Mul", y, b.conv(g, width, wide, 1, act="Sigmoid"))
            x = b.node("Add", b.conv(y, wide, width, 1, act=None), x)
        return x

    return build


def _transformer(tokens: int, width: int, heads: int, n: int = 2) -> Net:
    def build(b: Builder) -> str:
        x = b.input(1, tokens, width)
        for _ in range(n):
            x = b.node("Add", x, b.attention(b.norm(x, width), tokens, width, heads))
            hidden = b.gelu(b.linear(b.norm(x, width), width, 4 * width))
            x = b.node("Add", x, b.linear(hidden, 4 * width, width))
        return x

    return build


def _convnext(width: int, size: int, n: int = 2) -> Net:
    def build(b: Builder) -> str:
        x = b.input(1, width, size, size)
        for _ in range(n):
            y = b.node("Transpose", b.conv(x, width, width, 7, groups=width, act=None), perm=(0, 2, 3, 1))
            y = b.linear(b.gelu(b.linear(b.norm(y, width), width, 4 * width)), 4 * width, width)
            x = b.node("Add", x, b.node("Transpose", y, perm=(0, 3, 1, 2)))
        return x

    return build


def _unet(width: int, size: int) -> Net:
    def build(b: Builder) -> str:
        top = b.conv(b.conv(b.input(1, 8, size, size), 8, width), width, width)
        low = b.conv(b.node("MaxPool", top, kernel_shape=[2, 2], strides=[2, 2]), width, 2 * width)
        joined = b.node("Concat", b.resize(b.conv(low, 2 * width, 2 * width)), top, axis=1)
        return b.conv(b.conv(joined, 3 * width, width), width, 2, 1, act=None)

    return build


def _pointwise(width: int, size: int) -> Net:
    """Pooling, resizing and a sum that nothing can take in."""

    def build(b: Builder) -> str:
        x = b.input(1, width, size, size)
        small = b.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        return b.softmax(b.node("Mul", b.resize(small), x), 1)

    return build


NETS: dict[str, Net] = {
    **{
        f"conv3-{c}-{s}": _convs(c, c, s, 3) for c, s in ((16, 128), (32, 64), (64, 56), (128, 28), (256, 14), (512, 7))
    },
    **{f"conv1-{c}-{s}": _convs(c, c, s, 1) for c, s in ((24, 112), (64, 56), (192, 28), (384, 14), (1024, 7))},
    **{f"expand-{c}-{d}": _convs(c, d, s, 1, n=1) for c, d, s in ((16, 96, 112), (40, 240, 28), (320, 1280, 7))},
    **{f"grouped-{c}": _convs(c, c, s, 3, groups=32) for c, s in ((128, 56), (512, 14))},
    **{
        f"depthwise-{c}-{k}": _convs(c, c, s, k, groups=c)
        for c, s, k in ((32, 112, 3), (96, 56, 3), (240, 28, 5), (384, 14, 3), (96, 56, 7), (768, 7, 7))
    },
    "stem-224": _stem(224, 32, 3, 2),
    "stem-7x7": _stem(224, 64, 7, 2),
    "patches": _stem(224, 384, 16, 16),
    **{f"linear-{t}-{w}": _linears(t, w, 4 * w) for t, w in ((197, 192), (197, 384), (64, 512), (1, 1024), (784, 96))},
    **{
        f"attention-{t}-{w}": _attentions(t, w, h)
        for t, w, h in ((197, 192, 3), (197, 384, 6), (400, 128, 2), (49, 384, 12))
    },
    **{f"residual-{c}-{s}": _residual(c, s, 2) for c, s in ((32, 64), (64, 56), (128, 28), (256, 14))},
    **{f"bottleneck-{c}-{s}": _bottleneck(c, s, 2) for c, s in ((256, 56), (512, 28), (1024, 14), (2048, 7))},
    **{f"inverted-{c}-{s}": _inverted(c, s, 3, False) for c, s in ((24, 56), (32, 28), (96, 14), (160, 7))},
    **{f"gated-{c}-{s}": _inverted(c, s, 5, True) for c, s in ((24, 56), (40, 28), (112, 14))},
    **{f"transformer-{t}-{w}": _transformer(t, w, h) for t, w, h in ((197, 192, 3), (197, 384, 6), (577, 192, 3))},
    **{f"convnext-{c}-{s}": _convnext(c, s) for c, s in ((96, 56), (192, 28), (384, 14))},
    **{f"unet-{c}-{s}": _unet(c, s) for c, s in ((16, 128), (32, 64))},
    **{f"pointwise-{c}-{s}": _pointwise(c, s) for c, s in ((32, 64), (128, 28))},
}
"""Name -> network. The part before the first dash is its group."""
BLOCKS = frozenset({"residual", "bottleneck", "inverted", "gated", "transformer", "convnext", "unet"})
"""Groups that mix kernels as whole networks do."""


def write_suite(
    folder: Path,
    style: GraphStyle = PLAIN,
    names: tuple[str, ...] | None = None,
) -> dict[str, Path]:
    """Writes the suite's networks (all, or ``names``) as ONNX files; returns name -> file.

    Raises:
        MissingCapability: the Python module onnx is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in names or tuple(NETS):
        builder = Builder(style)
        written[name] = folder / f"{name}.onnx"
        builder.save(NETS[name](builder), written[name])
    return written
