"""8-bit LiteRT models: what ``ai-edge-quantizer`` makes of a f32 one, from ranges taken here on real DN tiles.

Activations are int8 with a zero-point, weights int8 per output channel, sums 32 bits wide: XNNPACK's integer kernels. Everything
between ``dn`` and the first layer stays in float, whatever the settings are; so does what decodes a detector's last layers, and
in a transformer all but its matrix products. Biases are shifted by what rounding of the weights adds on average (Nagel et al. 2019,
"Data-Free Quantization", with measured means).
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.compress.quantize.ptq import Calibration, PtqSettings, RangeEstimator, Tiles, check_calibration
from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.files import atomic_path
from rsedge.data.record import Record
from rsedge.runtimes.litert.core import open_litert
from rsedge.runtimes.litert.flatbuffer import kind_of, read_model, write_model

COMPUTE = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
_QUANTIZER_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
PLAIN = PtqSettings(preset="mixed", overflow="disable")
"""Ranges are the means of the tiles' least and largest values; 8 bits of the weights, as no sum saturates."""
_RANGES: tuple[RangeEstimator, ...] = ("default", "minmax", "mean-minmax", "median-minmax", "quantile")
_TAIL = 1e-4
_PIXELS = 20_000
"""Values of a tensor that its quantiles are taken from."""

Floats = npt.NDArray[np.float32]


class LiteRtQuantization(Record):
    """What was made: layers in int8 and in all, biases that were shifted, and the calibration."""

    quantized: int
    layers: int
    corrected: int
    calibration: Calibration


@dataclass
class _Graph:
    """A model file, and its one graph."""

    path: Path
    content: bytes = b""
    model: Any = None
    kinds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        open_litert(self.path, threads=1)  # verifies the bytes
        self.content = self.path.read_bytes()
        self.model = read_model(self.content)
        self.kinds = [kind_of(self.model, operator) for operator in self.operators]

    @property
    def operators(self) -> list[Any]:
        return list(self.model.subgraphs[0].operators)

    @property
    def tensors(self) -> list[Any]:
        return list(self.model.subgraphs[0].tensors)

    def name(self, operator: Any) -> str:
        """An operation is called as its first output."""
        return str(self.tensors[operator.outputs[0]].name.decode())

    def names(self, *kinds: str) -> tuple[str, ...]:
        return tuple(self.name(o) for o, kind in zip(self.operators, self.kinds, strict=True) if kind in kinds)

    @property
    def is_transformer(self) -> bool:
        return {"SOFTMAX", "BATCH_MATMUL"} <= set(self.kinds)


def litert_layers(path: str | Path) -> tuple[str, ...]:
    """Names of all convolutions and matrix products, in the order in which they run."""
    return _Graph(Path(path)).names(*COMPUTE)


def is_litert_transformer(path: str | Path) -> bool:
    """Whether the graph holds attention: a softmax beside matrix products."""
    return _Graph(Path(path)).is_transformer


def litert_ladder(transformer: bool) -> list[PtqSettings]:
    """The settings that matter here, in the order they are tried."""

    def rung(**changes: object) -> PtqSettings:
        return PLAIN.model_copy(update=changes)

    plain = [PLAIN, rung(range_estimator="quantile"), rung(range_estimator="minmax")]
    if transformer:  # their few large values matter
        plain.reverse()
    return [
        *plain,
        rung(range_estimator=plain[0].range_estimator, float_layers="last"),
        rung(range_estimator=plain[0].range_estimator, float_layers="first-last"),
    ]


