"""Checkpoints read without running code: safetensors, ``weights_only`` torch files, ONNX initialisers.

Key mappings are data (:class:`KeyMap`), loading is strict, and the error names every missing or left-over key.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rsedge.data.errors import IntegrityError, RequestError


@dataclass(frozen=True)
class KeyMap:
    """How a checkpoint's keys become a module's: top-level entry, prefix to strip, renames, and what may be absent.

    ``absent`` are module keys (prefixes) the checkpoint may lack because the forward pass does not use them; ``ignored`` are
    checkpoint keys (prefixes) that the module has no place for (queues, extra heads).
    """

    top: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()
    rename: Mapping[str, str] | None = None
    absent: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def apply(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict with this module's names."""
        out = {}
        for key, value in state.items():
            name = key
            for prefix in self.strip:
                name = name.removeprefix(prefix)
            for old, new in (self.rename or {}).items():
                if name.startswith(old):
                    name = new + name[len(old) :]
            if not name.startswith(self.ignored or ("\0",)):
                out[name] = value
        return out


def read_tensors(path: str | Path, top: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """All tensors of a checkpoint file by name: ``.safetensors``, ``.onnx`` (initialisers) or a torch file.

    Raises:
        RequestError: missing file, unknown layout, or a pickle that would run code (it is not run).
        IntegrityError: truncated or damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".onnx":
        return _read_onnx(path)
    return _read_torch(path, top)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise IntegrityError(f"{path}: damaged safetensors file ({error}); fetch it again") from error


def _read_onnx(path: Path) -> dict[str, Tensor]:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise IntegrityError(f"{path}: damaged ONNX file ({error}); fetch it again") from error
    return {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer}


def _read_torch(path: Path, top: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise RequestError(
            f"{path}: this checkpoint holds more than tensors and would run code when opened ({reason}). It was not opened. "
            "Save its state_dict() as .safetensors where you trust it, and use that file"
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"{path}: damaged or truncated checkpoint ({str(error).splitlines()[0]})") from error
    for name in top:
        if isinstance(loaded, dict) and name in loaded:
            loaded = loaded[name]
    if not isinstance(loaded, dict):
        raise RequestError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    return {k: v for k, v in loaded.items() if isinstance(v, Tensor)}


def load_strict(module: nn.Module, state: Mapping[str, Tensor], keys: KeyMap, where: str | Path) -> None:
    """Loads ``state`` into ``module``.

    Raises:
        RequestError: names missing and left-over keys, or a tensor of another shape.
    """
    mapped, own = keys.apply(state), module.state_dict()
    optional = (*keys.absent, "\0")
    missing = [
        k for k in own if k not in mapped and not k.startswith(optional) and not k.endswith("num_batches_tracked")
    ]
    extra = [k for k in mapped if k not in own]
    shapes = [
        f"{k}: {tuple(mapped[k].shape)}, expected {tuple(own[k].shape)}"
        for k in mapped
        if k in own and mapped[k].shape != own[k].shape
    ]
    if missing or extra or shapes:
        parts = [f"{len(v)} {title}: {', '.join(v[:8])}{' ...' if len(v) > 8 else ''}"
                 for title, v in (("missing keys", missing), ("left-over keys", extra), ("other shapes", shapes)) if v]  # fmt: skip
        raise RequestError(f"{where}: checkpoint does not fit {type(module).__name__}: " + "; ".join(parts))
    module.load_state_dict({**own, **mapped}, strict=True)
