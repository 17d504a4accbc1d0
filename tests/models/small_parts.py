"""Reduced widths and authors' files of the families with windows that move, several parts, or a language model behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rsedge.models.zoo import TeacherRow, teacher_row, zoo
from tests.models import authors

_UNET = {"widths": [32, 64, 64, 64], "heads": [2, 2, 2, 2], "latent": 16}
SMALL: dict[str, dict[str, Any]] = {
    "rvsa": {"image": 144, "dim": 32, "heads": 2, "depth": 3},
    "rvsa_upernet": {"image": 144, "dim": 32, "heads": 2, "depth": 4, "taps": [0, 1, 2, 3], "width": 16},
    "hypersigma": {"bands": 12, "dim": 32, "heads": 2, "depth": 4, "interval": 3, "taps": [0, 1, 2, 3], "points": 3},
    "rvsa_oriented": {"image": 144, "dim": 32, "heads": 2, "depth": 3, "width": 16, "hidden": 24, "count": 12},
    "hypersigma_change": {
        "bands": 12, "tile": 16, "tokens": 16, "dim": 32, "heads": 2, "depth": 4, "taps": [0, 1, 2, 3], "points": 3,
    },
    "ffca_yolo": {"classes": 3, "image": 64, "width": 0.25, "depth": 0.33},
    "sam": {
        "image": 240, "dim": 32, "depth": 2, "heads": 2, "whole": [1], "hidden": 32, "prompts": 2, "tokens": 3,
    },
    "rsprompter": {
        "image": 240, "dim": 32, "depth": 3, "heads": 2, "whole": [1], "hidden": 32, "prompts": 2, "tokens": 3, "narrow": 8,
        "classes": 3, "wide": 48, "regions": 40,
    },
    "rsprompter_query": {
        "image": 256, "dim": 32, "depth": 3, "heads": 2, "whole": [1], "hidden": 32, "prompts": 3, "tokens": 2, "narrow": 8,
        "classes": 3, "inner": 32, "inner_heads": 4, "points": 2, "reads": 1, "layers": 3,
    },
    "sam2": {
        "image": 64, "dim": 16, "heads": 2, "stages": [1, 2, 3, 1], "whole": [4], "windows": [4, 2, 4, 2], "background": 3,
        "hidden": 32, "width": 24, "prompts": 3,
    },
    "geopix": {"image": 98, "dim": 32, "depth": 12, "heads": 2, "mlp": 64, "grid": 8, "hidden": 32, "width": 24, "prompts": 2},
    "sam_points": {
        "image": 240, "dim": 32, "depth": 2, "heads": 2, "whole": [1], "hidden": 32, "prompts": 2, "points": 2,
    },
    "latent_unet": _UNET,
    "latent_control": _UNET | {"context": 24, "tokens": 7, "guides": [8, 8, 16, 16]},
    "latent_decoder": {"latent": 8},
    "vlm": {"dim": 32, "depth": 3, "heads": 2, "mlp": 64, "width": 48, "image": 56},
    "aquila": {"image": 64, "tower": "convnext_atto", "dim": 32, "heads": 2, "width": 48, "queries": 6},
}  # fmt: skip
# Where one reduction for the family is not enough.
OWN: dict[str, dict[str, Any]] = {
    "text2earth-unet": {"context": 24, "tokens": 7},
    "crs-diff-unet": {"context": 24, "tokens": 11},
    "hsigene-unet": {"context": 24, "tokens": 11},
    "text2earth-decoder": {"widths": [32, 64, 64, 64]},
    "crs-diff-decoder": {"widths": [32, 64, 64, 64]},
    "hsigene-decoder": {"widths": [32, 64, 64], "bands": 5, "z": 6},
    "skysensegpt": {"trained": 42},
    "unirs": {"image": 70},  # 5 x 5 tokens: an odd edge to fill up
} | {f"hypersigma-seg-{size}": {"image": 32} for size in "blh"}
ROWS = [row for row in zoo() if row.family in SMALL]


def small_row(name: str) -> TeacherRow:
    """The row with a reduced architecture."""
    row = teacher_row(name)
    arch = row.arch | SMALL[row.family] | OWN.get(name, {})
    if row.input is None:
        return row.model_copy(update={"arch": arch})
    spec = row.input.model_copy(update={"tile": arch.get("tile", arch.get("image", row.input.tile))})
    if row.family.startswith("hypersigma"):
        spec = spec.model_copy(update={"bands": spec.bands[:12]})
    return row.model_copy(update={"arch": arch, "input": spec})


def authors_file(row: TeacherRow, net: nn.Module, folder: Path) -> Path:
    """A checkpoint as the row's authors (or their framework) write it."""
    content = _WRITERS[row.family](row, dict(net.state_dict()))
    if row.checkpoint.files and not row.checkpoint.marks:
        return in_folder(content, row.checkpoint.files, folder / row.name)
    path = folder / f"{row.name}.pth"
    torch.save(content, path)
    return path


