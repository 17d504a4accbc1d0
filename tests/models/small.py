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
}
TILES = {"vit": 32, "group_vit": 32, "temporal_vit": 32, "spectral_vit": 32}


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
    write = _swin if row.family == "swin" else _WRITERS[row.name.split("-")[0]]
    content = write(dict(net.state_dict()))
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
    named = {k.replace("decoder.conv4.", "decoder.conv41."): v for k, v in state.items()}
    return {**named, "proj.0.weight": torch.ones(2), "proj1.0.weight": torch.ones(2)}


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
    named = {f"backbone.backbone.{k}": v for k, v in state.items()}
    return {
        **named,
        "backbone.backbone.head.weight": torch.ones(2),
        "intermediates.0.fpn.inner_blocks.0.weight": torch.ones(2),
    }


_WRITERS = {
    "seco": _seco, "geokr": _geokr, "tov": _tov, "ssl4eo": dict, "glcnet": _glcnet, "satmae": _mae, "satmaepp": _upscaling_mae,
    "spectralgpt": _mae, "ringmo": _mae, "billion": _mae, "satlas": _satlas,
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
    first, _, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if last else [int(n) for n in text.split(",")]
