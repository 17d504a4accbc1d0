"""Every backend gives the same numbers, keeps the order, and refuses what is not its input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.runtimes import Bundle, Session, open_session
from tests.runtimes import tiny_models as tiny

BACKENDS = ("openvino-cpu-f32", "openvino-cpu-int8", "onnxruntime-cpu-f32", "litert-cpu-f32")


def tiles(count: int, seed: int = 5) -> list[dict[str, np.ndarray]]:
    contract = tiny.spec()
    return [{"dn": tiny.random_scene(contract, 32, 32, seed + i)[None]} for i in range(count)]


@pytest.mark.parametrize("target", BACKENDS)
def test_backends_equal_the_reference(bundle: Callable[..., Path], target: str) -> None:
    with Bundle.open(bundle(target)) as opened, opened.session(threads=1) as session:  # type: ignore[attr-defined]
        assert isinstance(session, Session)
        assert session.input_spec == tiny.spec() and session.device == "CPU" and session.runtime_version
        for inputs in tiles(3):
            out = session(inputs)
            logits, valid = tiny.reference(tiny.spec(), inputs["dn"][0])
            assert out["logits"].dtype == np.float32 and out["valid"].dtype == np.uint8
            np.testing.assert_allclose(out["logits"][0], logits, atol=1e-4)
            assert np.array_equal(out["valid"][0].astype(bool), valid)


@pytest.mark.parametrize("target", BACKENDS)
def test_stream_keeps_the_order(bundle: Callable[..., Path], target: str) -> None:
    inputs = tiles(25)
    with Bundle.open(bundle(target)) as opened, opened.session() as session:  # type: ignore[attr-defined]
        streamed = list(session.stream(iter(inputs)))
        assert len(streamed) == len(inputs)
        for one, expected in zip(streamed, map(session, inputs), strict=True):
            assert np.array_equal(one["logits"], expected["logits"])


INTERRUPTED = """
import gc, os, signal, sys, time
from pathlib import Path
from rsedge.runtimes import Bundle
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without
for _ in range(3):
    opened = [Bundle.open(Path(sys.argv[1])).session() for _ in range(3)]
    for session in opened:
        session.close()
    del opened[0], session
    gc.collect()
    opened.clear()
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("called off")
"""


def test_an_interruption_after_sessions_came_and_went(bundle: Callable[..., Path]) -> None:
    """Ctrl-C, not a segmentation fault: see :func:`rsedge.runtimes.openvino.core.shared_core`."""
    run = subprocess.run([sys.executable, "-c", INTERRUPTED, str(bundle())], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "called off\n"), run.stderr


def test_stream_passes_on_the_error_of_its_source(bundle: Callable[..., Path]) -> None:
    def source():
        yield from tiles(3)
        raise RequestError("scene is damaged")

    with Bundle.open(bundle()) as opened, opened.session() as session:  # type: ignore[attr-defined]
        with pytest.raises(RequestError, match="damaged"):
            list(session.stream(source()))
        assert len(list(session.stream(tiles(2)))) == 2


@pytest.mark.parametrize("target", ["openvino-cpu-f32", "onnxruntime-cpu-f32"])
def test_wrong_inputs_are_named(bundle: Callable[..., Path], target: str) -> None:
    dn = tiles(1)[0]["dn"]
    wrong = [
        ({}, "one input 'dn'"),
        ({"dn": dn, "x": dn}, "one input 'dn'"),
        ({"image": dn}, "got image"),
        ({"dn": dn[:, :3]}, r"\[1, 4, 32, 32\].*blue, green, red, nir.*\[1, 3, 32, 32\]"),
        ({"dn": dn[0]}, "shape"),
        ({"dn": dn[..., :31]}, "shape"),
        ({"dn": dn.astype(np.float32)}, "float32"),
        ({"dn": dn.astype(np.int16)}, "int16"),
    ]
    with Bundle.open(bundle(target)) as opened, opened.session() as session:  # type: ignore[attr-defined]
        for inputs, words in wrong:
            with pytest.raises(RequestError, match=words):
                session(inputs)
        assert session({"dn": (dn >> 8).astype(np.uint8)})["logits"].shape == (1, 3, 32, 32)
    with pytest.raises(RequestError, match="closed"):
        session({"dn": dn})


@pytest.mark.parametrize(("file", "runtime"), [("model.xml", "openvino"), ("model.bin", "openvino")])
def test_truncated_ir(own_bundle: Callable[..., Path], file: str, runtime: str) -> None:
    folder = own_bundle()
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(RequestError, match=r"model\.xml.*truncated"):
        open_session(folder / "model.xml", runtime)
    with pytest.raises(IntegrityError, match=file):
        Bundle.open(folder)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_truncated_onnx(own_bundle: Callable[..., Path], runtime: str) -> None:
    path = own_bundle("onnxruntime-cpu-f32") / "model.onnx"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(RequestError, match=r"model\.onnx.*truncated"):
        open_session(path, runtime)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_contract_comes_from_the_file_or_is_asked_for(tmp_path: Path, runtime: str) -> None:
    contract = tiny.spec()
    told = tiny.make_onnx(tmp_path / "told.onnx", contract)
    assert open_session(told, runtime).input_spec == contract
    silent = tiny.make_onnx(tmp_path / "silent.onnx", contract, with_spec=False)
    with pytest.raises(RequestError, match="no band contract"):
        open_session(silent, runtime)
    assert open_session(silent, runtime, input_spec=contract).input_spec == contract
    with pytest.raises(RequestError, match="3 bands"):
        open_session(silent, runtime, input_spec=tiny.spec(names=("blue", "green", "red")))


def test_float_graphs_take_digital_numbers_exactly(tmp_path: Path) -> None:
    contract = tiny.spec()
    path = tiny.make_onnx(tmp_path / "m.onnx", contract, "float32")
    inputs = tiles(1)[0]
    out = open_session(path, "onnxruntime")(inputs)
    np.testing.assert_allclose(out["logits"][0], tiny.reference(contract, inputs["dn"][0])[0], atol=1e-4)


def test_other_graphs_are_refused(tmp_path: Path) -> None:
    import onnx

    path = tiny.make_onnx(tmp_path / "m.onnx", tiny.spec())
    model = onnx.load(path)
    del model.graph.output[1]
    onnx.save(model, path)
    for runtime in ("openvino", "onnxruntime"):
        with pytest.raises(RequestError, match="not an rsedge graph"):
            open_session(path, runtime)


def test_requests_that_cannot_be_met(bundle: Callable[..., Path]) -> None:
    model = bundle() / "model.xml"
    with pytest.raises(RequestError, match="unknown runtime"):
        open_session(model, "tflite")
    with pytest.raises(RequestError, match="unknown precision"):
        open_session(model, "openvino", precision="int4")
    with pytest.raises(RequestError, match="at least 1"):
        open_session(model, "openvino", threads=0)
    with pytest.raises(RequestError, match="no such model file"):
        open_session(model.with_name("none.xml"), "openvino")
    with pytest.raises(MissingCapability, match="OpenVINO finds no NPU"):
        open_session(model, "openvino", device="NPU")


def test_precisions_the_cpu_lacks_are_not_faked(bundle: Callable[..., Path]) -> None:
    import openvino as ov

    has = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    model = bundle() / "model.xml"
    if "BF16" in has:
        assert open_session(model, "openvino", precision="bf16").precision == "bf16"
    else:
        with pytest.raises(MissingCapability, match="BF16"):
            open_session(model, "openvino", precision="bf16")
