"""Low-rank adapters (LoRA) merged into the weights they adapt, as PEFT writes them. Exported graphs know no adapters.

Source: Hu et al. 2022, "LoRA": W' = W + alpha / r * B A; with rank-stabilised scaling (Kalajdzievski 2023) alpha / sqrt(r).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

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
        delta = _scaling(config, layer, down.shape[0]) * (up @ down)
        if delta.shape != merged[name].shape:
            raise RequestError(f"{folder}: {name} is {tuple(merged[name].shape)}, its adapter {tuple(delta.shape)}")
        merged[name] = (merged[name].float() + delta).to(merged[name].dtype)
    return merged


def _config(folder: Path) -> dict[str, object]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise RequestError(f"{folder}: no adapter_config.json, so it is no PEFT adapter")
    config = read_object(path)
    if config.get("peft_type") != "LORA":
        raise RequestError(f"{path}: peft_type is {config.get('peft_type')}; only LORA can be merged here")
    used = [key for key in _UNSUPPORTED if config.get(key)]
    if used or config.get("bias", "none") != "none":
        raise RequestError(
            f"{path}: {', '.join(used) or 'bias'} is not supported; merge it with PEFT's merge_and_unload()"
        )
    return config


def _known(name: str, state: Mapping[str, Tensor], folder: Path) -> str:
    if name not in state:
        raise RequestError(f"{folder}: adapts '{name}', which the model does not have")
    return name


def _scaling(config: Mapping[str, object], layer: str, rank: int) -> float:
    alpha = _of_layer(config.get("alpha_pattern"), layer, config.get("lora_alpha", rank))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _of_layer(patterns: object, layer: str, default: object) -> float:
    """A value given for layers whose name ends with a pattern, else the default."""
    for pattern, value in (patterns or {}).items():  # type: ignore[attr-defined]
        if re.match(rf"(.*\.)?{pattern}$", layer):
            return float(value)
    return float(default)  # type: ignore[arg-type]
