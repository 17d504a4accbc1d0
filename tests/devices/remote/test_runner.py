"""The runner as one file on the interpreters of JetPack 5, 6 and 7 where this machine has them, and its keeper."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from rsedge.devices.onboard.main import parser
from rsedge.devices.remote.runner import build_runner, travelling_modules
from tests.devices import fake_sysfs
from tests.devices.onboard.test_onboard_sensors import NANO, ORIN
from tests.runtimes import tiny_models as tiny

# What a device has: its standard library, NumPy and a runtime.
MAY_IMPORT = {
    *sys.stdlib_module_names,
    "numpy",
    "openvino",
    "onnxruntime",
    "tensorrt",
    "ai_edge_litert",
    "flatbuffers",
    "rsedge",
}

CHECK = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rsedge.devices.onboard import engines, job, keeper, probe, protocol, stats, tegrastats
from rsedge.devices.onboard.main import parser
from rsedge.devices.onboard.sensors import Sensors
from rsedge.runtimes import cores
from rsedge.runtimes.openvino import core as openvino_core
from rsedge.runtimes.tensorrt import compile as tensorrt_compile
root, lines = Path(sys.argv[2]), json.loads(sys.argv[3])
sensors = Sensors(root)
measured = protocol.measure(lambda: sum(range(2000)), protocol.Plan(0.05, 2, 20, 0.01, 0.05), sensors)
events = [{"cat": "Node", "name": "conv_kernel_time", "dur": 1500, "args": {"op_name": "Conv", "provider": "CPU"}}] * 2
print(json.dumps({
    "python": list(sys.version_info[:2]),
    "percentiles": stats.latency(list(range(1, 101))),
    "power": [tegrastats.parse(line)["power_w"] for line in lines],
    "watts": sensors.watts(),
    "measured": measured,
    "layers": engines.onnx_layers(events, 2),
    "arguments": vars(parser().parse_args(["keep", "/x", "--lease", "5"]))["lease"],
    "settings": openvino_core.settings("CPU", "int8", 1),
    "precision": tensorrt_compile.BuildOptions("int8", max_batch=4).precision,
}))
"""


