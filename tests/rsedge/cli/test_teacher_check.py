"""``rsedge teachers --check``: what it prints, its exit codes, and a result that is sent back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsedge.cli import main as cli
from rsedge.cli.teacher_check import _hash
from rsedge.data.errors import RequestError
from rsedge.models import confirmed
from rsedge.models.confirmed import Confirmation, add
from rsedge.models.conformance import drawn
from rsedge.models.teachers import meta_net
from rsedge.models.zoo import teacher_row
from tests.models import authors
from tests.models.reference import Reference

NAME = "csp-fmow"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """CSP at its published size, 150,000 values, none of them drawn by the rule."""
    row = teacher_row(NAME)
    own = {k: tuple(v.shape) for k, v in meta_net(row.family, row.arch).state_dict().items()}
    state = {k: torch.from_numpy(drawn(f"other.{k}", shape)) for k, shape in own.items()}
    torch.save(authors.csp({"spa_f_act": "gelu"})(authors.under("ffn.", state)), tmp_path / "csp.pth.tar")
    return tmp_path / "csp.pth.tar"


def run(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run_app(["teachers", *map(str, arguments)])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_a_file_is_recognised_and_described(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["--check", file], capsys)
    assert code == 0
    assert out.startswith(f"{file}: CSP location encoder") and f"({NAME})\nfits: {NAME}\n" in out
    for part in ("weights under: state_dict\n", "beside them: params, epoch, optimizer", "params/spa_f_act = gelu",
                 "input: C, float32, degrees", "output (16, 256): mean", "finite; fingerprint"):  # fmt: skip
        assert part in out, out
    code, out, _ = run([NAME, "--check", file, "--json"], capsys)
    record = json.loads(out)
    assert (record["row"], record["task"], record["drawn"]) == (NAME, "embedding", False)
    assert record["outputs"][0]["shape"] == [16, 256] and record["outputs"][0]["finite"]
    assert record["compared"] == []


def test_a_file_of_several_rows_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the settings beside it, nothing in CSP's weights says which activation they are for."""
    row = teacher_row(NAME)
    own = {k: tuple(v.shape) for k, v in meta_net(row.family, row.arch).state_dict().items()}
    torch.save(authors.under("ffn.", {k: torch.ones(v) for k, v in own.items()}), tmp_path / "bare.pth")
    out = run(["--check", tmp_path / "bare.pth"], capsys)[1]
    assert "fits: csp-fmow, csp-inat (shown as csp-fmow; the file does not tell them apart" in out
    assert "(csp-inat)\n" in run(["csp-inat", "--check", tmp_path / "bare.pth"], capsys)[1]


def test_a_folder_has_one_hash(tmp_path: Path) -> None:
    for name in ("one", "two/three"):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_text(name)
    first = _hash(tmp_path / "a")
    assert first == _hash(tmp_path / "a") != _hash(tmp_path / "a/two")
    (tmp_path / "a/one").write_text("other")
    assert _hash(tmp_path / "a") != first


