"""`rsedge budget` and `rsedge devices check` as a user meets them, on real bundles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

TENSORRT = "tensorrt-jetson-orin-nx-16gb-fp16"


@pytest.fixture
def orbit(cli: Callable, tmp_path: Path) -> Path:
    path = tmp_path / "orbit.yaml"
    assert cli("budget", "--example", "orbit", "--output", path)[0] == 0
    path.write_text(path.read_text().replace("gsd_m: null", "gsd_m: 10"))
    return path


def test_predicted_from_the_onnx_of_a_tensorrt_bundle(cli: Callable, bundle: Callable, orbit: Path) -> None:
    arguments = ("budget", bundle(TENSORRT), "--device", "jetson-orin-nx-16gb", "--mission", orbit)
    code, text, _ = cli(*arguments, "--json")
    found = json.loads(text)
    assert code == 0 and found["provenance"] == "predicted" and found["kind"] == "orbit"
    assert found["result"]["low"] <= found["result"]["mid"] <= found["result"]["high"]
    assert {i["name"]: i["origin"] for i in found["inputs"]}["orbit.altitude_km"].startswith(str(orbit))
    code, text, _ = cli(*arguments)
    assert code == 0 and "predicted" in text.splitlines()[1] and "bottleneck: " in text
    assert "assumed" not in text, "the example gives every value"
    orbit.write_text("orbit: {}\nsensor: {gsd_m: 10}\n")
    assert "assumed" in cli(*arguments)[1]


def test_a_bundle_for_openvino_is_predicted_on_another_device(cli: Callable, bundle: Callable, orbit: Path) -> None:
    arguments = ("budget", bundle("openvino-cpu-f32"), "--device", "atom-x7425e", "--mission", orbit, "--json")
    code, text, errors = cli(*arguments, "--set", "compute.idle_w=3", "--set", "compute.active_w=8")
    found = json.loads(text)
    assert code == 0 and found["figures"]["latency"]["provenance"] == "predicted", errors


def test_measured_inputs_give_a_result_without_the_word(cli: Callable, bundle: Callable, orbit: Path) -> None:
    given = ("--set", "compute.latency_ms=12", "--set", "compute.idle_w=3", "--set", "compute.active_w=8")
    arguments = ("budget", bundle(), "--device", "cpu", "--mission", orbit, *given)
    code, text, _ = cli(*arguments, "--json")
    found = json.loads(text)
    assert code == 0 and found["provenance"] == "derived" and found["result"]["low"] == found["result"]["high"]
    assert found["figures"]["latency"]["provenance"] == "given"
    assert "predicted" not in cli(*arguments)[1].splitlines()[1]


def test_a_bench_file_counts_as_measured(cli: Callable, bundle: Callable, orbit: Path, tmp_path: Path) -> None:
    own, bench = bundle(), tmp_path / "bench.json"
    code, text, _ = cli("bench", own, "--seconds", "0.1", "--threads", 1, "--json")
    assert code == 0
    bench.write_text(text)
    watts = ("--set", "compute.idle_w=3", "--set", "compute.active_w=8")
    code, text, _ = cli("budget", own, "--device", "cpu", "--mission", orbit, "--bench", bench, "--json", *watts)
    figures = json.loads(text)["figures"]
    assert code == 0 and figures["latency"]["provenance"] == figures["memory"]["provenance"] == "measured"
    bench.write_text("{}")
    code, _, errors = cli("budget", own, "--device", "cpu", "--mission", orbit, "--bench", bench, *watts)
    assert code == 2 and "bench.json" in errors and "provenance" in errors


@pytest.mark.parametrize(
    ("target", "device", "more", "words"),
    [
        ("litert-cpu-f32", "raspberry-pi-4", (), "--onnx FILE"),
        ("openvino-cpu-f32", "cpu", ("--set", "compute.latency_ms=5"), "idle_w"),
        ("openvino-cpu-f32", "jetson-orin-nx-16gb", (), "does not run openvino"),
        ("openvino-cpu-f32", "atom-x7425", (), "nearest: 'atom-x7425e'"),
        (TENSORRT, "jetson-orin-nx-16gb", ("--set", "compute.power_mode=16W"), "no power mode '16W'"),
        (TENSORRT, "jetson-orin-nx-16gb", ("--set", "compute.power_mode=15W"), "does not state the clocks"),
        (TENSORRT, "jetson-orin-nx-16gb", ("--set", "orbit.altitud_km=500"), "nearest: 'altitude_km'"),
        (TENSORRT, "jetson-orin-nx-16gb", ("--set", "sensor.gsd_m=null"), "sensor.gsd_m"),
    ],
)
def test_what_is_wrong_is_said(
    cli: Callable, bundle: Callable, orbit: Path, target: str, device: str, more: tuple[str, ...], words: str
) -> None:
    code, out, errors = cli("budget", bundle(target), "--device", device, "--mission", orbit, *more)
    assert code == 2 and words in errors and not out


def test_examples(cli: Callable, tmp_path: Path) -> None:
    code, text, _ = cli("budget", "--example", "flight")
    assert code == 0 and text.startswith("# A mission")
    (tmp_path / "there.yaml").write_text("mine")
    assert cli("budget", "--example", "flight", "-o", tmp_path / "there.yaml")[0] == 2
    assert (tmp_path / "there.yaml").read_text() == "mine"
    assert cli("budget", "--example", "boat")[0] == 2
    code, _, errors = cli("budget")
    assert code == 2 and "--mission" in errors


def test_devices_check(cli: Callable) -> None:
    check = ("devices", "check")
    code, text, _ = cli(*check, "tensorrt-jetson-agx-orin-64gb-fp16", "--dla", "--power-mode", "30W", "--json")
    assert code == 0 and json.loads(text)["dense_peak_tops"] == pytest.approx(42.6 * 0.24)
    assert cli(*check, TENSORRT)[0] == 0
    for arguments, words in (
        (("openvino-myriad-x-int8",), "Possible: openvino-myriad-x-fp16"),
        (("tensorrt-jetson-orin-nano-8gb-fp16", "--opset", 20, "--release", "JetPack 5.1.2"), "opset 17 at most"),
        (("tensorrt-jetson-orin-nano-8gb-fp16", "--dla"), "has no DLA"),
        (("tensorrt-jetson-agx-orin-64gb-fp16", "--dla", "--onnx", "none.onnx"), "no such ONNX file"),
        (("tensorrt-jetson-agx-orin-64gb-int8", "--dla"), "possible: fp16 on the DLA"),
    ):
        code, _, errors = cli(*check, *arguments)
        assert code == 2 and words in errors
