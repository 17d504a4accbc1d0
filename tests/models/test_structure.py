"""Structure + safetensors: what is saved comes back bit for bit, and nothing else is accepted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.models.structure import apply_widths, load_model, save_model, tensors_digest, widths_of


class Mixed(nn.Module):
    """Every kind of layer the structure knows."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.gn = nn.GroupNorm(4, width)
        self.gamma = nn.Parameter(torch.full((width, 1, 1), 0.5))
        self.up = nn.ConvTranspose2d(width, 8, 2, 2)
        self.ln = nn.LayerNorm(8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gn(self.depthwise(torch.relu(self.bn(self.conv(x))))) * self.gamma
        out: Tensor = self.linear(self.ln(self.up(x).flatten(2).mean(2)))
        return out


def build(factory: str, kwargs: dict[str, Any]) -> nn.Module:
    assert factory == "mixed"
    return Mixed(**kwargs)


def narrowed(seed: int = 0) -> nn.Module:
    """A ``Mixed(16)`` whose layers were given the sizes of ``Mixed(8)``, with random tensors."""
    torch.manual_seed(seed)
    net = apply_widths(Mixed(16), widths_of(Mixed(8)))
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.1)
    return net.eval()


def test_narrowed_network_comes_back_bit_equal(tmp_path: Path) -> None:
    net, x = narrowed(), torch.rand(2, 3, 16, 16)
    digest = save_model(net, tmp_path, "mixed", {"width": 16})
    loaded = load_model(tmp_path, build)
    assert torch.equal(net(x), loaded(x))
    assert widths_of(loaded) == widths_of(net)
    assert tensors_digest(loaded) == tensors_digest(net)
    assert json.loads((tmp_path / "structure.json").read_text())["tensors"]["sha256"] == digest
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())


def test_half_precision_and_tied_weights_survive(tmp_path: Path) -> None:
    net = narrowed().half()
    save_model(net, tmp_path / "half", "mixed", {"width": 16})
    assert {p.dtype for p in load_model(tmp_path / "half", build).parameters()} == {torch.float16}

    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    save_model(tied, tmp_path / "tied", "mixed", {})
    loaded = load_model(tmp_path / "tied", lambda f, k: copy.deepcopy(tied))
    assert torch.equal(loaded(torch.ones(1, 4)), tied(torch.ones(1, 4)))


def test_no_pickle_is_written(tmp_path: Path) -> None:
    save_model(narrowed(), tmp_path, "mixed", {"width": 16})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "structure.json"]


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_tensors_are_refused(tmp_path: Path, damage: str) -> None:
    save_model(narrowed(), tmp_path, "mixed", {"width": 16})
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[:-100]
    else:
        content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="truncated, altered"):
        load_model(tmp_path, build)


def edit(folder: Path, change: Any) -> None:
    path = folder / "structure.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_missing_and_left_over_names_are_listed(tmp_path: Path) -> None:
    save_model(narrowed(), tmp_path, "mixed", {"width": 16})
    edit(tmp_path, lambda c: c["widths"].update(extra=c["widths"].pop("bn")))
    with pytest.raises(RequestError, match=r"missing: extra.*left over: bn|missing: bn.*left over: extra"):
        load_model(tmp_path, build)


def test_tensors_of_another_network_are_named(tmp_path: Path) -> None:
    class Wider(Mixed):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(2))

    save_model(Mixed(), tmp_path, "mixed", {})
    with pytest.raises(RequestError, match="missing: table"):
        load_model(tmp_path, lambda f, k: Wider())


@pytest.mark.parametrize(
    ("layer", "sizes", "message"),
    [
        ("conv", {"kind": "linear", "in": 3, "out": 8}, "'linear' in the file"),
        ("conv", {"kind": "conv", "in": 3, "out": -8, "groups": 1}, "positive whole"),
        ("conv", {"kind": "conv", "in": 3, "out": 8}, "cannot have the sizes"),
        ("gn", {"kind": "groupnorm", "out": 9, "groups": 4}, "multiple of groups"),
        ("conv", {"kind": "conv", "in": 3, "out": 24, "groups": 1}, "another shape"),
    ],
)
def test_impossible_widths_are_refused(tmp_path: Path, layer: str, sizes: dict[str, Any], message: str) -> None:
    save_model(narrowed(), tmp_path, "mixed", {"width": 16})
    edit(tmp_path, lambda c: c["widths"].update({layer: sizes}))
    with pytest.raises(RequestError, match=message):
        load_model(tmp_path, build)


def test_other_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        load_model(tmp_path, build)
    with pytest.raises(RequestError, match="JSON"):
        save_model(Mixed(), tmp_path, "mixed", {"width": object()})
    save_model(Mixed(), tmp_path, "mixed", {})
    edit(tmp_path, lambda c: c.update(schema=99))
    with pytest.raises(RequestError, match="schema 99"):
        load_model(tmp_path, build)
    edit(tmp_path, lambda c: c.update(schema=1, widths=None))
    with pytest.raises(RequestError, match="'widths'"):
        load_model(tmp_path, build)


def test_saving_over_an_older_model_never_loads_mixed(tmp_path: Path) -> None:
    save_model(narrowed(0), tmp_path, "mixed", {"width": 16})
    old = (tmp_path / "structure.json").read_bytes()
    save_model(narrowed(1), tmp_path, "mixed", {"width": 16})
    (tmp_path / "structure.json").write_bytes(old)  # as a crash between the two writes would leave it
    with pytest.raises(IntegrityError):
        load_model(tmp_path, build)
