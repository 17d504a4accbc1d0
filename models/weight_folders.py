"""Weights that lie in several files of a folder: shards with their index, and folders of parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.json_text import read_object
from rsedge.models.checkpoint import read_checkpoint, tensors_in


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights: the index's, else those with the usual names.

    Raises:
        RequestError: there are none, or one that the index names is missing.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder}: no such folder")
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            names = sorted(set(_shards(folder / index)))
            absent = [n for n in names if not (folder / n).is_file()]
            if absent:
                raise IntegrityError(f"{folder}: {index} names {', '.join(absent)}, which are not there; copy it again")
            return [folder / n for n in names]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
    raise RequestError(f"{folder}: no weights (model.safetensors or pytorch_model.bin, or their index)")


def _shards(index: Path) -> list[str]:
    try:
        names = list(read_object(index)["weight_map"].values())
    except (RequestError, KeyError, AttributeError) as error:
        raise IntegrityError(f"{index}: not an index of weight files ({error})") from error
    if not all(isinstance(n, str) and Path(n).name == n for n in names):
        raise IntegrityError(f"{index}: names files outside of its folder")
    return names


def read_folder(folder: Path, files: Mapping[str, str], wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of a folder, one file after the other, so that no more than a file and what is wanted is in memory.

    Args:
        files: places in the folder -> prefix of the names there; a place is a file, or a folder of weights. A file that is a
            list of tensors names them by their number.
        wanted: names (with the prefix) to keep.

    Raises:
        RequestError: a place is missing, or holds no tensors.
        IntegrityError: a damaged file, or a name that two files have.
    """
    found: dict[str, Tensor] = {}
    for place, prefix in files.items():
        path = folder / place
        for file in weight_files(path) if path.is_dir() else [path]:
            content = read_checkpoint(file)
            if isinstance(content, list):
                content = {str(i): value for i, value in enumerate(content)}
            named = {prefix + name: tensor for name, tensor in tensors_in(content, (), file).items()}
            if twice := found.keys() & (kept := {n: t for n, t in named.items() if wanted(n)}).keys():
                raise IntegrityError(f"{file}: {min(twice)} lies in another file of {folder} too; copy it again")
            found |= kept
    return found
