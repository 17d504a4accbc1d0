"""ONNX Runtime as a backend: CPU, CUDA and Arm's providers; what stands in where another runtime's graph is to run as written."""

from __future__ import annotations

from rsedge.runtimes.backend import Engine, Installed, Opening, RuntimeBackend
from rsedge.runtimes.checked import Model
from rsedge.runtimes.parts import PartSession
from rsedge.runtimes.session import Session


def _providers() -> list[str]:
    import onnxruntime as ort

    return [str(p).removesuffix("ExecutionProvider") for p in ort.get_available_providers()]


class OnnxRuntimeBackend(RuntimeBackend):
    """ONNX files on one of :data:`rsedge.runtimes.onnxruntime.core.PROVIDERS`."""

    name = runtime = "onnxruntime"
    title = "ONNX Runtime"
    cpu_precisions = ("f32", "int8")
    cpu_prior = "onnxruntime-cpu"
    tells_layers = True
    threads = True
    as_written = True
    parts = True
    engines = (Engine("onnxruntime", "ONNX Runtime", frozenset({"threads"})),)
    installed = (
        Installed(
            "onnxruntime", "onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "runs on CPU and CUDA; second opinion",
            "onnxruntime", devices=_providers,
        ),
    )  # fmt: skip
    memory_bytes = 100 << 20
    install_there = "install it there: python3 -m pip install onnxruntime"

    def device(self, device: str) -> str:
        return "CUDA" if {"cuda", "gpu"} & set(device.lower().split("-")) else "CPU"

    def open(self, model: Model, how: Opening) -> Session:
        from rsedge.runtimes.onnxruntime.session import OnnxSession

        return OnnxSession(model, how.input_spec, how.device, how.precision, how.threads, how.as_written)

    def open_part(self, model: Model, how: Opening) -> PartSession:
        from rsedge.runtimes.onnxruntime.part import OnnxPart

        return OnnxPart(model, how)


BACKEND = OnnxRuntimeBackend()
