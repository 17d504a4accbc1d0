"""RVSA against a reference that follows the paper's formulas window by window, token by token."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rsedge.data.errors import RequestError
from rsedge.models.families.rvsa import WINDOW, WindowAttention, build
from rsedge.models.teachers import load_teacher, skeleton, sniff
from rsedge.models.zoo import teacher_row, zoo
from tests.models.deploying import deploys, randomise, static

ROWS = [row.name for row in zoo() if row.family == "rvsa"]
SMALL = {"image": 144, "dim": 32, "heads": 2, "depth": 3}


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
        name: attn.get_submodule(f"sampling_{name}{suffix}")[2](F.leaky_relu(means))[0].reshape(attn.heads, -1, *means.shape[2:])
        for name in ("offsets", "scales", "angles")
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


@pytest.mark.parametrize(("grid", "apart", "vitae"), [(14, False, False), (9, True, False), (9, False, True)])
def test_windows_move_scale_and_turn_as_published(grid: int, apart: bool, vitae: bool) -> None:
    attn = randomise(WindowAttention(8, 2, grid, apart, vitae), seed=grid, spread=0.3)
    assert isinstance(attn, WindowAttention)
    x = torch.randn(1, grid * grid, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(attn(x), reference(attn, x), atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert sum(p.numel() for p in skeleton(teacher_row(name)).parameters()) == teacher_row(name).params


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_fine_tuned_checkpoint_loads_and_is_recognised(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = teacher_row("rvsa-vitb-kvdiff")
    small = row.model_copy(update={"arch": {**row.arch, **SMALL}})
    monkeypatch.setattr("rsedge.models.teachers.teacher_row", lambda name: small)
    monkeypatch.setattr("rsedge.models.teachers.zoo", lambda: [small])
    net = randomise(build(**small.arch, classes=5))
    weights = {prefix + k: v for k, v in net.state_dict().items()}
    torch.save({"model": weights, "optimizer": {"lr": 1.0}, "epoch": 200}, tmp_path / "c.pth")
    teacher = load_teacher(row.name, tmp_path / "c.pth")
    x = torch.randn(1, 3, 144, 144)
    assert torch.equal(teacher(x), net(x))
    assert teacher.spec.task == "classification" and len(teacher.spec.classes) == 5
    assert sniff(tmp_path / "c.pth") == [row.name]
    del weights[f"{prefix}blocks.0.attn.qkv.bias"]
    torch.save(weights, tmp_path / "cut.pth")
    with pytest.raises(RequestError, match=r"1 missing keys: blocks\.0\.attn\.qkv\.bias"):
        load_teacher(row.name, tmp_path / "cut.pth")


@pytest.mark.parametrize("name", ROWS)
def test_the_graph_is_static_and_deploys(name: str, tmp_path: Path) -> None:
    row = teacher_row(name)
    net = randomise(build(**row.arch, **SMALL, classes=4), spread=0.05)
    spec = row.input_spec.model_copy(update={"tile": SMALL["image"]})
    graph = deploys(net, spec, "vector", tmp_path)
    assert static(graph)
    assert sum(n.op_type == "GridSample" for n in graph.graph.node) == 4
