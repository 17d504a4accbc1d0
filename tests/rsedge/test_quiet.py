"""Places from the recipe to answers, on a real teacher (weights in a wheel); and nothing is sent home.

Nothing is written outside the run folder and the temporary one either: the run and the answers are seen by strace, where it is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rsedge.devices.onboard.job import peak_memory
from rsedge.devices.remote.runner import build_runner
from rsedge.quiet import SWITCHES
from rsedge.runtimes.bundle.reading import Bundle
from tests.real_run import short_run

RECIPE = """\
name: places
threads: 1
teacher: {name: geoclip-location}
data:
  samples: {source: geoclip-gallery, limit: 400}
  calibration: {tiles: 16}
  augment: {jitter_deg: [1.0], uniform: 0.2}
student: {name: place-mlp}
steps:
  - distill: {steps: 4, views: 64, batch: 32, validate_every: 4}
  - prune: {steps: 1, round_to: 8, recovery_steps: 2, taylor_batches: 1, max_drop: 1.0, min_gain: 0.0, target: {params_ratio: 0.9}}
  - quantize: {max_trials: 1, max_probes: 0, max_tunings: 0, float_precision: f32, max_drop: 1.0}
targets: [openvino-cpu-int8, onnxruntime-cpu-f32, litert-cpu-int8, litert-raspberry-pi-5-f32, tensorrt-jetson-orin-nano-8gb-fp16]
gates:
  - {metric: cosine, min: -1.0}
  - {metric: size, max: 20.0e+6, target: openvino-cpu-int8}
"""
CHANGES = "creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,symlink,symlinkat,link,linkat,truncate,rmdir"
QUOTED = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<base>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Trace:
    """What strace saw of a process and its children: ``PID call(arguments) = result`` a line."""

    lines: tuple[str, ...]
    folder: Path

    def calls(self, *names: str) -> list[str]:
        return [line for line in self.lines if re.match(rf"\d+ +(?:{'|'.join(names)})\(", line)]

    def changed(self) -> set[Path]:
        """Absolute paths of everything that was made, written, renamed or removed."""
        opened = [c for c in self.calls("openat") if re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", c)]
        done = [c for c in [*opened, *self.calls(*CHANGES.split(","))] if not re.search(r"= -1 E[A-Z]+ ", c)]
        return {
            Path(os.path.normpath((Path(found["base"]) if found["base"] else self.folder) / found["path"]))
            for call in done
            for found in QUOTED.finditer(call)
        }

    def looked_up(self) -> list[str]:
        """Signs that a name was looked up: the resolver's files, or its port."""
        files = [c for c in self.calls("openat") if re.search(r'"/etc/(resolv\.conf|hosts|gai\.conf)"', c)]
        return files + [line for line in self.lines if "htons(53)" in line]

    def sockets(self) -> list[str]:
        """Sockets that could leave this machine, or ask the kernel how to."""
        return [c for c in self.calls("socket") if re.search(r"\(AF_(INET6?|NETLINK|PACKET)", c)]


class Unseen(Exception):
    """Why nothing is traced here."""


def find_strace() -> str:
    """Where strace is, tried out.

    Raises:
        Unseen: it is not here, or may not trace.
    """
    found = shutil.which("strace")
    if found is None:
        raise Unseen("no strace here (Debian package strace): what the process asks of the system is not seen")
    trial = subprocess.run([found, "-f", "--seccomp-bpf", "-o", os.devnull, "true"], capture_output=True, text=True)
    if trial.returncode:
        raise Unseen(f"strace may not trace here: {trial.stderr.strip()}")
    return found


