"""``rsedge bench --on ssh://...`` against a real SSH server on loopback, its refusals and its lost links."""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import numpy as np
import pytest

from rsedge.cli.main import run_app
from rsedge.data.errors import IntegrityError, MissingCapability, PartlyDone, RequestError
from rsedge.devices.measure.protocol import Measurement
from rsedge.devices.remote.bench import Settings, bench_remote
from rsedge.devices.remote.job import Options
from rsedge.devices.remote.ssh import Address
from rsedge.runtimes.bundle.reading import Bundle
from tests.devices.ssh_device import SshDevice, know, ssh_device
from tests.runtimes import tiny_models as tiny

QUICK = Settings(seconds=0.2, threads=1, burst_seconds=0.0, idle_seconds=0.0, warmup=1, min_runs=5)
PADDING = 5 << 20


def options(**more: Any) -> Options:
    return Options(**{"python": sys.executable, "reconnect_s": 20.0, "poll_s": 0.2, **more})


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle large enough to be cut in the middle."""
    folder = tiny.make_bundle(tmp_path_factory.mktemp("bundle") / "b", tiny.spec(16), "onnxruntime-cpu-f32")
    (folder / "card.bin").write_bytes(np.random.default_rng(0).bytes(PADDING))
    tiny.write_manifest(folder, tiny.spec(16), "onnxruntime-cpu-f32", "model.onnx")
    return folder


@pytest.fixture
def bundle(bundle_folder: Path) -> Iterator[Bundle]:
    with Bundle.open(bundle_folder) as opened:
        yield opened


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshDevice]:
    monkeypatch.setenv("HOME", str(tmp_path / "host"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with ssh_device(tmp_path) as running:
        yield running


def bench(bundle: Bundle, device: SshDevice, settings: Settings = QUICK, **more: Any) -> dict[str, Any]:
    return bench_remote(bundle, Address.parse(device.url), settings, options(**more))


def left(device: SshDevice) -> list[str]:
    """What a job left on the device."""
    return sorted(str(p.relative_to(device.home)) for p in device.home.rglob("*"))


def empty_soon(device: SshDevice, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while left(device) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not left(device)


def test_whole_command_with_openvino(device: SshDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.make_bundle(tmp_path / "b", tiny.spec(16), "openvino-cpu-f32")
    arguments = ["bench", str(folder), "--on", device.url, "--remote-python", sys.executable]
    page = tmp_path / "layers.html"
    assert run_app([*arguments, "--html", str(page), "--json"]) == 2
    assert "--layers" in json.loads(capsys.readouterr().out)["error"]
    settings = ["--seconds", "0.3", "--threads", "1", "--layers", "--html", str(page), "--json"]
    assert run_app([*arguments, *settings]) == 0
    record = json.loads(capsys.readouterr().out)
    measured = Measurement.model_validate({k: v for k, v in record.items() if k in Measurement.model_fields})
    assert (measured.provenance, measured.runtime, measured.device, measured.threads) == (
        "measured",
        "openvino",
        "cpu",
        1,
    )
    assert measured.latency_ms.p50 <= measured.latency_ms.p99 and measured.throughput_method == "stream"
    assert measured.peak_rss_bytes is not None and measured.peak_rss_bytes > 20e6
    assert measured.bursty is not None and measured.bursty.bursts >= 3
    remote = record["remote"]
    assert remote["golden"]["passed"] and remote["golden"]["max_abs_difference"] < 1e-3
    assert {row["type"] for row in remote["layers"]} & {"Convolution", "Parameter", "Subgraph", "FullyConnected"}
    assert sum(row["ms"] for row in remote["layers"]) > 0
    assert remote["device"]["runtime"]["version"] == measured.runtime_version
    assert not remote["clock"]["off"] and "monotonic" in remote["clock"]["durations"]
    assert remote["bytes_sent"] > record["size_bytes"]  # the manifest goes too
    assert left(device) == []
    assert "<svg" in page.read_text() and device.url in page.read_text()


def test_link_cut_while_sending(device: SshDevice, bundle: Bundle) -> None:
    device.cut_after = 3 << 20
    remote = bench(bundle, device)["remote"]
    assert remote["links_lost"] == 1 and device.logins == 2
    assert remote["bytes_sent"] < PADDING + (3 << 20), "what had arrived was sent again"
    assert remote["golden"]["passed"]
    assert left(device) == []


def test_link_cut_while_running(device: SshDevice, bundle: Bundle) -> None:
    phases: list[str] = []

    def cut_once(step: str, _: float) -> None:
        if step not in phases:
            phases.append(step)
            if step == "measuring":
                device.cut()

    settings = Settings(seconds=2.0, threads=1, burst_seconds=0.0, idle_seconds=0.0, warmup=1, min_runs=5)
    record = bench_remote(bundle, Address.parse(device.url), settings, options(), cut_once)
    assert record["remote"]["links_lost"] == 1 and "measuring" in phases
    assert record["n"] >= 5
    assert left(device) == []


def test_a_lost_device_is_gone_on_with_by_the_same_command(device: SshDevice, bundle: Bundle) -> None:
    device.cut_after = 3 << 20
    port = device.port
    stopper = threading.Thread(target=lambda: (_until(lambda: device.cut_after is None), device.stop()))
    stopper.start()
    with pytest.raises(MissingCapability, match=r"link was lost.*same command goes on.*removes"):
        bench(bundle, device, reconnect_s=0.5)
    stopper.join()
    names = left(device)
    assert any(n.endswith("bundle.part/card.bin") for n in names)
    assert not any(n.endswith("/bundle") for n in names), "half a bundle under the whole one's name"
    device.port = port
    device.start()
    remote = bench(bundle, device)["remote"]
    assert remote["links_lost"] == 0 and remote["bytes_sent"] < PADDING
    assert left(device) == []


def test_half_a_bundle_goes_when_nobody_comes_back(device: SshDevice, bundle: Bundle) -> None:
    device.cut_after = 3 << 20
    stopper = threading.Thread(target=lambda: (_until(lambda: device.cut_after is None), device.stop()))
    stopper.start()
    with pytest.raises(MissingCapability, match="link was lost"):
        bench(bundle, device, reconnect_s=0.5, lease_s=1.0)
    stopper.join()
    assert empty_soon(device)


def test_unknown_host_key(device: SshDevice, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "host/.ssh/known_hosts").unlink()
    with pytest.raises(RequestError) as caught:
        bench(bundle, device)
    text = str(caught.value)
    assert device.host_key.get_fingerprint() in text
    assert f"ssh-keyscan -p {device.port} -t ed25519 127.0.0.1 >> ~/.ssh/known_hosts" in text
    assert device.logins == 0 and left(device) == []


@pytest.mark.parametrize("dropped", [0, 1])
@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_changed_host_key(device: SshDevice, bundle: Bundle, kind: str, dropped: int) -> None:
    """Told also where the first link is closed before the host says why."""
    known, port = device.host_key.get_fingerprint(), device.port
    device.stop()
    device.host_key = asyncssh.generate_private_key(kind)
    device.drop_next = dropped
    device.start()
    with pytest.raises(IntegrityError) as caught:
        bench(bundle, device)
    text = str(caught.value)
    assert known in text and device.host_key.get_fingerprint() in text
    assert f"ssh-keygen -R '[127.0.0.1]:{port}'" in text
    assert device.logins == 0


@pytest.mark.parametrize("more", [[], ["ssh-ed25519"]])
def test_a_dropped_link_is_no_changed_key(device: SshDevice, bundle: Bundle, tmp_path: Path, more: list[str]) -> None:
    """Nor is it where the host would rather show a key of another kind, which is not known."""
    device.stop()
    device.host_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    device.more_host_keys = [asyncssh.generate_private_key(kind) for kind in more]
    device.start()
    know(device, tmp_path / "host/.ssh/known_hosts")
    device.drop_next = 1
    with pytest.raises(MissingCapability, match="not reached"):
        bench(bundle, device)


def test_ssh_config_cannot_turn_verification_off(device: SshDevice, bundle: Bundle, tmp_path: Path) -> None:
    ssh = tmp_path / "host/.ssh"
    (ssh / "known_hosts").unlink()
    (ssh / "config").write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    with pytest.raises(RequestError, match="not known"):
        bench(bundle, device)


def test_wrong_user_key(device: SshDevice, bundle: Bundle, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    other.write_private_key(tmp_path / "host/.ssh/id_ed25519")
    other.write_public_key(tmp_path / "host/.ssh/id_ed25519.pub")
    with pytest.raises(MissingCapability, match=rf"ssh-copy-id -p {device.port} tester@127\.0\.0\.1"):
        bench(bundle, device)


def test_unreachable(device: SshDevice, bundle: Bundle) -> None:
    device.stop()
    with pytest.raises(MissingCapability, match=r"not reached .*refused.*Try: ssh -p"):
        bench(bundle, device)


def test_small_disk_is_refused_before_anything_is_sent(device: SshDevice, bundle: Bundle) -> None:
    device.free_disk = 4 << 20
    with pytest.raises(MissingCapability, match=r"too little disk: 4 MiB are free"):
        bench(bundle, device)
    assert device.received == 0 and left(device) == []


def test_disk_that_fills_up(device: SshDevice, bundle: Bundle) -> None:
    device.full_after = 2 << 20
    with pytest.raises(MissingCapability, match=r"would not take bundle\.part/card\.bin: No space left"):
        bench(bundle, device)
    assert empty_soon(device)


def test_small_memory_is_refused(device: SshDevice, bundle: Bundle) -> None:
    device.prelude = "ulimit -v 100000; "
    with pytest.raises(MissingCapability, match=r"too little memory: 98 MiB are free for a process"):
        bench(bundle, device)
    assert empty_soon(device)


def test_killed_for_memory(device: SshDevice, bundle: Bundle) -> None:
    """As the kernel does it: the measuring process dies of SIGKILL."""

    killed: list[int] = []

    def kill(step: str, _: float) -> None:
        if step == "measuring" and not killed:
            (status,) = device.home.rglob("status.json")
            killed.append(json.loads(status.read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)

    settings = Settings(seconds=30, threads=1, burst_seconds=0.0, idle_seconds=0.0, warmup=1)
    with pytest.raises(MissingCapability, match="killed the measurement, most likely for want of memory"):
        bench_remote(bundle, Address.parse(device.url), settings, options(), kill)
    assert empty_soon(device)


def test_clock_of_the_device_is_off(device: SshDevice, bundle: Bundle, tmp_path: Path) -> None:
    """The device lives three days ahead; its durations stay right."""
    (tmp_path / "shift").mkdir()
    (tmp_path / "shift/sitecustomize.py").write_text(
        "import time\n_now = time.time\ntime.time = lambda: _now() + 3 * 86400\n"
    )
    device.environment["PYTHONPATH"] = str(tmp_path / "shift")
    record = bench(bundle, device)
    clock = record["remote"]["clock"]
    assert clock["off"] and abs(clock["device_minus_host_s"] - 3 * 86400) <= clock["uncertainty_s"] + 1
    assert record["latency_ms"]["p99"] < 60_000


def test_missing_python_and_runtime(device: SshDevice, bundle: Bundle) -> None:
    with pytest.raises(MissingCapability, match=r"no 'python9'.*--remote-python"):
        bench(bundle, device, python="python9")
    device.environment["PYTHONPATH"] = str(device.home.parent / "block")
    (device.home.parent / "block").mkdir()
    (device.home.parent / "block/onnxruntime.py").write_text("raise ImportError('not for this processor')")
    with pytest.raises(MissingCapability, match=r"cannot import onnxruntime .*not for this processor.*pip install"):
        bench(bundle, device)
    assert empty_soon(device)


def test_a_model_that_the_device_refuses(device: SshDevice, tmp_path: Path) -> None:
    folder = tiny.make_bundle(tmp_path / "b", tiny.spec(16), "openvino-intel-npu-fp16")
    with Bundle.open(folder) as opened, pytest.raises(MissingCapability, match="OpenVINO finds no NPU"):
        bench(opened, device)
    assert empty_soon(device)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal: a test run begun in the background by a shell inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_called_off_by_the_user(device: SshDevice, bundle: Bundle) -> None:
    """An interruption stops the run on the device and leaves nothing."""

    calls: list[str] = []

    def interrupt(step: str, _: float) -> None:
        if step == "measuring" and not calls:
            calls.append(step)
            # Not a real signal: OpenVINO 2026.4 leaves a freed signal stack behind where its cores overlap in time, and
            # the kernel then kills a process that handles one.
            _thread.interrupt_main(signal.SIGINT)

    settings = Settings(seconds=60, threads=1, burst_seconds=0.0, idle_seconds=0.0, warmup=1)
    with pytest.raises(KeyboardInterrupt):
        bench_remote(bundle, Address.parse(device.url), settings, options(), interrupt)
    assert empty_soon(device)


def test_a_bug_on_the_way_leaves_nothing_either(device: SshDevice, bundle: Bundle) -> None:
    def fail(step: str, _: float) -> None:
        if step == "sending":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench_remote(bundle, Address.parse(device.url), QUICK, options(), fail)
    assert empty_soon(device)


def test_a_folder_of_ones_own(device: SshDevice, bundle: Bundle, tmp_path: Path) -> None:
    place = tmp_path / "other disk"
    with pytest.raises(RequestError, match="no folder"):
        bench_remote(bundle, Address.parse(f"{device.url}{place}".replace(" ", "%20")), QUICK, options())
    place.mkdir()
    bench_remote(bundle, Address.parse(f"{device.url}{place}".replace(" ", "%20")), QUICK, options())
    assert list(place.iterdir()) == [] and left(device) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("jetson.local", "not an ssh://"),
        ("ssh://", "no host"),
        ("ssh://-oProxyCommand=x", "no host"),
        ("ssh://host:99999", "(?i)port"),
        ("ssh://me:secret@host", "passwords are not taken"),
        ("ssh://host/a?b", "cannot hold"),
    ],
)
def test_bad_addresses(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        Address.parse(text)
    assert "secret" not in str(caught.value)


def test_addresses() -> None:
    assert Address.parse("ssh://me@jetson.local:2222/mnt/nvme/") == Address("jetson.local", 2222, "me", "/mnt/nvme")
    assert str(Address.parse("ssh://[fe80::1]:22")) == "ssh://[fe80::1]:22"


def _until(done: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_latency_table_measures_there_and_tells_who_was_not_reached(
    device: SshDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = "onnxruntime-raspberry-pi-5-f32", "onnxruntime-raspberry-pi-4-f32"
    folder = tiny.make_bundle(tmp_path / "b", tiny.spec(16), own)
    command = [
        "latency",
        str(folder),
        "--on",
        f"{own},{other}",
        "--seconds",
        "0.2",
        "--remote-python",
        sys.executable,
        "--json",
    ]
    assert run_app([*command, "--host", device.url]) == 2
    assert "say which device it is, e.g. --host raspberry-pi-5=" in json.loads(capsys.readouterr().out)["error"]
    assert run_app([*command, "--host", f"raspberry-pi-5={device.url}"]) == 0
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows[own]["provenance"] == "measured" and rows[own]["p99_ms"] >= rows[own]["ms"] > 0
    assert device.url in rows[own]["device"] and rows[own]["basis"].startswith("timed there")
    assert rows[other]["provenance"] == "predicted" and left(device) == []
    half = own.replace("f32", "int8")  # of the same device, which measures the bundle's own target alone
    assert run_app([*command[:3], f"{own},{half}", *command[4:], "--host", f"raspberry-pi-5={device.url}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failed_hosts"] == [] and {row["target"] for row in found["rows"]} == {own, half}
    device.stop()
    assert run_app([*command, "--host", f"raspberry-pi-5={device.url}"]) == PartlyDone.exit_code
    found = json.loads(capsys.readouterr().out)
    assert [(one["target"], one["host"]) for one in found["failed_hosts"]] == [(own, device.url)]
    assert "not reached" in found["failed_hosts"][0]["why"] and found["left_out"] == []
    assert {row["target"]: row["provenance"] for row in found["rows"]} == {own: "predicted", other: "predicted"}
    page = tmp_path / "latency.html"
    assert (
        run_app([*command[:-1], "--html", str(page), "--host", f"raspberry-pi-5={device.url}"]) == PartlyDone.exit_code
    )
    shown = capsys.readouterr()
    assert f"{own}: not measured at {device.url}: " in shown.err and "predicted" in shown.out
    assert "Hosts that measured nothing" in page.read_text() and "not reached" in page.read_text()


def test_one_of_several_hosts_fails(device: SshDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other measures; the rest is predicted, and the exit code tells."""
    own, other = "onnxruntime-raspberry-pi-5-f32", "onnxruntime-raspberry-pi-4-f32"
    folder = tiny.make_bundle(tmp_path / "b", tiny.spec(16), own)
    command = ["latency", str(folder), "--on", f"{own},{other}", "--seconds", "0.2", "--remote-python", sys.executable]
    hosts = ["--host", f"raspberry-pi-5={device.url}", "--host", "raspberry-pi-4=ssh://tester@127.0.0.1:1"]
    assert run_app([*command, *hosts, "--json"]) == PartlyDone.exit_code
    found = json.loads(capsys.readouterr().out)
    assert {row["target"]: row["provenance"] for row in found["rows"]} == {own: "measured", other: "predicted"}
    assert [one["target"] for one in found["failed_hosts"]] == [other]
    assert run_app([*command, *hosts[:2], "--host", f"raspberry-pi-5={device.url}"]) == 2
    assert "are both for 'raspberry-pi-5'" in capsys.readouterr().err and left(device) == []


def test_where_nothing_is_found_the_exit_code_is_the_hosts(
    device: SshDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A LiteRT file holds no graph to predict from."""
    own = "litert-raspberry-pi-5-f32"
    folder = tiny.make_bundle(tmp_path / "b", tiny.spec(16), own)
    device.stop()
    assert run_app(["latency", str(folder), "--on", own, "--host", device.url]) == MissingCapability.exit_code
    assert "not reached" in capsys.readouterr().err
