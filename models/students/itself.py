"""The teacher itself as the student: for recipes that only prune or quantize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rsedge.models.families import family


def rebuild(family_name: str, arch: Mapping[str, Any]) -> nn.Module:
    """The network of a teacher's row, freshly initialised."""
    return family(family_name).build(**arch)
