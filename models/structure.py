"""Compressed models as structure and tensors: ``structure.json`` + ``model.safetensors``, never a pickle.

A compressed network is *factory + keyword arguments + removed blocks + replaced layers + widths + state dict*: the factory builds
the full-width network, :func:`remove_blocks` takes out what is gone whole, :func:`replace_layers` puts in what stands in for
others, :func:`apply_widths` gives every layer its pruned shape, the tensors fill it. Loading runs no code from the file: the
factory name is only looked up by the ``build`` function of the caller, kinds of replacements in a table.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import atomic_path, read_json, sha256_file, write_json
from rsedge.models.layers.narrow_attention import follow_widths

SCHEMA = 1
STRUCTURE_FILE = "structure.json"
TENSORS_FILE = "model.safetensors"

Widths = dict[str, dict[str, Any]]
"""Layer name (of ``named_modules``; of ``named_parameters`` for kind ``parameter``) -> its kind and sizes."""

HEAD_COUNTS = ("num_heads", "heads")
"""Attributes under which attention modules keep the number of their heads."""

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Conv = nn.modules.conv._ConvNd
_BatchNorm = nn.modules.batchnorm._NormBase


class Skipped(nn.Module):
    """Where a residual block was: gives back its first input. What else the block was given is not read."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x


def removed_blocks(module: nn.Module) -> list[str]:
    """Names of the blocks that were taken out, in the order of the modules."""
    return [name for name, layer in module.named_modules() if isinstance(layer, Skipped)]


def remove_blocks(module: nn.Module, names: Sequence[str]) -> nn.Module:
    """Puts a :class:`Skipped` in place of each named block of ``module``, in place.

    Raises:
        RequestError: the network has no such block.
    """
    for name in names:
        owner, _, key = name.rpartition(".")
        try:
            parent = module.get_submodule(owner)
            parent.get_submodule(key)
        except AttributeError as error:
            raise RequestError(f"structure: the network has no block '{name}' that could be removed") from error
        if not key:
            raise RequestError("structure: 'removed' names the whole network")
        parent._modules[key] = Skipped()
    return module


STAND_INS = {
    "hardswish": "rsedge.models.layers.activations:stand_in",
    "relu": "rsedge.models.layers.activations:stand_in",
    "merged": "rsedge.models.layers.merging:merged_blocks",
}
"""Kinds of replacements -> what makes one of the layer it replaces and its entry, and raises ValueError where it cannot be."""


def replaced_layers(module: nn.Module) -> dict[str, dict[str, Any]]:
    """The layers that replaced others, by name, each with its kind and what else makes it."""
    found = {}
    for name, layer in module.named_modules():
        entry: Callable[[], dict[str, Any]] | None = getattr(layer, "structure_entry", None)
        if entry is not None:
            found[name] = entry()
    return found


