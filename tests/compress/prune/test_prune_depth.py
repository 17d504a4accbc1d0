"""Residual blocks: found by what they do, and removing one equals skipping it, in every kind of network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.prune.depth import residual_blocks
from rsedge.compress.prune.finding import find_groups
from rsedge.data.errors import RequestError
from rsedge.data.files import read_json, write_json
from rsedge.models.structure import STRUCTURE_FILE, load_model, remove_blocks, removed_blocks, save_model
from tests.models.reduced import deployed, reduced_row
from tests.models.small import random_net

TIMM = {
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 2, "embed_dim": 24}, "blocks.0"),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 32, "window_size": 2, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)},
        "layers.0.blocks.1",
    ),
    "convnext_atto": ({"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1)}, "stages.1.blocks.1"),
    "resnet50": ({"layers": (1, 2, 1, 1), "zero_init_last": False, "channels": (8, 8, 16, 16)}, "layer2.1"),
}  # fmt: skip
ROWS = (
    "presto",
    "satlas-aerial-swinv2b",
    "streetclip",
    "rvsa-vitb",
)


def timm_net(name: str, seed: int = 0) -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(seed)
    net: nn.Module = timm.create_model(name, num_classes=3, **TIMM[name][0])
    return net.eval()


@torch.no_grad()
def outputs(net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    found = net(*inputs)
    return (found,) if isinstance(found, Tensor) else tuple(found)


def skipping(net: nn.Module, name: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the network gives where a block is there and gives back its first input."""
    handle = net.get_submodule(name).register_forward_hook(lambda _, args, output: args[0])
    try:
        return outputs(net, inputs)
    finally:
        handle.remove()


def holds(net: nn.Module, name: str, inputs: tuple[Tensor, ...], same: nn.Module, folder: Path) -> None:
    """``name`` can be removed; that equals skipping it, and a saved network is rebuilt without it."""
    whole, expected = outputs(net, inputs), skipping(net, name, inputs)
    remove_blocks(net, [name])
    found = outputs(net, inputs)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(found, whole, strict=True))
    save_model(net, folder, "any", {})
    again = load_model(folder, lambda *_: same)
    assert removed_blocks(again) == [name]
    for a, b in zip(outputs(again, inputs), found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # tensors from a file lie elsewhere in memory


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_every_kind_run_without_a_block(name: str, tmp_path: Path) -> None:
    net, inputs = timm_net(name), (torch.randn(1, 3, 32, 32),)
    blocks = residual_blocks(net, inputs[0])
    assert TIMM[name][1] in blocks
    holds(net, TIMM[name][1], inputs, timm_net(name, seed=1), tmp_path)
    assert any(not g.blocked for g in find_groups(net, inputs[0]))


@pytest.mark.parametrize("name", ROWS)
def test_teachers_run_without_a_block(name: str, tmp_path: Path) -> None:
    row = reduced_row(name)
    part, other = (next(iter(deployed(row, random_net(row, seed=s)).values())) for s in (0, 1))
    inputs = tuple(part.inputs.values())
    blocks = residual_blocks(part.net, inputs if len(inputs) > 1 else inputs[0])
    assert blocks
    holds(part.net, blocks[-1], inputs, other.net, tmp_path)


class Chain(nn.Module):
    """Residual parts in a row, a plain convolution that keeps its shape, a projection beside a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(Residual(), Residual())
        self.plain = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.outer = Around()
        self.projected = Projected()

    def forward(self, x: Tensor) -> Tensor:
        return self.projected(self.outer(self.plain(self.stage(x))))  # type: ignore[no-any-return]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)  # type: ignore[no-any-return]


class Around(nn.Module):
    """A block with a residual part of its own inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.conv = Residual(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.inner(x))  # type: ignore[no-any-return]


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv(x)  # type: ignore[no-any-return]


def test_blocks_are_whole_and_chains_plain_layers_and_projections_are_none() -> None:
    torch.manual_seed(0)
    net = Chain().eval()
    assert residual_blocks(net, torch.zeros(1, 4, 8, 8)) == ["stage.0", "stage.1", "outer"]
    assert residual_blocks(net, torch.zeros(1, 4, 8, 8), {"stage.1.conv"}) == ["stage.0", "outer"]


def test_a_block_that_the_network_looks_into_stays() -> None:
    class Looking(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.stage[0].conv.weight.mean()  # type: ignore[no-any-return, union-attr, operator]

    assert "stage.0" not in residual_blocks(Looking().eval(), torch.rand(1, 4, 8, 8))


def test_names_of_blocks_in_a_file_are_checked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = remove_blocks(Chain(), ["stage.0"])
    save_model(net, tmp_path, "any", {})
    content = read_json(tmp_path / STRUCTURE_FILE)
    for removed, words in (
        (["nowhere.3"], "no block 'nowhere.3'"),
        ([""], "names of blocks"),
        ("stage.0", "names of blocks"),
    ):
        write_json(tmp_path / STRUCTURE_FILE, content | {"removed": removed})
        with pytest.raises(RequestError, match=words):
            load_model(tmp_path, lambda *_: Chain())
    del content["removed"]  # as written before blocks were removed: the layers of the block are missing, then
    write_json(tmp_path / STRUCTURE_FILE, content)
    with pytest.raises(RequestError, match=r"missing: .*|left over: stage.0"):
        load_model(tmp_path, lambda *_: Chain())