def quantize_litert(
    source: str | Path, target: str | Path, tiles: Tiles, settings: PtqSettings = PLAIN
) -> LiteRtQuantization:
    """Writes the 8-bit copy of a f32 LiteRT model, atomically; metadata are kept.

    Args:
        source: as :func:`rsedge.export.targets.litert.export_litert` writes it: one float32 input ``dn``.
        tiles: DN tiles of any type that float32 holds exactly.

    Raises:
        RequestError: unusable calibration, unknown ``float_names``, or settings that LiteRT does not have.
        MissingCapability: ai-edge-quantizer is not installed, or the disk is full.
    """
    _check_settings(settings, source)
    checked, record = check_calibration(tiles)
    graph = _Graph(Path(source))
    unknown = sorted(set(settings.float_names) - set(graph.names(*COMPUTE)))
    if unknown:
        raise RequestError(f"{source}: there is no layer '{unknown[0]}' to keep in float")
    seen = _observe(graph, checked, settings.range_estimator)
    _bound_padding(graph, seen)
    made = read_model(_quantized(graph, seen, settings))
    corrected = _correct_biases(graph, made, seen.means)
    with atomic_path(target) as temporary:
        temporary.write_bytes(write_model(made))
    rounded = sum(1 for _ in _rounded(graph, made))
    if not rounded:
        raise RequestError(f"{source}: found nothing to quantize in this graph")
    return LiteRtQuantization(
        quantized=rounded, layers=len(graph.names(*COMPUTE)), corrected=corrected, calibration=record
    )


def _check_settings(settings: PtqSettings, source: str | Path) -> None:
    lacking = {
        "weights alone": settings.activations == "float",
        f"{settings.float_precision} for the rest": settings.float_precision != "f32",
        "SmoothQuant": settings.smooth_quant is not None,
        "full bias correction": settings.bias_correction == "full",
        f"ranges by {settings.range_estimator}": settings.range_estimator not in _RANGES,
    }
    if wanted := [what for what, asked in lacking.items() if asked]:
        raise RequestError(f"{source}: INT8 for LiteRT has no {wanted[0]}; leave it out")


def _quantizer(what: str) -> tuple[Any, Any]:
    try:
        from ai_edge_quantizer import algorithm_manager, quantizer
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "ai_edge_quantizer", "litert-convert", what) from error
    return quantizer.Quantizer, algorithm_manager.AlgorithmName.NO_QUANTIZE


def _quantized(graph: _Graph, seen: _Seen, settings: PtqSettings) -> bytes:
    quantizer, no_quantize = _quantizer(str(graph.path))
    made = quantizer(bytearray(graph.content))
    kinds = COMPUTE if graph.is_transformer else ("*",)
    for kind in kinds:
        made.add_static_config(".*", _QUANTIZER_NAMES.get(kind, kind), activation_num_bits=8, weight_num_bits=8)
    float_names = "|".join(re.escape(name) for name in _in_float(graph, settings))
    made.update_quantization_recipe(f"^(?:{float_names});", "*", algorithm_key=no_quantize)
    for kind in ("INPUT", "OUTPUT", "DIV"):  # a divisor that rounds to 0 ends the run
        made.update_quantization_recipe(".*", kind, algorithm_key=no_quantize)
    ranges = {name: {"min": low, "max": high} for name, (low, high) in seen.ranges.items()}
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # it shows a bar whatever is asked for
        warnings.simplefilter("ignore")
        result = made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _in_float(graph: _Graph, settings: PtqSettings) -> list[str]:
    """Names of the operations that stay in float."""
    before, first = _walk_down(graph)
    last, after = _walk_up(graph)
    found = {**before, **dict.fromkeys(settings.float_names)}
    logits = max(len(graph.tensors[o].shape) for o in graph.model.subgraphs[0].outputs if _is_float(graph.tensors[o]))
    found |= after if logits == 3 else {}  # a detector's candidates, or tokens, which end in a layer
    found |= first if "first" in settings.float_layers else {}
    found |= last if "last" in settings.float_layers else {}
    return list(found)


def _walk_down(graph: _Graph) -> tuple[dict[str, None], dict[str, None]]:
    """Operations between the input and the first layers, and these layers, by name."""
    before: dict[str, None] = {}
    compute: dict[str, None] = {}
    reached = set(graph.model.subgraphs[0].inputs)
    for operator, kind in zip(graph.operators, graph.kinds, strict=True):  # in an order in which they run
        if not reached & set(operator.inputs):
            continue
        if kind in COMPUTE:
            compute[graph.name(operator)] = None
        else:
            before[graph.name(operator)] = None
            reached |= set(operator.outputs)
    return before, compute


