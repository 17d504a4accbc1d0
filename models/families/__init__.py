"""One module per family of architectures. Each has ``FAMILY``; rows of ``models/rows`` name the module."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.features import Features, Shape
from rsedge.models.parts import Part
from rsedge.models.plugins import GROUP, packages
from rsedge.models.program_code import code_of
from rsedge.models.published import published
from rsedge.models.zoo import LOADER_NAMES, MEMORY, TeacherRow, register_rows, unregister_rows


@dataclass(frozen=True)
class Without:
    """Said by a family that publishes no features, with the reason."""

    reason: str


@dataclass(frozen=True)
class Family:
    """What a family's module gives.

    Attributes:
        build: the row's ``arch`` as keyword arguments -> a freshly initialised network: normalised float32 input -> output.
        fit: ``(arch, shapes) -> arch``: what the shapes in a checkpoint (names already mapped) say of the architecture, for
            instance how many classes its head has. Only what authors' files do vary in; everything else stays strict.
        convert: ``state -> state``: changes to tensors that names cannot say, such as splitting one tensor in three.
        parts: ``network -> parts``: the graphs that are deployed where the network takes more than one image.
        features: ``(network, shape of one input) -> features``: what distillation can tap, under the names of the network's
            submodules; :class:`Without` and the reason where there is none.
        loaded: what is done, once and in place, to a network that an authors' file has filled.
        contract: ``(input, arch) -> input``: the row's band contract for a network of another size than the row's.
    """

    build: Callable[..., nn.Module]
    fit: Callable[[Arch, Shapes], Arch] = lambda arch, shapes: arch
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state
    parts: Callable[[nn.Module], dict[str, Part]] | None = None
    features: Callable[[nn.Module, Shape], Features] | Without = Without("its family says none")
    loaded: Callable[[nn.Module], None] = lambda net: None
    contract: Callable[[InputSpec, Arch], InputSpec] = lambda spec, arch: spec

    def features_of(self, net: nn.Module, shape: Shape) -> Features:
        """What it publishes of one of its networks, for inputs of ``shape`` (batch axis left out); perhaps nothing."""
        return () if isinstance(self.features, Without) else self.features(net, shape)


_registered: dict[str, Family] = {}


def register_family(name: str, own: Family, rows: Iterable[TeacherRow | Mapping[str, Any]] = ()) -> Family:
    """Adds a family for this process, and the rows of its teachers.

    Args:
        own: its functions stand at the top of modules in files; stages are made anew when these change.
        rows: as ``models/rows`` has them, ``family`` left out.

    Raises:
        RequestError: a name is taken or is none, a row is wrong, or a function's code lies in no file.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RequestError(f"family '{name}': names hold small letters, digits and '_', and begin with a letter")
    if name in _registered or name in LOADER_NAMES or name == MEMORY or find_spec(f"{__name__}.{name}") is not None:
        raise RequestError(f"family '{name}' is there already; give yours another name")
    _code(name, own)
    register_rows(name, rows)
    _registered[name] = own
    return own


def unregister_family(name: str) -> None:
    """Takes away what :func:`register_family` added."""
    _registered.pop(name, None)
    unregister_rows(name)


def registered_code(name: str) -> str | None:
    """Hash of the code of a family that the program registered; None of others, whose code or version every stage's key has."""
    return _code(name, _registered[name]) if name in _registered else None


def _code(name: str, own: Family) -> str:
    parts = (getattr(own, part.name) for part in fields(own))
    return code_of((p for p in parts if p is not None and not isinstance(p, Without)), f"family '{name}'")


def family(name: str) -> Family:
    """The family of a row, imported when it is needed: ours by its name alone, that of another package as ``package.name``.

    Raises:
        RequestError: the program registered none of that name, and no installed package of teachers has it.
    """
    if name in _registered:
        return _registered[name]
    package, _, module = name.rpartition(".")
    if not package:
        if find_spec(f"{__name__}.{name}") is None:
            raise RequestError(
                f"family '{name}': rsedge has none of that name; register yours first (rsedge.models.families.register_family)"
            )
        ours: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
        return ours
    if package not in packages():  # a saved model names its family: nothing else is imported for it
        raise RequestError(
            f"family '{name}': '{package}' is no installed package of teachers (entry points {GROUP}); install it"
        )
    try:
        theirs = getattr(importlib.import_module(name), "FAMILY", None)
    except Exception as error:  # another's code, which may raise anything
        raise RequestError(f"teachers' package '{package}': module '{module}' cannot be imported: {error}") from error
    if not isinstance(theirs, Family):
        raise RequestError(
            f"teachers' package '{package}': module '{module}' has no FAMILY of rsedge.models.families.Family"
        )
    return theirs


def network_features(name: str, net: nn.Module, shape: Shape) -> Features:
    """What a network publishes that a family, a library of :data:`rsedge.models.zoo.LOADER_NAMES` or its owner built.

    Args:
        name: of the family or loader.
        shape: of one input, batch axis left out.
    """
    if name in LOADER_NAMES or name == MEMORY:
        return published(net, (torch.zeros(1, *shape, device=next(net.parameters(), torch.empty(0)).device),))
    return family(name).features_of(net, shape)
