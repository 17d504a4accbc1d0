"""LiteRT as a backend: CPUs, small enough for Arm boards."""

from __future__ import annotations

import importlib.util

from rsedge.data.errors import missing_extra
from rsedge.runtimes.backend import Engine, Installed, Opening, RuntimeBackend
from rsedge.runtimes.checked import Model
from rsedge.runtimes.precision import precision as precision_of
from rsedge.runtimes.session import Session


def _devices() -> list[str]:
    import importlib

    from rsedge.runtimes.litert.core import DEVICES

    importlib.import_module("ai_edge_litert.interpreter")
    return list(DEVICES)


class LiteRtBackend(RuntimeBackend):
    """``.tflite`` files on the CPU."""

    name = runtime = "litert"
    title = "LiteRT"
    suffixes = (".tflite",)
    cpu_precisions = ("f32", "int8")
    cpu_prior = "litert-cpu"
    threads = True
    engines = (Engine("litert", "LiteRT", frozenset({"threads"})),)
    installed = (
        Installed(
            "litert", "ai_edge_litert", ("ai-edge-litert",), "runs on CPU, small; for Arm boards", "litert", devices=_devices
        ),
    )  # fmt: skip
    memory_bytes = 100 << 20
    install_there = "install it there: python3 -m pip install ai-edge-litert"

    def check(self, precision: str) -> None:
        makers = ["litert_torch"] + (["ai_edge_quantizer"] if precision_of(precision).quantized else [])
        for module in ["ai_edge_litert", *makers]:
            if importlib.util.find_spec(module) is None:
                raise missing_extra(module, "litert-convert", "a target of LiteRT")

    def open(self, model: Model, how: Opening) -> Session:
        from rsedge.runtimes.litert.session import LiteRtSession

        return LiteRtSession(model, how.input_spec, how.device, how.precision, how.threads)


BACKEND = LiteRtBackend()