def _walk_up(graph: _Graph) -> tuple[dict[str, None], dict[str, None]]:
    """The layers that the float output comes from, and the operations behind them, by name."""
    compute: dict[str, None] = {}
    behind: dict[str, None] = {}
    wanted = {o for o in graph.model.subgraphs[0].outputs if _is_float(graph.tensors[o])}
    for operator, kind in reversed(list(zip(graph.operators, graph.kinds, strict=True))):
        if not wanted & set(operator.outputs):
            continue
        if kind in COMPUTE:
            compute[graph.name(operator)] = None
        else:
            behind[graph.name(operator)] = None
            wanted |= set(operator.inputs)
    return compute, behind


def _is_float(tensor: Any) -> bool:
    return bool(tensor.type == 0)


@dataclass
class _Seen:
    """What calibration saw: least and largest value by tensor, and means of layers' inputs by channel."""

    ranges: dict[str, tuple[Floats, Floats]]
    means: dict[str, Floats]


def _observe(graph: _Graph, tiles: list[npt.NDArray[np.generic]], estimator: RangeEstimator) -> _Seen:
    """Runs the f32 model on each tile with every tensor kept."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            model_content=graph.content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    made = {o for operator in graph.operators for o in operator.outputs} | {entry}
    kept = [number for number in sorted(made) if _is_float(graph.tensors[number])]
    layers = {
        graph.name(o): o.inputs[0] for o, kind in zip(graph.operators, graph.kinds, strict=True) if kind in COMPUTE
    }
    ends: dict[int, list[tuple[float, float]]] = {number: [] for number in kept}
    means: dict[str, list[Floats]] = {name: [] for name in layers}
    for tile in tiles:
        interpreter.set_tensor(entry, tile.astype(np.float32))
        interpreter.invoke()
        values = {number: interpreter.get_tensor(number) for number in kept}
        for number, value in values.items():
            ends[number].append(_ends(value, estimator))
        for name, number in layers.items():
            means[name].append(values[number].reshape(-1, values[number].shape[-1]).mean(0))
    return _Seen(
        {_text(graph.tensors[n]): _joined(found, estimator, len(graph.tensors[n].shape)) for n, found in ends.items()},
        {name: np.mean(found, axis=0).astype(np.float32) for name, found in means.items()},
    )


def _text(tensor: Any) -> str:
    return str(tensor.name.decode())


def _ends(value: Floats, estimator: RangeEstimator) -> tuple[float, float]:
    value = value[value > -np.inf]  # borders that maxima are taken over
    if estimator == "quantile":
        flat = value.ravel()
        low, high = np.quantile(flat[:: max(1, flat.size // _PIXELS)], (_TAIL, 1 - _TAIL))
        return float(low), float(high)
    return float(value.min()), float(value.max())


def _bound_padding(graph: _Graph, seen: _Seen) -> None:
    """Maxima are taken over borders of -infinity, which no scale holds; the least value that calibration saw there does as well."""
    padded: dict[int, list[float]] = {}
    for operator, kind in zip(graph.operators, graph.kinds, strict=True):
        if kind == "PADV2":
            low, _ = seen.ranges[_text(graph.tensors[operator.inputs[0]])]
            padded.setdefault(operator.inputs[2], []).append(float(low.min()))
    for number, lows in padded.items():
        value = _float_values(graph.model, graph.tensors[number])
        if value is not None and np.isneginf(value).all():
            least = np.full(value.shape, min(lows), "<f4")
            graph.model.buffers[graph.tensors[number].buffer].data = np.frombuffer(least.tobytes(), np.uint8)
            graph.content = write_model(graph.model)


def _joined(found: list[tuple[float, float]], estimator: RangeEstimator, axes: int) -> tuple[Floats, Floats]:
    """One range from those of the tiles, each end with the tensor's number of axes."""
    ends = np.array(found, dtype=np.float32)
    if estimator == "minmax":
        low, high = ends[:, 0].min(), ends[:, 1].max()
    elif estimator == "median-minmax":
        low, high = np.median(ends, axis=0)
    else:
        low, high = ends.mean(0)
    shape = (1,) * axes
    return np.full(shape, low, np.float32), np.full(shape, high, np.float32)


