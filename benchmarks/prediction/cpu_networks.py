"""The networks that the calibrated CPU prediction is tried on: timm and smp, none of them in the calibration suite."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import nn

# family -> timm names, all at 224 pixels.
TIMM: dict[str, tuple[str, ...]] = {
    "CNN": ("resnet18", "resnet34", "resnet50", "regnetx_008", "densenet121", "vgg11_bn", "repvgg_a0"),
    "mobile CNN": ("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0", "mnasnet_100", "ghostnet_100"),
    "ViT": ("vit_tiny_patch16_224", "vit_small_patch16_224", "deit_tiny_patch16_224", "vit_small_patch32_224"),
    "hybrid": (
        "convnext_atto",
        "efficientvit_b0",
        "efficientformerv2_s0",
        "edgenext_xx_small",
        "levit_128s",
        "swin_tiny_patch4_window7_224",
    ),
}
# smp decoder, encoder, pixels.
SMP = (
    ("Unet", "resnet18", 224),
    ("Unet", "mobilenet_v2", 256),
    ("FPN", "resnet18", 256),
    ("Linknet", "resnet18", 256),
    ("DeepLabV3Plus", "mobilenet_v2", 256),
)


def networks() -> dict[str, str]:
    """Name -> family, families in turn."""
    families = TIMM | {"U-Net": tuple(f"{decoder}-{encoder}-{size}" for decoder, encoder, size in SMP)}
    turns = itertools.zip_longest(*([(name, family) for name in names] for family, names in families.items()))
    return dict(pair for turn in turns for pair in turn if pair is not None)


def build(name: str) -> tuple[nn.Module, int]:
    """The network with random weights, ready for export, and its image size."""
    if "-" in name:
        import segmentation_models_pytorch as smp

        decoder, encoder, size = name.rsplit("-", 2)
        net: nn.Module = getattr(smp, decoder)(encoder, encoder_weights=None, classes=3)
        return net.eval(), int(size)
    import timm
    from timm.utils.model import reparameterize_model

    return reparameterize_model(timm.create_model(name, pretrained=False, exportable=True).eval()), 224


def export_f32(name: str, path: Path) -> None:
    """Writes the network as ONNX, opset 17."""
    net, size = build(name)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.onnx.export(net, (torch.randn(1, 3, size, size),), str(path), opset_version=17, dynamo=False)


def export_int8(f32: Path, path: Path) -> None:
    """Writes the ONNX file as int8 IR with NNCF. Ranges come from noise: only its speed is of use, never its results."""
    import nncf
    import numpy as np
    import openvino as ov

    model: Any = ov.Core().read_model(str(f32))
    random = np.random.default_rng(0)
    shape = tuple(model.inputs[0].shape)
    samples = nncf.Dataset([random.normal(0, 1, shape).astype(np.float32) for _ in range(2)])
    kind = nncf.ModelType.TRANSFORMER if any(o.get_type_name() == "Softmax" for o in model.get_ops()) else None
    ov.save_model(nncf.quantize(model, samples, subset_size=2, model_type=kind, fast_bias_correction=True), str(path))
