"""The teacher itself as the student: for recipes that only prune or quantize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rsedge.models.families import family
from rsedge.models.families.tapped import Tapped
from rsedge.models.features import Feature
from rsedge.models.outside.loading import LOADERS, rebuild_outside
from rsedge.models.zoo import MEMORY


def rebuild(family_name: str, arch: Mapping[str, Any]) -> nn.Module:
    """The network of a teacher's row, freshly initialised, whoever's library builds it.

    Raises:
        RequestError: the teacher was a module in memory.
    """
    if family_name == "tapped":
        own = {name: value for name, value in arch.items() if name not in ("tapped", "feature")}
        return Tapped(rebuild(arch["tapped"], own), Feature(**arch["feature"]), arch["tapped"])
    if family_name in LOADERS or family_name == MEMORY:
        return rebuild_outside(**arch)
    return family(family_name).build(**arch)
