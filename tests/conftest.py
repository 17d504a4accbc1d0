"""What tests of several rooms share.

One real run (:mod:`tests.real_run`); the environment with OpenVINO 2022.3.2; and what the tests of teachers measured, kept for
``models/tested*.json`` where ``RSEDGE_TEACHER_RESULTS`` names a file.
"""

from __future__ import annotations

import atexit
import copy
import functools
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsedge.cli import heartbeat
from rsedge.data.folder_lock import folder_lock
from rsedge.runtimes.cores import cpu_count
from rsedge.runtimes.myriad.process import VARIABLE, create_environment, find_environment, find_python310
from tests.real_run import Finished, finish
from tests.traced_run import measure_shortly

# No test meets the keys that whoever runs the tests trusts.
os.environ["XDG_CONFIG_HOME"] = str(Path(tempfile.gettempdir()) / f"rsedge-tests-{os.getuid()}" / "config")

# Nor leaves teachers' outputs in their cache, or finds those of an earlier run; processes that share the tests share them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["RSEDGE_TEACHER_CACHE"] = tempfile.mkdtemp(prefix="rsedge-tests-teacher-")
    atexit.register(shutil.rmtree, os.environ["RSEDGE_TEACHER_CACHE"], ignore_errors=True)

# Tests run side by side: each process computes with its share of the processors, for threads that wait for each other spin.
# Only in those processes: what the one that starts them has in its environment they would inherit.
SHARE = max(1, cpu_count() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", str(SHARE))

# What was started in the background (nohup, `&`) ignores these, and so would every process that tests start and interrupt.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

pytest_plugins = ["tests.bundles"]

Results = dict[str, dict[str, str]]


def keep_torchlib() -> None:
    """Torch makes its table of ONNX operators anew for every export, in half of the time that a small network's export takes."""
    from torch.onnx._internal.exporter import _registration

    make = functools.cache(_registration.ONNXRegistry.from_torchlib)

    def kept(**opset: int) -> _registration.ONNXRegistry:
        found = copy.copy(make(**opset))
        found.functions = {operator: list(rows) for operator, rows in found.functions.items()}
        return found

    _registration.ONNXRegistry.from_torchlib = staticmethod(kept)  # type: ignore[assignment,method-assign]


def pytest_collection_finish() -> None:
    """What tests import stays until the end; looking through it for garbage took a tenth of the time."""
    if "torch" in sys.modules:
        keep_torchlib()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_unconfigure() -> None:
    """What ends in order is let go of again."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def share_of_the_processors() -> Iterator[None]:
    """A recipe sets how many threads torch has in this process; the next test has its share again."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", SHARE)))


@pytest.fixture(autouse=True)
def no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a command takes longer than two seconds; what it says on stderr then is no part of other tests."""
    monkeypatch.setattr(heartbeat, "FIRST_S", 3600.0)


@pytest.fixture(scope="session")
def openvino2022(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """Python of an environment with OpenVINO 2022.3.2, made once per test run; None where there is no Python 3.10."""
    python = find_environment()
    if python is None and find_python310() is not None and not os.environ.get("RSEDGE_SKIP_PY310"):
        # Processes that share the tests share a folder, and with it what the first of them made.
        base = tmp_path_factory.getbasetemp()
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        with folder_lock(shared, wait_s=300):
            python = create_environment(shared / "openvino2022")
    before = os.environ.get(VARIABLE)
    if python is not None:
        os.environ[VARIABLE] = str(python)
    yield python
    if before is None:
        os.environ.pop(VARIABLE, None)


@pytest.fixture
def need_openvino2022(openvino2022: Path | None) -> Path:
    """As ``openvino2022``, but skips without it."""
    if openvino2022 is None:
        pytest.skip("no Python 3.10 for OpenVINO 2022.3.2 (looked on the PATH and among pyenv's)")
    return openvino2022


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, openvino2022: Path | None) -> Finished:
    """The real run. Tests leave its folder as it is, or mend it."""
    for wheel in ("ukis_csmask", "spyndex", "nncf"):
        pytest.importorskip(wheel)
    return finish(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def results() -> Iterator[Results]:
    """Row name, or ``family NAME``, -> point -> outcome; a test writes into it as its last statement."""
    found: Results = {}
    yield found
    if found and os.environ.get("RSEDGE_TEACHER_RESULTS"):
        path = Path(os.environ["RSEDGE_TEACHER_RESULTS"])
        known: Results = json.loads(path.read_text()) if path.exists() else {}
        for name, points in found.items():
            known[name] = known.get(name, {}) | points
        # After every test: what a long run has found is kept when it is stopped.
        path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


@pytest.fixture(scope="session", autouse=True)
def short_measurements() -> None:
    """As in the runs that tests start."""
    if "torch" in sys.modules:
        measure_shortly()


LONG = ("tests/reports/", "tests/rsedge/pipeline/", "tests/faults/", "tests/rsedge/test_quiet.py", "tests/test_docs.py")
"""Files that take a minute or more. They come first: one of them at the end would let all other processes wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, else in the order of their names."""
    items.sort(key=lambda item: next((i for i, long in enumerate(LONG) if item.nodeid.startswith(long)), len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Files go to a process one by one; those that look at the real run together."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope = super()._split_scope(nodeid)
            return (
                "the real run"
                if scope.startswith(
                    ("tests/reports/", "tests/rsedge/pipeline/test_pipeline.py", "tests/test_notebook.py")
                )
                else scope
            )

    return ByFile(config, log)
