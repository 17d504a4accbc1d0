"""Low-rank adapters (LoRA) merged into the weights they adapt, as PEFT writes them. Exported graphs know no adapters.

Source: Hu et al. 2022, "LoRA": W' = W + alpha / r * B A; with rank-stabilised scaling (Kalajdzievski 2023) alpha / sqrt(r).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from rsedge.data.documents import dotted
from rsedge.data.errors import RequestError
from rsedge.data.json_text import read_object
from rsedge.models.checkpoint import read_tensors

_NAME = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight$")
_UNSUPPORTED = ("use_dora", "layer_replication", "megatron_config")
_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def merge_lora(
    state: Mapping[str, Tensor], adapter: str | Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, Tensor]:
    """The state dict with a PEFT adapter folder (``adapter_config.json``, ``adapter_model.*``) merged into it.

    Weights keep their type; the product is computed in float32. Whole modules that were trained beside the adapter
    (``modules_to_save``) replace their originals.

    Args:
        wanted: names of the model that ``state`` is meant to hold; what the adapter has for others is left out.

    Raises:
        RequestError: no adapter there, one of another kind, or one that adapts weights that ``state`` does not have.
    """
    folder = Path(adapter)
    config = _config(folder)
    tensors = read_tensors(next((folder / f for f in _FILES if (folder / f).is_file()), folder / _FILES[0]))
    merged = dict(state)
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if found := _NAME.match(name):
            pairs.setdefault(found["layer"], {})[found["side"]] = tensor
        else:
            plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
            if wanted(plain):
                merged[_known(plain, merged, folder)] = tensor
    for layer, sides in pairs.items():
        if not wanted(f"{layer}.weight"):
            continue
        name = _known(f"{layer}.weight", merged, folder)
        if set(sides) != {"A", "B"}:
            raise RequestError(f"{folder}: {layer} has lora_{', lora_'.join(sides)} only")
        down, up = sides["A"].float(), sides["B"].float()
        if down.ndim != 2 or up.ndim != 2 or not down.shape[0] or up.shape[1] != down.shape[0]:
            raise RequestError(
                f"{folder}: {layer}: lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)} do not go together"
            )
        delta = _scaling(config, layer, down.shape[0]) * (up @ down)
        if delta.shape != merged[name].shape:
            raise RequestError(f"{folder}: {name} is {tuple(merged[name].shape)}, its adapter {tuple(delta.shape)}")
        merged[name] = (merged[name].float() + delta).to(merged[name].dtype)
    return merged


class _Config(BaseModel):
    """What PEFT's ``adapter_config.json`` says of the merge; other fields are left alone."""

    model_config = ConfigDict(extra="ignore")

    peft_type: str | None = None
    bias: str | None = None
    lora_alpha: float | None = Field(default=None, allow_inf_nan=False)
    alpha_pattern: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    use_rslora: bool | None = None
    use_dora: Any = None
    layer_replication: Any = None
    megatron_config: Any = None

    @property
    def alphas(self) -> dict[str, float]:
        return self.alpha_pattern or {}


def _config(folder: Path) -> _Config:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise RequestError(f"{folder}: no adapter_config.json, so it is no PEFT adapter")
    try:
        config = _Config.model_validate(read_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{path}: no PEFT adapter: {dotted(first['loc']) or 'all of it'}: {first['msg']}") from error
    if config.peft_type != "LORA":
        raise RequestError(f"{path}: peft_type is {config.peft_type}; only LORA can be merged here")
    used = [key for key in _UNSUPPORTED if getattr(config, key)]
    used += ["alpha_pattern with regular expressions"] * any(not re.fullmatch(r"[\w.]+", p) for p in config.alphas)
    if used or (config.bias or "none") != "none":
        raise RequestError(
            f"{path}: {', '.join(used) or 'bias'} is not supported; merge it with PEFT's merge_and_unload()"
        )
    return config


def _known(name: str, state: Mapping[str, Tensor], folder: Path) -> str:
    if name not in state:
        raise RequestError(f"{folder}: adapts '{name}', which the model does not have")
    return name


def _scaling(config: _Config, layer: str, rank: int) -> float:
    """By the alpha given for layers whose name ends with a pattern, else the common one."""
    named = (value for name, value in config.alphas.items() if layer == name or layer.endswith(f".{name}"))
    alpha = next(named, float(rank) if config.lora_alpha is None else config.lora_alpha)
    return alpha / (rank**0.5 if config.use_rslora else rank)
