"""The measuring protocol on callables with known behaviour and on a tiny OpenVINO model."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.devices.measure import rss
from rsedge.devices.measure.load import Load, Ticks
from rsedge.devices.measure.protocol import Measurement, latency_stats, measure, measure_interleaved, speedup
from rsedge.devices.onboard.memory import high_water_bytes
from rsedge.runtimes.openvino.core import settings

X = {"dn": np.zeros((2, 4, 8, 8), np.uint16)}


def spin(seconds: float) -> Any:
    def run(_: Any) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    return run


class Tiny:
    """A compiled OpenVINO model behind the session protocol's names."""

    device, precision, runtime = "CPU", "f32", "openvino"

    def __init__(self) -> None:
        import openvino as ov
        from openvino import opset13 as op

        x = op.parameter([1, 3, 16, 16], np.float32)
        weights = op.constant(np.ones((4, 3, 3, 3), np.float32))
        conv = op.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])
        self.runtime_version = ov.get_version()
        self.request = (
            ov.Core().compile_model(ov.Model([conv], [x]), "CPU", settings("CPU", "f32", 1)).create_infer_request()
        )

    def __call__(self, inputs: Any) -> Any:
        return self.request.infer([inputs["x"]])

    def stream(self, inputs: Any) -> Any:
        for one in inputs:
            yield self(one)


def test_openvino_model_is_measured() -> None:
    m = measure(Tiny(), {"x": np.zeros((1, 3, 16, 16), np.float32)}, seconds=0.2, warmup=2, threads=1)
    assert (m.provenance, m.device, m.runtime, m.precision, m.threads) == ("measured", "cpu", "openvino", "f32", 1)
    assert m.runtime_version.startswith("20")
    assert 0 < m.latency_ms.p50 <= m.latency_ms.p90 <= m.latency_ms.p99
    assert m.n >= 20
    assert m.throughput_method == "stream"
    assert m.throughput_per_s > 0
    assert 0 < len(m.samples_ms) <= 400


def test_latency_is_the_time_taken() -> None:
    m = measure(spin(0.004), X, seconds=0.1, warmup=1)
    assert m.latency_ms.p50 >= 4
    assert m.batch == 2
    assert m.throughput_method == "1/mean"
    assert m.latency_ms.mean is not None
    assert m.throughput_per_s == pytest.approx(2e3 / m.latency_ms.mean)


def test_min_runs_and_progress() -> None:
    seen: list[tuple[int, float]] = []
    m = measure(lambda _: None, X, seconds=1e-6, warmup=0, min_runs=7, progress=lambda n, s: seen.append((n, s)))
    assert m.n >= 7
    assert seen[-1] == (m.n, 1.0)


def test_percentiles() -> None:
    stats = latency_stats(range(1, 101))
    assert (stats.p50, stats.p90, stats.mean) == (50.5, pytest.approx(90.1), 50.5)


def test_stalls_are_flagged() -> None:
    calls = iter(range(10_000))
    m = measure(lambda _: spin(0.004 if next(calls) % 4 == 0 else 0.001)(_), X, seconds=0.1, warmup=0)
    assert m.noisy


def test_slowing_down_is_flagged() -> None:
    calls = iter(range(10_000))
    m = measure(lambda _: spin(0.001 if next(calls) < 10 else 0.003)(_), X, seconds=0.01, warmup=0, min_runs=20)
    assert m.drift > 1.15


def test_interleaved_ratio() -> None:
    found = measure_interleaved({"a": spin(0.008), "b": spin(0.002)}, X, seconds=0.2, warmup=1, turn_seconds=0.03)
    ratio = speedup(found["a"], found["b"])
    assert list(found) == ["a", "b"]
    assert ratio.value > 1
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.turns >= 5


def taken(wall: float, processor: float | None, others: float | None) -> Measurement:
    """Six turns of which each took so long by both clocks, beside other processes."""
    found = measure(spin(0.0005), X, seconds=0.01, warmup=0)
    load = None if others is None else Load(others=others)
    more = {"turns_ms": [wall] * 6, "processor_ms": [] if processor is None else [processor] * 6, "load": load}
    return found.model_copy(update=more)


@pytest.mark.parametrize(
    ("others", "processor", "clock", "value"),
    [
        (0.1, (100.0, 2.0), "wall clock", 60.0),
        (0.5, (100.0, 2.0), "processor time", 50.0),
        (0.5, (None, 2.0), "wall clock", 60.0),
        (None, (100.0, 2.0), "wall clock", 60.0),
    ],
)
def test_beside_busy_processes_speed_is_told_by_processor_time(
    others: float | None, processor: tuple[float | None, float], clock: str, value: float
) -> None:
    """Others hold up long runs more often than short ones, so that the wall clock flatters the short."""
    found = speedup(taken(180.0, processor[0], others), taken(3.0, processor[1], others))
    assert (found.clock, found.value) == (clock, pytest.approx(value))


