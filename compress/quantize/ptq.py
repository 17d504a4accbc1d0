"""Post-training quantization of a deployable OpenVINO graph with NNCF, calibrated on real tiles only.

The graph takes digital numbers (DN) and does its own scaling, normalisation and masking. Quantizing *that* part to
eight bits would destroy the image (and the CPU plugin cannot run an 8-bit quantizer on uint16), so everything between
``dn`` and the first convolution or matrix product is left alone, whatever the other settings are; so is what decodes a detector's
last layers to boxes. In front of that first layer bands are scaled to one range (:mod:`rsedge.compress.quantize.bands`).

**Overflow.** CPUs without VNNI (AVX2, plain AVX-512) add pairs of 8-bit products in 16 bits and saturate. The same graph
then gives other numbers than on a VNNI machine, silently. ``overflow="enable"`` keeps weights to 7 bits, which cannot
saturate, and is the default because a bundle does not know which host will run it; :func:`saturation` measures the effect.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import nncf
import numpy as np
import numpy.typing as npt
import openvino as ov
from nncf.quantization.range_estimator import (
    RangeEstimatorParameters,
    RangeEstimatorParametersSet,
    StatisticsType,
)
from pydantic import Field, model_validator

from rsedge.compress.quantize.bands import scale_bands
from rsedge.data.errors import RequestError
from rsedge.data.record import Record
from rsedge.models.parts import Arrays, Signature, check_samples
from rsedge.runtimes.bundle.golden import candidate_gaps
from rsedge.runtimes.openvino.core import FLOAT_KEY, shared_core
from rsedge.runtimes.openvino.core import settings as cpu_settings

Tiles = Sequence[npt.NDArray[np.generic]]
Overflow = Literal["enable", "first_layer_only", "disable"]
RangeEstimator = Literal["default", "minmax", "mean-minmax", "median-minmax", "quantile", "histogram"]

FEW_TILES = 8
INT4_GROUP, INT4_LEAST_GROUP = 64, 16
"""Weights that share one scale; fewer where a layer's inputs are no multiple, and 8 bits where not even of the least."""
COMPUTE = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
_RANGES = {
    "minmax": RangeEstimatorParametersSet.MINMAX,
    "mean-minmax": RangeEstimatorParametersSet.MEAN_MINMAX,
    "median-minmax": RangeEstimatorParametersSet.MEDIAN_MINMAX,
    "quantile": RangeEstimatorParametersSet.MEAN_QUANTILE,
    "histogram": RangeEstimatorParametersSet.HISTOGRAM,
}
# Of a symmetric range NNCF takes the upper end alone: of values that are mostly negative it must be that of their size.
_SYMMETRIC = _RANGES | {
    "quantile": RangeEstimatorParameters(
        RangeEstimatorParametersSet.MEAN_QUANTILE.min,
        dataclasses.replace(RangeEstimatorParametersSet.MEAN_QUANTILE.max, statistics_type=StatisticsType.ABS_QUANTILE),
    ),
}


class PtqSettings(Record):
    """One point of the search space. ``smooth_quant``: alpha for matrix products, None for off (transformers only).

    ``activations="float"`` rounds weights alone (the CPU plugin computes in float then): to 8 bits per output channel, a
    quarter of the size for nearly no error, and ``int4_share`` of the matrix products' weights, those that bear it best, to 4
    bits in groups of 64, fitted to the calibration inputs (Frantar et al. 2022, "GPTQ"). The other settings do not matter then.
    """

    activations: Literal["int8", "float"] = "int8"
    int4_share: float = Field(default=0.0, ge=0, le=1)
    preset: Literal["performance", "mixed"] = "performance"
    bias_correction: Literal["fast", "full"] = "fast"
    smooth_quant: float | None = Field(default=None, ge=0, le=1)
    range_estimator: RangeEstimator = "default"
    overflow: Overflow = "enable"
    float_layers: Literal["none", "first", "last", "first-last"] = "none"
    float_names: tuple[str, ...] = Field(
        default=(), description="further layers left in float, as the graph names them"
    )
    float_precision: Literal["f32", "bf16"] = Field(
        default="f32", description="OpenVINO: what is left in float computes in it, where the host has it"
    )

    @model_validator(mode="after")
    def _four_bits_of_weights(self) -> PtqSettings:
        if self.int4_share and self.activations != "float":
            raise ValueError(
                "int4_share needs activations='float': no CPU multiplies 4-bit weights with 8-bit activations"
            )
        return self

    def label(self) -> str:
        """A short name for tables, e.g. ``mixed, full bias correction, last layer in float``."""
        if self.activations == "float":
            parts = [f"weights only, {self.int4_share:.0%} INT4" if self.int4_share else "weights only"]
            return ", ".join([*parts, *self._floats()])
        parts = [self.preset]
        parts += ["full bias correction"] if self.bias_correction == "full" else []
        parts += [f"{self.range_estimator} ranges"] if self.range_estimator != "default" else []
        parts += [f"SmoothQuant {self.smooth_quant:g}"] if self.smooth_quant is not None else []
        parts += self._floats()
        parts += [f"overflow fix {self.overflow}"] if self.overflow != "enable" else []
        return ", ".join(parts)

    def _floats(self) -> list[str]:
        parts = [f"{self.float_layers} layer in float"] if self.float_layers != "none" else []
        parts += [f"{len(self.float_names)} more in float"] if self.float_names else []
        return parts + (["bf16 for the rest"] if self.float_precision == "bf16" else [])


