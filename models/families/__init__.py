"""One module per family of architectures. Each has ``FAMILY``; rows of ``models/rows`` name the module."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.features import Features, Shape
from rsedge.models.parts import Part
from rsedge.models.plugins import GROUP, packages
from rsedge.models.published import published
from rsedge.models.zoo import LOADER_NAMES, MEMORY


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
    """

    build: Callable[..., nn.Module]
    fit: Callable[[Arch, Shapes], Arch] = lambda arch, shapes: arch
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state
    parts: Callable[[nn.Module], dict[str, Part]] | None = None
    features: Callable[[nn.Module, Shape], Features] | Without = Without("its family says none")

    def features_of(self, net: nn.Module, shape: Shape) -> Features:
        """What it publishes of one of its networks, for inputs of ``shape`` (batch axis left out); perhaps nothing."""
        return () if isinstance(self.features, Without) else self.features(net, shape)


def family(name: str) -> Family:
    """The family of a row, imported when it is needed: ours by its name alone, that of another package as ``package.name``.

    Raises:
        RequestError: no installed package of teachers has one of that name.
    """
    package, _, module = name.rpartition(".")
    if not package:
        ours: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
        return ours
    if package not in packages():  # a saved model names its family: nothing else is imported for it
        raise RequestError(
            f"family '{name}': '{package}' is no installed package of teachers (entry points {GROUP}); install it"
        )
    try:
        theirs = getattr(importlib.import_module(name), "FAMILY", None)
    except ImportError as error:
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
