"""Quantization-aware training with distillation, for when calibration alone misses the accuracy gate.

The network is trained while every convolution and linear layer sees rounded weights and a rounded input, with straight-through
gradients (Jacob et al. 2018). What comes out is an ordinary float network of the same structure whose weights withstand
rounding; it goes through the same post-training quantization and export as any other, so OpenVINO and TensorRT get it alike.
Rounding per output channel commutes with the batch norm behind it, so batch norms need no folding here; their statistics
are frozen.

NNCF's own torch route is not used: its strip step needs torchao, and its quantizers compile C++ on the user's machine.
Sums (residual additions) are rounded by the runtime but not simulated here; the score, taken on the real executable, tells.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.bands import scale_of
from rsedge.data.errors import RequestError
from rsedge.data.record import Record

Grid = Literal["performance", "mixed", "signed"]
_BatchNorm = nn.modules.batchnorm._NormBase


class QatSettings(Record):
    """``weight_bits`` is 7 for hosts without VNNI (see ``compress/quantize/ptq.py``), else 8. ``patience`` counts scorings.

    ``activations`` is the grid that the runtime rounds inputs of layers to: OpenVINO's presets give what is never negative an
    unsigned range of 255 steps (``mixed`` also gives what is signed a range of its own on each side); ``signed`` is the int8 of
    TensorRT and ONNX files, zero-point 0, of which what is never negative has the upper 127 steps alone.
    """

    steps: int = Field(default=200, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    score_every: int = Field(default=50, ge=1)
    patience: int = Field(default=3, ge=1)
    weight_bits: Literal[7, 8] = 7
    activations: Grid = "performance"
    float_layers: tuple[str, ...] = ()
    seed: int = 0


class QatPoint(Record):
    """What came out after ``step`` steps, and the mean loss since the point before (None at step 0)."""

    step: int
    score: float
    passed: bool
    loss: float | None


class QatRecord(Record):
    """What training brought; ``best`` is the step whose weights were kept (0: the network as it came)."""

    outcome: Literal["applied", "rejected"]
    reason: str
    reference_score: float
    max_drop: float
    best: int
    points: tuple[QatPoint, ...]
    stopped_early: bool
    settings: QatSettings
    seconds: float


class _RoundedWeight(nn.Module):
    """Symmetric rounding per output channel: weight -> weight on ``2**bits - 1`` levels.

    Args:
        bands: what each input channel is multiplied by before it, in the shape of the weight or one that spreads over it.
    """

    def __init__(self, bits: int, channel_dim: int, bands: Tensor | None = None) -> None:
        super().__init__()
        self.top, self.dim, self.bands = 2 ** (bits - 1) - 1, channel_dim, bands

    def forward(self, weight: Tensor) -> Tensor:
        return self._round(weight) if self.bands is None else self._round(weight / self.bands) * self.bands

    def _round(self, weight: Tensor) -> Tensor:
        axes = [d for d in range(weight.ndim) if d != self.dim]
        scale = weight.detach().abs().amax(axes, keepdim=True).clamp_min(1e-12) / self.top
        rounded: Tensor = weight + (torch.round(weight / scale) * scale - weight).detach()
        return rounded


class _RoundedInput:
    """8-bit rounding of a layer's input over a running range; starts from the calibration, follows slowly in training.

    Args:
        bands: what each channel is multiplied by before it is rounded, in a shape that spreads over the input.
    """

    def __init__(self, grid: Grid, bands: Tensor | None = None) -> None:
        self.grid, self.bands, self.observing, self.count = grid, bands, True, 0
        self.low = self.high = 0.0

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x: Tensor = inputs[0] if self.bands is None else inputs[0] * self.bands
        if self.observing or layer.training:
            self._observe(x.detach())
        if self.observing:
            return inputs
        rounded = self._round(x)
        return (rounded if self.bands is None else rounded / self.bands, *inputs[1:])

    def _observe(self, x: Tensor) -> None:
        samples = x.flatten(1)
        low, high = samples.amin(1).mean().item(), samples.amax(1).mean().item()
        self.count += 1
        weight = 1 / self.count if self.observing else 0.01
        self.low += weight * (low - self.low)
        self.high += weight * (high - self.high)

    def steps(self) -> tuple[float, float]:
        """Lowest value and size of a step; there are 255."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if self.grid == "signed" or (low < 0 and self.grid == "performance"):
            scale = max(high, -low, 1e-12) / 127
            return -128 * scale, scale
        scale = max(high - low, 1e-12) / 255
        return round(low / scale) * scale, scale  # zero stays exact

    def _round(self, x: Tensor) -> Tensor:
        low, scale = self.steps()
        kept = x.clamp(low, low + 255 * scale)
        return kept + (torch.round(kept / scale) * scale - kept).detach()