def replace_layers(module: nn.Module, entries: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Puts what each entry says in place of the named layer of ``module``, in place.

    Raises:
        RequestError: there is no such layer or kind, or the layer cannot be replaced so.
    """
    for name, entry in entries.items():
        owner, _, key = name.rpartition(".")
        try:
            place, _, maker = STAND_INS[entry["kind"]].partition(":")
            layer = module.get_submodule(name)
            new = getattr(importlib.import_module(place), maker)(layer, entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"structure: layer '{name}' cannot be replaced by {dict(entry)}: {error}") from error
        module.get_submodule(owner)._modules[key] = new
    return module


def widths_of(module: nn.Module) -> Widths:
    """The sizes of every layer whose channels pruning can change.

    Kinds: ``conv`` (in, out, groups; depthwise is groups == in == out), ``linear`` (in, out), ``batchnorm`` (out),
    ``groupnorm`` (out, groups), ``layernorm`` (shape), ``parameter`` (shape; a bare ``nn.Parameter`` such as a
    LayerScale or a position embedding), ``heads`` (count; an attribute of an attention module).
    """
    widths: Widths = {}
    for name, layer in module.named_modules():
        entry = _entry(layer)
        if entry is not None:
            widths[name] = entry
            continue
        for key in HEAD_COUNTS:
            if type(getattr(layer, key, None)) is int:
                widths[f"{name}.{key}" if name else key] = {"kind": "heads", "count": getattr(layer, key)}
        for key, parameter in layer.named_parameters(recurse=False):
            widths[f"{name}.{key}" if name else key] = {"kind": "parameter", "shape": list(parameter.shape)}
    return widths


def _entry(layer: nn.Module) -> dict[str, Any] | None:
    if isinstance(layer, _CONVS):
        return {"kind": "conv", "in": layer.in_channels, "out": layer.out_channels, "groups": layer.groups}
    if isinstance(layer, nn.Linear):
        return {"kind": "linear", "in": layer.in_features, "out": layer.out_features}
    if isinstance(layer, _BatchNorm):
        return {"kind": "batchnorm", "out": layer.num_features}
    if isinstance(layer, nn.GroupNorm):
        return {"kind": "groupnorm", "out": layer.num_channels, "groups": layer.num_groups}
    if isinstance(layer, nn.LayerNorm):
        return {"kind": "layernorm", "shape": list(layer.normalized_shape)}
    return None


def apply_widths(module: nn.Module, widths: Widths) -> nn.Module:
    """Gives the layers of a freshly built ``module`` the sizes in ``widths``, in place; changed tensors are left empty.

    Raises:
        RequestError: a layer is missing or left over, is of another kind, or its sizes cannot be (names the layer).
    """
    present = widths_of(module)
    _check_names(present, widths, "layer", "structure")
    for name, entry in widths.items():
        if entry == present[name]:
            continue
        if entry.get("kind") != present[name]["kind"]:
            raise RequestError(
                f"structure: layer '{name}' is {entry.get('kind')!r} in the file, but {present[name]['kind']!r} here"
            )
        try:
            _resize(module, name, entry)
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"structure: layer '{name}' cannot have the sizes {entry}: {error}") from error
    follow_widths(module)
    return module


def _resize(module: nn.Module, name: str, entry: Mapping[str, Any]) -> None:
    kind = entry["kind"]
    owner, _, key = name.rpartition(".")
    if kind == "heads":
        (count,) = _sizes([entry["count"]])
        set_heads(module.get_submodule(owner), key, count)
        return
    if kind == "parameter":
        _replace(module.get_submodule(owner), key, _sizes(entry["shape"], 0))  # one of several codes may be gone
        return
    layer = module.get_submodule(name)
    if isinstance(layer, _Conv):
        _resize_conv(layer, *_sizes([entry["in"], entry["out"], entry["groups"]]))
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = _sizes([entry["in"], entry["out"]])
        _replace(layer, "weight", (layer.out_features, layer.in_features))
        _replace(layer, "bias", (layer.out_features,))
    elif isinstance(layer, _BatchNorm):
        (layer.num_features,) = _sizes([entry["out"]])
        for key in ("weight", "bias", "running_mean", "running_var"):
            _replace(layer, key, (layer.num_features,))
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels, layer.num_groups = _sizes([entry["out"], entry["groups"]])
        if layer.num_channels % layer.num_groups:
            raise ValueError("channels are not a multiple of groups")
        _replace(layer, "weight", (layer.num_channels,))
        _replace(layer, "bias", (layer.num_channels,))
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = _sizes(entry["shape"])
        _replace(layer, "weight", layer.normalized_shape)
        _replace(layer, "bias", layer.normalized_shape)


def set_heads(layer: nn.Module, key: str, count: int) -> None:
    """Changes the number of heads of an attention module; their width stays."""
    setattr(layer, key, count)
    timm: Any = layer
    if hasattr(layer, "head_dim") and hasattr(layer, "attn_dim"):  # it keeps their product too
        timm.attn_dim = count * timm.head_dim


def _resize_conv(layer: _Conv, cin: int, cout: int, groups: int) -> None:
    if cin % groups or cout % groups:
        raise ValueError("channels are not a multiple of groups")
    layer.in_channels, layer.out_channels, layer.groups = cin, cout, groups
    first, second = (cin, cout // groups) if layer.transposed else (cout, cin // groups)
    _replace(layer, "weight", (first, second, *layer.kernel_size))
    _replace(layer, "bias", (cout,))


def _sizes(values: Sequence[Any], least: int = 1) -> tuple[int, ...]:
    if not all(isinstance(v, int) and not isinstance(v, bool) and least <= v < 2**31 for v in values):
        raise ValueError(f"sizes must be positive whole numbers, not {list(values)}")
    if math.prod(values) > 2**33:
        raise ValueError("too many elements")
    return tuple(values)


def _replace(layer: nn.Module, key: str, shape: Sequence[int]) -> None:
    """A parameter or buffer of the new shape, same type and device; one that is None or has the shape stays."""
    old = getattr(layer, key)
    if old is None or tuple(old.shape) == tuple(shape):
        return
    new = torch.zeros(tuple(shape), dtype=old.dtype, device=old.device)
    setattr(layer, key, nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new)


def save_model(module: nn.Module, folder: str | Path, factory: str, kwargs: dict[str, Any]) -> str:
    """Writes ``model.safetensors``, then ``structure.json`` with its hash, each atomically.

    A crash between the two over an older model leaves a pair that :func:`load_model` refuses; it never loads mixed.

    Args:
        factory: name under which ``build`` of :func:`load_model` finds the constructor, e.g. ``"slim-unet"``.
        kwargs: its arguments, JSON-able.

    Returns:
        Hex SHA-256 of the tensors file.

    Raises:
        RequestError: ``kwargs`` is not JSON-able.
    """
    try:
        arguments = json.loads(json.dumps(kwargs, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RequestError(f"factory '{factory}': its arguments cannot be written as JSON ({error})") from error
    folder = Path(folder)
    # Cloned, since safetensors refuses tensors that share memory, as tied weights do.
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    with atomic_path(folder / TENSORS_FILE) as temporary:
        safetensors.torch.save_file(tensors, temporary)
        digest = sha256_file(temporary)
    structure = {
        "schema": SCHEMA,
        "factory": factory,
        "kwargs": arguments,
        "tensors": {"file": TENSORS_FILE, "sha256": digest},
        "removed": removed_blocks(module),
        "replaced": replaced_layers(module),
        "widths": widths_of(module),
    }
    write_json(folder / STRUCTURE_FILE, structure)
    return digest


def load_model(folder: str | Path, build: Callable[[str, dict[str, Any]], nn.Module]) -> nn.Module:
    """Rebuilds a saved model on the CPU, in eval mode; every tensor is bit-equal to the saved one.

    Args:
        build: ``(factory, kwargs) -> module`` of full width, e.g. :func:`rsedge.models.students.build_student`.

    Raises:
        IntegrityError: the tensors are truncated or not those the structure was written with.
        RequestError: files are missing, or layers or tensors are missing, left over or of another shape (each named).
    """
    folder = Path(folder)
    structure = read_structure(folder)
    tensors = _read_tensors(folder, structure["tensors"]["sha256"])
    whole = build(structure["factory"], structure["kwargs"])
    changed = replace_layers(remove_blocks(whole, structure["removed"]), structure["replaced"])
    module = apply_widths(changed, structure["widths"])
    load_tensors(module, tensors, str(folder / TENSORS_FILE))
    return module.eval()


def read_structure(folder: str | Path) -> dict[str, Any]:
    """The checked content of ``structure.json``: schema, factory, kwargs, tensors{file, sha256}, removed, replaced, widths.

    Files of versions that removed no blocks or replaced no layers have no ``removed`` or ``replaced``: none.

    Raises:
        RequestError: no such file, not JSON, of another schema, or fields are missing.
    """
    path = Path(folder) / STRUCTURE_FILE
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise RequestError(f"{path}: schema {found!r} cannot be read; this version of rsedge reads schema {SCHEMA}")
    expected = {"factory": str, "kwargs": dict, "tensors": dict, "widths": dict}
    for field, kind in expected.items():
        if not isinstance(content.get(field), kind):
            raise RequestError(f"{path}: field '{field}' is missing or not of type {kind.__name__}")
    if not isinstance(content["tensors"].get("sha256"), str):
        raise RequestError(f"{path}: field 'tensors.sha256' is missing")
    if not all(isinstance(v, dict) for v in content["widths"].values()):
        raise RequestError(f"{path}: every entry of 'widths' must be an object")
    removed = content.setdefault("removed", [])
    if not isinstance(removed, list) or not all(isinstance(name, str) and name for name in removed):
        raise RequestError(f"{path}: field 'removed' must be a list of the names of blocks")
    replaced = content.setdefault("replaced", {})
    if not isinstance(replaced, dict) or not all(isinstance(entry, dict) for entry in replaced.values()):
        raise RequestError(f"{path}: field 'replaced' must be an object with an object for each layer")
    return content


def _read_tensors(folder: Path, digest: str) -> dict[str, Tensor]:
    path = folder / TENSORS_FILE
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    found = sha256_file(path)
    if found != digest:
        raise IntegrityError(
            f"{path}: SHA-256 is {found[:16]}..., but {STRUCTURE_FILE} was written with {digest[:16]}...; "
            "the file is truncated, altered or of another model"
        )
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
        return tensors
    except safetensors.SafetensorError as error:
        raise IntegrityError(f"{path}: not a safetensors file ({error})") from error


def tensors_digest(module: nn.Module) -> str:
    """Hex SHA-256 of a module's state: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fills ``module`` strictly, keeping each tensor's type.

    Raises:
        RequestError: names the missing and left-over keys, or the tensors of another shape.
    """
    own = module.state_dict()
    _check_names(own, tensors, "tensor", where)
    wrong = [f"{k} {list(tensors[k].shape)} for {list(v.shape)}" for k, v in own.items() if v.shape != tensors[k].shape]
    if wrong:
        raise RequestError(f"{where}: tensors of another shape: {_some(wrong)}")
    module.load_state_dict(dict(tensors), strict=True, assign=True)


def _check_names(expected: Mapping[str, Any], found: Mapping[str, Any], what: str, where: str) -> None:
    missing = sorted(set(expected) - set(found))
    left_over = sorted(set(found) - set(expected))
    parts = [f"{label}: {_some(names)}" for label, names in (("missing", missing), ("left over", left_over)) if names]
    if parts:
        raise RequestError(f"{where}: {what}s do not fit the factory; " + "; ".join(parts))


def _some(names: Sequence[str], limit: int = 10) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
