"""TensorRT as a backend: engines that ``rsedge build`` makes on the device; ONNX Runtime gives the graph's numbers elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.backend import BundleView, Engine, GraphStyle, Installed, Opening, RuntimeBackend, StandIn
from rsedge.runtimes.checked import Model
from rsedge.runtimes.device_cache import Built, Slot, any_for, load
from rsedge.runtimes.precision import precision as precision_of
from rsedge.runtimes.session import Hint, Session

AS_WRITTEN = "typed ONNX as written on ONNX Runtime's CPU, not on the device"


class TensorRtBackend(RuntimeBackend):
    """ONNX typed for one release, built into an engine on the GPU that runs it."""

    name = runtime = "tensorrt"
    title = "TensorRT"
    built_on_device = True
    ships_build = True
    tells_layers = True
    dla = True
    build_options = frozenset({"times", "rebuild", "dla", "version_compatible"})
    engines = (Engine("tensorrt", "TensorRT"),)
    installed = (
        Installed(
            "tensorrt", "tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
            "builds and runs engines (a Jetson has it with JetPack)", "tensorrt", "https://pypi.nvidia.com",
        ),
        Installed(
            "tensorrt-rtx", "tensorrt_rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13"), "compile gate only, needs no GPU",
            "tensorrt-rtx",
        ),
    )  # fmt: skip
    memory_bytes = 800 << 20
    install_there = "it comes with JetPack"
    readme = (
        "On the device, once (engines fit only the GPU and the TensorRT version that built them):\n"
        "  rsedge build .        or, for a program of your own:  sh build.sh FOLDER\n\n"
    )

    def device(self, device: str) -> str:
        return "CUDA"

    def style(self, precision: str, version: str) -> GraphStyle:
        """As :mod:`rsedge.export.targets.tensorrt` types bundles."""
        int8 = precision_of(precision).quantized
        typed = int(version.partition(".")[0]) >= 10  # before, Q/DQ take float32 only and builder flags narrow the rest
        half = precision == "fp16" or (int8 and typed)
        return GraphStyle(int8, signed=True, half=half, opset=19 if int8 and typed else 17)

    def open(self, model: Model, how: Opening) -> Session:
        raise RequestError(
            f"{model}: TensorRT runs engines, which `rsedge build BUNDLE` makes on the device; they are opened by their bundle"
        )

    def open_bundle(
        self, bundle: BundleView, threads: int | None = None, device: str | None = None, hint: Hint = "latency"
    ) -> Session:
        if not any_for("engine", bundle.manifest_sha256):
            raise MissingCapability(
                f"{bundle.path}: no TensorRT engine here; engines are built on the device itself. Run there: "
                f"rsedge build {bundle.path}"
            )
        from rsedge.runtimes.tensorrt.session import TensorRtSession

        def find(hardware: str) -> Built:
            return _engine(bundle, hardware)

        return TensorRtSession(bundle.path, find, bundle.input_spec, device or "CUDA", bundle.target.precision)

    def here(self, device: str, precision: str) -> StandIn:
        return StandIn("onnxruntime", "CPU", precision_of(precision).on_cpu, AS_WRITTEN, as_written=True)

    def golden(self, device: str, precision: str) -> StandIn:
        return StandIn("onnxruntime", "CPU", "f32", AS_WRITTEN, as_written=True)

    def build(self, bundle: BundleView, options: Mapping[str, Any]) -> dict[str, Any]:
        from rsedge.runtimes.tensorrt.build import build_engine, build_times, spread

        chosen = dict(options)
        times = chosen.pop("times", 1)
        if times > 1:
            chosen.pop("rebuild", None)  # each of several measures anew
            engine, builds = build_times(bundle, times, **chosen)
            found = {"spread": spread(builds)}
        else:
            found, engine = {}, build_engine(bundle, **chosen)
        return {"built": str(engine), "bytes": engine.stat().st_size, **found}


def _engine(bundle: BundleView, hardware: str) -> Built:
    built = load(Slot("engine", bundle.manifest_sha256, hardware, bundle.path))
    if built is None:
        raise MissingCapability(
            f"{bundle.path}: the TensorRT engines here were built for other GPUs than {hardware}; engines do not carry over, "
            f"build it anew: rsedge build {bundle.path}"
        )
    return built


BACKEND = TensorRtBackend()
