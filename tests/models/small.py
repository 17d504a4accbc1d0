"""Rows at reduced width, and checkpoints of them written in their authors' layouts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.models.families import family
from rsedge.models.zoo import TeacherRow, teacher_row

KEYS = Path(__file__).parent / "keys"

# Architecture arguments of each family, reduced; the row's own stay where none are given.
SMALL: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 8},
    "deeplab": {"layers": [1, 1, 1, 1], "width": 8, "pyramid": 16},
    "vit": {"tile": 32, "dim": 32, "depth": 2, "heads": 2},
    "group_vit": {"tile": 32, "dim": 32, "depth": 2, "heads": 2, "channel_dim": 16},
    "temporal_vit": {"tile": 32, "dim": 48, "depth": 2, "heads": 2, "time_dim": 8},
    "spectral_vit": {"tile": 32, "dim": 32, "depth": 2, "heads": 2},
    "swin": {"tile": 64, "window": 4, "dim": 16, "depths": [2, 2, 2, 2], "heads": [1, 2, 4, 8]},
    "swin_v2": {"window": 2, "dim": 16, "depths": [2, 2, 2, 2], "heads": [1, 2, 4, 8]},
    "geoclip": {"dim": 16, "width": 24, "count": 8},
    "satclip": {"degrees": 6, "width": 24, "dim": 16},
    "csp": {"width": 24, "dim": 16},
    "presto": {"dim": 16, "depth": 2, "heads": 2},
    "galileo": {"dim": 16, "depth": 2, "heads": 2},
    "keras_resnet": {"width": 4},
    "clip": {"tile": 64, "patch": 16, "dim": 32, "depth": 2, "heads": 2, "out": 24},
    "av_resnet": {"layers": [1, 1, 1, 1], "planes": [8, 12, 16, 24], "stem": 8, "out": 16},
    "gair": {"tile": 32, "patch": 8, "dim": 32, "depth": 2, "heads": 16},
    "retrieval": {"encoder": {"degrees": 6, "width": 24, "dim": 16}, "entries": 20, "images": 12},
}
TILES = {
    "vit": 32,
    "group_vit": 32,
    "temporal_vit": 32,
    "spectral_vit": 32,
    "galileo": 16,
    "keras_resnet": 32,
    "gair": 32,
}


def small_row(name: str) -> TeacherRow:
    """The row with a reduced architecture and a tile to match."""
    row = teacher_row(name)
    spec = row.input_spec.model_copy(update={"tile": TILES.get(row.family, 64)})
    return row.model_copy(update={"arch": row.arch | SMALL[row.family], "input": spec})


def random_net(row: TeacherRow, seed: int = 0, **arch: Any) -> nn.Module:
    """The row's network, every tensor random: no norm, position or table is left at 0 or 1."""
    torch.manual_seed(seed)
    net = family(row.family).build(**(row.arch | arch)).eval()
    statistics = {k: v for k, v in net.state_dict().items() if ".running_" in k or k.startswith("running_")}
    with torch.no_grad():
        for name, tensor in {**dict(net.named_parameters()), **statistics}.items():
            scaled = torch.randn_like(tensor) * (0.2 / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1)
            positive = name.endswith(("running_var", "logit_scale")) or (tensor.ndim == 1 and name.endswith("weight"))
            tensor.copy_(scaled.abs() + 0.5 if positive else scaled)
    return net


def authors_file(row: TeacherRow, net: nn.Module, folder: Path) -> Path:
    """A checkpoint as the row's authors write it: names, wrapping, data-parallel prefixes, what lies beside the encoder."""
    if row.family == "keras_resnet":
        return _keras(net, folder / f"{row.name}.h5")
    state, author = dict(net.state_dict()), row.name.split("-")[0]
    if author in ("av", "gair"):
        content = {"av": _soundingearth, "gair": _gair}[author](row, state)
    elif row.name == "geoclip-image":
        content = _clip(state)
    else:
        content = (_swin if row.family == "swin" else _WRITERS[author])(state)
        if row.arch.get("frames", 1) > 1 and author == "satlas":
            content = {k.replace("backbone.", "backbone.backbone.", 1): v for k, v in content.items()}
    path = folder / f"{row.name}.pth"
    torch.save(content, path)
    return path


def _seco(state: dict[str, Tensor]) -> dict[str, Any]:
    order = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    named = {order[k.split(".")[0]] + k[k.index(".") :]: v for k, v in state.items()}
    both = {f"encoder_{x}.{k}": v for x in "qk" for k, v in named.items()}
    heads = {f"heads_{x}.0.0.weight": torch.ones(2, 2) for x in "qk"}
    return {"epoch": 9, "hyper_parameters": {"arch": "resnet"}, "state_dict": both | heads | {"queue": torch.ones(3)}}