class Place:
    """A folder with a home, a temporary folder and a working folder, all empty."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.temporary, self.work = (root / name for name in ("home", "tmp", "work"))
        for folder in (self.home, self.temporary, self.work):
            folder.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        others = (*SWITCHES, "RSEDGE_TEACHER_CACHE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("XDG_") and k not in others}
        # Python's own cache of compiled modules is no file of ours.
        own = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        return kept | own | {"HOME": str(self.home), "TMPDIR": str(self.temporary)}

    def run(self, *command: str) -> Trace | Unseen:
        """Runs a command to its end, under strace where it is."""
        seen = self.root / "trace"
        try:
            traced = [find_strace(), "-f", "-y", "-qq", "-s", "400", "--seccomp-bpf", "-e",
                      f"trace=%network,openat,{CHANGES}", "-o", str(seen)]  # fmt: skip
        except Unseen as unseen:
            self._run(*command)
            return unseen
        self._run(*traced, *command)
        return Trace(tuple(seen.read_text(errors="replace").splitlines()), self.work)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def seen(trace: Trace | Unseen) -> Trace:
    """The trace; skips without one."""
    if isinstance(trace, Unseen):
        pytest.skip(str(trace))
    return trace


def assert_quiet(found: Trace | Unseen, place: Place, *ours: Path) -> None:
    trace = seen(found)
    assert len(trace.lines) > 100
    assert trace.sockets() == []
    assert trace.looked_up() == []
    allowed = (place.temporary, Path("/dev"), Path("/proc"), *ours)
    # What is written lies in a folder .rsedge-* beside its place until it is whole; that folder is gone afterwards.
    beside = tuple(f"{one.parent}/.rsedge-" for one in ours)
    changed = {path for path in trace.changed() if not str(path).startswith(beside)}
    assert {path for path in changed if not any(path.is_relative_to(a) for a in allowed)} == set()
    assert not [left for one in ours for left in one.parent.glob(".rsedge-*")]


@dataclass(frozen=True)
class Run:
    """A run of the recipe and answers of three of its bundles, with what was seen of each."""

    place: Place
    run: Trace | Unseen
    answers: dict[str, Trace | Unseen]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Run:
    pytest.importorskip("geoclip")
    place = Place(tmp_path_factory.mktemp("places"))
    (place.work / "recipe.yaml").write_text(RECIPE)
    run = place.run(sys.executable, "-B", *short_run(), "run", "recipe.yaml", "--run-dir", "run")
    np.savez(place.work / "places.npz", dn=np.array([[47.5, 19.0], [0.0, 0.0], [-33.9, 151.2]], np.float32))
    answers = {
        target: place.run(
            sys.executable,
            "-B",
            "-m",
            "rsedge.cli",
            "infer",
            f"run/bundles/{target}",
            "places.npz",
            "-o",
            f"{target}.npz",
        )
        for target in ("openvino-cpu-int8", "onnxruntime-cpu-f32", "litert-cpu-int8")
    }
    return Run(place, run, answers)


def test_places_from_recipe_to_answers(ran: Run) -> None:
    work = ran.place.work
    report = json.loads((work / "run/report.json").read_text())
    stages = "data teacher distill prune export quantize verify bundle"
    assert [s["name"] for s in report["stages"]] == stages.split()
    metrics = report["targets"][0]["metrics"]
    assert -1 < metrics["cosine"] < 1 and metrics["n"] == 100  # hardly trained
    assert report["teacher"]["metrics"]["cosine"] == pytest.approx(1)
    bundle = work / "run/bundles/openvino-cpu-int8"
    with Bundle.open(bundle) as opened:
        assert opened.manifest.task == "embedding" and len(opened.manifest.classes) == 512
    litert = {t["name"]: t for t in report["targets"] if t["name"].startswith("litert")}
    assert litert["litert-cpu-int8"]["size_bytes"] < 0.5 * litert["litert-raspberry-pi-5-f32"]["size_bytes"]
    assert {t["provenance"] for t in litert.values()} == {"measured", "predicted"}
    for target in ran.answers:
        with np.load(work / f"{target}.npz") as out:
            assert out["outputs"].shape == (3, 512) and len(out["names"]) == 512
    # The runner on a device: inputs that are no tiles.
    assert peak_memory(bundle, {"device": "CPU", "threads": 1}) > 20e6


def test_a_run_and_its_answers_reach_nobody_and_stay_in_their_folders(ran: Run) -> None:
    place = ran.place
    cache = place.home / ".cache"
    assert_quiet(ran.run, place, place.work / "run", cache)
    above = {cache, cache / "rsedge"}
    teacher = {p for p in seen(ran.run).changed() if p.is_relative_to(cache)} - above
    assert {p for p in teacher if not p.is_relative_to(cache / "rsedge/teacher")} == set()
    assert place.work / "run/report.html" in seen(ran.run).changed()
    for target, answer in ran.answers.items():
        written = {p for p in seen(answer).changed() if p.is_relative_to(place.work)}
        assert_quiet(answer, place, *(p for p in written if target in p.name))


def test_runtimes_and_libraries_are_quiet_when_imported(place: Place) -> None:
    names = ("onnxruntime", "openvino", "nncf", "torch", "timm", "transformers", "matplotlib", "torchgeo", "ai_edge_litert",
             "litert_torch", "ai_edge_quantizer")  # fmt: skip
    lines = "import importlib, importlib.util, rsedge\n" + "".join(
        f"if importlib.util.find_spec({name!r}): importlib.import_module({name!r})\n" for name in names
    )
    # torchgeo brings matplotlib, which keeps its list of fonts there.
    fonts = (place.home / ".config", place.home / ".config/matplotlib", place.home / ".cache/matplotlib")
    assert_quiet(place.run(sys.executable, "-B", "-c", lines), place, *fonts)


def test_the_runner_for_devices_is_quiet_too(place: Place) -> None:
    pytest.importorskip("onnxruntime")
    runner = place.work / "runner.pyz"
    runner.write_bytes(build_runner())
    lines = f"import sys; sys.path.insert(0, {str(runner)!r}); import rsedge.devices.onboard.main, onnxruntime"
    assert_quiet(place.run(sys.executable, "-B", "-c", lines), place)