def _rounded(graph: _Graph, made: Any) -> Iterator[tuple[str, Any, Any]]:
    """Layers with int8 weights in the quantized model: name, the operation there, and the one in float."""
    tensors = made.subgraphs[0].tensors
    names = {graph.name(o): o for o, kind in zip(graph.operators, graph.kinds, strict=True) if kind in COMPUTE}
    for operator in made.subgraphs[0].operators:
        name = _stem(_text(tensors[operator.outputs[0]]), names)
        if kind_of(made, operator) in COMPUTE and name is not None and tensors[operator.inputs[0]].type == 9:
            yield name, operator, names[name]


def _stem(name: str, known: Mapping[str, Any]) -> str | None:
    """The name that a tensor had before it was quantized."""
    return name if name in known else next((k for k in (name.removesuffix("_quantized"),) if k in known), None)


def _correct_biases(graph: _Graph, made: Any, means: Mapping[str, Floats]) -> int:
    """Takes from each bias what rounding of the weights adds to the layer's outputs on average; says of how many."""
    tensors, count = made.subgraphs[0].tensors, 0
    for name, operator, before in _rounded(graph, made):
        if len(operator.inputs) < 3 or operator.inputs[2] < 0 or kind_of(made, operator) == "TRANSPOSE_CONV":
            continue
        weights, bias = tensors[operator.inputs[1]], tensors[operator.inputs[2]]
        if weights.type != 9 or bias.type != 2:
            continue
        meant = _float_values(graph.model, graph.tensors[before.inputs[1]])
        if meant is None:
            continue
        error = _integers(made, weights, np.int8).astype(np.float32) * _scales(weights) - meant
        shift = _mean_response(error, means[name], kind_of(made, operator) == "DEPTHWISE_CONV_2D")
        steps = np.round(shift / np.asarray(bias.quantization.scale, np.float32)).astype(np.int64)
        stored = _integers(made, bias, np.int32).astype(np.int64) - steps
        limits = np.iinfo(np.int32)
        made.buffers[bias.buffer].data = np.frombuffer(
            np.clip(stored, limits.min, limits.max).astype("<i4").tobytes(), np.uint8
        )
        count += 1
    return count


def _mean_response(error: Floats, mean: Floats, depthwise: bool) -> Floats:
    """Mean of what an error of the weights adds to each output channel, for inputs of that mean by channel.

    Args:
        error: ``[out, ..., in]``, of groups the inputs of one group; depthwise ``[1, ..., out]``.
    """
    if depthwise:
        flat = error.reshape(-1, error.shape[-1]).sum(0)
        return np.asarray(flat * np.repeat(mean, len(flat) // len(mean)), np.float32)
    by_input = error.reshape(error.shape[0], -1, error.shape[-1]).sum(1)
    groups = len(mean) // error.shape[-1]
    parts = mean.reshape(groups, -1)[np.arange(len(by_input)) * groups // len(by_input)]
    return np.asarray((by_input * parts).sum(1), np.float32)


def _float_values(model: Any, tensor: Any) -> Floats | None:
    data = model.buffers[tensor.buffer].data
    if data is None or not _is_float(tensor):
        return None
    return np.frombuffer(bytes(data), "<f4").reshape(tensor.shape)


def _integers(model: Any, tensor: Any, dtype: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
    data = bytes(model.buffers[tensor.buffer].data)
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(tensor.shape)


def _scales(tensor: Any) -> Floats:
    """Scales of a tensor, along their axis."""
    scale = np.asarray(tensor.quantization.scale, np.float32)
    if scale.size == 1:
        return scale
    shape = [1] * len(tensor.shape)
    shape[tensor.quantization.quantizedDimension] = scale.size
    return scale.reshape(shape)