class Calibration(Record):
    """What the ranges were taken from: SHA-256 over shapes, types and values of all tiles in order."""

    sha256: str
    tiles: int
    warnings: tuple[str, ...] = ()


class Saturation(Record):
    """The 8-bit executable of this host against the same graph computed in float with simulated quantizers.

    ``agreement`` is the share of equal classes, ``error`` the RMS difference over the standard deviation of the logits.
    Rounding alone gives an error of about 0.02; more means that this host saturates.
    """

    agreement: float
    error: float


def check_calibration(tiles: Tiles) -> tuple[list[npt.NDArray[np.generic]], Calibration]:
    """Inputs with a batch axis of 1, checked, and their record. Tiles that are constant (all nodata) are left out.

    Raises:
        RequestError: no tiles, different shapes, NaN or infinity, or nothing but constant tiles.
    """
    if len(tiles) == 0:
        raise RequestError("quantize: no calibration tiles; 8-bit ranges are never guessed from random data")
    batched = [np.ascontiguousarray(np.asarray(t)[None]) for t in tiles]
    shapes = sorted({(t.shape[1:], str(t.dtype)) for t in batched})
    if len(shapes) > 1:
        raise RequestError(f"quantize: calibration inputs must all be of one shape and type, got {shapes[:4]}")
    bad = [i for i, t in enumerate(batched) if t.dtype.kind == "f" and not np.isfinite(t).all()]
    if bad:
        raise RequestError(f"quantize: calibration tile {bad[0]} holds NaN or infinity ({len(bad)} such tiles)")
    varied = [t for t in batched if t.min() != t.max()]
    if not varied:
        raise RequestError(
            f"quantize: every calibration tile is constant ({len(batched)} tiles); nothing to calibrate on"
        )
    digest = hashlib.sha256(f"{shapes}".encode())
    for tile in varied:
        digest.update(tile.tobytes())
    notes = []
    if len(varied) < len(batched):
        notes.append(f"{len(batched) - len(varied)} constant tiles were left out")
    notes += _few(len({hashlib.sha256(t.tobytes()).digest() for t in varied}), "tiles")
    return varied, Calibration(sha256=digest.hexdigest(), tiles=len(varied), warnings=tuple(notes))


def check_part_calibration(samples: Sequence[Arrays], wanted: Signature) -> Calibration:
    """The record of a part's samples, after checking them; its hash is over names, shapes, types and values.

    Raises:
        RequestError: no samples, an input that is missing, not the part's or of another shape or type, NaN or infinity.
    """
    if not samples:
        raise RequestError("quantize: no calibration samples; 8-bit ranges are never guessed from random data")
    check_samples(samples, wanted, "quantize")
    names = sorted(wanted)
    digest = hashlib.sha256(f"{[(name, wanted[name]) for name in names]}".encode())
    values = [b"".join(np.ascontiguousarray(sample[name]).tobytes() for name in names) for sample in samples]
    for value in values:
        digest.update(value)
    return Calibration(sha256=digest.hexdigest(), tiles=len(samples), warnings=tuple(_few(len(set(values)), "samples")))


def _few(distinct: int, what: str) -> list[str]:
    few = f"only {distinct} different calibration {what}; ranges from fewer than {FEW_TILES} are uncertain"
    return [few] if distinct < FEW_TILES else []


def preprocessing_names(model: ov.Model) -> list[str]:
    """Names of the operations between the inputs and the first convolution or matrix product on each way."""
    return [op.get_friendly_name() for op in _walk_down(model)[0]]


def first_layers(model: ov.Model) -> list[str]:
    """Names of the convolutions or matrix products that read the pre-processed input."""
    return [op.get_friendly_name() for op in _walk_down(model)[1]]


def compute_layers(model: ov.Model) -> tuple[str, ...]:
    """Names of all convolutions and matrix products, in an order in which they run."""
    return tuple(op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in COMPUTE)


