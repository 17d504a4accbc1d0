"""No parser of another library meets, in our process, the bytes of a model that nobody signed before a child has survived them.

The places are found in the source, and tried: of every backend, everything that opens a bundle.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsedge.data.errors import MissingCapability, RequestError, RsedgeError
from rsedge.devices.measure.layers import profile_layers
from rsedge.devices.predict.onnx_graph import foreign
from rsedge.runtimes import Bundle, rehearsal
from rsedge.runtimes.child import Child
from rsedge.runtimes.inspecting import describe
from rsedge.runtimes.myriad.process import find_environment
from rsedge.runtimes.onnx_trial import try_first
from rsedge.runtimes.registry import backend, backend_names
from rsedge.runtimes.tensorrt import apart, cuda_driver
from tests.runtimes import stand_in_gpu

CALLS = {
    "read_model",
    "import_model",
    "InferenceSession",
    "OnnxParser",
    "Interpreter",
    "deserialize_cuda_engine",
    "infer_shapes",
}
"""Calls by which libraries that are not Python read a model."""
ROOMS = ("runtimes", "devices")
GUARDED = {
    "runtimes/openvino/core.py": "by who opens a session: Bundle.session, first_run in the child",
    "runtimes/openvino/session.py": "IR and ONNX as above; a compiled model is the device's own, signed by it",
    "runtimes/openvino/part.py": "by who opens parts: open_whole of runtimes/bundle/whole.py, first_run there in the child",
    "runtimes/onnxruntime/core.py": "by who opens a session, as OpenVINO's",
    "runtimes/litert/core.py": "by who opens a session, and by litert/trial.py whoever signed it",
    "runtimes/tensorrt/compile.py": "apart.py for bundles; else models that a run made itself",
    "runtimes/tensorrt/engine.py": "an engine is the device's own, signed by it, and Bundle.session rehearses it",
    "runtimes/inference/language.py": "Speaker.of, first_words in the child",
    "runtimes/myriad/worker.py": "a process of its own",
    "devices/onboard/engines.py": "the keeper's process on the device, or profile_layers, which rehearses",
    "devices/onboard/suite.py": "graphs of our own",
    "runtimes/onnx_trial.py": "it is the child",
    "devices/predict/suite.py": "graphs of our own",
    "devices/predict/onnx_graph.py": "foreign() for files of others",
}
DEVICES = {"openvino": "cpu-f32", "onnxruntime": "cpu-f32", "litert": "cpu-f32", "tensorrt": "jetson-orin-nano-8gb-fp16",
           "myriad": "myriad-x-fp16"}  # fmt: skip
SHIPPED = tuple(sorted(DEVICES))


def test_every_place_is_listed() -> None:
    root, found = Path(__file__).parents[2], set()
    for room in ROOMS:
        for file in (root / room).rglob("*.py"):
            calls = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
            if any((getattr(call, "attr", None) or getattr(call, "id", None)) in CALLS for call in calls):
                found.add(str(file.relative_to(root)))
    assert found == set(GUARDED)


def test_every_backend_is_tried() -> None:
    assert {name for name in backend_names() if name in SHIPPED} == set(SHIPPED)


class Dies(Child):
    """Its process is ended as it is asked, as a model may end it."""

    def ask(self, seconds: int, question: Any, *contents: bytes) -> Any:
        self._process.send_signal(signal.SIGSEGV)
        return super().ask(seconds, question, *contents)


class ParsedHereError(BaseException):
    pass


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on children end, and a parser in this process is told of."""
    return lambda: _no_parser(monkeypatch)


def _no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*_: Any, **__: Any) -> None:
        raise ParsedHereError

    for module, names in {
        "openvino": ["Core.read_model", "Core.compile_model", "Core.import_model"],
        "onnxruntime": ["InferenceSession"],
        "ai_edge_litert.interpreter": ["Interpreter"],
        "tensorrt_rtx": ["OnnxParser", "Runtime"],
        "onnx.shape_inference": ["infer_shapes"],
    }.items():
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            found = importlib.import_module(module)
            for name in names:
                owner, _, last = name.rpartition(".")
                monkeypatch.setattr(getattr(found, owner) if owner else found, last, parsed)
    monkeypatch.setattr(cuda_driver, "_library", lambda: stand_in_gpu.Driver())
    for module in (rehearsal, apart):
        monkeypatch.setattr(module, "Child", Dies)
    monkeypatch.setattr(rehearsal, "_known", set())
    monkeypatch.setattr(rehearsal, "_kept", {})


VERBS: dict[str, Callable[[Bundle], object]] = {
    "session": lambda bundle: bundle.session(threads=1),
    "verify": lambda bundle: bundle.verify(threads=1),
    "build": lambda bundle: bundle.backend.build(bundle, {}),
    "layers": lambda bundle: profile_layers(bundle, threads=1),
}


@pytest.mark.parametrize("verb", sorted(VERBS))
@pytest.mark.parametrize("name", SHIPPED)
def test_an_unsigned_bundle_is_parsed_by_a_child_first(
    name: str, verb: str, bundle: Callable[..., Path], own_cache: Path, no_parser: Callable[[], None]
) -> None:
    found = backend(name)
    folder = bundle(f"{found.runtime}-{DEVICES[name]}")
    no_parser()
    with Bundle.open(folder) as opened:
        assert opened.backend is found
        if name == "myriad":  # each model runs in a process of OpenVINO 2022.3's own
            if find_environment() is None:
                with pytest.raises(RsedgeError):
                    VERBS[verb](opened)
            return
        with pytest.raises((RequestError, MissingCapability)) as raised:
            VERBS[verb](opened)
    told = str(raised.value)
    assert "SIGSEGV" in told or any(
        words in told for words in ("ready to run", "no times of layers", "no TensorRT engine")
    )


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_a_file_of_somebody_elses_is_parsed_by_a_child_first(
    suffix: str, bundle: Callable[..., Path], no_parser: Callable[[], None]
) -> None:
    runtime = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "litert"}[suffix]
    file = next(bundle(f"{runtime}-cpu-f32").glob(f"*{suffix}"))
    no_parser()
    if suffix == ".onnx":
        for act in (lambda: foreign(file), lambda: try_first(file, (1, 4, 32, 32))):
            with pytest.raises(RequestError, match="SIGSEGV"):
                act()
    else:
        with pytest.raises(RequestError, match="SIGSEGV"):
            describe(file)