def interpreter(version: str) -> str | None:
    """An interpreter of that version: one of pyenv's, or on the PATH."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runner") / "runner.pyz"
    path.write_bytes(build_runner())
    return path


@pytest.fixture(params=["3.8", "3.10", "3.12"])
def python(request: pytest.FixtureRequest) -> str:
    found = interpreter(request.param)
    if found is None:
        pytest.skip(f"no Python {request.param} on this machine (looked in ~/.pyenv/versions and on the PATH)")
    return found


def test_same_sources_same_bytes(runner: Path) -> None:
    assert runner.read_bytes() == build_runner()
    assert len(zipfile.ZipFile(runner).namelist()) == len(set(zipfile.ZipFile(runner).namelist()))


def test_what_travels_imports_only_what_a_device_has() -> None:
    inside = {name[: -len(".py")].replace("/", ".") for name in travelling_modules()}
    for name, path in travelling_modules().items():
        guarded = {n for i in ast.walk(ast.parse(path.read_text())) if _type_checking(i) for n in ast.walk(i)}
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module.partition(".")[0] in MAY_IMPORT, f"{name} imports {module}"
                lines = {g.lineno for g in guarded if isinstance(g, ast.ImportFrom)}
                if module.startswith("rsedge.") and node.lineno not in lines:
                    assert module in inside or any(i.startswith(f"{module}.") for i in inside), (
                        f"{name} imports {module}"
                    )


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_runs_on_the_interpreters_of_jetpack(python: str, runner: Path, tmp_path: Path) -> None:
    root = fake_sysfs.jetson(tmp_path / "root")
    command = [python, "-c", CHECK, str(runner), str(root), json.dumps([ORIN, NANO])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["percentiles"] == pytest.approx({"p50": 50.5, "p90": 90.1, "p99": 99.01, "mean": 50.5})
    assert found["power"][0]["VDD_IN"] == 4.536 and found["power"][1]["POM_5V_IN"] == 2.532
    assert found["watts"][0] == pytest.approx(5.04)
    assert found["measured"]["energy"]["idle_w"] == pytest.approx(5.04) and found["measured"]["n"] >= 20
    assert found["layers"] == [{"name": "conv", "type": "Conv", "kernel": "CPU", "ms": 1.5}]
    assert found["arguments"] == 5.0 and found["settings"]["INFERENCE_NUM_THREADS"] == 1
    assert found["precision"] == "int8"


def test_every_module_compiles_on_the_interpreters_of_jetpack(python: str, runner: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(runner) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [python, "-m", "compileall", "-q", str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


def test_says_what_a_device_lacks(python: str, runner: Path, tmp_path: Path) -> None:
    command = [python, "-I", str(runner), "probe", str(tmp_path), "--runtime", "tensorrt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found["runtime"]["version"] is None:
        assert "tensorrt" in found["runtime"]["problem"]
    assert found["memory_available_bytes"] > 0 and found["disk_free_bytes"] > 0 and abs(found["wall_clock_s"]) > 1e9


@pytest.mark.parametrize("words", [["probe", "/x"], ["keep", "/x"], ["keep", "/x", "--lease", "soon"], ["fly"], []])
def test_wrong_arguments_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(words)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def call(runner: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(runner), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def job_folder(place: Path, name: str = "job", target: str = "onnxruntime-cpu-f32") -> Path:
    folder = place / "rsedge" / "bench" / name
    tiny.make_bundle(folder / "bundle.part", tiny.spec(16), target)
    return folder


JOB = {"seconds": 0.1, "threads": 1, "layers": True, "burst_seconds": 0.0, "idle_seconds": 0.0, "warmup": 1,
       "min_runs": 3, "device": "CPU"}  # fmt: skip


def test_a_bundle_is_accepted_only_whole(runner: Path, tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    content = (folder / "bundle.part/model.onnx").read_bytes()
    (folder / "bundle.part/model.onnx").write_bytes(content[:-1] + b"\0")
    assert json.loads(call(runner, "accept", folder).stdout) == {"wrong": ["model.onnx"]}
    assert not (folder / "bundle").exists() and not (folder / "bundle.part/model.onnx").exists()
    (folder / "bundle.part/model.onnx").write_bytes(content)
    assert json.loads(call(runner, "accept", folder).stdout) == {"wrong": []}
    assert (folder / "bundle/model.onnx").exists() and not (folder / "bundle.part").exists()
    (folder / "bundle/manifest.json").rename(folder / "manifest.json")
    (folder / "bundle").rename(folder / "bundle.part")
    broken = call(runner, "accept", folder)
    assert broken.returncode == 2 and "no whole manifest.json" in broken.stderr


def test_run_with_layers_on_onnxruntime(runner: Path, tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    (folder / "bundle.part").rename(folder / "bundle")
    (folder / "job.json").write_text(json.dumps(JOB))
    done = call(runner, "run", folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["golden"]["passed"] and result["measurement"]["n"] >= 3
    assert {"Conv", "Cast"} & {row["type"] for row in result["layers"]}
    assert all(row["ms"] >= 0 for row in result["layers"])
    (folder / "job.json").write_text(json.dumps({**JOB, "device": "CUDA"}))
    (folder / "result.json").unlink()
    failed = call(runner, "run", folder)
    assert failed.returncode == 4 and json.loads((folder / "error.json").read_text())["exit_code"] == 4


def test_run_on_litert(runner: Path, tmp_path: Path) -> None:
    folder = job_folder(tmp_path, target="litert-cpu-f32")
    (folder / "bundle.part").rename(folder / "bundle")
    (folder / "job.json").write_text(json.dumps({**JOB, "layers": False}))
    done = call(runner, "run", folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["golden"]["passed"] and result["measurement"]["n"] >= 3
    assert result["measurement"]["runtime"] == "litert" and "Created TensorFlow" not in done.stderr
    (folder / "job.json").write_text(json.dumps(JOB))
    (folder / "result.json").unlink()
    failed = call(runner, "run", folder)
    assert failed.returncode == 4 and "tells no times of layers" in failed.stderr
    found = json.loads(call(runner, "probe", tmp_path, "--runtime", "litert").stdout)["runtime"]
    assert found["name"] == "litert" and found["version"][0].isdigit()


def test_keeper_removes_what_nobody_comes_back_for(runner: Path, tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    assert call(runner, "keep", folder, "--lease", "1").returncode == 0
    assert json.loads((folder / "status.json").read_text()) == {"phase": "waiting"}
    assert call(runner, "keep", folder, "--lease", "1000").returncode == 0, "a second keeper leaves the first alone"
    gone(tmp_path / "rsedge")


def test_keeper_stops_when_it_is_told(runner: Path, tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    (folder / "bundle.part").rename(folder / "bundle")
    (folder / "job.json").write_text(json.dumps({**JOB, "seconds": 300}))
    assert call(runner, "keep", folder, "--lease", "1000").returncode == 0
    status = folder / "status.json"
    deadline = time.monotonic() + 60
    while json.loads(status.read_text())["phase"] != "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = json.loads(status.read_text())["pid"]
    (folder / "stop").touch()
    gone(tmp_path / "rsedge")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_measurement_at_a_time(runner: Path, tmp_path: Path) -> None:
    first, second = job_folder(tmp_path, "first"), job_folder(tmp_path, "second")
    for folder, seconds in ((first, 300), (second, 1)):
        (folder / "bundle.part").rename(folder / "bundle")
        (folder / "job.json").write_text(json.dumps({**JOB, "seconds": seconds}))
        call(runner, "keep", folder, "--lease", "1000")
        wait_for(folder, {"running", "failed", "done"})
    status = json.loads((second / "status.json").read_text())
    assert status["phase"] == "failed" and "another measurement is running" in status["message"]
    for folder in (first, second):
        (folder / "stop").touch()
    gone(tmp_path / "rsedge")


def test_a_new_keeper_takes_up_what_a_killed_one_left(runner: Path, tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    (folder / "job.json").write_text(json.dumps(JOB))
    (folder / "status.json").write_text('{"phase": "running", "pid": 0}')
    (folder / "result.json").write_text('{"from": "before"}')
    call(runner, "keep", folder, "--lease", "1000")
    wait_for(folder, {"done"})
    assert json.loads((folder / "result.json").read_text()) == {"from": "before"}
    (folder / "stop").touch()
    gone(tmp_path / "rsedge")


def wait_for(folder: Path, phases: set[str]) -> None:
    deadline = time.monotonic() + 60
    while json.loads((folder / "status.json").read_text())["phase"] not in phases and time.monotonic() < deadline:
        time.sleep(0.05)


def gone(place: Path) -> None:
    deadline = time.monotonic() + 60
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not place.exists(), sorted(place.rglob("*"))