def test_both_clocks_and_the_load_are_kept_of_turns() -> None:
    found = measure_interleaved({"a": spin(0.002)}, X, seconds=0.05, warmup=0, turn_seconds=0.01)["a"]
    assert len(found.processor_ms) == len(found.turns_ms) and found.load is not None
    assert not found.without_samples().processor_ms
    other = measure_interleaved({"a": spin(0.002)}, X, seconds=0.05, turn_seconds=0.01, labels={"a": {"device": "gpu"}})
    assert not other["a"].processor_ms


@pytest.mark.parametrize(
    ("runtime", "threads", "kept"), [("onnxruntime", 2, False), ("onnxruntime", 1, True), ("openvino", 2, True)]
)
def test_threads_that_spin_have_no_processor_time(runtime: str, threads: int, kept: bool) -> None:
    """Two threads of ONNX Runtime burn twice what a run costs, and go on after it: neither theirs nor the next one's cost."""
    labels = {"a": {"runtime": runtime}, "b": {"runtime": "openvino"}}
    runners = {"a": Waiting(), "b": spin(0.002)}
    found = measure_interleaved(runners, X, seconds=0.05, warmup=0, turn_seconds=0.01, threads=threads, labels=labels)
    assert bool(found["a"].processor_ms) is kept and found["b"].processor_ms
    busy = {n: m.model_copy(update={"load": Load(others=0.5)}) for n, m in found.items()}
    assert speedup(busy["b"], busy["a"]).clock == ("processor time" if kept else "wall clock")
    if not kept:
        assert np.median(found["b"].processor_ms) < 3.5


class Waiting:
    """2 ms a run, and a thread that spins 10 ms after each."""

    def __call__(self, _: Any) -> None:
        spin(0.002)(None)
        threading.Thread(target=spin(0.01), args=(None,)).start()


@pytest.mark.parametrize("text", ["", "cpu  1 2 3\n", "cpu  a b c d e f g h\n"])
def test_a_machine_whose_times_cannot_be_read_says_nothing_of_others(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    found = Ticks.now().since(Ticks.now())
    assert (found.others, found.steal, found.words()) == (None, None, "")


def test_interleaved_inputs_per_artefact() -> None:
    seen: dict[str, set[int]] = {"a": set(), "b": set()}
    runners = {n: (lambda x, n=n: seen[n].add(x["dn"].shape[0])) for n in seen}
    measure_interleaved(
        runners, {"a": {"dn": np.zeros((1, 2))}, "b": {"dn": np.zeros((3, 2))}}, seconds=0.01, turn_seconds=0.001
    )
    assert seen == {"a": {1}, "b": {3}}


@pytest.mark.parametrize("numbers", [{"seconds": 0}, {"seconds": float("nan")}, {"min_runs": 0}])
def test_bad_protocol(numbers: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        measure(lambda _: None, X, **numbers)
    with pytest.raises(RequestError):
        measure_interleaved({"a": lambda _: None}, X, **numbers)


def test_nothing_to_measure() -> None:
    with pytest.raises(RequestError, match="nothing to measure"):
        measure_interleaved({}, X)


def _model(path: Path) -> Path:
    """A 1x1 convolution with the graph contract, as ONNX."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    from rsedge.data.bands import BandSpec, InputSpec

    contract = InputSpec(bands=tuple(BandSpec(name=n) for n in ("red", "nir")), tile=16)
    weights = numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float32), "w")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Cast", ["dn"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["logits"]),
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Squeeze", ["most", "axes"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["valid"], to=TensorProto.UINT8),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 16, 16]),
        helper.make_tensor_value_info("valid", TensorProto.UINT8, [1, 16, 16]),
    ]
    inputs = [helper.make_tensor_value_info("dn", TensorProto.UINT16, [1, 2, 16, 16])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [weights, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"rsedge": contract.model_dump_json()})
    save_model(model, str(path))
    return path


def test_peak_memory_is_that_of_the_child(tmp_path: Path) -> None:
    """A big parent must not show in the child's figure."""
    ballast = np.ones(60_000_000)
    peak = rss.peak_rss(_model(tmp_path / "tiny.onnx"), "openvino")
    assert 20e6 < peak < ballast.nbytes
    assert high_water_bytes() > ballast.nbytes


def test_peak_memory_errors(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        rss.peak_rss(tmp_path / "none.onnx", "openvino")
    (tmp_path / "broken.onnx").write_bytes(b"nonsense")
    with pytest.raises(RequestError, match="measuring memory"):
        rss.peak_rss(tmp_path / "broken.onnx", "openvino")
    with pytest.raises(MissingCapability, match="longer than"):
        rss.peak_rss(_model(tmp_path / "tiny.onnx"), "openvino", timeout=0.01)
