"""Engines are compiled in a process of their own: the same engine, the same refusals, and an end that is not ours."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes import Bundle
from rsedge.runtimes.child import Child
from rsedge.runtimes.tensorrt import apart, build, cuda_driver
from rsedge.runtimes.tensorrt.apart import compile_apart
from rsedge.runtimes.tensorrt.compile import BuildOptions
from tests.runtimes import stand_in_gpu
from tests.runtimes import tiny_models as tiny

TARGET = "tensorrt-jetson-orin-nano-8gb-fp16"
RTX = "tensorrt_rtx"
pytestmark = pytest.mark.skipif(importlib.util.find_spec(RTX) is None, reason="tensorrt_rtx is not installed")


class Dies(Child):
    """Its process is ended as it is asked, as a model may end it."""

    def ask(self, seconds: int, question: Any, *contents: bytes) -> Any:
        self._process.send_signal(signal.SIGSEGV)
        return super().ask(seconds, question, *contents)


def test_the_engine_comes_from_another_process(bundle: Callable[..., Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(apart, "compile_onnx", None)  # not here
    with Bundle.open(bundle(TARGET)) as opened:
        made = compile_apart(opened.model(), BuildOptions(), RTX, "SM86")
    assert len(made.engine) > 1000 and made.engine[1:4] == b"trt" and made.timing == b""
    assert made.placement == [] and not list(tmp_path.iterdir())


def test_refusals_come_through(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle(TARGET)
    with Bundle.open(folder) as opened:
        with pytest.raises(MissingCapability, match="0 DLA cores"):
            compile_apart(opened.model(), BuildOptions(dla=0), RTX, "SM86")
        with pytest.raises(RequestError, match=r"model\.onnx: has a fixed batch of one"):
            compile_apart(opened.model(), BuildOptions(max_batch=4), RTX, "SM86")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-7])
    tiny.write_manifest(folder, tiny.spec(32), TARGET, "model.onnx")
    with (
        Bundle.open(folder) as opened,
        pytest.raises(RequestError, match=rf"^{folder}/model\.onnx: {RTX} .* cannot parse"),
    ):
        compile_apart(opened.model(), BuildOptions(), RTX, "SM86")


def test_build_never_parses_here_and_outlives_the_builder(
    bundle: Callable[..., Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has signed the bundle. GPU and driver are stand-ins; the process that is to build ends."""
    monkeypatch.setattr(cuda_driver, "_library", lambda: stand_in_gpu.Driver())
    monkeypatch.setattr(apart, "compile_onnx", None)
    monkeypatch.setattr(build, "compile_onnx", None)
    monkeypatch.setattr(apart, "Child", Dies)
    with (
        Bundle.open(bundle(TARGET)) as opened,
        pytest.raises(RequestError, match=rf"{RTX} does not survive it: .*SIGSEGV"),
    ):
        build.build_engine(opened)
    assert not list(own_cache.glob("*/*.engine"))


def test_an_hour_is_no_answer(bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stops(Child):
        def ask(self, seconds: int, question: Any, *contents: bytes) -> Any:
            os.kill(self._process.pid, signal.SIGALRM)
            return super().ask(seconds, question, *contents)

    monkeypatch.setattr(apart, "Child", Stops)
    with Bundle.open(bundle(TARGET)) as opened, pytest.raises(RequestError, match="gave no answer in 7200 s"):
        compile_apart(opened.model(), BuildOptions(), RTX, "SM86")
