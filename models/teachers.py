"""The one door to teachers: by name from the zoo, with weights from a wheel or from a checkpoint in the authors' layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, cached_property
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError, missing_extra
from rsedge.models import zoo
from rsedge.models.architecture import Arch
from rsedge.models.checkpoint import (
    entered,
    load_strict,
    misfit,
    named_tensors,
    read_checkpoint,
    require_plain,
    setting,
    tensors_in,
)
from rsedge.models.families import Family, family, network_features
from rsedge.models.features import Features, inside
from rsedge.models.weight_folders import read_folder
from rsedge.models.zoo import Packaged, TeacherRow, teacher_row


class Teacher(nn.Module):
    """A network with its row, and ``arch``, what it was built with.

    Normalised float32 input in the row's layout -> logits (N, K, H, W) or (N, K), or features.
    """

    def __init__(self, net: nn.Module, spec: TeacherRow, arch: Arch) -> None:
        super().__init__()
        self.net, self.spec, self.arch = net, spec, arch

    @cached_property
    def features(self) -> Features:
        """What can be tapped of it, under the names of its submodules (``net.``...)."""
        shape = () if self.spec.input is None else self.spec.input.shape
        return inside("net", network_features(self.spec.family, self.net, shape))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs)  # type: ignore[no-any-return]


def load_teacher(name: str, checkpoint: str | Path | None = None) -> Teacher:
    """A teacher of the zoo by name, in eval mode, its weights from its wheel or from ``checkpoint``.

    A checkpoint with a classification head (``row.head``) gives a classifier with as many classes.

    Raises:
        RequestError: unknown name, no weights to load, or a checkpoint that does not fit (keys are named).
        MissingCapability: the wheel is not installed.
    """
    return load_row(teacher_row(name), checkpoint)


def load_row(row: TeacherRow, checkpoint: str | Path | None = None) -> Teacher:
    """A teacher by its row; as :func:`load_teacher`."""
    if checkpoint is not None:
        path = Path(checkpoint)
    elif row.weights is not None:
        path = packaged_path(row.weights, row.title)
    else:
        raise RequestError(f"teacher '{row.name}' needs a checkpoint: {_where_from(row)}")
    content = content_of(row, path)
    return fill_row(as_trained(row, content), bare(row, tensors_in(content, row.checkpoint.top, path)), path)


def content_of(row: TeacherRow, path: Path) -> Any:
    """What a file holds, or what of a folder's files the row has a place for.

    Raises:
        RequestError, IntegrityError: as :func:`read_checkpoint`; or a folder where the row's checkpoint is one file.
    """
    if not path.is_dir():
        return read_checkpoint(path)
    if not row.checkpoint.files:
        raise RequestError(f"{path}: is a folder; the checkpoint of '{row.name}' is one file, name it")
    return read_folder(path, row.checkpoint.files, lambda name: row.checkpoint.name(name) is not None)


def as_trained(row: TeacherRow, content: Any) -> TeacherRow:
    """The row with what a file says of its training beside the weights (:attr:`KeyMap.settings`)."""
    found = {argument: setting(content, entry) for entry, argument in row.checkpoint.settings.items()}
    return row.model_copy(
        update={"arch": row.arch | {name: value for name, value in found.items() if value is not None}}
    )


def bare(row: TeacherRow, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the prefix of a wrapper before all names, where the row knows its checkpoint by that alone."""
    wrapped = [p for p in ("model.", "net.", "network.") if all(name.startswith(p) for name in tensors)]
    for prefix in () if row.checkpoint.marked(tensors) else wrapped:
        bare = {name.removeprefix(prefix): value for name, value in tensors.items()}
        if row.checkpoint.marked(bare):
            return bare
    return tensors


def fill_row(row: TeacherRow, tensors: Mapping[str, Tensor], where: Path) -> Teacher:
    """A teacher by its row from tensors under the names of its authors' file.

    Raises:
        RequestError: they do not fit; names ``where`` and the keys.
    """
    module = family(row.family)
    mapped = row.checkpoint.apply(tensors)
    require_plain(mapped, where)
    state = module.convert(mapped)
    arch = module.fit(row.arch, _shapes(state))
    net = module.build(**arch)
    load_strict(net, state, where, row.checkpoint.absent, row.checkpoint.zero)
    module.loaded(net)
    return Teacher(net, _spec(row, state, arch), arch).eval().requires_grad_(False)


def row_of_file(row: TeacherRow, checkpoint: str | Path) -> TeacherRow:
    """The row as a checkpoint makes it, without building the network: its task, its classes, its band contract.

    Raises:
        RequestError, IntegrityError: as :func:`load_row`, but for tensors that do not fit.
    """
    content = content_of(row, Path(checkpoint))
    tensors = bare(row, tensors_in(content, row.checkpoint.top, checkpoint))
    state = without_data(row, tensors)
    return _spec(row, state, family(row.family).fit(as_trained(row, content).arch, _shapes(state)))


def _spec(row: TeacherRow, state: Mapping[str, Tensor], arch: Arch) -> TeacherRow:
    head = row.head
    spec = with_head(row, state[head].shape[0]) if head is not None and head in state else without_head(row)
    if spec.input is None:
        return spec
    return spec.model_copy(update={"input": family(row.family).contract(spec.input, arch)})


