"""CLIP, AV-ResNet and GAIR towers against independent implementations with the same random weights (<= 1e-5)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families import gair
from rsedge.models.teachers import load_row
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


def test_clip_is_transformers(tmp_path: Path, results: Results) -> None:
    transformers = pytest.importorskip("transformers")
    row = small_row("streetclip")
    config = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16,
        projection_dim=24, hidden_act="quick_gelu",
    )  # fmt: skip
    torch.manual_seed(0)
    other = transformers.CLIPVisionModelWithProjection(config).eval()
    state = {
        k if k.startswith(("vision_model.", "visual_")) else f"vision_model.{k}": v
        for k, v in other.state_dict().items()
    }
    state = {k: v + 0.05 * torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}
    other.load_state_dict(
        {k if k in other.state_dict() else k.removeprefix("vision_model."): v for k, v in state.items()}
    )
    beside = {"text_model.final_layer_norm.weight": torch.ones(4), "logit_scale": torch.ones([])}
    torch.save(state | beside | {"vision_model.embeddings.position_ids": torch.arange(17)[None]}, tmp_path / "s.pt")
    ours, x = load_row(row, tmp_path / "s.pt"), images(row)
    with torch.inference_mode():
        assert close(ours(x), other(pixel_values=x).image_embeds)
    results.setdefault("family clip", {})["library"] = "transformers"


def attention_of_torch(x: Tensor, state: dict[str, Tensor], name: str, heads: int) -> Tensor:
    layer = nn.MultiheadAttention(x.shape[-1], heads, batch_first=True)
    layer.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
    return layer(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("name", ["remoteclip-vitb32", "skyclip-vitl14"])
def test_open_clips_layout_loads_and_computes_with_torchs_attention(name: str, tmp_path: Path) -> None:
    """open_clip's names; the forward pass with torch's own multi-head attention on the fused matrices."""
    row = small_row(name)
    torch.manual_seed(0)
    dim, out = row.arch["dim"], row.arch["out"]

    def norm(prefix: str) -> dict[str, Tensor]:
        return {f"{prefix}.weight": torch.rand(dim) + 0.5, f"{prefix}.bias": torch.randn(dim) * 0.1}

    state = {
        "visual.class_embedding": torch.randn(dim), "visual.positional_embedding": torch.randn(17, dim) * 0.1,
        "visual.conv1.weight": torch.randn(dim, 3, 16, 16) * 0.05, "visual.proj": torch.randn(dim, out) * 0.2,
        **norm("visual.ln_pre"), **norm("visual.ln_post"),
    }  # fmt: skip
    for i in range(2):
        block = f"visual.transformer.resblocks.{i}"
        state |= norm(f"{block}.ln_1") | norm(f"{block}.ln_2")
        for layer, shape in (
            ("attn.out_proj", (dim, dim)), ("mlp.c_fc", (4 * dim, dim)), ("mlp.c_proj", (dim, 4 * dim)),
        ):  # fmt: skip
            state |= {
                f"{block}.{layer}.weight": torch.randn(shape) * 0.1,
                f"{block}.{layer}.bias": torch.randn(shape[0]) * 0.1,
            }
        state |= {
            f"{block}.attn.in_proj_weight": torch.randn(3 * dim, dim) * 0.1,
            f"{block}.attn.in_proj_bias": torch.randn(3 * dim) * 0.1,
        }
    text = {"token_embedding.weight": torch.ones(4, 2), "transformer.resblocks.0.ln_1.weight": torch.ones(2),
            "positional_embedding": torch.ones(3, 2), "logit_scale": torch.ones([])}  # fmt: skip
    torch.save({"state_dict": {f"module.{k}": v for k, v in (state | text).items()}, "epoch": 3}, tmp_path / "c.pt")
    ours, x = load_row(row, tmp_path / "c.pt"), images(row)

    def layer_norm(y: Tensor, prefix: str) -> Tensor:
        return F.layer_norm(y, (dim,), state[f"{prefix}.weight"], state[f"{prefix}.bias"])

    with torch.inference_mode():
        patches = F.conv2d(x, state["visual.conv1.weight"], stride=16).flatten(2).transpose(1, 2)
        y = (
            torch.cat([state["visual.class_embedding"].expand(2, 1, -1), patches], 1)
            + state["visual.positional_embedding"]
        )
        y = layer_norm(y, "visual.ln_pre")
        for i in range(2):
            block = f"visual.transformer.resblocks.{i}"
            y = y + attention_of_torch(layer_norm(y, f"{block}.ln_1"), state, f"{block}.attn", row.arch["heads"])
            z = F.linear(
                layer_norm(y, f"{block}.ln_2"), state[f"{block}.mlp.c_fc.weight"], state[f"{block}.mlp.c_fc.bias"]
            )
            y = y + F.linear(F.gelu(z), state[f"{block}.mlp.c_proj.weight"], state[f"{block}.mlp.c_proj.bias"])
        assert close(ours(x), layer_norm(y[:, 0], "visual.ln_post") @ state["visual.proj"])


@pytest.mark.parametrize(("bottleneck", "layers"), [(True, [3, 4, 6, 3]), (False, [2, 2, 2, 2])])
def test_av_resnet_of_usual_widths_is_torchvisions(bottleneck: bool, layers: list[int], results: Results) -> None:
    """Before its 1x1 convolution, which commutes with the mean over the map."""
    row = small_row("av-resnet50-image")
    widths = {"planes": [64, 128, 256, 512], "stem": 64, "layers": layers, "bottleneck": bottleneck, "out": 8}
    ours = random_net(row, **widths)
    other = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck if bottleneck else torchvision.models.resnet.BasicBlock,
        layers,
        num_classes=8,
    )
    state = dict(ours.state_dict())
    state["fc.weight"] = state["fc.weight"].flatten(1)
    other.load_state_dict(state)
    with torch.inference_mode():
        assert close(ours(images(row)), other.eval()(images(row)))
    results.setdefault("family av_resnet", {})["library"] = "torchvision"


@pytest.mark.parametrize("name", ["av-resnet1d18-sound", "av-resnet1d50-sound"])
def test_sound_tower_is_the_image_tower_on_a_line(name: str) -> None:
    """A 2-D ResNet whose kernels act along one axis only gives the same numbers on an image of one row."""
    row = small_row(name)
    ours = random_net(row)
    arch = row.arch | {"line": False}
    from rsedge.models.families.av_resnet import Tower

    flat = Tower(**arch).eval()
    state = {}
    for key, value in ours.state_dict().items():
        target = flat.state_dict()[key]
        if value.ndim == 3:
            value = F.pad(value[:, :, None], (0, 0, target.shape[2] // 2, target.shape[2] // 2))
        state[key] = value
    flat.load_state_dict(state)
    x = images(row)
    with torch.inference_mode():
        # The contract's first axis is time: it is the channels.
        assert close(ours(x), flat(x[:, :, None]))


def test_widths_are_read_off_the_file(tmp_path: Path) -> None:
    row = small_row("av-resnet50-image")
    net = random_net(row, planes=[8, 23, 32, 64])
    torch.save({f"img_encoder.module_list.0.{k}": v for k, v in net.state_dict().items()}, tmp_path / "a.pt")
    assert load_row(row, tmp_path / "a.pt").net.get_parameter("layer2.0.conv1.weight").shape[0] == 23


def test_optical_vit_is_torchgeos_croma(results: Results) -> None:
    croma = pytest.importorskip("torchgeo.models.croma")
    row = small_row("gair-satellite")
    ours = random_net(row).s2_encoder
    arch = row.arch
    other = croma.ViT(dim=arch["dim"], depth=arch["depth"], in_channels=arch["bands"]).eval()
    names = dict(other.state_dict())
    state = dict(ours.state_dict())
    extra = {k: v for k, v in names.items() if k not in state}
    other.load_state_dict(state | extra)
    if hasattr(other.transformer, "norm_out"):
        other.transformer.norm_out = nn.Identity()
    side = arch["tile"] // arch["patch"]
    bias = croma.get_2dalibi(num_heads=arch["heads"], num_patches=side**2)
    assert torch.allclose(bias, ours.bias, atol=1e-6)
    with torch.inference_mode():
        assert close(ours(images(row)), other(images(row), bias))
    results.setdefault("gair-satellite", {})["library"] = "torchgeo CROMA"


def test_street_encoder_is_transformers(tmp_path: Path, results: Results) -> None:
    transformers = pytest.importorskip("transformers")
    row = small_row("gair-street")
    arch = row.arch
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=arch["dim"], num_hidden_layers=arch["depth"], num_attention_heads=arch["heads"],
        intermediate_size=4 * arch["dim"], image_size=arch["tile"], patch_size=arch["patch"], layer_norm_eps=1e-12,
    )  # fmt: skip
    other = transformers.ViTModel(config).eval()
    with torch.no_grad():
        for value in other.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    x = images(row)
    for named in (_old_name, _new_name):
        published = {named(k): v for k, v in other.state_dict().items()}
        torch.save({"model": {f"module.sv_encoder.{k}": v for k, v in published.items()}}, tmp_path / "g.pth")
        with torch.inference_mode():
            assert close(load_row(row, tmp_path / "g.pth")(x), other(pixel_values=x).pooler_output)
    results.setdefault("gair-street", {})["library"] = "transformers"


def _old_name(name: str) -> str:
    """transformers' ViT names as they were when GAIR was published, whichever version is installed."""
    name = re.sub(r"^(?:encoder\.)?layers?\.(\d+)\.", r"encoder.layer.\1.", name)
    for new, old in (("attention.q_proj", "attention.attention.query"), ("attention.k_proj", "attention.attention.key"),
                     ("attention.v_proj", "attention.attention.value"), ("attention.o_proj", "attention.output.dense"),
                     ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense")):  # fmt: skip
        name = name.replace(new, old)
    return name


def _new_name(name: str) -> str:
    """The same as transformers 5 has them."""
    name = re.sub(r"^encoder\.layer\.(\d+)\.", r"layers.\1.", _old_name(name))
    for old, new in (("attention.attention.query", "attention.q_proj"), ("attention.attention.key", "attention.k_proj"),
                     ("attention.attention.value", "attention.v_proj"), ("attention.output.dense", "attention.o_proj"),
                     ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2")):  # fmt: skip
        name = name.replace(old, new)
    return name


def query_by_grid_sampling(net: gair.Query, tokens: Tensor, place: Tensor) -> Tensor:
    """LIIF as published: unfolded features sampled with torch's nearest grid sampling."""
    side = int(tokens.shape[1] ** 0.5)
    grid = tokens.transpose(1, 2).unflatten(2, (side, side))
    near = F.unfold(grid, 3, padding=1).unflatten(2, (side, side))
    centres = -1 + 1 / side + 2 / side * torch.arange(side).float()  # in the published order of operations
    where = torch.stack(torch.meshgrid(centres, centres, indexing="xy"))[None].expand(len(tokens), -1, -1, -1)
    answers, areas = [], []
    for east in (-1, 1):
        for south in (-1, 1):
            at = (place + torch.tensor([east / side + 1e-6, south / side + 1e-6])).clamp(-1 + 1e-6, 1 - 1e-6)[
                :, None, None
            ]
            feature, centre = (F.grid_sample(m, at, "nearest", align_corners=False)[:, :, 0, 0] for m in (near, where))
            offset = (place - centre) * side
            answers.append(net.imnet(torch.cat([feature, offset], -1)))
            areas.append(offset.prod(-1).abs() + 1e-9)
    total = torch.stack(areas).sum(0)
    return sum(a * (w / total)[:, None] for a, w in zip(answers, areas[::-1], strict=True))


def test_localised_query_is_liif(results: Results) -> None:
    row = small_row("gair-query")
    net = random_net(row)
    assert isinstance(net, gair.Query)
    side = row.arch["tile"] // row.arch["patch"]
    rng = np.random.default_rng(0)
    place = torch.tensor(
        np.concatenate([rng.uniform(-1, 1, (40, 2)), [[-1, -1], [1, 1], [0, 0], [0.99, -0.99]]]), dtype=torch.float32
    )
    tokens = torch.randn(len(place), side**2, row.arch["dim"])
    with torch.inference_mode():
        assert close(net.at(tokens, place), query_by_grid_sampling(net, tokens, place))
    results.setdefault("gair-query", {})["library"] = "torch grid_sample (query)"


def test_the_query_breaks_ties_at_the_centres_of_patches_as_published() -> None:
    """On the published grid of 12: where all four corners are one patch, rounding alone weighs them."""
    net = random_net(small_row("gair-query"), tile=96)
    assert isinstance(net, gair.Query)
    steps = (2 * torch.arange(12) + 1) / 24 * 2 - 1
    place = torch.cartesian_prod(steps, steps)
    tokens = torch.randn(1, 144, 32, generator=torch.Generator().manual_seed(0)).expand(len(place), -1, -1)
    with torch.inference_mode():
        assert close(net.at(tokens, place), query_by_grid_sampling(net, tokens, place))


def test_the_query_reads_its_place_from_the_last_two_bands() -> None:
    row = small_row("gair-query")
    net = random_net(row)
    x = images(row)
    x[:, -2], x[:, -1] = 0.25, 0.75
    with torch.inference_mode():
        expected = net.at(net.s2_encoder(x[:, :-2]), torch.tensor([[-0.5, 0.5]] * 2))
        assert close(net(x), expected)
