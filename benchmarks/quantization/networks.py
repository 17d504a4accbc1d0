"""Networks with random weights in INT8: bf16 for what is left in float, and the layers that a profile calls slow, in float."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import openvino as ov
import timm
import torch

from rsedge.compress.quantize.alone import rounded_layers
from rsedge.compress.quantize.layer_times import layer_times, node_times
from rsedge.compress.quantize.ptq import PtqSettings, compute_layers, is_transformer, quantize
from rsedge.devices.measure.decide import race
from rsedge.runtimes.openvino.core import has_bf16, settings, shared_core

NETWORKS = {
    "ResNet-50": "resnet50",
    "MobileNetV3-L": "mobilenetv3_large_100",
    "ConvNeXt-T": "convnext_tiny",
    "ViT-S": "vit_small_patch16_224",
    "Swin-T": "swin_tiny_patch4_window7_224",
}
EDGE, SECONDS = 224, 2.0
BF16 = {"INFERENCE_PRECISION_HINT": "bf16"}


def measured(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    example = torch.rand(1, 3, EDGE, EDGE)
    with torch.no_grad():
        model = ov.convert_model(timm.create_model(NETWORKS[name], num_classes=8).eval(), example_input=example)
    model.reshape([1, 3, EDGE, EDGE])
    tiles = [np.random.default_rng(i).normal(size=(3, EDGE, EDGE)).astype(np.float32) for i in range(4)]
    attention = is_transformer(model)
    chosen = PtqSettings(
        preset="mixed" if attention else "performance", smooth_quant=0.5 if attention else None, overflow="disable"
    )
    int8, feed = quantize(model, tiles, chosen), {0: tiles[0][None]}
    found: dict[str, Any] = {"f32": _slow(model, int8, tiles, chosen, {})}
    if has_bf16(shared_core()):
        found["bf16"] = _slow(model, int8, tiles, chosen, BF16)
        found["bf16 over f32"] = _ratio(_request(int8, BF16), _request(int8, {}), feed)
    return found


def _request(model: ov.Model, more: dict[str, str]) -> Any:
    options = settings("CPU", "int8", 1) | more
    return shared_core().compile_model(model, "CPU", options).create_infer_request()


def _ratio(new: Any, old: Any, feed: Any) -> dict[str, Any]:
    raced = race(
        {"new": functools.partial(new.infer, feed), "old": functools.partial(old.infer, feed)}, seconds=SECONDS
    )
    ratio = raced.ratio("new", "old")
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high, "noise": raced.too_noisy()}


def _slow(model: ov.Model, int8: ov.Model, tiles: Any, chosen: PtqSettings, more: dict[str, str]) -> dict[str, Any]:
    """Layers whose INT8 is no faster by the profile, what they would save by it, and the time of the whole with them in float."""
    feed, profiled = {0: tiles[0][None]}, more | {"PERF_COUNT": "YES"}
    times = node_times(_request(int8, profiled), _request(model, profiled), feed)
    layers = layer_times(*times, compute_layers(model), rounded_layers(int8))
    slow = [layer for layer in layers if layer.saved_ms >= 0]
    found: dict[str, Any] = {
        "layers": len(layers),
        "slow": len(slow),
        "saves": sum(layer.saved_ms for layer in slow) / sum(layer.int8_ms for layer in layers),
    }
    if slow:
        names = tuple(name for layer in slow for name in layer.layers)
        reverted = quantize(model, tiles, chosen.model_copy(update={"float_names": names}))
        found["whole"] = _ratio(_request(reverted, more), _request(int8, more), feed)
    return found
