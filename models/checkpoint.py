"""Checkpoints read without running code: safetensors, ``weights_only`` torch files, ONNX initialisers, Keras HDF5.

How names are mapped is data (:class:`rsedge.models.keymap.KeyMap`); loading is strict, and the error names every missing or
left-over key.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.errors import IntegrityError, RequestError, missing_extra
from rsedge.data.files import require_file
from rsedge.data.memory import check_memory

MAPPED = 1 << 30
"""Bytes of weights from which on they stay where a file's reader put them. There they begin at any byte, and products of them may
differ in their last bits from those of the same weights in a module's own memory."""
_TORCH_STARTS = (b"PK\x03\x04", b"\x80")
# What NumPy scalars unpickle through; its module is private to NumPy.
_NUMPY_SCALAR: Callable[..., Any] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]
# Beside the weights, training scripts keep their settings. These classes only hold data (some are read as a plain
# dictionary instead); every other one is refused.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    _NUMPY_SCALAR,
    type(np.dtype("float32")),
    type(np.dtype("float64")),
    type(np.dtype("int64")),
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    (dict, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    # Configurations: dictionaries with attributes beside them, which are kept apart from the entries.
    *(
        (collections.OrderedDict, name)
        for name in ("yacs.config.CfgNode", "fvcore.common.config.CfgNode", "easydict.EasyDict")
    ),
    (str, "terratorch.datasets.utils.HLSBands"),
    (argparse.Namespace, "terratorch.models.model.AuxiliaryHead"),
]


ENTRIES = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
"""Entries in which training scripts keep weights."""
_DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,
)
"""What the libraries that read weights raise on damaged bytes; none of them says so, so all is taken that content can cause."""


def read_tensors(path: str | Path, top: Sequence[str] = ()) -> dict[str, Tensor]:
    """All tensors of a checkpoint file by name: ``.safetensors``, ``.onnx`` (initialisers), ``.h5`` (Keras) or a torch file.

    Args:
        top: wrapping entries of a torch file, each entered where it is present.

    Raises:
        RequestError: missing file, unknown layout, or a pickle that would run code (it is not run).
        IntegrityError: truncated or damaged file.
        MissingCapability: a Keras file where h5py is not installed.
    """
    return tensors_in(read_checkpoint(path), top, path)


def read_checkpoint(path: str | Path) -> Any:
    """The content of a checkpoint file as it lies there; errors as :func:`read_tensors`."""
    path = require_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".onnx":
        return _read_onnx(path)
    if path.suffix in (".h5", ".hdf5"):
        return _read_keras(path)
    return _read_torch(path)


def tensors_in(content: Any, top: Sequence[str], where: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's content; entries that are no tensors (epochs, settings, optimiser) are left out.

    Raises:
        RequestError: it is no state dict, or holds no tensor (its entries are named).
    """
    _, content = entered(content, top)
    if not isinstance(content, Mapping):
        raise RequestError(f"{where}: holds a {type(content).__name__}, not a state dict")
    tensors = named_tensors(content)
    if not tensors:
        raise RequestError(
            f"{where}: no tensors among its entries {', '.join(map(str, list(content)[:8])) or '(none)'}"
        )
    return tensors


def named_tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping that have a name; an optimiser counts its own."""
    return {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}


def entered(content: Any, top: Sequence[str]) -> tuple[str, Any]:
    """What lies in the entries ``top``, each entered where it is present, and further down in :data:`ENTRIES` where there are no
    tensors yet; before it the entries that were entered, each followed by ``/``."""
    path = ""
    for name in top:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            path, content = f"{path}{name}/", content[name]
    while isinstance(content, Mapping) and not named_tensors(content):
        inner = next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        path, content = f"{path}{inner}/", content[inner]
    return path, content


def setting(content: Any, entry: str) -> str | float | None:
    """What a training script keeps beside its weights under ``entry`` (names joined by ``/``): a word or number, else None."""
    for name in entry.split("/"):
        if isinstance(content, argparse.Namespace):
            content = vars(content)
        content = content.get(name) if isinstance(content, Mapping) else None
    return content if isinstance(content, str | int | float) else None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, *_DAMAGED) as error:
        raise IntegrityError(f"{path}: damaged safetensors file ({_first_line(error)}); fetch it again") from error


def _read_onnx(path: Path) -> dict[str, Tensor]:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper
    from onnx.checker import ValidationError

    try:
        model = onnx.load(path)
        return {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer}
    except (DecodeError, ValidationError, *_DAMAGED) as error:
        raise IntegrityError(f"{path}: damaged ONNX file ({_first_line(error)}); fetch it again") from error