def test_outputs_of_another_implementation(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs, result = tmp_path / "ours.npz", tmp_path / "theirs.npz", tmp_path / "result.json"
    assert run([NAME, "--check", file, "--write-reference", ours], capsys)[0] == 0
    with np.load(ours) as written:
        arrays = dict(written)
    assert set(arrays) == {"input.place", "output"}
    by = ["--result", result, "--by", "Laboratory; their code @ 1234567"]
    np.savez(
        theirs,
        **{
            "input.lonlat": arrays["input.place"].astype(np.float64),
            "embedding": arrays["output"],
            "map": np.ones((16, 3)),
        },
    )
    code, out, _ = run([NAME, "--check", file, "--reference", theirs, *by], capsys)
    assert code == 0
    assert "  embedding: agrees (0.0e+00 of the largest value, allowed 1.0e-04)" in out
    assert "  map: not compared, not among our outputs" in out
    sent = json.loads(result.read_text())
    assert (sent["row"], sent["by"], sent["drawn"]) == (NAME, "Laboratory; their code @ 1234567", False)
    assert (list(sent["arrays"]), sent["not_compared"]) == (["embedding"], ["map"])
    assert str(tmp_path) not in result.read_text()

    table = tmp_path / "confirmed.json"
    table.write_text("[]")
    assert add(result, table).words == "Laboratory; their code @ 1234567 (0e+00)"
    assert [Confirmation.model_validate(one).row for one in json.loads(table.read_text())] == [NAME]
    with pytest.raises(RequestError, match="is in the table already"):
        add(result, table)

    np.savez(theirs, **{"input.lonlat": arrays["input.place"], "embedding": arrays["output"] * np.float32(1.001)})
    code, out, err = run([NAME, "--check", file, "--reference", theirs, *by], capsys)
    assert code == 3 and f"differs from {theirs} in embedding" in err
    assert "  embedding: DIFFERS (1.0e-03 of the largest value" in out
    with pytest.raises(RequestError, match="does not agree: embedding"):
        add(result, table)
    code, out, _ = run([NAME, "--check", file, "--reference", theirs, "--json"], capsys)
    assert code == 3
    assert [(one["name"], one["agrees"]) for one in json.loads(out)["compared"]] == [("embedding", False)]
    assert len(json.loads(table.read_text())) == 1


def test_the_authors_outputs_on_drawn_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As their code gave them; such a result is of the structure, and does not confirm published weights."""
    reference, result = Reference("glcnet-rgb-v3p-encoder-ft"), tmp_path / "result.json"
    torch.save(authors.flat(reference.state()), tmp_path / "authors.pth")
    np.savez(tmp_path / "theirs.npz", **reference.arrays)
    arguments = ["--check", tmp_path / "authors.pth", "--reference", tmp_path / "theirs.npz"]
    code, out, _ = run(["glcnet-rgb", *arguments, "--result", result, "--by", "us"], capsys)
    assert code == 0
    assert all(f"  logits.{end}: agrees" in out for end in ("corner", "mean", "std"))
    assert "weights: drawn by the written rule, not published ones" in out
    (tmp_path / "table.json").write_text("[]")
    with pytest.raises(RequestError, match="weights are drawn by the rule"):
        add(result, tmp_path / "table.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "x.npz"], "--reference goes with --check FILE"),
        (["seco-resnet18", "--check", "csp.pth.tar"], "it fits csp-fmow (rsedge teachers csp-fmow --check"),
        (["--check", "csp.pth.tar", "--result", "r.json", "--by", "us"], "give --reference OUT.npz too"),
        (["--check", "csp.pth.tar", "--reference", "x.npz", "--result", "r.json"], "--result needs --by"),
        (["--check", "csp.pth.tar", "--by", "us"], "--by goes into the file of --result"),
        (["--check", "csp.pth.tar", "--reference", "none.npz"], "none.npz"),
        (["--by", "us"], "--by goes with --check FILE"),
        (["--check", "csp.pth.tar", "--reference", "x.npz", "--result", "r.json", "--by", "a\nb"], "give one line"),
        (["--check", "csp.pth.tar", "--write-reference", "./csp.pth.tar"], "is the checkpoint, which it would replace"),
        (["--check", "csp.pth.tar", "--write-reference", "link"], "is the checkpoint, which it would replace"),
        (["--check", "csp.pth.tar", "--reference", "x.npz", "--result", "x.npz", "--by", "a"], "is --reference"),
        (
            ["--check", "csp.pth.tar", "--reference", "x.npz", "--write-reference", "y", "--result", "y", "--by", "a"],
            "--result y is --write-reference",
        ),
        (["--check", "none.pth"], "none.pth"),
        (["--check", "notes.pth"], "no PyTorch file"),
        (["--check", "csp.pth.tar", "--write-reference", "https://x/y.npz"], "is an address"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    Path("notes.pth").write_text("what to do")
    Path("link").hardlink_to(file)
    before = file.read_bytes()
    code, _, err = run(arguments, capsys)
    assert (code, message in err) == (2, True), err
    assert file.read_bytes() == before


def test_the_table_that_ships_is_of_rows_that_exist() -> None:
    found = confirmed.confirmed()
    assert all(teacher_row(one.row).published == "weights" and one.agrees for one in found)
