"""Forward passes against transformers and diffusers with the same random weights; what has no library, against formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families.ffca_yolo import FFM, Detect, FFCAYolo, PartialBlock
from rsedge.models.families.hypersigma import HyperSIGMA, SamplingAttention
from rsedge.models.families.sam import SAM
from rsedge.models.families.vlm import VisionLanguageFront
from rsedge.models.layers.pooling import pooling
from rsedge.models.zoo import teacher_row
from tests.conftest import Results
from tests.models.small import random_net
from tests.models.small_parts import small_row

TOLERANCE = 1e-5


def close(a: Tensor, b: Tensor) -> bool:
    assert a.shape == b.shape
    assert a.std() > 1e-4, "outputs that do not vary prove nothing"
    return bool((a - b).abs().max() <= TOLERANCE * max(1.0, float(b.abs().max())))


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sam_is_transformers(results: Results) -> None:
    hf = pytest.importorskip("transformers")
    config = hf.SamConfig(
        vision_config=hf.SamVisionConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=240, global_attn_indexes=[1], mlp_dim=128,
            output_channels=32, num_pos_feats=16,
        ).to_dict(),
        prompt_encoder_config=hf.SamPromptEncoderConfig(hidden_size=32, image_size=240).to_dict(),
        mask_decoder_config=hf.SamMaskDecoderConfig(hidden_size=32, mlp_dim=256, iou_head_hidden_dim=32).to_dict(),
    )  # fmt: skip
    other = hf.SamModel(config).eval()
    ours = random_net(small_row("rsprompter-sam-base"))
    assert isinstance(ours, SAM)
    state = {k.replace("no_mask_embed", "prompt_encoder.no_mask_embed"): v for k, v in ours.state_dict().items()}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected and all(k.startswith("prompt_encoder.") for k in missing)
    x, prompts = noise(1, 3, 240, 240), noise(1, 2, 3, 32)
    with torch.inference_mode():
        embedding = other.vision_encoder(x).last_hidden_state
        dense = ours.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, 15, 15)
        positions = other.get_image_wide_positional_embeddings()
        masks, quality = other.mask_decoder(embedding, positions, prompts, dense, False)[:2]
        found = ours(x, prompts)
    assert close(ours.vision_encoder(x).detach(), embedding)
    assert close(found[0], masks) and close(found[1], quality)
    results.setdefault("family sam", {})["library"] = "transformers"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("crs-diff-unet", {"attention_head_dim": 2, "cross_attention_dim": 24, "class_embed_type": "identity"}),
        (
            "text2earth-unet",
            {
                "attention_head_dim": 2,
                "cross_attention_dim": 24,
                "use_linear_projection": True,
                "class_embed_type": "timestep",
            },
        ),
    ],
)
def test_the_denoising_step_is_diffusers(name: str, settings: dict[str, Any], results: Results) -> None:
    diffusers = pytest.importorskip("diffusers")
    other = diffusers.UNet2DConditionModel(sample_size=16, block_out_channels=(32, 64, 64, 64), **settings).eval()
    ours = random_net(small_row(name))
    other.load_state_dict(ours.state_dict())
    latent, time, text = noise(1, 4, 16, 16), torch.tensor([17.0]), noise(1, 7, 24)
    with torch.inference_mode():
        if settings["class_embed_type"] == "timestep":
            level = torch.tensor([16.0])
            assert close(ours(latent, time, text, level), other(latent, time, text, class_labels=level).sample)
        else:
            embedding = noise(1, 128)
            controls = [noise(*shape, seed=i) for i, shape in enumerate(ours.control_shapes(16))]  # type: ignore[operator]
            expected = other(
                latent, time, text, class_labels=embedding, down_block_additional_residuals=controls[:-1],
                mid_block_additional_residual=controls[-1],
            ).sample  # fmt: skip
            assert close(ours(latent, time, text, embedding, *controls), expected)
    results.setdefault("family latent_unet", {})["library"] = "diffusers"


@pytest.mark.parametrize("attention", [False, True])
def test_the_latent_decoder_is_diffusers(attention: bool, results: Results) -> None:
    diffusers = pytest.importorskip("diffusers")
    up = ("AttnUpDecoderBlock2D" if attention else "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D")
    other = diffusers.AutoencoderKL(
        block_out_channels=(32, 64, 64), layers_per_block=2, latent_channels=4, up_block_types=up,
        down_block_types=("DownEncoderBlock2D",) * 3,
    ).eval()  # fmt: skip
    ours = random_net(small_row("crs-diff-decoder"), widths=[32, 64, 64], attention=attention)
    missing, unexpected = other.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and all(k.startswith(("encoder.", "quant_conv.")) for k in missing)
    latent = noise(1, 4, 8, 8)
    with torch.inference_mode():
        assert close(ours(latent), other.decode(latent / 0.18215).sample)
    results.setdefault("family latent_decoder", {})["library"] = "diffusers"


def split_qkv(state: dict[str, Tensor], layer: str, names: dict[str, str]) -> dict[str, Tensor]:
    """One layer's tensors under another library's names; ``qkv`` in three."""
    found = {}
    for key, value in state.items():
        if not key.startswith(f"vision.layers.{layer}."):
            continue
        rest, _, kind = key.removeprefix(f"vision.layers.{layer}.").partition(".")
        if rest == "qkv":
            found |= {names[p] + f".{kind}": v for p, v in zip("qkv", value.chunk(3), strict=True)}
        else:
            found[names[rest] + (f".{kind}" if kind else "")] = value
    return found


CLIP = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "proj": "self_attn.out_proj",
    "norm1": "layer_norm1", "norm2": "layer_norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2",
}  # fmt: skip
INTERN = {
    "q": "attention.q_proj", "k": "attention.k_proj", "v": "attention.v_proj", "proj": "attention.projection_layer",
    "norm1": "layernorm_before", "norm2": "layernorm_after", "fc1": "mlp.fc1", "fc2": "mlp.fc2", "ls1": "lambda_1",
    "ls2": "lambda_2",
}  # fmt: skip


def clip_state(ours: nn.Module) -> dict[str, Tensor]:
    """The tower's tensors as transformers' CLIP and SigLIP vision models have them."""
    state, found = ours.state_dict(), {}
    for i in range(3):
        found |= {f"encoder.layers.{i}.{k}": v for k, v in split_qkv(state, str(i), CLIP).items()}
    places = {
        "vision.class_embedding": "embeddings.class_embedding",
        "vision.patch_embedding.weight": "embeddings.patch_embedding.weight",
        "vision.patch_embedding.bias": "embeddings.patch_embedding.bias",
        "vision.position_embedding": "embeddings.position_embedding.weight",
        **{f"vision.pre_norm.{k}": f"pre_layrnorm.{k}" for k in ("weight", "bias")},
        **{f"vision.post_norm.{k}": f"post_layernorm.{k}" for k in ("weight", "bias")},
    }
    return found | {new: state[old] for old, new in places.items() if old in state}


def test_the_clip_tower_and_projector_are_those_of_llava(results: Results) -> None:
    hf = pytest.importorskip("transformers")
    ours = random_net(small_row("teochat"))
    other = hf.CLIPVisionModel(
        hf.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        )
    ).eval()
    missing, unexpected = other.load_state_dict(clip_state(ours), strict=False)
    assert not unexpected and all("position_ids" in k for k in missing)
    x = noise(2, 3, 56, 56)
    with torch.inference_mode():
        tokens = other(x, output_hidden_states=True).hidden_states[-2][:, 1:]
        state = ours.state_dict()
        expected = F.linear(tokens, state["projector.0.weight"], state["projector.0.bias"])
        expected = F.linear(F.gelu(expected), state["projector.2.weight"], state["projector.2.bias"])
        assert close(ours(x), expected)
    results.setdefault("family vlm", {})["library"] = "transformers"


def test_enlarged_positions_keep_their_corners_where_the_authors_align_them() -> None:
    """GeoChat's code, on which SkySenseGPT goes, aligns corners; others keep the edges."""
    assert teacher_row("skysensegpt").arch["aligned"] and not teacher_row("geopixel").arch.get("aligned", False)
    row = small_row("skysensegpt")
    for aligned in (True, False):
        net = random_net(row.model_copy(update={"arch": row.arch | {"aligned": aligned}}))
        assert isinstance(net, VisionLanguageFront)
        tower = net.vision
        assert tower.grid > tower.trained
        grown = tower._positions()[1:].unflatten(0, (tower.grid, tower.grid))
        trained = tower.position_embedding[1:].unflatten(0, (tower.trained, tower.trained))
        corners = [torch.allclose(grown[i, j], trained[i, j], atol=1e-6) for i in (0, -1) for j in (0, -1)]
        assert corners == [aligned] * 4