def last_layers(model: ov.Model) -> list[str]:
    """Names of the convolutions or matrix products that the float outputs come from."""
    stack = [r.input_value(0).get_node() for r in model.get_results() if r.get_element_type().is_real()]
    found: dict[str, None] = {}
    seen: set[str] = set()
    while stack:
        op = stack.pop()
        if op.get_friendly_name() in seen:
            continue
        seen.add(op.get_friendly_name())
        if op.get_type_name() in COMPUTE:
            found[op.get_friendly_name()] = None
            continue
        stack += [value.get_node() for value in op.input_values()]
    return list(found)


def decoding_names(model: ov.Model) -> list[str]:
    """Names of the operations between the last layers and a detector's candidates (an output of three axes).

    One range over centres in pixels and scores between 0 and 1 would round all scores to 0.
    """
    stack = [r.input_value(0).get_node() for r in model.get_results() if r.get_element_type().is_real()
             and len(r.get_output_partial_shape(0)) == 3]  # fmt: skip
    found: dict[str, None] = {}
    while stack:
        op = stack.pop()
        name = op.get_friendly_name()
        if name not in found and op.get_type_name() not in (*COMPUTE, "Constant"):
            found[name] = None
            stack += [value.get_node() for value in op.input_values()]
    return list(found)


def _walk_down(model: ov.Model) -> tuple[list[Any], list[Any]]:
    before: dict[str, Any] = {}
    compute: dict[str, Any] = {}
    stack = [t.get_node() for p in model.get_parameters() for t in p.output(0).get_target_inputs()]
    while stack:
        op = stack.pop(0)
        name = op.get_friendly_name()
        if name in before or op.get_type_name() == "Result":
            continue
        if op.get_type_name() in COMPUTE:
            compute[name] = op
            continue
        before[name] = op
        stack += [t.get_node() for output in op.outputs() for t in output.get_target_inputs()]
    return list(before.values()), list(compute.values())


def constant_first(model: ov.Model) -> list[str]:
    """Names of matrix products with a constant on the left, such as a pooling of channels.

    NNCF scales a constant's rows, which OpenVINO's CPU plugin (2026.4) takes for scales of columns and refuses.
    """
    products = (op for op in model.get_ops() if op.get_type_name() == "MatMul")
    return [op.get_friendly_name() for op in products if _is_constant(op.input_value(0).get_node())]


def _is_constant(op: Any) -> bool:
    while op.get_type_name() == "Convert":
        op = op.input_value(0).get_node()
    return bool(op.get_type_name() == "Constant")


def is_transformer(model: ov.Model) -> bool:
    """Whether the graph holds attention: a softmax beside matrix products, or one fused operation."""
    types = {op.get_type_name() for op in model.get_ops()}
    return "ScaledDotProductAttention" in types or {"Softmax", "MatMul"} <= types


def quantize(model: ov.Model, tiles: Tiles, settings: PtqSettings) -> ov.Model:
    """An 8-bit copy of ``model``; ``model`` stays as it is.

    Args:
        model: one input ``dn`` (1, C, T, T), outputs ``logits`` and ``valid``.
        tiles: DN tiles (C, T, T) of the input's type.

    Raises:
        RequestError: unusable calibration (see :func:`check_calibration`).
    """
    checked, _ = check_calibration(tiles)
    return with_float(_quantized(model, checked, settings), settings.float_precision)


def quantize_part(model: ov.Model, samples: Sequence[Arrays], settings: PtqSettings) -> ov.Model:
    """An 8-bit copy of a graph with several named inputs (:class:`rsedge.models.parts.Part`).

    Args:
        samples: one array per input of the model, in its shape and type.

    Raises:
        RequestError: unusable samples (see :func:`check_part_calibration`).
    """
    wanted = {port.any_name: (tuple(port.shape), port.element_type.to_dtype()) for port in model.inputs}
    check_part_calibration(samples, wanted)
    return with_float(_quantized(model, [dict(sample) for sample in samples], settings), settings.float_precision)


def with_float(model: ov.Model, precision: str) -> ov.Model:
    """The model, which now says in what its layers that are not quantized are to be computed
    (:func:`rsedge.runtimes.openvino.core.float_options`)."""
    model.set_rt_info(precision, [FLOAT_KEY])
    return model


def _quantized(model: ov.Model, samples: Sequence[Any], settings: PtqSettings) -> ov.Model:
    if settings.activations == "float":
        return _weights_only(model, samples, settings)
    transformer = is_transformer(model)
    scaled = scale_bands(model, first_layers(model), samples)
    with quiet_nncf():
        return nncf.quantize(
            scaled,
            nncf.Dataset(samples),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset(settings.preset),
            fast_bias_correction=settings.bias_correction == "fast",
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=_ignored(scaled, settings.float_layers, settings.float_names),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                **advanced(settings, settings.preset == "performance")
            ),
        )


