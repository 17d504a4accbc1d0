"""`rsedge devices` and `rsedge doctor`: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rsedge.cli import devices as cli_devices
from rsedge.data.errors import RequestError
from rsedge.devices.doctor import diagnose

app = typer.Typer()
cli_devices.register(app)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_devices_alone_lists() -> None:
    text = run("devices")
    assert "jetson-orin-nano-8gb" in text
    assert "myriad-x" in text


def test_devices_json() -> None:
    found = json.loads(run("devices", "--json"))["devices"]
    assert found[0]["name"] == "cpu"
    assert "openvino-cpu-int8" in found[0]["targets"]


def test_show() -> None:
    assert "[S]" in run("devices", "show", "jetson-orin-nano-8gb")
    assert json.loads(run("devices", "show", "myriad-x", "--json"))["targets"] == ["openvino-myriad-x-fp16"]
    with pytest.raises(RequestError, match="nearest"):
        CliRunner().invoke(app, ["devices", "show", "myriad"], catch_exceptions=False)


def test_a_device_is_added_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSEDGE_CALIBRATIONS", str(tmp_path))
    shown = json.loads(run("devices", "show", "raspberry-pi-5", "--json"))
    del shown["targets"]
    given = {name: value for name, value in shown.items() if value is not None} | {"name": "our-board"}
    (tmp_path / "board.yaml").write_text(json.dumps(given))
    assert "added our-board: onnxruntime-our-board-f32" in run("devices", "add", str(tmp_path / "board.yaml"))
    assert json.loads(run("devices", "add", str(tmp_path / "board.yaml"), "--json"))["name"] == "our-board"
    assert "our-board" in run("devices") and "possible" in run("devices", "check", "litert-our-board-int8")
    assert "removed our-board" in run("devices", "remove", "our-board")
    assert "our-board" not in run("devices")


def test_doctor() -> None:
    found = json.loads(run("doctor", "--json"))
    runtimes = {r["name"]: r for r in found["runtimes"]}
    assert set(runtimes) == {"openvino", "onnxruntime", "litert", "tensorrt", "tensorrt-rtx"}
    assert any(d.startswith("CPU") for d in runtimes["openvino"]["devices"])
    assert "openvino-cpu-f32" in found["targets_here"]
    for runtime in runtimes.values():
        assert runtime["available"] or runtime["install"].startswith("pip install 'rsedge[")
    text = run("doctor")
    assert found["cpu"]["model"] in text
    for missing in found["missing"]:
        assert missing["command"] in text


def test_doctor_without_any_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = diagnose()
    assert found["targets_here"] == []
    assert all(not r["available"] and r["install"] for r in found["runtimes"])
