"""ONNX Runtime's providers: the one that was asked for, or an error; never the CPU in silence.

The wheel has the CPU provider and ``AzureExecutionProvider``, which takes no operation of ours: with it the real ONNX Runtime
shows what it does to a model that a provider does not take.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes import open_session
from rsedge.runtimes.onnxruntime.core import CPU, PROVIDERS, check_takes_nodes, in_use, load, options_for, placement
from tests.runtimes import tiny_models as tiny

ort = pytest.importorskip("onnxruntime")
IDLE = "AzureExecutionProvider"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_onnx(tmp_path_factory.mktemp("model") / "m.onnx", tiny.spec())


def test_what_is_not_there_is_named_with_what_is(model: Path) -> None:
    assert open_session(model, "onnxruntime").device == "CPU"
    for device in ("CUDA", "TENSORRT", "XNNPACK", "ACL"):
        if PROVIDERS[device][0] in ort.get_available_providers():
            continue
        with pytest.raises(MissingCapability, match=rf"no {PROVIDERS[device][0]} \(it has .*CPUExecutionProvider"):
            open_session(model, "onnxruntime", device=device)
    with pytest.raises(RequestError, match="unknown; choose CPU, CUDA, TENSORRT, XNNPACK, ACL"):
        open_session(model, "onnxruntime", device="TPU")


@pytest.mark.skipif(IDLE not in ort.get_available_providers(), reason=f"this ONNX Runtime has no {IDLE}")
def test_nodes_left_to_the_cpu_are_refused(model: Path) -> None:
    with pytest.raises(MissingCapability, match=r"does not take the whole model.*silently run on the CPU"):
        load(ort, model, (IDLE,), 1)
    both = (IDLE, CPU)
    assert in_use(load(ort, model, both, 1)) == "AZURE+CPU"
    with pytest.raises(MissingCapability, match=rf"{IDLE} takes none of the \d+ operations"):
        check_takes_nodes(ort, model, "AZURE", both, 1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_provider_that_does_not_start_is_refused(model: Path) -> None:
    """ONNX Runtime only warns where a provider's libraries are missing, and goes on with the others."""
    absent = next(
        p for p in ("CUDAExecutionProvider", "XnnpackExecutionProvider") if p not in ort.get_available_providers()
    )
    with pytest.raises(MissingCapability, match=f"has {absent} but could not start it and would run on CPU"):
        load(ort, model, (absent, CPU), 1)


def test_placement_is_read_from_a_real_run(model: Path) -> None:
    found = placement(ort, model, (CPU,), 1)
    assert set(found) == {CPU} and found[CPU] > 3


def test_xnnpack_gets_the_threads_that_onnx_runtime_gives_up() -> None:
    options, chosen = options_for(ort, PROVIDERS["XNNPACK"], 1)
    assert chosen[0] == ("XnnpackExecutionProvider", {"intra_op_num_threads": "1"}) and chosen[1] == CPU
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_hints_are_openvinos(model: Path) -> None:
    with pytest.raises(RequestError, match="ONNX Runtime has no performance hint"):
        open_session(model, "onnxruntime", hint="throughput")


def test_only_onnx_runtime_runs_a_graph_as_written(model: Path) -> None:
    dn = tiny.random_scene(tiny.spec(), 32, 32, 0)[None]
    written, optimised = (open_session(model, "onnxruntime", as_written=w) for w in (True, False))
    np.testing.assert_allclose(written({"dn": dn})["logits"], optimised({"dn": dn})["logits"], rtol=1e-5)
    levels = [s._session.get_session_options().graph_optimization_level for s in (written, optimised)]
    assert levels == [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]
    with pytest.raises(RequestError, match="OpenVINO always optimises a graph"):
        open_session(model, "openvino", as_written=True)