def test_the_siglip_tower_is_transformers_with_an_odd_edge() -> None:
    hf = pytest.importorskip("transformers")
    ours = random_net(small_row("unirs"))
    assert isinstance(ours, VisionLanguageFront)
    other = hf.SiglipVisionModel(
        hf.SiglipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=70, patch_size=14,
            vision_use_head=False,
        )
    ).eval()  # fmt: skip
    state = clip_state(ours)
    prefix = "vision_model." if any(k.startswith("vision_model.") for k in other.state_dict()) else ""
    missing, unexpected = other.load_state_dict({prefix + k: v for k, v in state.items()}, strict=False)
    assert not unexpected and all("position_ids" in k or "head" in k for k in missing)
    x = noise(1, 3, 70, 70)
    with torch.inference_mode():
        tokens = other(x, output_hidden_states=True).hidden_states[-2]
        assert close(ours.vision(x, ours.used), tokens)
        assert ours(x).shape == (1, 9, 48)  # 5 x 5 tokens, filled up to 6 x 6, four to one


def test_the_internvit_tower_and_pixel_shuffle_are_transformers() -> None:
    hf = pytest.importorskip("transformers")
    from transformers.models.internvl import modeling_internvl as intern

    ours = random_net(small_row("earthdial"))
    config = hf.InternVLVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=[56, 56],
        patch_size=[14, 14], use_absolute_position_embeddings=True, attention_bias=True, norm_type="layer_norm",
        use_qk_norm=False, layer_norm_eps=1e-6, use_mean_pooling=True,
    )  # fmt: skip
    other = intern.InternVLVisionModel(config).eval()
    state, found = ours.state_dict(), {}
    for i in range(3):
        found |= {f"encoder.layer.{i}.{k}": v for k, v in split_qkv(state, str(i), INTERN).items()}
    found |= {
        "embeddings.cls_token": state["vision.class_embedding"][None, None],
        "embeddings.position_embeddings": state["vision.position_embedding"][None],
        "embeddings.patch_embeddings.projection.weight": state["vision.patch_embedding.weight"],
        "embeddings.patch_embeddings.projection.bias": state["vision.patch_embedding.bias"],
    }
    missing, unexpected = other.load_state_dict(found, strict=False)
    assert not unexpected and all("mask_token" in k for k in missing), (missing, unexpected)
    x = noise(1, 3, 56, 56)
    with torch.inference_mode():
        tokens = other(x).last_hidden_state[:, 1:]
        shuffled = intern.InternVLModel.pixel_shuffle(None, tokens.reshape(1, 4, 4, 32), 0.5).reshape(1, 4, 128)
        y = F.layer_norm(shuffled, (128,), state["projector.0.weight"], state["projector.0.bias"])
        y = F.gelu(F.linear(y, state["projector.1.weight"], state["projector.1.bias"]))
        assert close(ours(x), F.linear(y, state["projector.3.weight"], state["projector.3.bias"]))


