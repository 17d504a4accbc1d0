"""Networks with random weights as OpenVINO runs them on one thread: whole, and with something replaced; in f32 and in INT8."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
import timm
import torch
from torch import Tensor, nn

from rsedge.compress.quantize.ptq import PtqSettings, is_transformer, quantize
from rsedge.compress.replace.candidates import with_activations, with_merged_tokens
from rsedge.devices.measure.decide import race
from rsedge.models.families.ukis import build
from rsedge.models.layers.activations import CHEAP
from rsedge.runtimes.openvino.core import settings, shared_core

SECONDS, THREADS, CLASSES = 1.5, 1, 8
SHARES = (0.25, 0.5, 0.75)
Made = dict[str, nn.Module]


def plain(name: str, edge: int = 224, **more: Any) -> tuple[nn.Module, Tensor]:
    """One of timm's, and an input."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=CLASSES, **more)
    return net.eval().requires_grad_(False), torch.rand(1, 3, edge, edge)


def cloud_teacher() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return build(6, 5).eval().requires_grad_(False), torch.rand(1, 6, 256, 256)


NETWORKS: Mapping[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "EfficientNet-B0": partial(plain, "efficientnet_b0"),
    "U-Net on EfficientNet-B4 (UKIS)": cloud_teacher,
    "ViT-S/16": partial(plain, "vit_small_patch16_224"),
    "ViT-S/16, 384 pixels": partial(plain, "vit_small_patch16_224", 384, img_size=384),
    "ConvNeXt-T": partial(plain, "convnext_tiny"),
}
ACTIVATIONS = ("EfficientNet-B0", "U-Net on EfficientNet-B4 (UKIS)", "ViT-S/16", "ConvNeXt-T")
TOKENS = ("ViT-S/16", "ViT-S/16, 384 pixels")
KERNELS = ("ConvNeXt-T",)
FOLDS = ("EfficientNet-B0", "U-Net on EfficientNet-B4 (UKIS)")


def activations(name: str) -> dict[str, Any]:
    """Time of the network with each cheap activation over that as it is."""
    net, x = NETWORKS[name]()
    found = with_activations(net, tuple(CHEAP))
    return timed({"whole": net} | {kind: one.of(net) for kind, one in zip(CHEAP, found, strict=True)}, x)


def tokens(name: str) -> dict[str, Any]:
    """Time with shares of the tokens merged over that without."""
    net, x = NETWORKS[name]()
    made, left = {"whole": net}, {}
    for share in SHARES:
        (one,) = with_merged_tokens(net, x, (share,))
        made[f"{share:g}"] = one.of(net)
        left[f"{share:g}"] = _left(one.entries["blocks"]["counts"], x)
    return timed(made, x) | {"left": left}


def _left(counts: list[int], x: Tensor) -> float:
    """Tokens as a share of all, mean over what the blocks' two halves see: a merge lies between them."""
    first = (x.shape[-1] // 16) ** 2 + 1
    before = first - np.concatenate([[0], np.cumsum(counts)[:-1]])
    return float((before + first - np.cumsum(counts)).mean() / 2 / first)


def kernels(name: str) -> dict[str, Any]:
    """Time with each depthwise 7x7 split over that as it is; the receptive field stays."""
    net, x = NETWORKS[name]()
    ways = {
        "three 3x3": lambda c: _row(c, (3, 3), 3),
        "7x1 and 1x7": lambda c: nn.Sequential(*_row(c, (7, 1), 1), *_row(c, (1, 7), 1)),
    }
    return timed({"whole": net} | {way: _split(net, made) for way, made in ways.items()}, x)


def _row(channels: int, kernel: tuple[int, int], count: int) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        *(nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels) for _ in range(count))
    )


def _split(net: nn.Module, made: Callable[[int], nn.Module]) -> nn.Module:
    net = copy.deepcopy(net)
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (7, 7) and layer.groups == layer.in_channels:
            owner, _, key = name.rpartition(".")
            net.get_submodule(owner)._modules[key] = made(layer.in_channels)
    return net


def folds(name: str) -> dict[str, Any]:
    """What is left of batch norms: layers in torch, and in the model that OpenVINO is given the convolutions, the batch norms, and
    the products with constants that a convolution's output goes into, as a batch norm's scale would be."""
    net, x = NETWORKS[name]()
    found: dict[str, Any] = {"torch": sum(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules())}
    model = converted(net, x)
    for precision, made in {"f32": model, "int8": rounded(model, x)}.items():
        ops = made.get_ops()
        kinds = [op.get_type_name() for op in ops]
        found[precision] = {
            "operators": sum(kind not in NO_WORK for kind in kinds),
            "convolutions": sum(kind in CONVOLUTIONS for kind in kinds),
            "norms": sum("BatchNorm" in kind for kind in kinds),
            "scales": sum(_scale(op) for op in ops),
        }
    return found


NO_WORK = ("Parameter", "Constant", "Convert", "Result")
CONVOLUTIONS = ("Convolution", "GroupConvolution")


def _scale(op: ov.Node) -> bool:
    """Whether an operator multiplies what a convolution gives by constants."""
    given = {value.get_source_output().get_node().get_type_name() for value in op.inputs()}
    return op.get_type_name() == "Multiply" and "Constant" in given and bool(given & set(CONVOLUTIONS))


def converted(net: nn.Module, x: Tensor) -> ov.Model:
    with torch.no_grad():
        return ov.convert_model(net, example_input=x, input=[list(x.shape)])


def rounded(model: ov.Model, x: Tensor) -> ov.Model:
    """In INT8, from four drawn inputs: it is timed, and judged by nobody."""
    tiles = [np.random.default_rng(i).normal(size=tuple(x.shape[1:])).astype(np.float32) for i in range(4)]
    attention = is_transformer(model)
    chosen = PtqSettings(
        preset="mixed" if attention else "performance", smooth_quant=0.5 if attention else None, overflow="disable"
    )
    return quantize(model, tiles, chosen)


def timed(nets: Made, x: Tensor) -> dict[str, Any]:
    """Ratios of all to ``whole``, by precision, and milliseconds of that."""
    models = {name: converted(net, x) for name, net in nets.items()}
    found: dict[str, Any] = {}
    for precision in ("f32", "int8"):
        made = {name: rounded(model, x) if precision == "int8" else model for name, model in models.items()}
        raced = race({name: _runner(model, precision, x) for name, model in made.items()}, seconds=SECONDS)
        ratios = {name: raced.ratio(name, "whole").model_dump() for name in made if name != "whole"}
        found[precision] = {"ms": raced.used_ms("whole"), "ratios": ratios, "noise": raced.too_noisy()}
    return found


def _runner(model: ov.Model, precision: str, x: Tensor) -> Callable[[], Any]:
    request = shared_core().compile_model(model, "CPU", settings("CPU", precision, THREADS)).create_infer_request()
    return partial(request.infer, {0: x.numpy()})