def without_data(row: TeacherRow, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the network's names; shapes are all that is looked at, so they are converted without their data."""
    return family(row.family).convert({k: v.to("meta") for k, v in row.checkpoint.apply(tensors).items()})


def meta_net(family_name: str, arch: Arch) -> nn.Module:
    """A network on the ``meta`` device: names and shapes without memory."""
    with torch.device("meta"):
        return family(family_name).build(**arch)


def row_features(row: TeacherRow) -> Features:
    """What can be tapped of a row's network, as :attr:`Teacher.features`; its weights are not needed."""
    return Teacher(meta_net(row.family, row.arch), row, row.arch).features


def with_head(row: TeacherRow, classes: int) -> TeacherRow:
    """The row with the head of a checkpoint: an embedding becomes a classifier; classes without a name are numbered."""
    names = row.classes if len(row.classes) == classes else tuple(f"class {i}" for i in range(classes))
    task = "classification" if row.task == "embedding" else row.task
    return row.model_copy(update={"task": task, "classes": names})


def without_head(row: TeacherRow) -> TeacherRow:
    """The row of a checkpoint that has no head: where the row has one, features come out instead of classes."""
    return row if row.head is None else row.model_copy(update={"task": "embedding", "classes": ()})


def check_fits(row: TeacherRow, checkpoint: str | Path) -> None:
    """Holds a checkpoint's names and shapes against a row's network, which is not built.

    Raises:
        RequestError, IntegrityError: as :func:`load_row`; what does not fit is named, and what it looks like.
    """
    content = content_of(row, Path(checkpoint))
    tensors = bare(row, tensors_in(content, row.checkpoint.top, checkpoint))
    if problem := _misfit(as_trained(row, content), tensors)[1]:
        raise RequestError(f"{checkpoint}: does not fit '{row.name}': {problem}. {_looks_like(content, checkpoint)}")


def _looks_like(content: Any, checkpoint: str | Path) -> str:
    """In words."""
    try:
        found = recognised(content, checkpoint)
    except RequestError as error:
        return f"Nor any other: {str(error).removeprefix(f'{checkpoint}: ')}"
    return f"It fits {' or '.join(found[:4])}, of the family {teacher_row(found[0]).family}: name that one"


def sniff(checkpoint: str | Path) -> list[str]:
    """The rows whose network a checkpoint fills exactly, recognised from names, shapes and the settings beside them.

    Raises:
        RequestError: none does: for rows that look like it, what is missing or left over.
        IntegrityError: a damaged file.
    """
    return recognised(read_checkpoint(checkpoint), checkpoint)


def recognised(content: Any, checkpoint: str | Path) -> list[str]:
    """As :func:`sniff`, of a file's content."""
    fits, near = {}, {}
    named: list[str] = []
    for row in zoo.zoo():
        names = _names(content, row.checkpoint.top)
        if not row.checkpoint.marked(names):
            continue
        tensors = tensors_in(content, row.checkpoint.top, checkpoint)
        arch, problem = _misfit(as_trained(row, content), tensors)
        if problem:
            near[row.name] = problem
        else:
            fits[row.name] = all(arch[key] == value for key, value in row.arch.items())
            named += [row.name] if "classes" in row.arch else []
    if fits:
        # Where a file decides what rows differ in, those that say the same; those that say how many classes go first.
        return sorted([name for name, same in fits.items() if same] or fits, key=lambda name: name not in named)
    if not near:
        known = ", ".join(dict.fromkeys(row.family for row in zoo.zoo()))
        raise RequestError(f"{checkpoint}: no teacher's checkpoint looks like this; families known: {known}")
    words = "; ".join(f"like {name}, but {problem}" for name, problem in list(near.items())[:3])
    raise RequestError(f"{checkpoint}: fits no teacher: {words}")


def packaged_path(weights: Packaged, what: str) -> Path:
    """The file of weights in an installed wheel.

    Raises:
        MissingCapability: the wheel is not installed.
    """
    found = util.find_spec(weights.module)
    if found is None or not found.submodule_search_locations:
        raise missing_extra(weights.module, weights.extra, what)
    return Path(next(iter(found.submodule_search_locations))) / weights.file


def _where_from(row: TeacherRow) -> str:
    if row.published == "weights":
        return f"give its authors' file with `checkpoint:` (source: {row.source})"
    return f"its authors released no weights ({row.source}); `checkpoint:` takes weights of your own in its layout"


def _names(content: Any, top: tuple[str, ...]) -> list[str]:
    path, content = entered(content, top)
    names = list(named_tensors(content)) if isinstance(content, Mapping) else []
    return [*names, *(f"{path}{name}" for name in names if path)]


def _misfit(row: TeacherRow, tensors: Mapping[str, Tensor]) -> tuple[Arch, str]:
    """The architecture that a row has for the tensors of a file, and what keeps them from filling it."""
    module, state = family(row.family), without_data(row, tensors)
    arch = module.fit(row.arch, _shapes(state))
    expected = _expected(module, json.dumps(arch, sort_keys=True))
    return arch, misfit(expected, state, row.checkpoint.optional)


@cache
def _expected(module: Family, arch: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network; kept, because rows share architectures."""
    with torch.device("meta"):
        return _shapes(module.build(**json.loads(arch)).state_dict())


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