def sampled(image: Tensor, x: float, y: float) -> Tensor:
    """A (C, edge, edge) map at a place in tokens, 0 the middle of the first; 0 beyond the edge."""
    edge, total = image.shape[-1], torch.zeros(image.shape[0])
    for r in (math.floor(y), math.floor(y) + 1):
        for c in (math.floor(x), math.floor(x) + 1):
            if 0 <= r < edge and 0 <= c < edge:
                total += image[:, r, c] * (1 - abs(y - r)) * (1 - abs(x - c))
    return total


def test_each_token_attends_to_the_places_it_chooses(results: Results) -> None:
    torch.manual_seed(0)
    attn, grid, heads, points = SamplingAttention(8, 2, 3, 4), 4, 2, 3
    nn.init.normal_(attn.sampling_offsets.weight)
    nn.init.normal_(attn.sampling_offsets.bias)
    x = noise(1, grid * grid, 8)
    q, k, v = attn.qkv(x)[0].chunk(3, 1)
    offsets = attn.sampling_offsets(q).reshape(grid * grid, heads, points, 2)
    maps = {name: t.T.reshape(8, grid, grid) for name, t in (("k", k), ("v", v))}
    out = torch.zeros(grid * grid, 8)
    for token in range(grid * grid):
        for head in range(heads):
            part = slice(head * 4, head * 4 + 4)
            places = [(token % grid + dx, token // grid + dy) for dx, dy in offsets[token, head].tolist()]
            keys = torch.stack([sampled(maps["k"][part], *p) for p in places])
            values = torch.stack([sampled(maps["v"][part], *p) for p in places])
            out[token, part] = (keys @ q[token, part] * 4**-0.5).softmax(0) @ values
    assert close(attn(x).detach(), attn.proj(out)[None].detach())
    results.setdefault("family hypersigma", {})["formulas"] = "sampling attention"


@pytest.mark.parametrize("bands", [3, 30, 100, 137])
def test_bands_pool_to_tokens_as_adaptive_pooling_does(bands: int) -> None:
    x = noise(5, bands)
    assert close(x @ pooling(bands, 100).T, F.adaptive_avg_pool1d(x[:, None], 100)[:, 0])


def test_the_spectral_tower_gates_every_level() -> None:
    # Small random weights hardly open the gates: in float32 the change would drown in rounding.
    ours = random_net(small_row("hypersigma-seg-b")).double()
    assert isinstance(ours, HyperSIGMA)
    x = torch.rand(1, 12, 32, 32, dtype=torch.float64)

    def moved(before: Tensor) -> float:
        return float((ours(x) - before).abs().max())

    with torch.inference_mode():
        before = ours(x)
        for level in range(1, 5):
            gate = ours.get_parameter(f"fc_spec{level}.2.weight")
            gate.mul_(-1)
            assert moved(before) > 1e-9, level
            gate.mul_(-1)
        assert moved(before) < 1e-12
        ours.spec_encoder.l1.weight.mul_(-5)
        assert moved(before) > 1e-8
        # Blocks behind the one that is read do nothing.
        changed = ours(x)
        ours.spec_encoder.blocks[2].mlp.fc1.weight.add_(1)
        assert torch.equal(ours(x), changed)


def test_fusion_weights_run_along_the_memory(results: Results) -> None:
    ffm = FFM(5)
    nn.init.uniform_(ffm.w)
    a, b = noise(2, 2, 3, 4), noise(2, 3, 3, 4)
    weight = (ffm.w / (ffm.w.sum() + 1e-4)).detach()
    expected = [(m.flatten(1) * part.repeat(12)).reshape(m.shape) for m, part in ((a, weight[:2]), (b, weight[2:]))]
    assert close(ffm(a, b).detach(), torch.cat(expected, 1))
    results.setdefault("family ffca_yolo", {})["formulas"] = "fusion, decoding"


def test_boxes_are_decoded_as_yolov5_does() -> None:
    detect = Detect((4, 4, 4), 2, 32)
    maps = [noise(1, 4, 32 // s, 32 // s, seed=s) for s in (4, 8, 16)]
    found = detect(*maps).detach()
    assert found.shape == (1, 3 * (64 + 16 + 4), 7)
    raw = detect.m[1](maps[1]).sigmoid()[0].detach()
    anchor, row, column = 2, 3, 1
    tx, ty, tw, th, *rest = raw[anchor * 7 : anchor * 7 + 7, row, column].tolist()
    width, height = (detect.anchors[1, anchor] * 8).tolist()
    box = [(2 * tx - 0.5 + column) * 8, (2 * ty - 0.5 + row) * 8, 4 * tw**2 * width, 4 * th**2 * height, *rest]
    assert torch.allclose(found[0, 3 * 64 + anchor * 16 + row * 4 + column], torch.tensor(box), atol=1e-5)


def test_partial_convolutions_touch_a_quarter() -> None:
    block = PartialBlock(8).eval()
    nn.init.zeros_(block.mlp[1].weight)
    x = noise(1, 8, 5, 5)
    assert torch.equal(block(x), x)
    seen: list[Tensor] = []
    with block.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0])):
        block(x)
    assert torch.equal(seen[0][:, 2:], x[:, 2:]) and not torch.equal(seen[0][:, :2], x[:, :2])


def test_yolo_layers_have_the_authors_numbers() -> None:
    ours = random_net(small_row("l-ffca-yolo"))
    assert isinstance(ours, FFCAYolo)
    shapes = {k: tuple(v.shape) for k, v in ours.state_dict().items()}
    assert {"model.12.w", "model.19.w", "model.24.m.conv.weight", "model.3.branch1.3.conv.weight"} <= set(shapes)
    assert shapes["model.27.anchors"] == (3, 3, 2) and shapes["model.27.m.2.bias"] == (24,)
    assert all(m.eps == 1e-3 for m in ours.modules() if isinstance(m, nn.BatchNorm2d))
