"""The CUDA driver itself, where there is one: memory, copies and graphs as engines use them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rsedge.data.errors import MissingCapability
from rsedge.runtimes.tensorrt.cuda_driver import Cuda, CudaError


@pytest.fixture
def cuda() -> Iterator[Cuda]:
    try:
        found = Cuda()
    except MissingCapability as error:
        pytest.skip(str(error))
    with found:
        yield found


def test_tiles_go_to_the_gpu_and_back(cuda: Cuda) -> None:
    assert cuda.name and cuda.sm.startswith("SM") and cuda.driver_version > 11000
    (here, _), (there, _) = (cuda.pinned((4, 64, 64), "uint16") for _ in range(2))
    address = cuda.allocate(here.nbytes)
    here[...] = np.random.default_rng(0).integers(0, 65535, here.shape)
    there[...] = 0
    cuda.upload(address, here)
    cuda.download(there, address)
    cuda.synchronize()
    assert np.array_equal(here, there) and here.any()
    before = cuda.free_bytes()
    cuda.allocate(256 << 20)
    assert before - cuda.free_bytes() >= 256 << 20


def test_a_captured_graph_runs_again_on_new_values(cuda: Cuda) -> None:
    """Nothing runs while it is captured; every launch copies what the host array holds then."""
    (here, _), (there, _) = (cuda.pinned((1000,), "float32") for _ in range(2))
    address = cuda.allocate(here.nbytes)
    here[...], there[...] = 1, 0

    def copies() -> None:
        cuda.upload(address, here)
        cuda.download(there, address)

    graph = cuda.capture(copies)
    cuda.synchronize()
    assert not there.any()
    for value in (2.0, 3.0):
        here[...] = value
        cuda.launch(graph)
        cuda.synchronize()
        assert (there == value).all()


def test_a_refused_call_says_why_in_the_drivers_words(cuda: Cuda) -> None:
    with pytest.raises(CudaError, match=r"cuMemAlloc_v2: error \d+: out of memory"):
        cuda.allocate(1 << 50)
    with pytest.raises(MissingCapability, match="no GPU number 99"):
        Cuda(99)
