"""RVSA against a reference that follows the paper's formulas window by window, token by token."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.families.rvsa import WINDOW, WindowAttention
from tests.conftest import Results


def sample(image: Tensor, x: float, y: float) -> Tensor:
    """A (C, edge, edge) map at a place, -1 to 1 from the first to the last token; 0 beyond them."""
    edge = image.shape[-1]
    column, row = (x + 1) / 2 * (edge - 1), (y + 1) / 2 * (edge - 1)
    total = torch.zeros(image.shape[0])
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < edge and 0 <= c < edge:
                total += image[:, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def places(attn: WindowAttention, means: Tensor, suffix: str, head: int, wr: int, wc: int) -> list[tuple[float, float]]:
    """Where a head looks for the 49 tokens of window (wr, wc)."""
    edge, ratio = attn.windows * WINDOW, attn.grid // WINDOW
    found = {
        name: attn.get_submodule(f"sampling_{name}{kind}")[2](F.leaky_relu(means))[0].reshape(attn.heads, -1, *means.shape[2:])
        for name, kind in (("offsets", suffix), ("scales", suffix), ("angles", suffix if attn.own_angles else "_k"))
    }  # fmt: skip
    dx, dy = (found["offsets"][head, :, wr, wc] / ratio).tolist()
    sx, sy = (found["scales"][head, :, wr, wc] + 1).tolist()
    angle = found["angles"][head, 0, wr, wc].item()
    step = 2 / (edge - 1)
    centre = [-1 + step * (w * WINDOW + WINDOW // 2) for w in (wc, wr)]
    answers = []
    for row in range(WINDOW):
        for column in range(WINDOW):
            x, y = (column - WINDOW // 2) * step * sx, (row - WINDOW // 2) * step * sy
            answers.append(
                (
                    centre[0] + dx + x * math.cos(angle) - y * math.sin(angle),
                    centre[1] + dy + x * math.sin(angle) + y * math.cos(angle),
                )
            )
    return answers


def reference(attn: WindowAttention, x: Tensor) -> Tensor:
    """One image's tokens (1, L, dim) through the attention, one window and head at a time."""
    dim, edge = x.shape[2], attn.windows * WINDOW
    before = attn.margins[0]
    channels = dim // attn.heads

    def padded(image: Tensor) -> Tensor:
        whole = torch.zeros(image.shape[0], edge, edge)
        whole[:, before : before + attn.grid, before : before + attn.grid] = image
        return whole

    q, k, v = (padded(t.T.reshape(dim, attn.grid, attn.grid)) for t in attn.project(x)[0].chunk(3, 1))
    means = F.avg_pool2d(padded(x[0].T.reshape(dim, attn.grid, attn.grid))[None], WINDOW)
    out = torch.zeros(dim, edge, edge)
    for wr in range(attn.windows):
        for wc in range(attn.windows):
            for head in range(attn.heads):
                part = slice(head * channels, (head + 1) * channels)
                rows, columns = slice(wr * WINDOW, (wr + 1) * WINDOW), slice(wc * WINDOW, (wc + 1) * WINDOW)
                queries = q[part, rows, columns].flatten(1).T
                keys, values = (
                    torch.stack([sample(t[part], *p) for p in places(attn, means, suffix, head, wr, wc)])
                    for t, suffix in ((k, attn.suffixes[0]), (v, attn.suffixes[-1]))
                )
                scores = queries @ keys.T * channels**-0.5
                for i in range(WINDOW**2):
                    for j in range(WINDOW**2):
                        down, right = i // WINDOW - j // WINDOW + WINDOW - 1, i % WINDOW - j % WINDOW + WINDOW - 1
                        scores[i, j] += queries[i] @ (attn.rel_pos_h[down] + attn.rel_pos_w[right])
                        scores[i, j] += attn.relative_position_bias_table[down * (2 * WINDOW - 1) + right, head]
                out[part, rows, columns] = (scores.softmax(1) @ values).T.reshape(channels, WINDOW, WINDOW)
    inside = out[:, before : before + attn.grid, before : before + attn.grid]
    return attn.proj(inside.flatten(1).T)[None]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("grid", "apart", "vitae", "bias", "own_angles"),
    [
        (14, False, False, True, True),
        (14, False, False, False, True),
        (9, True, False, True, True),
        (9, True, False, True, False),
        (9, False, True, True, True),
    ],
)
def test_windows_move_scale_and_turn_as_published(
    grid: int, apart: bool, vitae: bool, bias: bool, own_angles: bool, results: Results
) -> None:
    torch.manual_seed(grid)
    attn = WindowAttention(8, 2, grid, apart, vitae, bias, own_angles)
    for parameter in attn.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, grid * grid, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(attn(x), reference(attn, x), atol=1e-5)
    results.setdefault("family rvsa", {})["formulas"] = "window attention"