def in_folder(state: dict[str, Tensor], files: Mapping[str, str], folder: Path) -> Path:
    """Tensors where a row looks for them: folders with weights in safetensors, files of torch; what is numbered is a list."""
    for place, prefix in files.items():
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".pth"):
            numbered = all(name.isdecimal() for name in own)
            torch.save([own[str(i)] for i in range(len(own))] if numbered else own, folder / place)
        else:
            (folder / place).mkdir()
            save_file({name: value.contiguous() for name, value in own.items()}, folder / place / "model.safetensors")
    return folder


def _rvsa(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    return {"model": {f"module.{k}": v for k, v in state.items()}, "optimizer": {"lr": 1.0}, "epoch": 200}


def _mm(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    """With the head that only training has."""
    beside = {"auxiliary_head.convs.0.conv.weight": torch.ones(2), "auxiliary_head.conv_seg.weight": torch.ones(2)}
    return authors.mm(state | beside)


def _hypersigma(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    return {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}


def _change(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    """The spatial tower alone is the network's ``encoder``."""
    if row.arch.get("spectral", True):
        return state
    return {re.sub(r"^spat_encoder\.", "encoder.", key): value for key, value in state.items()}


def _yolo(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    return {"epoch": 300, "model": state, "ema": None, "date": "2023"}


def _rsprompter(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    places = {
        "vision_encoder.": "backbone.vision_encoder.",
        "shared_image_embedding.": "shared_image_embedding.shared_image_embedding.",
        "mask_decoder.": "roi_head.mask_head.mask_decoder.mask_decoder.",
        "no_mask_embed.": "roi_head.mask_head.no_mask_embed.",
    }
    named = {next(new + k[len(old) :] for old, new in places.items() if k.startswith(old)): v for k, v in state.items()}
    others = ("neck.feature_aggregator.x", "rpn_head.rpn_conv.weight", "roi_head.mask_head.point_emb.0.weight")
    return {"meta": {"epoch": 1}, "state_dict": named | {n: torch.ones(2) for n in others}}


def _prompter(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    places = {
        "vision_encoder.": "backbone.vision_encoder.", "mask_decoder.": "roi_head.mask_head.mask_decoder.mask_decoder.",
        "shared_image_embedding.": "shared_image_embedding.shared_image_embedding.",
        "no_mask_embed.": "roi_head.mask_head.no_mask_embed.", "point_emb.": "roi_head.mask_head.point_emb.",
        "bbox_head.": "roi_head.bbox_head.", "neck.": "neck.", "rpn_head.": "rpn_head.",
    }  # fmt: skip
    named = {next(new + k[len(old) :] for old, new in places.items() if k.startswith(old)): v for k, v in state.items()}
    return {"meta": {"epoch": 1}, "state_dict": named | {"data_preprocessor.mean": torch.ones(3)}}


def _queries(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    places = {
        "vision_encoder.": "backbone.vision_encoder.", "mask_decoder.": "panoptic_head.mask_decoder.mask_decoder.",
        "shared_image_embedding.": "shared_image_embedding.shared_image_embedding.", "neck.": "neck.", "": "panoptic_head.",
    }  # fmt: skip
    named = {next(new + k[len(old) :] for old, new in places.items() if k.startswith(old)): v for k, v in state.items()}
    return {"meta": {"epoch": 1}, "state_dict": named | {"data_preprocessor.mean": torch.ones(3)}}


def _geopixel(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    """The branch among the tensors of the whole system, which keeps SAM 2's memory too."""
    named = {f"model.{geopixel(k)}": v for k, v in state.items()}
    others = (
        "model.layers.0.attention.wqkv.weight", "model.tok_embeddings.weight", "model.norm.weight", "output.weight",
        "vit.vision_tower.vision_model.x", "model.visual_model.memory_encoder.out_proj.weight", "model.visual_model.no_obj_ptr",
        "model.visual_model.sam_prompt_encoder.point_embeddings.0.weight",
        "model.visual_model.sam_mask_decoder.pred_obj_score_head.layers.0.weight",
    )  # fmt: skip
    return named | {n: torch.ones(2) for n in others}


def geopixel(key: str) -> str:
    """A name of ours as SAM 2's code and GeoPixel have it."""
    place, _, rest = key.partition(".")
    if place == "prompter":
        return f"text_hidden_fcs.0.{rest}"
    if place == "trunk":
        rest = rest.replace("mlp.fc1", "mlp.layers.0").replace("mlp.fc2", "mlp.layers.1")
        return f"visual_model.image_encoder.trunk.{rest}"
    if place == "neck":
        number, _, kind = rest.partition(".")
        return f"visual_model.image_encoder.neck.convs.{number}.conv.{kind}"
    prompts = {
        "no_mem_embed": "no_mem_embed", "no_mask_embed": f"sam_prompt_encoder.no_mask_embed.{rest}",
        "frequencies": "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    }  # fmt: skip
    if place in prompts:
        return f"visual_model.{prompts[place]}"
    if place == "mask_decoder":
        key = original_sam(rest).replace("mlp.lin1", "mlp.layers.0").replace("mlp.lin2", "mlp.layers.1")
    return f"visual_model.sam_mask_decoder.{key}"


def _geopix(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    """Under the names of the folder's files, each behind its place."""
    found = {}
    tops = {
        "necks.0.": "rough/", "necks.1.": "detail/", "prompter.": "prompter/", "multiseg.": "multiseg/",
        "multiscale.": "multiscale/", "memory.scale": "clm/memory_attention.layers.0.scale",
        "memory.norm.": "clm/memory_attention.norm.", "no_mask_embed.": "pec/prompt_encoder.no_mask_embed.",
        "frequencies": "pec/prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "mask_decoder.frequencies": "seg/mask_decoder.pe1.positional_encoding_gaussian_matrix",
        "mask_decoder.finer_conv": "seg/mask_decoder.upsample_2x.0", "mask_decoder.finer_norm": "seg/mask_decoder.upsample_2x.1",
        "mask_decoder.upscale_conv": "seg/mask_decoder.output_upscaling.0",
        "mask_decoder.upscale_norm": "seg/mask_decoder.output_upscaling.1",
    }  # fmt: skip
    for key, value in state.items():
        if key.startswith("vision."):
            named = _front_names(row, key, value)
            found |= {f"vlm/vision_tower.vision_model.{name}": part for name, part in named.items()}
        else:
            old = next((old for old in tops if key.startswith(old)), "")
            decoder = f"seg/mask_decoder.{original_sam(key.removeprefix('mask_decoder.'))}"
            found[tops[old] + key.removeprefix(old) if old else decoder] = value
    others = (
        "vlm/language_model.model.layers.0.x", "vlm/multi_modal_projector.linear_1.weight", "clm/learnable_memory.memory",
        "clm/memory_attention.layers.0.norm1.weight", "seg/mask_decoder.iou_prediction_head.layers.0.weight",
        "seg/mask_decoder.output_hypernetworks_mlps.1.layers.0.weight", "pec/prompt_encoder.point_embeddings.0.weight",
    )  # fmt: skip
    return found | {n: torch.ones(2) for n in others}


def original_sam(key: str) -> str:
    """A name of transformers' mask decoder as SAM's code has it."""
    for old, new in {
        "layer_norm_final_attn": "norm_final_attn", "upscale_layer_norm": "output_upscaling.1", "layer_norm": "norm",
        "upscale_conv1": "output_upscaling.0", "upscale_conv2": "output_upscaling.3",
    }.items():  # fmt: skip
        key = key.replace(old, new)
    if found := re.match(r"(output_hypernetworks_mlps\.\d|iou_prediction_head)\.(proj_in|layers\.0|proj_out)\.", key):
        number = {"proj_in": 0, "layers.0": 1, "proj_out": 2}[found[2]]
        key = f"{found[1]}.layers.{number}.{key[found.end() :]}"
    return key


def _sam(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    """As transformers' ``save_pretrained`` names it; the places' frequencies stand there twice."""
    named = {re.sub(r"^no_mask_embed", "prompt_encoder.no_mask_embed", k): v for k, v in state.items()}
    shared = state["shared_image_embedding.positional_embedding"]
    return named | {
        "prompt_encoder.shared_embedding.positional_embedding": shared,
        "prompt_encoder.mask_embed.conv1.weight": torch.ones(2),
    }


def _unet(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    if row.name in ("text2earth-unet", "metaearth-unet"):
        return state
    named = {f"model.diffusion_model.{ldm_unet(k)}": v for k, v in state.items()}
    return {"state_dict": named | _beside(row), "global_step": 7}


def _control(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    return {"state_dict": _beside(row) | {ldm_control(k): v for k, v in state.items()}, "global_step": 7}


def _decoder(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    if row.name == "text2earth-decoder":
        return state | {"encoder.conv_in.weight": torch.ones(2), "quant_conv.weight": torch.ones(2)}
    last = len(row.arch["widths"]) - 1
    named = {f"first_stage_model.{ldm_decoder(k, last)}": v for k, v in state.items()}
    named = {k: v[..., None, None] if ".attn" in k and v.ndim == 2 else v for k, v in named.items()}
    named |= {
        "first_stage_model.encoder.conv_in.weight": torch.ones(2),
        "first_stage_model.quant_conv.bias": torch.ones(2),
    }
    return {"state_dict": _beside(row) | named}


def _beside(row: TeacherRow) -> dict[str, Tensor]:
    """The rest of a latent-diffusion file, as far as it tells CRS-Diff and HSIGene apart."""
    crs = row.name.startswith("crs")
    last = "up.3.block.0.conv1.weight" if crs else "up.2.attn.0.q.weight"
    names = ["betas", "alphas_cumprod", "sqrt_alphas_cumprod", "cond_stage_model.transformer.x"]
    shares = {
        "latent_unet": "model.diffusion_model.input_blocks.0.0.weight",
        "latent_control": "local_adapter.input_blocks.0.0.weight",
        "latent_decoder": f"first_stage_model.decoder.{last}",
    }
    names += [name for family, name in shares.items() if family != row.family]
    if row.family != "latent_control":
        names += ["metadata_emb.mlp_models.0.fc1.weight", *([] if crs else ["global_text_adapter.norm1.weight"])]
    return {name: torch.ones(2) for name in names}


def ldm_control(key: str) -> str:
    """A name of our control networks as Uni-ControlNet's code has it."""
    part, _, rest = key.partition(".")
    if part == "control":
        rest = re.sub(r"\.(norm_in|norm_out)\.(conv_gamma|conv_beta)\.", r".\1.fdn.\2.", ldm_unet(rest))
        rest = re.sub(r"\.(norm_in|norm_out)\.(\w+_conv)\.", r".\1.attention.\2.", rest)
        return "local_adapter." + re.sub(r"^(zero_convs\.\d+|middle_block_out)\.", r"\1.0.", rest)
    kind, _, rest = rest.partition(".")
    if kind == "metadata":
        return re.sub(r"^projections\.(\d)\.", r"metadata_emb.mlp_models.\1.fc1.", rest)
    return {
        "maps": "local_adapter.feature_extractor",
        "content": "global_content_adapter",
        "text": "global_text_adapter",
    }[kind] + f".{rest}"


def ldm_unet(key: str) -> str:
    """A name of diffusers' U-Net (two layers a level) as the latent-diffusion code base has it."""
    ends = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2", "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    for old, new in ends.items():
        if key.startswith(old + "."):
            key = new + key[len(old) :]
    if found := re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.", key):
        way, level, kind, layer = found[1], int(found[2]), found[3], int(found[4])
        number = 1 + 3 * level + layer if way == "down" else 3 * level + layer
        rest = key[found.end() :]
        if kind == "downsamplers":
            key = f"input_blocks.{3 + 3 * level}.0.op.{rest.removeprefix('conv.')}"
        elif kind == "upsamplers":
            key = f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.{rest}"
        else:
            key = f"{'input' if way == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}.{rest}"
    inner = {
        "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
    }  # fmt: skip
    for old, new in inner.items():
        key = key.replace(f".{old}.", f".{new}.")
    if "transformer_blocks" not in key:
        key = key.replace(".norm1.", ".in_layers.0.").replace(".norm2.", ".out_layers.0.")
    return key


def ldm_decoder(key: str, last: int) -> str:
    """A name of diffusers' decoder as the latent-diffusion code base has it."""
    key = key.replace("decoder.conv_norm_out.", "decoder.norm_out.").replace(".conv_shortcut.", ".nin_shortcut.")
    for old, new in {"resnets.0": "block_1", "attentions.0": "attn_1", "resnets.1": "block_2"}.items():
        key = key.replace(f"decoder.mid_block.{old}.", f"decoder.mid.{new}.")
    if found := re.match(r"decoder\.up_blocks\.(\d)\.(resnets|attentions|upsamplers\.0)\.", key):
        kind = {"resnets": "block", "attentions": "attn", "upsamplers.0": "upsample"}[found[2]]
        key = f"decoder.up.{last - int(found[1])}.{kind}.{key[found.end() :]}"
    if ".attn" in key:
        for old, new in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
            key = key.replace(f".{old}.", f".{new}.")
    return key


def _front(row: TeacherRow, state: dict[str, Tensor]) -> Any:
    """The tower and projector inside a whole vision-language model's file."""
    intern, pixel = row.arch["tower"] == "intern", row.name == "geopixel"
    tower = {"teochat": "model.image_tower.image_tower.", "geopixel": "vit.vision_tower.vision_model."}.get(
        row.name, "vision_model." if intern else "model.vision_tower.vision_tower.vision_model."
    )
    head = "vision_proj." if pixel else "mlp1." if intern else "model.mm_projector."
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        named |= {
            head + k if key.startswith("projector.") else tower + k: v for k, v in _front_names(row, key, value).items()
        }
    others = ("lm_head.weight", "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight")
    ours = ("language_model.model.layers.0.x",) if intern else ("output.weight",) if pixel else others
    return named | {name: torch.ones(2) for name in ours}


def _front_names(row: TeacherRow, key: str, value: Tensor) -> dict[str, Tensor]:
    intern = row.arch.get("tower") == "intern"
    if key.startswith("projector."):
        number, _, rest = key.removeprefix("projector.").partition(".")
        number = f"layers.{ {'0': 1, '1': 2, '3': 4}[number] }" if row.name == "unirs" else number
        return {f"{number}.{rest}": value}
    key = key.removeprefix("vision.")
    if key == "position_embedding":
        return (
            {"embeddings.position_embedding": value[None]}
            if intern
            else {"embeddings.position_embedding.weight": value}
        )
    if key == "class_embedding":
        return {"embeddings.class_embedding": value[None, None] if intern else value}
    if key.startswith("patch_embedding"):
        return {f"embeddings.{key}": value}
    key = key.replace("pre_norm", "pre_layrnorm").replace("post_norm", "post_layernorm")
    if found := re.match(r"layers\.(\d+)\.", key):
        base, rest = f"encoder.layers.{found[1]}.", key[found.end() :]
        if intern:
            where = "attn." if rest.startswith(("qkv", "proj")) else "mlp." if rest.startswith("fc") else ""
            return {base + where + rest: value}
        if rest.startswith("qkv"):
            kind = rest.removeprefix("qkv.")
            return {f"{base}self_attn.{p}_proj.{kind}": v for p, v in zip("qkv", value.chunk(3), strict=True)}
        rest = rest.replace("norm", "layer_norm") if rest.startswith("norm") else rest
        rest = f"mlp.{rest}" if rest.startswith("fc") else rest.replace("proj.", "self_attn.out_proj.")
        return {base + rest: value}
    return {key: value}


_WRITERS = {
    "rvsa": _rvsa, "rvsa_upernet": _mm, "rvsa_oriented": lambda row, state: authors.mm(state), "hypersigma": _hypersigma,
    "hypersigma_change": _change, "ffca_yolo": _yolo, "sam": _rsprompter, "sam_points": _sam,
    "sam2": _geopixel, "geopix": _geopix,
    "rsprompter": _prompter, "rsprompter_query": _queries, "latent_unet": _unet,
    "latent_control": _control, "latent_decoder": _decoder, "vlm": _front,
    "aquila": lambda row, state: state,
}  # fmt: skip
