"""A few inputs of selection, for parity, timing and golden vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsedge.stages.context import RunContext

SAMPLE_TILES = 4
GOLDEN_TILES = 2
"""In a bundle's golden vector."""
Tile = npt.NDArray[np.generic]


def sample_tiles(ctx: RunContext, count: int = SAMPLE_TILES) -> list[Tile]:
    """So many of them, each (1, *spec.shape)."""
    return [one[None] for one in ctx.selection.inputs[:count]]