def _weights_only(model: ov.Model, samples: Sequence[Any], settings: PtqSettings) -> ov.Model:
    ignored = _ignored(model, settings.float_layers, settings.float_names)
    with quiet_nncf():
        if not settings.int4_share:
            return nncf.compress_weights(model.clone(), mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=ignored)
        return nncf.compress_weights(
            model.clone(),
            mode=nncf.CompressWeightsMode.INT4_SYM,
            ratio=settings.int4_share,
            group_size=INT4_GROUP,
            all_layers=True,
            gptq=True,
            # The other metrics look at the spread within one sample, which a single vector does not have.
            sensitivity_metric=nncf.SensitivityMetric.HESSIAN_INPUT_ACTIVATION,
            dataset=nncf.Dataset(samples),
            subset_size=len(samples),
            ignored_scope=ignored,
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST,
                min_adjusted_group_size=INT4_LEAST_GROUP,
                gptq_params=nncf.AdvancedGPTQParameters(subset_size=len(samples)),
            ),
        )


def plain_ptq(model: ov.Model, tiles: Tiles) -> ov.Model:
    """NNCF's defaults, the baseline: what a user gets without searching. Only the pre-processing is left alone.

    Raises:
        RequestError: unusable calibration.
    """
    checked, _ = check_calibration(tiles)
    with quiet_nncf():
        return nncf.quantize(
            model, nncf.Dataset(checked), subset_size=len(checked), ignored_scope=_ignored(model, "none")
        )


def _ignored(model: ov.Model, float_layers: str, float_names: Sequence[str] = ()) -> nncf.IgnoredScope:
    unknown = sorted(set(float_names) - set(compute_layers(model)))
    if unknown:
        raise RequestError(f"quantize: the graph has no layer '{unknown[0]}' to leave in float")
    names = {*preprocessing_names(model), *constant_first(model), *decoding_names(model), *float_names}
    names |= set(first_layers(model)) if "first" in float_layers else set()
    names |= set(last_layers(model)) if "last" in float_layers else set()
    return nncf.IgnoredScope(names=sorted(names), validate=False)


def advanced(settings: PtqSettings, symmetric: bool) -> dict[str, Any]:
    """What of the settings goes into NNCF's advanced parameters, whatever the graph's format.

    Args:
        symmetric: activations are rounded to ranges that lie evenly about 0.

    Raises:
        RequestError: histograms, whose ends NNCF finds apart, for symmetric ranges.
    """
    if symmetric and settings.range_estimator == "histogram":
        raise RequestError("range_estimator: histogram finds no symmetric ranges; take quantile, or the preset mixed")
    alpha = -1.0 if settings.smooth_quant is None else settings.smooth_quant
    found: dict[str, Any] = {
        "overflow_fix": nncf.OverflowFix(settings.overflow),
        "smooth_quant_alphas": nncf.AdvancedSmoothQuantParameters(matmul=alpha),
    }
    if settings.range_estimator != "default":
        ranges = _SYMMETRIC if symmetric else _RANGES
        found["activations_range_estimator_params"] = ranges[settings.range_estimator]
    return found


@contextlib.contextmanager
def quiet_nncf() -> Iterator[None]:
    """Keeps NNCF's bars and notes off standard output, which belongs to ``--json``."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def saturation(model: ov.Model, tiles: Tiles, limit: int = 8) -> Saturation:
    """How far this host's 8-bit arithmetic is from the quantized graph as meant, on up to ``limit`` tiles."""
    checked, _ = check_calibration(tiles)
    chosen = checked[:: max(1, len(checked) // limit)][:limit]
    deployed = _logits(model, chosen, cpu_settings("CPU", "int8", None))
    meant = _logits(model, chosen, cpu_settings("CPU", "f32", None) | {"LP_TRANSFORMS_MODE": "NO"})
    boxes = meant.ndim == 3
    same = np.mean(candidate_gaps(meant, deployed)[1] if boxes else deployed.argmax(1) == meant.argmax(1))
    spread = float(meant.std()) or 1.0
    error = float(np.sqrt(np.mean((deployed - meant) ** 2))) / spread
    return Saturation(agreement=float(same), error=error)


def _logits(model: ov.Model, tiles: Tiles, config: dict[str, Any]) -> npt.NDArray[np.float32]:
    compiled = shared_core().compile_model(model, "CPU", config)
    return np.concatenate([compiled({0: tile})[0].copy() for tile in tiles])
