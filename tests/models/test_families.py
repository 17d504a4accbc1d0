"""Forward passes against independent implementations of the same architectures, with the same random weights (<= 1e-5)."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from rsedge.models.families.group_vit import GroupViT
from rsedge.models.families.spectral_vit import PatchEmbed3d, SpectralViT
from rsedge.models.families.temporal_vit import TemporalViT
from rsedge.models.families.vit import build as build_vit
from rsedge.models.zoo import TeacherRow
from tests.conftest import Results
from tests.models.small import random_net, small_row

TOLERANCE = 1e-5


def close(a: Tensor, b: Tensor) -> bool:
    assert a.shape == b.shape
    assert a.std() > 1e-3, "outputs that do not vary prove nothing"
    return bool((a - b).abs().max() <= TOLERANCE * max(1.0, float(b.abs().max())))


def images(row: TeacherRow, count: int = 2) -> Tensor:
    return torch.randn(count, *row.input_spec.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("depth", "block"), [(18, BasicBlock), (50, Bottleneck)])
def test_resnet_is_torchvisions(depth: int, block: type[BasicBlock | Bottleneck], results: Results) -> None:
    row = small_row("ssl4eo-l-tm-toa-resnet18")
    ours = random_net(row, depth=depth, layers=[1, 2, 1, 2], width=64)
    other = ResNet(block, [1, 2, 1, 2])
    other.conv1 = nn.Conv2d(7, 64, 7, 2, 3, bias=False)
    other.fc = nn.Identity()
    other.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        assert close(ours(images(row)), other.eval()(images(row)))
    results.setdefault("family resnet", {})["library"] = "torchvision"


def test_vit_is_torchvisions(results: Results) -> None:
    row = small_row("satmae-rgb-vitl")
    ours = random_net(row, classes=5)
    other = torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 128, num_classes=5)
    names = {
        "cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj": "conv_proj",
        "norm": "encoder.ln", "head": "heads.head",
    }  # fmt: skip
    block = {
        "norm1": "ln_1", "norm2": "ln_2", "attn.qkv.weight": "self_attention.in_proj_weight",
        "attn.qkv.bias": "self_attention.in_proj_bias", "attn.proj": "self_attention.out_proj", "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }  # fmt: skip
    state = {}
    for key, value in ours.state_dict().items():
        table, prefix, rest = names, "", key
        if found := re.match(r"blocks\.(\d+)\.", key):
            table, prefix, rest = block, f"encoder.layers.encoder_layer_{found[1]}.", key[found.end() :]
        old = max((k for k in table if rest.startswith(k)), key=len)
        state[prefix + table[old] + rest[len(old) :]] = value
    other.load_state_dict(state)
    with torch.inference_mode():
        assert close(ours(images(row)), other.eval()(images(row)))
    results.setdefault("family vit", {})["library"] = "torchvision"


def test_parallel_blocks_with_one_branch_are_the_plain_ones() -> None:
    row = small_row("billion-scale-vit-l12x4")
    ours = random_net(row)
    assert {f"blocks.0.attns.{i}.attn.qkv.weight" for i in range(4)} <= set(ours.state_dict())
    # Branches that end in nothing leave the plain block: the other three projections are silenced.
    plain = build_vit(**{**row.arch, "parallel": 1}).eval()
    state = {}
    with torch.no_grad():
        for key, value in ours.state_dict().items():
            if re.search(r"(attns|ffns)\.[1-3]\..*(attn\.proj|fc2)", key):
                value.zero_()
            elif ".0." in key or "blocks" not in key:
                key = re.sub(r"attns\.0\.norm", "norm1", key)
                key = re.sub(r"ffns\.0\.norm", "norm2", key)
                key = re.sub(r"(attns|ffns)\.0\.", "", key)
                state[key] = value
    kept = {k: v for k, v in state.items() if k in plain.state_dict()}
    plain.load_state_dict(kept)
    with torch.inference_mode():
        assert close(ours(images(row)), plain(images(row)))


def test_one_group_of_bands_is_a_plain_vit(results: Results) -> None:
    row = small_row("satmae-ms-vitb")
    ours = random_net(row, groups=[list(range(10))])
    assert isinstance(ours, GroupViT)
    plain = build_vit(10, 32, 8, 32, 2, 2).eval()
    state = {k.replace("patch_embed.0", "patch_embed"): v for k, v in ours.state_dict().items()}
    group = torch.cat([state.pop("channel_cls_embed"), state.pop("channel_embed").expand(-1, 16, -1)], 1)
    state["pos_embed"] = torch.cat([state["pos_embed"], group], -1)
    plain.load_state_dict(state)
    with torch.inference_mode():
        assert close(ours(images(row)), plain(images(row)))
    results.setdefault("family group_vit", {})["library"] = "timm (one group)"


def test_each_group_sees_its_own_bands() -> None:
    row = small_row("satmae-ms-vitb")
    ours = random_net(row)
    assert isinstance(ours, GroupViT)
    x = images(row)
    for group, embed in zip(row.arch["groups"], ours.patch_embed, strict=True):
        seen: list[Tensor] = []
        with embed.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0])):
            ours(x)
        assert torch.equal(seen[0], x[:, group])


def test_temporal_vit_with_one_frame_is_a_plain_vit(results: Results) -> None:
    row = small_row("satmae-temporal-vitl")
    ours = random_net(row, frames=1)
    assert isinstance(ours, TemporalViT)
    times = torch.tensor([[[14.0, 6.0, 11.0]]])
    phases = times[0, 0].double()[:, None] / 10000 ** (torch.arange(4, dtype=torch.float64) / 4)
    date = torch.cat([phases.sin(), phases.cos()], 1).flatten().float()
    plain = build_vit(3, 32, 16, 48, 2, 2).eval()
    state = dict(ours.state_dict())
    when = torch.cat([torch.zeros(1, 24), date.expand(4, -1)])[None]
    state["pos_embed"] = torch.cat([state["pos_embed"], when], -1)
    plain.load_state_dict(state)
    x = images(row, 1)
    with torch.inference_mode():
        assert close(ours(x[:, :1], times), plain(x[:, 0]))
    results.setdefault("family temporal_vit", {})["library"] = "timm (one frame)"


def test_frames_and_their_dates_go_together() -> None:
    ours = random_net(small_row("satmae-temporal-vitl"))
    x = images(small_row("satmae-temporal-vitl"), 1)
    times = torch.tensor([[[14.0, 6.0, 11.0], [15.0, 1.0, 10.0], [16.0, 9.0, 12.0]]])
    turned = torch.tensor([2, 0, 1])
    with torch.inference_mode():
        assert close(ours(x[:, turned], times[:, turned]), ours(x, times))
        assert not close(ours(x[:, turned], times), ours(x, times))


def test_spectral_tokens_are_those_of_the_3d_convolution() -> None:
    torch.manual_seed(0)
    embed, x = PatchEmbed3d(3, 8, 16), torch.randn(2, 12, 32, 32)
    with torch.inference_mode():
        expected = embed.proj(x[:, None]).flatten(3).permute(0, 2, 3, 1).flatten(1, 2)
        assert close(embed(x), expected)


def test_spectral_blocks_are_timms(results: Results) -> None:
    row = small_row("spectralgpt-vitb")
    ours = random_net(row)
    assert isinstance(ours, SpectralViT)
    x = images(row)
    for block in ours.blocks:
        other = timm.models.vision_transformer.Block(32, 2, qkv_bias=True, norm_layer=type(block.norm1)).eval()
        other.norm1, other.norm2, other.mlp = block.norm1, block.norm2, block.mlp
        attention = block.attn
        other.attn.proj = attention.proj
        layers = (attention.q, attention.k, attention.v)
        with torch.inference_mode():
            other.attn.qkv.weight.copy_(torch.cat([layer.weight for layer in layers]))
            other.attn.qkv.bias.copy_(torch.cat([layer.bias for layer in layers]))
            tokens = ours.patch_embed(x)
            assert close(block(tokens), other(tokens))
    results.setdefault("family spectral_vit", {})["library"] = "Conv3d and timm blocks"


def swin_state(ours: nn.Module) -> dict[str, Tensor]:
    """timm's names of a Swin as torchvision's: stages 0..3 are features 1, 3, 5, 7 and downsampling lies between."""
    state = {}
    for key, value in ours.state_dict().items():
        key = key.replace("patch_embed.proj", "features.0.0").replace("patch_embed.norm", "features.0.2")
        key = re.sub(r"layers\.(\d)\.downsample", lambda m: f"features.{2 * int(m[1])}", key)
        key = re.sub(r"layers\.(\d)\.blocks", lambda m: f"features.{2 * int(m[1]) + 1}", key)
        state[key.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = value
    return state


def test_swin_is_torchvisions(results: Results) -> None:
    row = small_row("gfm-swinb")
    # 4-pixel windows at 128 pixels: 32, 16, 8 and 4 patches per side, so that shifted windows are masked at three scales
    ours = random_net(row, tile=128)
    other = torchvision.models.SwinTransformer([4, 4], 16, [2, 2, 2, 2], [1, 2, 4, 8], [4, 4])
    other.head = nn.Identity()
    missing, unexpected = other.load_state_dict(swin_state(ours), strict=False)
    assert not unexpected and all(k.endswith("relative_position_index") for k in missing)
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert close(ours(x), other.eval()(x))
    results.setdefault("family swin", {})["library"] = "torchvision"


def test_swin_v2_is_timms(results: Results) -> None:
    row = small_row("satlas-s2-ms-swinv2t")
    ours = random_net(row)
    other = timm.models.swin_transformer_v2.SwinTransformerV2(
        img_size=64, patch_size=4, in_chans=9, num_classes=0, embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8),
        window_size=2,
    ).eval()  # fmt: skip
    other.norm = nn.Identity()
    state = {}
    for key, value in ours.state_dict().items():
        if key.endswith(("relative_position_index", "relative_coords_table")):
            continue
        key = key.replace("features.0.0", "patch_embed.proj").replace("features.0.2", "patch_embed.norm")
        found = re.match(r"features\.(\d)\.", key)
        if found:
            stage, odd = divmod(int(found[1]), 2)
            key = f"layers.{stage}." + ("blocks." if odd else "downsample.") + key[found.end() :]
        key = re.sub(r"blocks\.(\d)\.mlp\.0", r"blocks.\1.mlp.fc1", key)
        key = re.sub(r"blocks\.(\d)\.mlp\.3", r"blocks.\1.mlp.fc2", key)
        if key.endswith("attn.qkv.bias"):
            dim = len(value) // 3
            state[key.replace("qkv.bias", "q_bias")], state[key.replace("qkv.bias", "v_bias")] = (
                value[:dim],
                value[-dim:],
            )
            continue
        state[key] = value
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected and all("relative" in k or k.endswith("k_bias") for k in missing)
    with torch.inference_mode():
        assert close(ours(images(row)), other(images(row)))
    results.setdefault("family swin_v2", {})["library"] = "timm"


def test_swin_v2_is_torchvisions_where_windows_need_padding() -> None:
    """24, 12, 6 and 3 patches per side in windows of 8: shifted and masked, padded, and smaller than one window."""
    row = small_row("satlas-s2-rgb-swinv2t")
    ours = random_net(row, window=8)
    other = torchvision.models.SwinTransformer(
        [4, 4], 16, [2, 2, 2, 2], [1, 2, 4, 8], [8, 8], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
    )
    other.norm, other.head = nn.Identity(), nn.Identity()
    other.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert close(ours(x), other.eval()(x))


def test_several_images_give_the_largest_of_torchvisions_maps() -> None:
    """At each place, then the mean over places."""
    row = small_row("satlas-s2-rgb-mi-swinv2b")
    ours = random_net(row, frames=3)
    other = torchvision.models.SwinTransformer(
        [4, 4], 16, [2, 2, 2, 2], [1, 2, 4, 8], [2, 2], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
    )
    other.norm, other.head = nn.Identity(), nn.Identity()
    other.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = torch.stack([other.eval().features(x[:, i]) for i in range(3)])
        assert close(ours(x), maps.amax(0).mean((1, 2)))
        assert not close(ours(x), other(x[:, 0]))


def test_several_images_give_the_largest_of_a_resnets_maps() -> None:
    row = small_row("satlas-s2-rgb-mi-resnet50")
    ours = random_net(row, frames=3, width=64)
    body = ResNet(Bottleneck, [1, 1, 1, 1])
    body.fc = nn.Identity()
    body.load_state_dict(ours.state_dict())
    trunk = nn.Sequential(*list(body.eval().children())[:-2])
    x = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = torch.stack([trunk(x[:, i]) for i in range(3)])
        assert close(ours(x), maps.amax(0).mean((2, 3)))


def test_deeplab_pyramid_and_backbone_are_torchvisions(results: Results) -> None:
    row = small_row("glcnet-rgb")
    ours = random_net(row, width=64)
    pyramid = ASPP(2048, [6, 12, 18], 16)
    state = {}
    for key, value in ours.encoder.state_dict().items():
        key = re.sub(r"ASPP\._atrous_convolution(\d)", lambda m: f"convs.{int(m[1]) - 1}", key)
        key = key.replace("ASPP._image_pool", "convs.4").replace("conv1.", "project.0.").replace("bn1.", "project.1.")
        state[key] = value
    pyramid.load_state_dict(state)
    body = ResNet(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, False, True])
    body.layer4[0].conv2.dilation = body.layer4[0].conv2.padding = (2, 2)
    body.fc = nn.Identity()
    body.load_state_dict(ours.backbone.state_dict())
    features = torchvision.models._utils.IntermediateLayerGetter(body.eval(), {"layer4": "out"})
    seen: list[Tensor] = []
    with torch.inference_mode(), ours.encoder.register_forward_hook(lambda *a: seen.append(a[2])):
        logits = ours(images(row))
        expected = pyramid.eval()(features(images(row))["out"])
    assert logits.shape == (2, 6, 64, 64)
    assert close(seen[0], expected)
    results.setdefault("family deeplab", {})["library"] = "torchvision (encoder)"
