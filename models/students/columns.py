"""What enters a network that takes columns of numbers: missing values masked, angles as sine and cosine, scale learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError

Missing = Sequence[float | None]
Angles = Sequence[Sequence[float]]


class Columns(nn.Module):
    """Columns (..., bands) normalised -> features (..., width) and presence (...) of 1 and 0.

    Features: the columns that are no angles, 0 where missing; sine and cosine per angle; per column that can be missing,
    whether it is there. A batch normalisation learns their scale, so that columns in degrees or metres do not drown others.
    A row is there when one of its values is; without columns that can be missing every row is.

    Args:
        missing: per column the value that stands for a missing one, or None.
        angles: ``[column, gain, offset]``; ``value * gain + offset`` is in radians.
    """

    marks: Tensor
    can_miss: Tensor
    gains: Tensor
    offsets: Tensor

    def __init__(self, bands: int, missing: Missing | None = None, angles: Angles = ()) -> None:
        super().__init__()
        marks = list(missing) if missing is not None else [None] * bands
        turning = [int(column) for column, _, _ in angles]
        if len(marks) != bands or any(not 0 <= c < bands for c in turning):
            raise RequestError(f"student: missing ({len(marks)}) and angles {turning} do not fit {bands} columns")
        self.plain = [c for c in range(bands) if c not in turning]
        self.turning = turning
        self.holed = [i for i, c in enumerate(self.plain) if marks[c] is not None]
        values = [marks[self.plain[i]] or 0.0 for i in self.holed]
        for name, numbers in (
            ("marks", values), ("gains", [a[1] for a in angles]), ("offsets", [a[2] for a in angles]),
        ):  # fmt: skip
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32), persistent=False)
        self.width = len(self.plain) + 2 * len(turning) + len(self.holed)
        self.scale = nn.BatchNorm1d(self.width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        plain, there, present = self._plain(x)
        parts = [plain]
        if self.turning:
            radians = _picked(x, self.turning) * self.gains + self.offsets
            parts += [torch.sin(radians), torch.cos(radians)]
        if there is not None:
            parts.append(there)
        features = torch.cat(parts, dim=-1)
        # As one affine map in evaluation, over the last axis; BatchNorm1d itself wants (rows, width).
        flat = self.scale(features.reshape(-1, self.width))
        return flat.reshape(features.shape), present

    def _plain(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Plain columns with 0 for what is missing, which of the holed ones are there, which rows are."""
        plain = _picked(x, self.plain)
        if not self.holed:
            return plain, None, None
        holed = _picked(plain, self.holed)
        # 1e-3 holds half precision's rounding; the values themselves may be far outside a network's range.
        gone = (holed - self.marks).abs() <= 1e-3 * self.marks.abs() + 1e-4
        there = (~gone).to(x.dtype)
        filled = torch.where(gone, 0.0, holed)
        solid = [i for i in range(len(self.plain)) if i not in self.holed]
        columns = torch.cat([filled, _picked(plain, solid)], dim=-1) if solid else filled
        return columns, there, there.amax(-1)


def _picked(x: Tensor, columns: Sequence[int]) -> Tensor:
    """Columns by number, as slices of runs: gathers are slow, and some runtimes lack them."""
    runs: list[list[int]] = []
    for column in columns:
        if runs and column == runs[-1][-1] + 1:
            runs[-1].append(column)
        else:
            runs.append([column])
    parts = [x[..., run[0] : run[-1] + 1] for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
