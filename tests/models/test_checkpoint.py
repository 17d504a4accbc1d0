"""Checkpoints: strict, safe, and clear about what does not fit."""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.models import checkpoint
from rsedge.models.checkpoint import load_strict, read_tensors
from rsedge.models.keymap import KeyMap
from rsedge.models.teachers import sniff


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
    layout = KeyMap(top=("model",), ignored=("queue",))
    load_strict(net, layout.apply(read_tensors(tmp_path / "c.pt", layout.top)), "c.pt")
    assert net["a"].weight.eq(1).all()


def test_missing_extra_and_wrong_shapes_are_named() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(RequestError, match=r"missing keys: bias.*left-over keys: head.*other shapes: weight"):
        load_strict(net, {"weight": torch.ones(2, 4), "head": torch.ones(1)}, "c.pt")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, 3).to_sparse(), "'weight' is sparse"),
        (torch.ones(2, 3, dtype=torch.complex64), "'weight' is complex"),
        (torch.ones(2, 3, device="meta"), r"'weight' has no data \(device meta\)"),
        (torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8), "'weight' is quantised"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize")
def test_tensors_that_cannot_be_taken_over_whole_are_named(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(RequestError, match=rf"c\.pt: {message}"):
        load_strict(nn.Linear(3, 2), {"weight": tensor, "bias": torch.ones(2)}, "c.pt")


def test_tensors_without_a_name_are_no_weights(tmp_path: Path) -> None:
    torch.save({0: torch.ones(1), ("a", 1): torch.ones(1), "model": {"w": torch.ones(2)}}, tmp_path / "c.pt")
    assert read_tensors(tmp_path / "c.pt").keys() == {"w"}
    torch.save({0: torch.ones(1)}, tmp_path / "n.pt")
    with pytest.raises(RequestError, match="no teacher's checkpoint looks like this"):
        sniff(tmp_path / "n.pt")


def test_settings_beside_the_weights_are_read_as_data(tmp_path: Path) -> None:
    """What MAE scripts (argparse) and Lightning (attribute dictionaries, callbacks) keep in a checkpoint."""
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.utilities.parsing import AttributeDict

    content = {
        "state_dict": {"module.w": torch.ones(2)},
        "args": argparse.Namespace(lr=1e-3, out=tmp_path),
        "hyper_parameters": AttributeDict(arch="resnet18"),
        "callbacks": {ModelCheckpoint: {"best": np.float64(0.5)}},
        "epoch": 3,
    }
    torch.save(content, tmp_path / "l.ckpt")
    assert KeyMap().apply(read_tensors(tmp_path / "l.ckpt", ("state_dict",))).keys() == {"w"}


def test_a_file_without_tensors_names_its_entries(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "parts": {"w": torch.ones(2)}}, tmp_path / "c.pt")
    with pytest.raises(RequestError, match=r"c\.pt: no tensors among its entries epoch, parts"):
        read_tensors(tmp_path / "c.pt", ("model",))


def test_the_first_rename_wins_and_two_entries_for_one_name_are_refused() -> None:
    layout = KeyMap(rename={r"layers\.0\.down": "layers.1.down", r"layers\.1\.down": "layers.2.down"}, strip=("a.",))
    assert layout.apply({"layers.0.down.w": 0, "a.layers.1.down.w": 1}) == {"layers.1.down.w": 0, "layers.2.down.w": 1}
    with pytest.raises(RequestError, match=r"'a\.x' is a second entry for 'x'"):
        layout.apply({"x": 0, "a.x": 1})


def test_marks_must_all_match() -> None:
    layout = KeyMap(marks=(r"encoder_q\.0\.", r"queue$"))
    assert layout.marked(["encoder_q.0.weight", "queue"])
    assert not layout.marked(["encoder_q.0.weight"])
    assert not KeyMap().marked(["anything"])


def test_large_weights_stay_pages_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written into the network never gets into the file."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8).half())
    torch.save({**net.state_dict(), "1.weight": net[1].weight.detach().float()}, tmp_path / "net.pt")
    before = (tmp_path / "net.pt").read_bytes()
    for limit in (1 << 30, 0):
        monkeypatch.setattr(checkpoint, "MAPPED", limit)
        found = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8).half())
        state = read_tensors(tmp_path / "net.pt")
        load_strict(found, state, "net.pt")
        pairs = list(zip(found.state_dict().values(), net.state_dict().values(), strict=True))
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
        assert (found[0].weight.data_ptr() == state["0.weight"].data_ptr()) is (limit == 0)
        with torch.no_grad():
            found[0].weight.fill_(0)
    assert (tmp_path / "net.pt").read_bytes() == before
