"""Time of fused kernels: the larger of compute and memory traffic, plus the cost of starting each.

Compute is the multiply-accumulates over the share of the dense peak that the kernel reaches: the share of its class,
times how far its output channels, its reduction and its outputs per core fill the machine. Each of those three is
``x / (x + half)``, so ``half`` is the size at which half the share is reached. A roofline (Williams et al., CACM 2009)
whose roof depends on the kernel's shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.devices.predict.onnx_graph import GraphCost, Kernel
from rsedge.devices.profiles.profile import DeviceProfile
from rsedge.runtimes.precision import PrecisionName

BYTES: dict[str, int] = {"f32": 4, "bf16": 2, "fp16": 2, "int8": 1}
COMPUTE = ("conv", "depthwise", "matmul", "attention")
INT8_COPIES = frozenset(["MaxPool", "AveragePool", "Resize", "Upsample", "Concat", "Slice", "Split", "Pad"])
"""Operations that a runtime leaves in int8 between two int8 products."""

# fmt: off
SPECIAL: dict[str, float] = {
    "Sigmoid": 20, "Tanh": 24, "Erf": 24, "Gelu": 30, "Exp": 14, "Softmax": 20, "Softplus": 30, "Mish": 50, "Pow": 20,
    "HardSigmoid": 3, "HardSwish": 4, "Elu": 18, "Selu": 18, "Log": 14, "Sqrt": 8, "LayerNormalization": 10,
}
# fmt: on
"""Floating-point operations per element of what a CPU computes by polynomials (judged by their usual vector code)."""
SEPARATE = frozenset([*SPECIAL, "Add", "Mul", "Sub", "Div"])
"""Operations that OpenVINO does in f32 in a pass of its own after an int8 product (seen in its profiler: the product alone takes
in Relu and Clip)."""

Figures = Mapping[str, float]
"""``<class>.<precision>`` share of the dense peak (``pointwise``: convolutions without overlap, on CPUs); ``bandwidth`` and
``move`` share of the bandwidth for kernels and for copies; ``special`` share of the f32 peak for operations of
:data:`SPECIAL`; ``kernel_us.<precision>`` start of a kernel; ``half_*`` see above; ``call_ms`` and ``io_gb_s`` cost of a call."""
Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Work:
    """Graphs on devices as arrays: one entry per kernel of every graph, and one per graph.

    Per kernel: ``graph`` it belongs to, ``figure`` (index into ``names``) of its share, ``peak_s`` compute time at the
    dense peak, ``bytes_s`` time of its traffic at the full bandwidth (both seconds), shape of its product. Per graph:
    ``start`` (index into ``names``) of its start cost, ``io_bytes``.
    """

    names: tuple[str, ...]
    graph: Index
    kinds: npt.NDArray[np.str_]
    figure: Index
    peak_s: Array
    bytes_s: Array
    columns: Array
    depth: Array
    outputs: Array
    start: Index
    io_bytes: Array


def work_of(graph: GraphCost, profile: DeviceProfile, precision: PrecisionName) -> Work:
    """What ``graph`` asks of a device when its products run in ``precision`` (as far as they can).

    Raises:
        RequestError: the profile has no peak for a precision that a kernel needs.
    """
    kernels: Sequence[Kernel] = graph.kernels
    own = [_kernel_precision(k, graph, precision, profile) for k in kernels]
    needed = {p for p, k in zip(own, kernels, strict=True) if k.macs}
    peaks = {p: profile.peak_tops(p) * 1e12 for p in needed}
    keys = [f"{_product(k, profile)}.{p}" if k.macs else k.kind for k, p in zip(kernels, own, strict=True)]
    bandwidth = profile.bandwidth_gb_s.value * 1e9
    per_kernel: list[Row] = [
        (
            2 * k.macs / peaks[p] if k.macs else 0.0,
            (k.read + k.weights + k.written) * BYTES[p] / bandwidth,
            k.columns,
            k.depth,
            k.outputs / (profile.sm_count or 1),
        )
        for k, p in zip(kernels, own, strict=True)
    ]
    kinds = [str(k.kind) for k in kernels]
    if profile.kind == "cpu":
        for kind, key, row in _pointwise(kernels, own, profile, bandwidth):
            kinds.append(kind)
            keys.append(key)
            per_kernel.append(row)
    names = (*sorted(set(keys)), f"kernel_us.{precision}")
    peak_s, bytes_s, columns, depth, outputs = np.array(per_kernel, dtype=np.float64).reshape(-1, 5).T
    return Work(
        names=names,
        graph=np.zeros(len(kinds), dtype=np.int64),
        kinds=np.array(kinds, dtype="<U9"),
        figure=np.array([names.index(key) for key in keys], dtype=np.int64),
        peak_s=peak_s,
        bytes_s=bytes_s,
        columns=columns,
        depth=depth,
        outputs=outputs,
        start=np.array([len(names) - 1]),
        io_bytes=np.array([4.0 * graph.io]),
    )


def _product(kernel: Kernel, profile: DeviceProfile) -> str:
    """The class whose share a product reaches. CPUs have other code for convolutions that use each input once per channel
    (1 x 1, patches) than for those whose windows overlap."""
    once = kernel.kind == "conv" and kernel.read * kernel.columns >= kernel.macs
    return "pointwise" if once and profile.kind == "cpu" else kernel.kind


Row = tuple[float, float, float, float, float]


def _pointwise(
    kernels: Sequence[Kernel], own: Sequence[PrecisionName], profile: DeviceProfile, bandwidth: float
) -> list[tuple[str, str, Row]]:
    """What pointwise operations cost a CPU beside the kernel they are fused into: kind, figure and row of each.

    Polynomials take arithmetic in every precision (kind ``special``). After an int8 product they, and sums and products of
    two tensors, are a pass of their own: f32 read, int8 written (kind ``memory``).
    """
    peak = profile.peak_tops("f32") * 1e12
    found: list[tuple[str, str, Row]] = []
    for kernel, precision in zip(kernels, own, strict=True):
        done = [kernel.op, *kernel.fused]
        if operations := sum(SPECIAL.get(op, 0.0) for op in done):
            found.append(("special", "special", (operations * kernel.written / peak, 0.0, 1, 1, 0)))
        if precision == "int8" and kernel.macs and not SEPARATE.isdisjoint(kernel.fused):
            moved = kernel.written * 2 * BYTES["f32"]
            found.append(("memory", "memory", (0.0, moved / bandwidth, 1, 1, 0)))
    return found


def stack(works: Sequence[Work]) -> Work:
    """Several graphs as one, in order, so that all are timed at once."""
    names = tuple(sorted({name for work in works for name in work.names}))
    moved: list[dict[str, Any]] = []
    for i, work in enumerate(works):
        renamed = np.array([names.index(name) for name in work.names])
        parts = {f.name: getattr(work, f.name) for f in dataclasses.fields(work)}
        moved.append(parts | {"figure": renamed[work.figure], "start": renamed[work.start], "graph": work.graph + i})
    joined = {key: np.concatenate([m[key] for m in moved]) for key in moved[0] if key != "names"}
    return Work(names=names, **joined)


def _kernel_precision(
    kernel: Kernel, graph: GraphCost, precision: PrecisionName, profile: DeviceProfile
) -> PrecisionName:
    """int8 where the target is int8 and the kernel can be; the rest of an int8 graph runs in the next precision up."""
    if precision != "int8":
        return precision
    plain = not graph.explicit_int8 and (kernel.kind in ("conv", "depthwise", "matmul") or kernel.op in INT8_COPIES)
    if kernel.quantized or plain:
        return "int8"
    return "fp16" if "fp16" in profile.peaks_tops and profile.kind != "cpu" else "f32"


def kernel_ms(work: Work, figures: Figures) -> Array:
    """Time of each kernel without the cost of starting it (ms)."""
    table = np.array([1.0 if name in ("memory", "move") else figures[name] for name in work.names])
    compute = work.peak_s / (table[work.figure] * _filled(work, figures))
    reached = np.where(work.kinds == "move", figures["move"], figures["bandwidth"])
    return np.asarray(1e3 * np.maximum(compute, work.bytes_s / reached), dtype=np.float64)


def start_ms(work: Work, figures: Figures) -> Array:
    """Cost of starting the kernels of each graph (ms). Copies that a runtime leaves out cost no start, nor
    does what is done inside another kernel."""
    count = np.bincount(work.graph[(work.kinds != "move") & (work.kinds != "special")], minlength=work.start.size)
    each = np.array([figures[work.names[i]] for i in work.start])
    return np.asarray(count * each / 1e3, dtype=np.float64)


def call_ms(work: Work, figures: Figures) -> Array:
    """Cost of a call that the kernels do not explain: submitting it, and bringing input and output across (ms)."""
    return figures["call_ms"] + work.io_bytes / figures["io_gb_s"] / 1e6


def total_ms(work: Work, figures: Figures, with_call: npt.NDArray[np.bool_] | bool = True) -> Array:
    """Time of one inference of each graph (ms), with or without what the call itself costs."""
    kernels = np.bincount(work.graph, weights=kernel_ms(work, figures), minlength=work.start.size)
    return np.asarray(kernels + start_ms(work, figures) + np.where(with_call, call_ms(work, figures), 0.0))


def _filled(work: Work, figures: Figures) -> Array:
    """How far a kernel fills vector lanes (channels), pipelines (reduction) and cores (outputs); 1 for big ones."""
    filled = work.outputs / (work.outputs + figures["half_outputs"])
    lanes = work.columns / (work.columns + figures["half_columns"]) * work.depth / (work.depth + figures["half_depth"])
    product = filled * np.where(work.kinds == "depthwise", 1.0, lanes)
    return np.asarray(np.where(work.outputs > 0, product, 1.0), dtype=np.float64)
