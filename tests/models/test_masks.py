"""Networks that make masks of prompts: held against transformers; against their authors' code in ``test_reference.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.models.checkpoint import misfit
from rsedge.models.families import family
from rsedge.models.families.geopix import GeoPix
from rsedge.models.families.sam2 import SAM2, parts, stable_or_best
from rsedge.models.teachers import load_row, meta_net
from rsedge.models.zoo import teacher_row
from tests.conftest import Results
from tests.models.small import listing, random_net
from tests.models.small_parts import authors_file, geopixel, small_row
from tests.models.test_parts_forward import close, noise

HF_NAMES = {
    "trunk.patch_embed.proj.": "vision_encoder.backbone.patch_embed.projection.",
    "trunk.": "vision_encoder.backbone.",
    "neck.": "vision_encoder.neck.convs.",
    "conv_s": "mask_decoder.conv_s",
    "no_mem_embed": "no_memory_embedding",
    "frequencies": "shared_image_embedding.positional_embedding",
    "no_mask_embed.": "prompt_encoder.no_mask_embed.",
    "mask_decoder.": "mask_decoder.",
}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("geopixel-masks", "geopixel_masks"),
        ("geopix-masks", "geopix_masks"),
        ("rsprompter-anchor-base", "rsprompter_anchor"),
        ("rsprompter-query-base", "rsprompter_query"),
    ],
)
def test_names_and_shapes_are_those_of_the_authors_code(name: str, published: str, results: Results) -> None:
    """At the published size; what the row leaves out is left out by name, nothing else."""
    row = teacher_row(name)
    tensors = row.checkpoint.apply({k: torch.empty(shape, device="meta") for k, shape in listing(published).items()})
    shapes = {k: tuple(v.shape) for k, v in family(row.family).convert(tensors).items()}
    arch = family(row.family).fit(row.arch, shapes)
    net = meta_net(row.family, arch)
    assert misfit(net.state_dict(), shapes) == ""
    assert sum(p.numel() for p in net.parameters()) == row.params
    results.setdefault(name, {})["names"] = "authors' code"


def test_geopixel_masks_are_transformers(results: Results) -> None:
    """Its SAM 2 with the same weights, prompted by embeddings as the decoder takes them."""
    hf = pytest.importorskip("transformers")
    ours = random_net(small_row("geopixel-masks"))
    assert isinstance(ours, SAM2)
    backbone = hf.Sam2HieraDetConfig(
        hidden_size=16, num_attention_heads=2, image_size=[64, 64], blocks_per_stage=[1, 2, 3, 1],
        embed_dim_per_stage=[16, 32, 64, 128], num_attention_heads_per_stage=[2, 4, 8, 16], window_size_per_stage=[4, 2, 4, 2],
        window_positional_embedding_background_size=[3, 3], global_attention_blocks=[4],
    )  # fmt: skip
    vision = hf.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    config = hf.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=hf.Sam2PromptEncoderConfig(hidden_size=32, image_size=64),
        mask_decoder_config=hf.Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=256, iou_head_hidden_dim=32),
    )
    other = hf.Sam2Model(config).eval()
    missing, unexpected = other.load_state_dict(hf_state(ours), strict=False)
    unread = ("prompt_encoder.", "mask_decoder.pred_obj_score_head.")
    assert not unexpected and all(k.startswith(unread) for k in missing), (missing, unexpected)
    x, prompts = noise(1, 3, 64, 64), 30 * noise(1, 3, 1, 32)
    with torch.inference_mode():
        stride4, stride8, embedding = other.get_image_embeddings(x)
        dense = ours.dense().expand(1, -1, 4, 4)
        masks, quality = other.mask_decoder(
            embedding, other.get_image_wide_positional_embeddings(), prompts, dense, False, [stride4, stride8]
        )[:2]
        found = ours.encode(x)
        decoded = ours.decode(*found, prompts)
    assert all(close(a, b) for a, b in zip(found, (embedding, stride8, stride4), strict=True))
    assert close(decoded[0], masks) and close(decoded[1], quality)
    results.setdefault("family sam2", {})["library"] = "transformers"


def hf_state(ours: SAM2) -> dict[str, Tensor]:
    found = {}
    for name, tensor in ours.state_dict().items():
        if name.startswith("prompter."):
            continue
        old = next(n for n in HF_NAMES if name.startswith(n))
        named = HF_NAMES[old] + name.removeprefix(old)
        if name.startswith("trunk."):
            named = named.replace("norm1", "layer_norm1").replace("norm2", "layer_norm2")
            named = named.replace("mlp.fc1", "mlp.proj_in").replace("mlp.fc2", "mlp.proj_out")
        else:
            named = named.replace("mlp.lin1", "mlp.proj_in").replace("mlp.lin2", "mlp.proj_out")
            named = named.replace("self_attn.out_proj", "self_attn.o_proj").replace("_token.out_proj", "_token.o_proj")
            named = named.replace("_image.out_proj", "_image.o_proj")
        found[named] = tensor
    return found


def test_an_unstable_mask_gives_way_to_the_best_of_the_others() -> None:
    """By the definition: areas above 0.05 and above -0.05 that differ by more than 2 in 100."""
    fine = torch.stack((torch.linspace(-1, 1, 400), torch.linspace(3, -2, 400))).reshape(1, 2, 20, 20)
    kernels = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.0]]])
    quality = torch.tensor([[0.3, 0.5, 0.9, 0.7]])
    best = torch.tensor([[0.0, 1.0, 0.0]])
    for scale, chosen in ((1.0, 2), (1000.0, 0)):
        scaled = kernels * torch.tensor([scale, 1.0, 1.0, 1.0])[:, None]
        single = (scaled[:, 0] @ fine.flatten(2)).flatten()
        ratio = float((single > 0.05).sum() / (single > -0.05).sum())
        assert (ratio >= 0.98) == (chosen == 0)
        mask, found = stable_or_best(scaled, quality, best, fine)
        assert torch.equal(mask[0, 0].flatten(), (scaled[0, chosen] @ fine.flatten(2))[0])
        assert found.item() == pytest.approx(float(quality[0, chosen]))


def test_instances_do_not_see_one_another() -> None:
    ours = random_net(small_row("geopixel-masks"))
    decoder = parts(ours)["decoder"]
    inputs = {name: tensor.numpy() for name, tensor in decoder.inputs.items()}
    whole = decoder.run(inputs)
    filled = inputs["prompts"].copy()
    filled[:, 1:] = 0
    assert abs(decoder.run(inputs | {"prompts": filled})["masks"][:, 0] - whole["masks"][:, 0]).max() < 1e-5


@pytest.mark.parametrize("image", [32, 96])
def test_an_image_that_windows_do_not_divide_is_refused(image: int) -> None:
    with pytest.raises(
        RequestError, match=f"image: {image} pixels do not divide into windows of 4 places of 16 pixels"
    ):
        SAM2(**(small_row("geopixel-masks").arch | {"image": image}))


def test_the_shards_of_a_folder_load_as_one_file(tmp_path: Path) -> None:
    row = small_row("geopixel-masks")
    state = random_net(row).state_dict()
    named = {f"model.{geopixel(k)}": v for k, v in state.items()} | {"model.layers.0.x": torch.ones(2)}
    names = sorted(named)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, own in shards.items():
        save_file({name: named[name].contiguous() for name in own}, tmp_path / file)
    index = {"weight_map": {name: file for file, own in shards.items() for name in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = load_row(row, tmp_path).net.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    save_file({name: named[name].contiguous() for name in names[::2]}, tmp_path / "b.safetensors")
    with pytest.raises(IntegrityError, match=r"lies in another file of .* too"):
        load_row(row, tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"names b\.safetensors, which are not there"):
        load_row(row, tmp_path)


def test_the_fine_mask_of_geopix_looks_where_the_coarse_one_is() -> None:
    """Scales are not exchanged: the later layer gives the coarse embedding; without the coarse mask the fine one changes."""
    ours = random_net(small_row("geopix-masks"))
    assert isinstance(ours, GeoPix)
    seen = []
    with torch.inference_mode(), ours.vision.layers[1].register_forward_hook(lambda *_: seen.append(1)):
        coarse, fine = ours.encode(noise(1, 3, 98, 98))
        again = ours.vision.after(noise(1, 3, 98, 98), *ours.read)
        square = again[0].transpose(1, 2).unflatten(2, (7, 7))
        assert close(ours.memory(ours.necks[0](square)), coarse)
        assert ours.read == (11, 2) and len(seen) == 2
        prompts = noise(1, 2, 2, 32)
        before = ours.decode(coarse, fine, prompts)
        ours.multiscale[0].zero_()
        alone = ours.decode(coarse, fine, prompts)
        other = ours.decode(-coarse, fine, prompts)
    assert not torch.equal(before, alone)
    assert float((alone - other).abs().max()) > 1e-7


def test_a_file_that_the_folder_lacks_is_named(tmp_path: Path) -> None:
    row = small_row("geopix-masks")
    folder = authors_file(row, random_net(row), tmp_path)
    (folder / "multiscale_scalar.pth").unlink()
    with pytest.raises(RequestError, match=r"multiscale_scalar\.pth"):
        load_row(row, folder)


def test_a_folder_is_refused_where_the_checkpoint_is_one_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a folder; the checkpoint of 'rsprompter-sam-base' is one file"):
        load_row(teacher_row("rsprompter-sam-base"), tmp_path)