def _geokr(state: dict[str, Tensor]) -> dict[str, Any]:
    named = {f"module.backbone.{k}": v for k, v in state.items()}
    return {**named, "module.class_fc.0.weight": torch.ones(8, 4), "epoch": 5, "gobal_step": 70}


def _tov(state: dict[str, Tensor]) -> dict[str, Any]:
    named = {f"module.encoder_q.{k}": v for k, v in state.items()}
    return {"state_dict": named | {"module.encoder_k.conv1.weight": torch.ones(2), "module.queue": torch.ones(2)}}


def _glcnet(state: dict[str, Tensor]) -> dict[str, Any]:
    """Fine-tuned from the encoder."""
    return {k.replace("decoder.", "decoder_ft."): v for k, v in state.items()}


def _mae(state: dict[str, Tensor]) -> dict[str, Any]:
    decoder = {
        "mask_token": torch.ones(1, 1, 4),
        "decoder_blocks.0.norm1.weight": torch.ones(4),
        "decoder_pos_embed": torch.ones(2),
    }
    settings = argparse.Namespace(model="mae_vit_large_patch16", lr=1e-3)
    return {"model": state | decoder, "epoch": 199, "args": settings, "scaler": {"scale": 2.0}}


def _upscaling_mae(state: dict[str, Tensor]) -> dict[str, Any]:
    return _mae(state | {"proj_up_conv.weight": torch.ones(2), "up_block1.0.weight": torch.ones(2)})


def _swin(state: dict[str, Tensor]) -> dict[str, Any]:
    """The original code: downsampling at the end of a stage, masks and indices among the weights."""
    named = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", k): v
        for k, v in state.items()
    }
    named |= {
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 4, 4),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4, dtype=torch.long),
    }
    named = {f"encoder.{k}": v for k, v in named.items()} | {"encoder.mask_token": torch.ones(1)}
    others = {
        "teacher.norm.weight": torch.ones(2),
        "projector.weight": torch.ones(2),
        "decoder.0.weight": torch.ones(2),
    }
    return {"model": named | others, "epoch": 99}


def _satlas(state: dict[str, Tensor]) -> dict[str, Any]:
    """torchvision's networks inside their backbones, with a norm and a head that are never used."""
    swin = "features.0.0.weight" in state
    beside = ("norm.weight", "head.weight") if swin else ("fc.weight",)
    named = {f"backbone.{'backbone' if swin else 'resnet'}.{k}": v for k, v in state.items()}
    unused = {f"backbone.{'backbone' if swin else 'resnet'}.{k}": torch.ones(2) for k in beside}
    return {**named, **unused, "intermediates.0.fpn.inner_blocks.0.weight": torch.ones(2)}


def _satclip(state: dict[str, Tensor]) -> dict[str, Any]:
    """Lightning; the encoder twice and in float64, the image tower beside it."""
    twice = {f"model.{prefix}{k}": v.double() for prefix in ("location.", "") for k, v in state.items()}
    beside = {"model.visual.conv1.weight": torch.ones(2), "model.logit_scale": torch.ones([])}
    return {"state_dict": twice | beside, "hyper_parameters": {"legendre_polys": 40}, "epoch": 1}


def _presto(state: dict[str, Tensor]) -> dict[str, Any]:
    """Pretraining keeps the decoder; fine-tuning puts a head in its place."""
    if "head.linear.weight" in state:
        return state
    return state | {"decoder.mask_token": torch.ones(4), "decoder.decoder_blocks.0.norm1.weight": torch.ones(4)}


def _keras(net: nn.Module, path: Path) -> Path:
    """Keras's layers and axis order; a group per layer with one of the same name in it, and layers without weights."""
    import h5py

    names = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    with h5py.File(path, "w") as file:
        file.create_group("activation_1")
        for key, value in net.state_dict().items():
            layer, kind = key.split(".")
            norm = layer.startswith("batch")
            names |= {"weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias"}
            if kind in names:
                turned = value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T if value.ndim == 2 else value
                file[f"{layer}/{layer}/{names[kind]}:0"] = turned.numpy()
    return path


def _open_clip(state: dict[str, Tensor]) -> dict[str, Any]:
    """open_clip's training checkpoint: fused attention, the projection as (in, out), the text tower beside it."""
    named: dict[str, Tensor] = {}
    table = {
        "embeddings.class_embedding": "class_embedding", "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.patch_embedding": "conv1", "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj", "encoder.layers.": "transformer.resblocks.", "layer_norm": "ln_", "self_attn": "attn",
    }  # fmt: skip
    for key, value in state.items():
        if re.search(r"\.[kv]_proj\.", key):
            continue
        if ".q_proj." in key:
            value = torch.cat([state[key.replace(".q_proj.", f".{n}_proj.")] for n in "qkv"])
            key = key.replace(".q_proj.", ".in_proj_")
        if key == "visual_projection.weight":
            key, value = "proj", value.T
        for ours, theirs in table.items():
            key = key.replace(ours, theirs)
        named[f"module.visual.{key}"] = value
    text = {"module.token_embedding.weight": torch.ones(2, 2), "module.text_projection": torch.ones(2, 2)}
    return {"state_dict": named | text, "epoch": 20, "name": "x"}


