"""One module per family of architectures. Each has ``FAMILY``; rows of ``models/rows`` name the module."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.parts import Part
from rsedge.models.plugins import GROUP, packages


@dataclass(frozen=True)
class Family:
    """What a family's module gives.

    Attributes:
        build: the row's ``arch`` as keyword arguments -> a freshly initialised network: normalised float32 input -> output.
        fit: ``(arch, shapes) -> arch``: what the shapes in a checkpoint (names already mapped) say of the architecture, for
            instance how many classes its head has. Only what authors' files do vary in; everything else stays strict.
        convert: ``state -> state``: changes to tensors that names cannot say, such as splitting one tensor in three.
        parts: ``network -> parts``: the graphs that are deployed where the network takes more than one image.
    """

    build: Callable[..., nn.Module]
    fit: Callable[[Arch, Shapes], Arch] = lambda arch, shapes: arch
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state
    parts: Callable[[nn.Module], dict[str, Part]] | None = None


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
