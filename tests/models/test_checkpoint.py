"""Checkpoints: strict, safe, and clear about what does not fit."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.models.checkpoint import KeyMap, load_strict, read_tensors


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"weight": Bomb()}, path)
    with pytest.raises(RequestError, match="would run code"):
        read_tensors(path)
    raw = tmp_path / "raw.pkl"
    raw.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(RequestError):
        read_tensors(raw)
    assert "never" not in capsys.readouterr().out


def test_truncated_files_are_integrity_errors(tmp_path: Path) -> None:
    good = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(100)}, good)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-50])
    with pytest.raises(IntegrityError, match=r"cut\.safetensors"):
        read_tensors(cut)
    torch.save({"w": torch.ones(1000)}, tmp_path / "b.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "b.pt").read_bytes()[:-200])
    with pytest.raises(IntegrityError, match=r"cut\.pt"):
        read_tensors(tmp_path / "cut.pt")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.pt"):
        read_tensors(tmp_path / "none.pt")


def test_top_level_prefixes_and_ignored_entries(tmp_path: Path) -> None:
    weights = {"module.a.weight": torch.ones(2, 3), "module.a.bias": torch.ones(2), "queue": torch.ones(9)}
    torch.save({"model": weights, "epoch": 3}, tmp_path / "c.pt")
    net = nn.ModuleDict({"a": nn.Linear(3, 2)})
    load_strict(
        net, read_tensors(tmp_path / "c.pt", top=("model",)), KeyMap(strip=("module.",), ignored=("queue",)), "c.pt"
    )
    assert net["a"].weight.eq(1).all()


def test_missing_extra_and_wrong_shapes_are_named() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(RequestError, match=r"missing keys: bias.*left-over keys: head.*other shapes: weight"):
        load_strict(net, {"weight": torch.ones(2, 4), "head": torch.ones(1)}, KeyMap(), "c.pt")