def _clip(state: dict[str, Tensor]) -> dict[str, Any]:
    named = {k if k.startswith(("visual", "mlp")) else f"vision_model.{k}": v for k, v in state.items()}
    return named | {"text_model.embeddings.token_embedding.weight": torch.ones(2, 2), "logit_scale": torch.ones([])}


def _soundingearth(row: TeacherRow, state: dict[str, Tensor]) -> dict[str, Any]:
    own, other = ("snd", "img") if row.name.endswith("sound") else ("img", "snd")
    beside = {f"{other}_encoder.module_list.0.conv1.weight": torch.ones(2), "loss_function.scale": torch.ones(1)}
    return {f"{own}_encoder.module_list.0.{k}": v for k, v in state.items()} | beside


def _gair(row: TeacherRow, state: dict[str, Tensor]) -> dict[str, Any]:
    """One training checkpoint of all encoders; transformers' names for the street view."""
    named = {}
    street = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "patch_embed": "embeddings.patch_embeddings.projection", "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense", "norm1": "layernorm_before",
        "norm2": "layernorm_after", "blocks.": "encoder.layer.", "pooler": "pooler.dense",
    }  # fmt: skip
    for key, value in state.items():
        if row.name == "gair-location":
            named[f"location_encoder.{key}"] = value
        elif row.name != "gair-street":
            named[key if key.startswith("imnet") else f"rs_encoder.{key}"] = value
        else:
            for ours, theirs in street.items():
                key = key.replace(ours, theirs)
            key = re.sub(r"^norm\.", "layernorm.", key)
            parts = (
                dict(zip(("query", "key", "value"), value.chunk(3), strict=True)) if "attn.qkv" in key else {"": value}
            )
            for part, third in parts.items():
                named["sv_encoder." + key.replace("attn.qkv", f"attention.attention.{part}")] = third
    beside = {
        "rs_encoder.s2_encoder.linear_input.weight": torch.ones(2), "rs_encoder.head.weight": torch.ones(2),
        "sv_encoder.x": torch.ones(2), "location_encoder.y": torch.ones(1), "imnet.weight": torch.ones(2),
        "nerf_fn.norm_out.weight": torch.ones(2), "queue_for_location": torch.ones(2, 3), "logit_scale": torch.ones([]),
    }  # fmt: skip
    if row.name == "gair-street":
        del beside["sv_encoder.x"]
    if row.name == "gair-location":
        del beside["location_encoder.y"]
    return {"model": {f"module.{k}": v for k, v in (beside | named).items()}, "epoch": 3}


def _csp(state: dict[str, Tensor]) -> dict[str, Any]:
    twice = {f"{prefix}spa_enc.ffn.{k}": v for prefix in ("loc_enc.", "") for k, v in state.items()}
    heads = {"loc_enc.class_emb.weight": torch.ones(62, 4), "class_emb.weight": torch.ones(62, 4)}
    beside = {"img_dec.weight": torch.ones(2), "img_dec.bias": torch.ones(2)}
    return {"state_dict": twice | heads | beside, "params": {"spa_enc_type": "gridcell"}, "epoch": 30}


_WRITERS = {
    "seco": _seco, "geokr": _geokr, "tov": _tov, "ssl4eo": dict, "glcnet": _glcnet, "satmae": _mae, "satmaepp": _upscaling_mae,
    "spectralgpt": _mae, "ringmo": _mae, "billion": _mae, "satlas": _satlas,
    "geoclip": dict, "satclip": _satclip, "csp": _csp, "range": dict,
    "presto": _presto, "galileo": dict, "streetclip": _clip, "remoteclip": _open_clip, "skyclip": _open_clip,
}  # fmt: skip


def listing(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published model, from ``keys/<name>.txt``; ``[0-11]`` stands for each number."""
    found = {}
    for line in (KEYS / f"{name}.txt").read_text().splitlines():
        key, _, text = line.partition(" ")
        shape = tuple(int(n) for n in re.findall(r"\d+", text))
        span = re.search(r"\[([\d,-]+)\]", key)
        found.update(
            {key.replace(span[0], str(i)) if span else key: shape for i in (_numbers(span[1]) if span else (0,))}
        )
    return found


def _numbers(text: str) -> list[int]:
    spans = [part.partition("-") for part in text.split(",")]
    return [n for first, _, last in spans for n in range(int(first), int(last or first) + 1)]