def _read_keras(path: Path) -> dict[str, Tensor]:
    """Weights of a Keras 2 HDF5 file, ``<layer>/<weight>:0`` -> tensor in Keras's own axis order; links are not followed."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise missing_extra("h5py", "keras", f"reading {path.name}") from error
    found: dict[str, Tensor] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            check_memory(item.nbytes, path)
            found["/".join(name.split("/")[-2:])] = torch.from_numpy(item[()])

    try:
        with h5py.File(path, "r") as file:
            file.get("model_weights", file).visititems(collect)
    except _DAMAGED as error:
        raise IntegrityError(f"{path}: damaged HDF5 file ({_first_line(error)}); fetch it again") from error
    return found


def _program_in(path: Path) -> str:
    """What a torch file holds that is a program and no state dict; empty where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError):
        return ""
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "TorchScript"
    exported = "archive_format" in names or any(name.startswith("models/") and name.endswith(".json") for name in names)
    return "torch.export" if exported else ""


def _read_torch(path: Path) -> Any:
    with path.open("rb") as f:
        if not f.read(4).startswith(_TORCH_STARTS):
            raise IntegrityError(f"{path}: no PyTorch file (by its first bytes), or damaged; give a checkpoint's file")
    if program := _program_in(path):
        advice = (
            "torch.jit.load(file).state_dict()" if program == "TorchScript" else "torch.export.load(file).state_dict"
        )
        raise RequestError(
            f"{path}: is a program of {program} with its weights, no state dict; it is not run here. Where you trust it, save "
            f"{advice} as .safetensors and name the network that it was made of, or write it as ONNX and name it `onnx:file`"
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            # Weights stay pages of the file, which the kernel can take back: teachers may be as large as memory.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {named[1]}" if named else _first_line(error)
        raise RequestError(
            f"{path}: this checkpoint holds more than tensors and would run code when opened ({reason}). It was not opened. "
            "Save its state_dict() as .safetensors where you trust it, and use that file"
        ) from error
    except (pickle.PickleError, zipfile.BadZipFile, struct.error, *_DAMAGED) as error:
        raise IntegrityError(f"{path}: damaged or truncated checkpoint ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def misfit(own: Mapping[str, Any], state: Mapping[str, Any], absent: Sequence[str] = ()) -> str:
    """What keeps ``state`` from filling a module with the entries ``own``: tensors or shapes by name; empty if nothing.

    Args:
        absent: prefixes of module names that may be missing.
    """
    shapes = {k: _shape(v) for k, v in own.items()}
    found = {k: _shape(v) for k, v in state.items()}
    optional = (*absent, "\0")
    problems = {
        "missing keys": [
            k for k in shapes if k not in found and not k.startswith(optional) and not k.endswith("num_batches_tracked")
        ],
        "left-over keys": [k for k in found if k not in shapes],
        "other shapes": [f"{k}: {v}, expected {shapes[k]}" for k, v in found.items() if k in shapes and v != shapes[k]],
    }
    return "; ".join(
        f"{len(v)} {title}: {', '.join(v[:8])}{' ...' if len(v) > 8 else ''}" for title, v in problems.items() if v
    )


def require_plain(state: Mapping[str, Tensor], where: str | Path) -> None:
    """Refuses what a network's own tensors cannot take over whole.

    Raises:
        RequestError: a sparse, quantised, complex or empty (``meta``) tensor; it is named.
    """
    for name, value in state.items():
        kinds = {
            "is sparse": value.layout != torch.strided, "is quantised": value.is_quantized,
            "is complex": value.is_complex(), "has no data (device meta)": value.is_meta,
        }  # fmt: skip
        if found := next((kind for kind, so in kinds.items() if so), ""):
            raise RequestError(f"{where}: '{name}' {found}; save it as plain real numbers")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape if isinstance(value, Tensor) else value)


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    where: str | Path,
    absent: Sequence[str] = (),
    zero: Sequence[str] = (),
) -> None:
    """Loads ``state``, already under the module's names: into the module's own memory, or without a second copy where it is large.

    Args:
        absent: prefixes of module names that may be missing and stay as they are.
        zero: module names that may be missing and become zero.

    Raises:
        RequestError: names missing and left-over keys, a tensor of another shape, or one that is no array of real numbers.
    """
    own = module.state_dict()
    if problem := misfit(own, state, (*absent, *zero)):
        raise RequestError(f"{where}: checkpoint does not fit {type(module).__name__}: {problem}")
    require_plain(state, where)
    zeros = {name: torch.zeros_like(own[name]) for name in zero if name in own}
    whole = {**own, **zeros, **state}
    if sum(value.nbytes for value in own.values()) < MAPPED or _shares(module):
        module.load_state_dict(whole, strict=True)
    else:
        same = {name: value.to(own[name].dtype).contiguous() for name, value in whole.items()}
        module.load_state_dict(same, strict=True, assign=True)


def _shares(module: nn.Module) -> bool:
    """Whether one parameter of the module has two names."""
    return sum(1 for _ in module.named_parameters(remove_duplicate=False)) > sum(1 for _ in module.named_parameters())