def quantizable_layers(module: nn.Module, float_layers: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name, without ``float_layers``.

    Raises:
        RequestError: a name in ``float_layers`` is no layer of the network.
    """
    names = {n for n, _ in module.named_modules()}
    unknown = sorted(set(float_layers) - names)
    if unknown:
        raise RequestError(f"qat.float_layers: the model has no layer '{unknown[0]}'")
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return {n: m for n, m in module.named_modules() if isinstance(m, kinds) and n not in float_layers}


def edge_layers(module: nn.Module, x: Tensor, which: Literal["none", "first", "last", "first-last"]) -> tuple[str, ...]:
    """Names of the first and last quantizable layers as they run on ``x``: what calibration left in float, as ``which`` says."""
    called: list[str] = []
    handles = [
        layer.register_forward_pre_hook(lambda _module, _inputs, name=name: called.append(name))  # type: ignore[misc]
        for name, layer in quantizable_layers(module).items()
    ]
    with torch.no_grad():
        module(x)
    for handle in handles:
        handle.remove()
    ends = {"none": [], "first": called[:1], "last": called[-1:], "first-last": [*called[:1], *called[-1:]]}
    return tuple(dict.fromkeys(ends[which]))


@contextmanager
def simulated(module: nn.Module, calibration: Sequence[Tensor], settings: QatSettings) -> Iterator[nn.Module]:
    """``module`` with rounding simulated in place; on leaving it is an ordinary float network again.

    Args:
        calibration: normalised batches (N, C, H, W) from which the input ranges start.
    """
    layers = quantizable_layers(module, settings.float_layers)
    modes = {m: m.training for m in module.modules()}
    bands = _first_bands(module.eval(), layers, calibration) if settings.activations != "signed" else {}
    inputs = {n: _RoundedInput(settings.activations, bands[n].input if n in bands else None) for n in layers}
    handles = [layer.register_forward_pre_hook(inputs[name]) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for batch in calibration:
                module(batch)
        for state in inputs.values():
            state.observing = False
        for name, layer in layers.items():
            transposed = bool(getattr(layer, "transposed", False))
            rounding = _RoundedWeight(
                settings.weight_bits, int(transposed), bands[name].weight if name in bands else None
            )
            parametrize.register_parametrization(layer, "weight", rounding, unsafe=True)
        yield module
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
                _bias_last(layer)
        for m, mode in modes.items():
            m.training = mode


@dataclass(frozen=True)
class _Bands:
    """By what the channels of a first layer's input are multiplied, as it spreads over the input and over the weight."""

    input: Tensor
    weight: Tensor


def _first_bands(
    module: nn.Module, layers: Mapping[str, nn.Module], calibration: Sequence[Tensor]
) -> dict[str, _Bands]:
    """OpenVINO's scales of bands before the first layer (:mod:`rsedge.compress.quantize.bands`); none where bands are alike."""
    name = next((n for n in edge_layers(module, calibration[0][:1], "first") if n in layers), None)
    if name is None:
        return {}
    layer, seen = layers[name], []

    def look(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0].detach().abs()
        x = x.movedim(-1, 1) if isinstance(layer, nn.Linear) else x
        seen.append(x.flatten(2).amax(2) if x.ndim > 2 else x)

    handle = layer.register_forward_pre_hook(look)
    with torch.no_grad():
        for batch in calibration:
            module(batch)
    handle.remove()
    scale = scale_of(torch.cat(seen).mean(0).double().cpu().numpy())
    return {} if scale is None else {name: _spread(layer, torch.from_numpy(scale).to(calibration[0].device))}


def _spread(layer: nn.Module, scale: Tensor) -> _Bands:
    if isinstance(layer, nn.Linear):
        return _Bands(scale, scale)
    assert isinstance(layer, nn.modules.conv._ConvNd)
    ones = [1] * len(layer.kernel_size)
    if layer.transposed:  # (inputs, outputs, ...)
        return _Bands(scale.view(-1, *ones), scale.view(-1, 1, *ones))
    of_groups = scale.view(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, 0)
    return _Bands(scale.view(-1, *ones), of_groups.view(layer.out_channels, -1, *ones))


def _bias_last(layer: nn.Module) -> None:
    """Registers the bias again behind the weight, so that the state dict keeps its order."""
    bias = getattr(layer, "bias", None)
    if bias is not None:
        del layer.bias
        layer.register_parameter("bias", bias)


def qat(
    module: nn.Module,
    calibration: Sequence[Tensor],
    loss: Callable[[nn.Module, int], Tensor],
    accept: Callable[[nn.Module], Acceptance],
    limit: Limit,
    settings: QatSettings | None = None,
    on_point: Callable[[int, int, QatPoint], None] | None = None,
) -> tuple[nn.Module, QatRecord]:
    """Trains a copy of ``module`` under simulated rounding and keeps the weights that are best by ``limit``.

    Args:
        calibration: normalised batches (N, C, H, W) on the module's device.
        loss: distillation loss of a module on batch ``step`` (a scalar with gradient).
        accept: what a *float* network does on the selection set once it is quantized (the caller quantizes and runs it).
        on_point: called after each scoring with (step, steps, point).

    Returns:
        The float network (eval mode) and the record; ``applied`` where it passes.

    Raises:
        RequestError: no calibration, an unknown layer, or a loss that is not finite.
    """
    settings = settings or QatSettings()
    if not calibration:
        raise RequestError("qat: no calibration batches; input ranges are never guessed")
    return _Trainer(module, calibration, loss, accept, limit, settings, on_point).run()


class _Trainer:
    def __init__(
        self,
        module: nn.Module,
        calibration: Sequence[Tensor],
        loss: Callable[[nn.Module, int], Tensor],
        accept: Callable[[nn.Module], Acceptance],
        limit: Limit,
        settings: QatSettings,
        on_point: Callable[[int, int, QatPoint], None] | None,
    ) -> None:
        self.work = copy.deepcopy(module).eval()
        self.best = copy.deepcopy(module).eval()
        self.calibration, self.loss, self.accept, self.limit = calibration, loss, accept, limit
        self.settings, self.on_point = settings, on_point
        self.points: list[QatPoint] = []
        self.best_step = 0
        self.best_found: Acceptance | None = None

    def run(self) -> tuple[nn.Module, QatRecord]:
        started = time.perf_counter()
        self._take_point(0, None)
        step, stopped = 0, False
        optimizer = torch.optim.AdamW([p for p in self.work.parameters() if p.requires_grad], lr=self.settings.lr)
        while step < self.settings.steps and not stopped:
            end = min(step + self.settings.score_every, self.settings.steps)
            mean = self._train(optimizer, step, end)
            step = end
            self._take_point(step, mean)
            scorings = sum(p.step > self.best_step for p in self.points)
            stopped = scorings >= self.settings.patience and step < self.settings.steps
        assert self.best_found is not None
        gained = self.best_found.score - self.points[0].score
        reason = f"step {self.best_step}: score {self.best_found.score:.4f} ({gained:+.4f}), "
        return self.best, QatRecord(
            outcome="applied" if self.limit.passes(self.best_found) else "rejected",
            reason=reason + self.limit.words(self.best_found),
            reference_score=self.limit.reference.score,
            max_drop=self.limit.max_drop,
            best=self.best_step,
            points=tuple(self.points),
            stopped_early=stopped,
            settings=self.settings,
            seconds=time.perf_counter() - started,
        )

    def _train(self, optimizer: torch.optim.Optimizer, start: int, end: int) -> float:
        """Steps ``start`` to ``end`` under simulated rounding; the mean loss."""
        total = 0.0
        names = dict(self.work.named_parameters())
        with simulated(self.work, self.calibration, self.settings):
            self.work.train()
            for m in self.work.modules():
                if isinstance(m, _BatchNorm):
                    m.eval()
            for step in range(start, end):
                total += self._update(optimizer, step)
        assert all(p is names[n] for n, p in self.work.named_parameters()), "the optimizer holds these parameters"
        return total / (end - start)

    def _update(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        for group in optimizer.param_groups:  # cosine to zero
            group["lr"] = self.settings.lr * 0.5 * (1 + math.cos(math.pi * step / self.settings.steps))
        optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed + step)
            value: Any = self.loss(self.work, step)
        if not torch.isfinite(value):
            raise RequestError(f"qat: the loss at step {step} is {value.item()}; lower qat.lr")
        value.backward()
        optimizer.step()
        return float(value.detach())

    def _take_point(self, step: int, loss: float | None) -> None:
        plain = copy.deepcopy(self.work).eval()
        plain.zero_grad(set_to_none=True)
        found = self.accept(plain)
        self.points.append(QatPoint(step=step, score=found.score, passed=self.limit.passes(found), loss=loss))
        if self.best_found is None or self.limit.rank(found) > self.limit.rank(self.best_found):
            self.best, self.best_step, self.best_found = plain, step, found
        if self.on_point is not None:
            self.on_point(step, self.settings.steps, self.points[-1])
