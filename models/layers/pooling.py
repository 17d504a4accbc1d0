"""Adaptive average pooling as a product with a constant: exporters take it where sizes are no multiples of each other."""

from __future__ import annotations

import torch
from torch import Tensor


def pooling(places: int, cells: int) -> Tensor:
    """The mean of each of ``cells`` stretches of ``places`` places, as torch's adaptive pooling cuts them: (cells, places)."""
    rows = torch.zeros(cells, places)
    for i in range(cells):
        start, end = i * places // cells, -(-(i + 1) * places // cells)
        rows[i, start:end] = 1 / (end - start)
    return rows
