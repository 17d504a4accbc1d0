"""``rsedge devices calibrate --on ssh://...`` against a real SSH server on loopback, and graphs as each runtime wants them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsedge.cli.main import run_app
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.devices.onboard.suite import time_files
from rsedge.devices.predict.efficiency import read_calibration, shipped_efficiencies
from rsedge.devices.predict.suite import write_suite
from rsedge.devices.profiles.profile import load_profile
from rsedge.devices.remote.job import Options
from rsedge.devices.remote.ssh import Address
from rsedge.devices.remote.suite import RemoteSuite, remote_suite
from rsedge.runtimes.backend import GraphStyle
from rsedge.runtimes.registry import backend
from rsedge.runtimes.tensorrt.compile import BuildOptions, compile_onnx
from tests.devices.ssh_device import SshDevice, ssh_device

FEW = ("conv3-512-7", "linear-64-512", "depthwise-768-7")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshDevice]:
    monkeypatch.setenv("HOME", str(tmp_path / "host"))
    monkeypatch.setenv("RSEDGE_CALIBRATIONS", str(tmp_path / "calibrations"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with ssh_device(tmp_path) as running:
        yield running


def left(device: SshDevice) -> list[str]:
    return sorted(str(p.relative_to(device.home)) for p in device.home.rglob("*"))


def calibrated(device: SshDevice, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    words = ["devices", "calibrate", "--on", device.url, "--remote-python", sys.executable, "--threads", "1", "--json"]
    words += [w for name in FEW for w in ("--network", name)]
    assert run_app([*words, *more]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_detected_processor_to_predictions(
    device: SshDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = calibrated(device, capsys, "--precision", "int8")
    assert left(device) == []
    assert found["networks"] == len(FEW) and found["runtime"] == "openvino"
    assert device.url in found["calibrated_on"] and "1 threads" in found["calibrated_on"]
    profile = load_profile(found["profile"])
    here = load_profile("cpu")
    assert profile.name == found["device"] != "cpu" and not profile.measurable
    assert (profile.peaks_tops, profile.isa) == (here.peaks_tops, here.isa)  # the device is this machine
    (onnx,) = write_suite(tmp_path / "nets", names=FEW[:1]).values()
    target = f"openvino-{profile.name}-f32"
    assert run_app(["devices", "predict", str(onnx), target, "--profile", found["profile"], "--json"]) == 0
    (predicted,) = json.loads(capsys.readouterr().out)["predictions"]
    assert predicted["provenance"] == "predicted" and device.url in predicted["basis"]


def test_named_profile_and_onnx_runtime(device: SshDevice, capsys: pytest.CaptureFixture[str]) -> None:
    found = calibrated(device, capsys, "--device", "raspberry-pi-5", "--runtime", "onnxruntime", "--precision", "f32")
    path = Path(found["file"])
    assert path.name == "raspberry-pi-5.onnxruntime.yaml" and "profile" not in found
    kept, shipped = read_calibration(path), shipped_efficiencies()["onnxruntime-arm"]
    assert kept.values() != shipped.values() and {e.device for e in kept.evidence} == {"raspberry-pi-5"}
    assert left(device) == []


def test_the_link_may_go_meanwhile(device: SshDevice, tmp_path: Path) -> None:
    """The device goes on measuring; the client comes back for the result."""
    options = Options(python=sys.executable, reconnect_s=20.0, poll_s=0.2)
    suite = remote_suite(
        Address.parse(device.url), None, None, options, runs=12
    )  # a second and more of looks at its progress
    cut: list[str] = []

    def cut_once(step: str, _: int, __: int) -> None:
        if not cut:
            cut.append(step)
            device.cut()

    found = suite(write_suite(tmp_path / "nets", names=FEW), "f32", 1, cut_once)
    assert cut and set(found) == set(FEW) and all(ms > 0 for ms in found.values())
    assert device.logins == 3 and left(device) == []  # looking, measuring, and again after the cut


def test_what_is_not_the_profile_s_device_is_refused(device: SshDevice) -> None:
    options = Options(python=sys.executable)
    with pytest.raises(RequestError, match=r"does not run openvino; known: tensorrt"):
        remote_suite(Address.parse(device.url), "jetson-orin-nano-8gb", "openvino", options)
    with pytest.raises(RequestError, match=r"no Jetson .*cannot calibrate 'jetson-orin-nano-8gb'"):
        remote_suite(Address.parse(device.url), "jetson-orin-nano-8gb", None, options)
    with pytest.raises(RequestError, match="does not run tensorrt"):
        remote_suite(Address.parse(device.url), "raspberry-pi-5", "tensorrt", options)
    device.stop()
    with pytest.raises(MissingCapability, match="not reached"):
        remote_suite(Address.parse(device.url), None, None, options)
    assert left(device) == []


def test_a_jetson_must_be_named_and_its_mode_known(device: SshDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Jetson's runner tells, as documented; the link is real."""
    options = Options(python=sys.executable)
    real = remote_suite(Address.parse(device.url), None, None, options).facts
    told = real | {"jetson": "# R36 (release), REVISION: 4.3", "model": "NVIDIA Jetson Orin Nano", "power_mode": "15W"}

    async def look(*_: Any) -> dict[str, Any]:
        return told

    monkeypatch.setattr("rsedge.devices.remote.suite.look", look)
    with pytest.raises(RequestError, match=r"is a Jetson .*--device: .*jetson-orin-nano-8gb"):
        remote_suite(Address.parse(device.url), None, None, options)
    suite: RemoteSuite = remote_suite(Address.parse(device.url), "jetson-orin-nano-8gb-super", None, options)
    assert suite.runtime == "tensorrt" and suite.profile.default_power_mode == "15W"
    assert suite.profile.peak_tops("fp16") < load_profile("jetson-orin-nano-8gb-super").peak_tops("fp16")
    told["runtime"] = {"name": "tensorrt", "version": None, "problem": "ImportError: libnvinfer.so"}
    with pytest.raises(MissingCapability, match=r"cannot import tensorrt .*comes with JetPack"):
        remote_suite(Address.parse(device.url), "jetson-orin-nano-8gb-super", None, options)
    told["runtime"] = real["runtime"]
    told["power_mode"] = "9W"
    with pytest.raises(RequestError, match=r"no power mode '9W'"):
        remote_suite(Address.parse(device.url), "jetson-orin-nano-8gb-super", None, options)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--precision", "fp16"], "does not run fp16 on openvino"),
        (["--network", "conv3-512-8"], "nearest: 'conv3-512-7'"),
        (["--device", "raspberry-pi-5"], "needs --on"),
        (["--runtime", "tensorrt"], "needs --on"),
    ],
)
def test_refusals_here(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(["devices", "calibrate", "--json", *words]) == 2
    assert why in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    ("precision", "version", "style"),
    [
        ("fp16", "10.3.0", GraphStyle(signed=True, half=True)),
        ("int8", "10.3.0", GraphStyle(int8=True, signed=True, half=True, opset=19)),
        ("int8", "8.6.2", GraphStyle(int8=True, signed=True)),
        ("f32", "10.3.0", GraphStyle(signed=True)),
    ],
)
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
def test_tensorrt_compiles_its_suite(precision: Any, version: str, style: GraphStyle, tmp_path: Path) -> None:
    import tensorrt_rtx as trt

    assert backend("tensorrt").style(precision, version) == style
    names = ("attention-49-384", "gated-112-14", "convnext-384-14", "pointwise-128-28", "bottleneck-2048-7")
    for path in write_suite(tmp_path, style, names).values():
        made = compile_onnx(trt, path, BuildOptions(precision), capability=trt.ComputeCapability.SM86)
        assert len(made.engine) > 1000


def test_times_of_both_cpu_runtimes(tmp_path: Path) -> None:
    files = write_suite(tmp_path, names=FEW[:2])
    for runtime in ("openvino", "onnxruntime"):
        found, version = time_files(files, runtime, "CPU", "f32", 1, rounds=1, runs=2)
        assert set(found) == set(files) and all(0 < ms < 60_000 for ms in found.values()) and version
    with pytest.raises(RequestError, match="do not run with tflite"):
        time_files(files, "tflite", "CPU", "f32", 1)
