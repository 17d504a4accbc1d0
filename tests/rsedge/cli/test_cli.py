"""The front door: exit codes, ``--json``, and errors without tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rsedge import __version__
from rsedge.cli import main as cli
from rsedge.data.errors import GateFailed, MissingCapability, RequestError

RECIPE = """\
name: tiny
teacher: {name: ukis-csmask-6b-l1c}
data:
  train: [{source: ukis-sentinel2}]
  test: {source: ukis-sentinel2}
steps: [distill, quantize]
targets: [openvino-cpu-int8]
gates: [{metric: kappa, max_drop: 0.5}]
"""


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run_app(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_version_and_help_start_fast(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "rsedge.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout == f"rsedge {__version__}\n"
    heavy = [m for m in ("torch", "scipy", "openvino", "rasterio", "nncf", "onnx") if f"| {m}\n" in done.stderr]
    assert heavy == []
    started = time.monotonic()
    done = subprocess.run([*command[:1], "-m", "rsedge.cli", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "rsedge run quickstart" in done.stdout
    assert time.monotonic() - started < 15


def test_no_usage_statistics_are_sent() -> None:
    """OpenVINO and NNCF take their own empty stand-ins for the package that sends them."""
    lines = (
        "import rsedge, nncf.telemetry as nncf, openvino.tools.ovc.telemetry_utils as ovc\n"
        "print(ovc.tm.__name__, type(nncf.telemetry).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=120)
    assert done.stdout == "openvino.tools.ovc.telemetry_stub MagicMock\n", done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "infer",
        "evaluate",
        "bench",
        "verify",
        "build",
        "inspect",
        "compare",
        "teachers",
        "sources",
        "devices",
        "doctor",
        "init",
    ],
)
def test_every_command_of_the_contract_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run([command, "--help"], capsys)
    assert code == 0
    assert "Usage" in out


def test_no_command_shows_help_and_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run([], capsys)
    assert code == 2
    assert "Usage" in out + err


def test_unknown_command_and_option_are_wrong_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["flyy"], capsys)[0] == 2
    assert run(["teachers", "--jsn"], capsys)[0] == 2


def test_wrong_recipe_is_exit_2_with_one_clean_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE + "gatez: []\n")
    code, out, err = run(["run", str(path)], capsys)
    assert (code, out) == (2, "")
    assert f"{path}:9: gatez: unknown field (nearest: 'gates')" in err
    assert "Traceback" not in err
    code, out, _ = run(["run", str(path), "--json"], capsys)
    record = json.loads(out)
    assert code == record["exit_code"] == 2
    assert "gatez" in record["error"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("r"), 2),
        (GateFailed("g"), 3),
        (MissingCapability("m"), 4),
        (ModuleNotFoundError("No module named 'nncf'", name="nncf"), 4),
        (OSError(28, "No space left on device", "/runs/x"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("rsedge.models.zoo.zoo", fail)
    got, out, err = run(["teachers", "--json"], capsys)
    assert got == code
    assert json.loads(out)["exit_code"] == code
    assert "error:" in err


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rsedge.models.zoo.zoo", fail)
    with pytest.raises(ZeroDivisionError):
        cli.run_app(["teachers"])


def test_missing_extra_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'torch_pruning'", name="torch_pruning")

    monkeypatch.setattr("rsedge.models.zoo.zoo", fail)
    assert "pip install 'rsedge[compress]'" in run(["teachers"], capsys)[2]


def test_teachers_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["teachers", "--json"], capsys)
    rows = json.loads(out)["teachers"]
    assert code == 0
    assert {"name", "family", "task", "params", "input", "licence", "status", "tested"} <= set(rows[0])
    code, out, _ = run(["teachers"], capsys)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    assert all(row["name"] in out for row in rows)
    listed = next(line for line in out.splitlines() if line.startswith("seco-resnet18 "))
    assert listed.rstrip().endswith("SNL-AB-ECW") and "W full" in out and "\nonnx:" in out


def test_one_teacher_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["teachers", "seco-resnet18"], capsys)
    assert code == 0
    for part in (
        "11,176,512 parameters",
        "Zenodo",
        "stretch in 255 levels",
        "blue (490 nm)",
        "stretch 0.011765 to 0.345098",
        "left out",
    ):
        assert part in out
    assert "net.layer4 to begin with):\n  net.act1: stride 2, 64 channels, NCHW\n" in out
    assert "tested, size: exact\n" in out and "tested, compressed: distilled, pruned, int8, compiles" in out
    assert "1\\. -> bn1." in out and "note: The survey cites" in out
    code, out, _ = run(["teachers", "seco-resnet18", "--json"], capsys)
    assert json.loads(out)["input_spec"]["normalisation"] == "stretch"
    assert {"name": "net.layer3", "stride": 16, "channels": 256, "layout": "NCHW"}.items() <= json.loads(out)[
        "features"
    ][3].items()
    code, out, _ = run(["teachers", "satmae-ms-vitl"], capsys)
    assert "  net.blocks, net.blocks.0 ... net.norm: stride 8, 1024 channels, NLC (1 + 3 x 12x12 tokens)" in out
    assert (
        "authors, resize: bicubic to 256/224 of the tile" in out and "authors, source: SatMAE util/datasets.py" in out
    )
    assert "checkpoint, zero where absent: channel_cls_embed" in out
    assert "features: none" in run(["teachers", "text2earth-unet"], capsys)[1]
    out = run(["teachers", "geoclip-location"], capsys)[1]
    assert (
        "agrees with its authors' code\nconfirmed with the published weights by rsedge itself; LocationEncoder" in out
    )
    assert "authors, resize and output: not known: no image goes in" in run(["teachers", "text2earth-unet"], capsys)[1]
    code, _, err = run(["teachers", "seco-resnet19"], capsys)
    assert code == 2
    assert "nearest: seco-resnet18" in err


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("teacher.name=ukis-csmask-6b-l1d", "nearest: 'ukis-csmask-6b-l1c'"),
        ("data.train.0.source=ukis-sentinel", "nearest: 'ukis-sentinel2'"),
        ("student.name=slim-net", "nearest: 'slim-unet'"),
        ("targets.0=openvino-jetson-nano-4gb-int8", "does not run openvino"),
        ("data.test.source=naip", "has no labels; give a label raster under data.test.labels"),
        ("teacher.checkpoint=absent.safetensors", "no such file"),
    ],
)
def test_names_are_checked_before_any_work(
    override: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    code, _, err = run(["run", str(path), "--set", override, "--run-dir", str(tmp_path / "run")], capsys)
    assert code == 2, err
    assert expected in err
    assert not (tmp_path / "run").exists()


def test_init_writes_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.yaml"
    code, out, _ = run(["init", "--yes", "--json", "--output", str(path)], capsys)
    assert code == 0
    assert json.loads(out) == {"recipe": str(path)}
    assert run(["init", "--yes", "--output", str(path)], capsys)[0] == 2
