"""Features of networks of no family: declared by their library, said by themselves, or shown by runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.models.families import network_features
from rsedge.models.features import Feature, Features, Shape
from rsedge.models.outside.loading import load_outside
from rsedge.models.published import published
from rsedge.models.students import CATALOGUE, build_student
from rsedge.models.teachers import Teacher
from tests.models.students.small_students import QUICK, small_arguments, small_contract


def of(net: nn.Module, *shape: int) -> dict[str, Feature]:
    """The published features by name, each of which fits what runs."""
    x = torch.randn(1, *shape)
    found = published(net.eval(), (x,))
    check(net, found, x)
    return {f.name: f for f in found}


def check(net: nn.Module, features: Features, x: Tensor) -> None:
    seen: dict[str, Any] = {}

    def keep(feature: Feature) -> Any:
        return lambda module, inputs, output: seen.__setitem__(feature.name, feature.taken(output))

    handles = [net.get_submodule(f.module).register_forward_hook(keep(f)) for f in features]
    with torch.inference_mode():
        net(x.repeat(2, *[1] * (x.ndim - 1)))
    for handle in handles:
        handle.remove()
    for feature in features:
        assert feature.holds(seen[feature.name].shape), feature
        feature.channels_first(seen[feature.name])


@pytest.mark.parametrize(
    ("name", "options", "feature"),
    [
        ("resnet18", {}, Feature("layer3", 256, "NCHW", 16)),
        ("mobilenetv4_conv_small", {}, Feature("blocks.2", 96, "NCHW", 16)),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
            Feature("layers.1", 32, "NHWC", 8),
        ),
        (
            "vit_small_patch14_reg4_dinov2",
            {"img_size": 56, "depth": 2, "embed_dim": 32, "num_heads": 2},
            Feature("blocks.1", 32, "NLC", 14, (4, 4), 5),
        ),
        # Neither declares what fits: a mixer's tokens are on no grid that it names, HRNet's stages are no modules.
        ("mixer_s16_224", {"img_size": 64}, Feature("blocks.1", 512, "NLC", 16, (4, 4))),
        ("hrnet_w18_small", {}, Feature("layer1", 128, "NCHW", 4)),
    ],
)
def test_timm_says_which_modules_and_a_run_says_the_layout(
    name: str, options: dict[str, Any], feature: Feature
) -> None:
    net = timm.create_model(name, pretrained=False, **options)
    assert of(net, 3, *[options.get("img_size", 64)] * 2)[feature.name] == feature


@pytest.mark.parametrize("kind", ["unet", "fpn", "deeplabv3plus", "segformer", "upernet"])
def test_smp_says_the_levels_of_its_encoder_and_its_decoder(kind: str) -> None:
    import segmentation_models_pytorch as smp

    found = of(smp.create_model(kind, "resnet18", None, in_channels=2, classes=3), 2, 64, 64)
    assert found["encoder[2]"] == Feature("encoder[2]", 64, "NCHW", 4)
    assert found["encoder[5]"].stride == (16 if kind == "deeplabv3plus" else 32)
    assert found["decoder"].stride == (1 if kind == "unet" else 4)


def test_what_declares_nothing_is_shown_by_runs() -> None:
    from torchvision import models

    assert of(models.resnet18(weights=None), 3, 64, 64)["layer3"] == Feature("layer3", 256, "NCHW", 16)
    swin = models.SwinTransformer([4, 4], 16, [1, 1, 1, 1], [1, 1, 2, 2], [2, 2])
    assert of(swin, 3, 64, 64)["features.3"] == Feature("features.3", 32, "NHWC", 8)
    vit = models.VisionTransformer(64, 16, 2, 2, 32, 64)
    name = "encoder.layers.encoder_layer_1"
    assert of(vit, 3, 64, 64)[name] == Feature(name, 32, "NLC", 16, (4, 4), 1)


def test_models_of_transformers() -> None:
    hf = pytest.importorskip("transformers")
    from rsedge.models.outside.transformers import _Logits

    config = hf.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16
    )
    found = of(_Logits(hf.ViTForImageClassification(config), False), 3, 64, 64)
    assert found["model.vit.layernorm"] == Feature("model.vit.layernorm", 32, "NLC", 16, (4, 4), 1)


def test_a_teacher_of_another_library_publishes_its_features(tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    net = smp.create_model("unet", "resnet18", None, in_channels=2, classes=1)
    torch.save(net.state_dict(), tmp_path / "x.pth")
    spec = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), tile=64)
    # One channel for two classes: the network stands inside the one that answers.
    found, row = load_outside("smp:unet/resnet18", spec, ("water",), tmp_path / "x.pth")
    teacher = Teacher(found, row, row.arch)
    assert Feature("net.net.encoder[3]", 128, "NCHW", 8) in teacher.features
    assert network_features("python", found, spec.shape)[0].name == "net.encoder[1]"


def test_a_network_says_them_itself() -> None:
    class Own(nn.Conv2d):
        def feature_contract(self, shape: Shape) -> Features:
            return (Feature("wide", shape[0], "NC"),)

    assert published(Own(2, 3, 1), (torch.zeros(1, 2, 8, 8),)) == (Feature("wide", 2, "NC"),)


@pytest.mark.parametrize("name", QUICK)
def test_students_have_features(name: str) -> None:
    spec = small_contract(name, CATALOGUE[name].layouts[0])
    found = of(build_student(name, small_arguments(name, spec)), *spec.shape)
    assert found and all(f.stride <= 64 for f in found.values())
    if name in ("slim-unet", "siamese-unet", "slim-detector"):
        inside = "features." if name == "slim-detector" else ""
        assert found[f"{inside}decoder.1"].stride == 8


class _Laid(nn.Module):
    """A map of ``stride`` in a layout, from which no more is made."""

    def __init__(self, layout: str, stride: int, channels: int, fixed: bool, prefix: int) -> None:
        super().__init__()
        self.layout, self.fixed, self.prefix = layout, fixed, prefix
        self.patches, self.laid = nn.Conv2d(2, channels, stride, stride), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        assert not self.fixed or x.shape[-1] == x.shape[-2]
        y = self.patches(x)
        if self.layout == "NHWC":
            y = y.permute(0, 2, 3, 1)
        if self.layout == "NLC":
            y = y.flatten(2).transpose(1, 2)
            y = torch.cat([y[:, : self.prefix], y], 1)
        return self.laid(y)  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["NCHW", "NHWC", "NLC"]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 20),
    st.booleans(),
    st.integers(0, 4),
)
def test_runs_show_the_layout_or_nothing(layout: Any, stride: int, channels: int, fixed: bool, prefix: int) -> None:
    """Whatever the sizes (as many channels as rows too): what is published is right, and without a fixed size it always is."""
    side = 16 // stride
    net = _Laid(layout, stride, channels, fixed, prefix)
    found = {f.name: f for f in published(net, (torch.zeros(1, 2, 16, 16),))}
    grid, first = ((side, side), min(prefix, side**2)) if layout == "NLC" else (None, 0)
    expected = Feature("laid", channels, layout, stride, grid, first)
    if fixed:
        assert found.get("laid", expected) == expected
    else:
        assert found["laid"] == expected


def test_what_runs_on_other_axes_than_the_batch_is_not_published() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.table = nn.Linear(4, 4), nn.Embedding(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            windows = self.inner(x.unfold(3, 4, 4).flatten(0, 2))
            return windows.sum() + self.table(torch.tensor([0, 1])).sum() + x.mean((2, 3))

    assert published(Windows(), (torch.zeros(1, 2, 8, 8),)) == ()
