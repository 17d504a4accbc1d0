"""What a network is built with, and the shapes that a checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Arch = dict[str, Any]


Shapes = Mapping[str, tuple[int, ...]]
