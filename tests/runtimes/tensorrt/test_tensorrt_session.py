"""Our side of running an engine: buffers, batches, CUDA graphs. GPU and TensorRT are stand-ins in host memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.device_cache import Built
from rsedge.runtimes.tensorrt import cuda_driver
from rsedge.runtimes.tensorrt import session as tensorrt_session
from rsedge.runtimes.tensorrt.cuda_driver import Cuda, CudaError
from rsedge.runtimes.tensorrt.session import TensorRtSession
from tests.runtimes import stand_in_gpu
from tests.runtimes import tiny_models as tiny

Opener = Callable[..., tuple[TensorRtSession, stand_in_gpu.Driver]]


def tiles(count: int) -> list[dict[str, np.ndarray]]:
    return [{"dn": tiny.random_scene(tiny.spec(), 32, 32, seed)[None]} for seed in range(count)]


def session_of(content: bytes, batch: int = 1, device: str = "CUDA") -> TensorRtSession:
    """A session of an engine as the device's cache gives it."""
    about = {
        "module": "tensorrt", "version": "10.3.0", "gpu": "Orin", "sm": "SM87", "driver": 12060, "max_batch": batch,
        "seconds": 1.0, "built": "2026-01-01",
    }  # fmt: skip

    def find(hardware: str) -> Built:
        assert hardware == "Orin (SM87)"
        return Built(Path("model.engine"), about, content, "build it anew")

    return TensorRtSession(Path("bundle"), find, tiny.spec(), device)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., stand_in_gpu.Driver]:
    def make(**options: bool) -> stand_in_gpu.Driver:
        driver = stand_in_gpu.Driver(**options)
        monkeypatch.setattr(cuda_driver, "_library", lambda: driver)
        return driver

    return make


@pytest.fixture
def opened(gpu: Callable[..., stand_in_gpu.Driver], monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    sessions = []

    def make(batch: int = 1, **options: bool) -> tuple[TensorRtSession, stand_in_gpu.Driver]:
        driver = gpu(**options)
        module = stand_in_gpu.tensorrt(driver, tiny.spec(), batch)
        monkeypatch.setattr(tensorrt_session, "load_tensorrt", lambda name: module)
        sessions.append(session_of(b"engine", batch))
        return sessions[-1], driver

    yield make
    for session in sessions:
        session.close()


def check(outputs: list[dict[str, np.ndarray]], inputs: list[dict[str, np.ndarray]]) -> None:
    assert len(outputs) == len(inputs)
    for out, one in zip(outputs, inputs, strict=True):
        logits, valid = tiny.reference(tiny.spec(), one["dn"][0])
        np.testing.assert_allclose(out["logits"][0], logits, atol=1e-5)
        assert np.array_equal(out["valid"][0], valid)


def test_copies_then_a_graph(opened: Opener) -> None:
    session, driver = opened()
    check([session(one) for one in tiles(4)], tiles(4))
    assert session.execution == "copies, CUDA graph"
    assert driver.log.count("launch") == 3 and driver.log.count("upload") == 2  # once to warm up, once to capture
    assert session.device == "Orin" and session.runtime_version == "10.3.0"


def test_shared_memory_needs_no_copy(opened: Opener) -> None:
    session, driver = opened(integrated=True)
    check([session(one) for one in tiles(3)], tiles(3))
    assert session.execution == "shared memory, CUDA graph"
    assert not {"upload", "download", "cuMemAlloc"} & set(driver.log)


def test_without_a_graph_it_says_why_and_runs(opened: Opener) -> None:
    session, driver = opened(capturable=False)
    check([session(one) for one in tiles(3)], tiles(3))
    assert "no CUDA graph (cuStreamEndCapture: error 900" in session.execution and "launch" not in driver.log


@pytest.mark.parametrize("count", [1, 4, 6, 9])
def test_batches_keep_order_and_leave_no_tile_out(opened: Opener, count: int) -> None:
    session, driver = opened(batch=4)
    check(list(session.stream(iter(tiles(count)))), tiles(count))
    assert driver.log.count("upload") <= -(-count // 4) + 1
    check([session(tiles(1)[0])], tiles(1))
    with pytest.raises(RequestError, match=r"shape \[1, 4, 32, 32\]"):
        session({"dn": np.zeros((2, 4, 32, 32), np.uint16)})


def test_everything_is_freed_once(opened: Opener) -> None:
    session, driver = opened()
    list(session.stream(tiles(3)))
    assert driver.live
    session.close()
    session.close()
    assert not driver.live and driver.log.count("cuGraphExecDestroy") == 1
    with pytest.raises(RequestError, match="closed"):
        session(tiles(1)[0])


@pytest.mark.parametrize("device", ["CPU", "CUDA:", "CUDA:x", "NPU:0"])
def test_a_device_that_tensorrt_does_not_have_is_refused(opened: Opener, device: str) -> None:
    opened()
    with pytest.raises(RequestError, match="is no GPU of TensorRT's"):
        session_of(b"engine", device=device)


def test_engines_that_do_not_load_leave_nothing(opened: Opener) -> None:
    session, driver = opened()
    session.close()
    with pytest.raises(MissingCapability, match=r"cannot load this engine.*build it anew"):
        session_of(b"other")
    assert not driver.live and driver.log.count("cuDevicePrimaryCtxRetain") == 2
    assert driver.log.count("cuDevicePrimaryCtxRelease_v2") == 2


def test_what_fails_while_capturing_ends_the_capture(gpu: Callable[..., stand_in_gpu.Driver]) -> None:
    driver = gpu()

    def broken() -> None:
        raise CudaError("no")

    with Cuda() as cuda:
        with pytest.raises(CudaError, match="no"):
            cuda.capture(broken)
        assert driver.log[-1] == "end"
        array, address = cuda.pinned((2, 3), "float32")
        array[...] = 5
        assert np.frombuffer(driver.live[address], np.float32).tolist() == [5.0] * 6
        assert (cuda.name, cuda.sm, cuda.integrated) == ("Orin", "SM87", False)
        del array
    assert not driver.live
