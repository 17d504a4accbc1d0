"""OpenVINO as a backend: CPU (x86 and Arm), GPU and NPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsedge.runtimes.backend import BundleView, Engine, Installed, Opening, RuntimeBackend, StandIn
from rsedge.runtimes.checked import Model
from rsedge.runtimes.device_cache import Built, Slot, any_for, load
from rsedge.runtimes.parts import PartSession
from rsedge.runtimes.session import Hint, Session

_BOTH = frozenset({"threads", "hint"})
ON_CPU = Engine("openvino-cpu", "OpenVINO on the CPU", _BOTH)
BLOB = Engine("openvino-blob", "OpenVINO on a model that is compiled already", _BOTH)
ON_DEVICE = Engine("openvino-device", "OpenVINO on a device of its own", frozenset({"hint"}))


def _devices() -> list[str]:
    from rsedge.runtimes.openvino.core import shared_core

    core = shared_core()
    shown = []
    for device in core.available_devices:
        able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        shown.append(f"{device} ({', '.join(a for a in able if a not in ('BIN', 'EXPORT_IMPORT'))})")
    return shown


class OpenVinoBackend(RuntimeBackend):
    """IR or ONNX, and what ``rsedge build`` compiled of it here."""

    name = runtime = "openvino"
    title = "OpenVINO"
    suffixes = (".xml", ".onnx")
    cpu_precisions = ("f32", "bf16", "int8")
    cpu_prior = "openvino-cpu"
    weights_only = True
    tells_layers = True
    threads = True
    hints = True
    parts = True
    engines = (ON_CPU, BLOB, ON_DEVICE)
    installed = (
        Installed("openvino", "openvino", ("openvino",), "runs on CPU, GPU and NPU", "openvino", devices=_devices),
    )
    memory_bytes = 200 << 20
    install_there = "install it there: python3 -m pip install openvino"

    def device(self, device: str) -> str:
        parts = set(device.lower().split("-"))
        if "npu" in parts:
            return "NPU"
        return "GPU" if {"gpu", "igpu"} & parts else "CPU"

    def golden(self, device: str, precision: str) -> StandIn:
        """The device's own executable; where it is not here, the same file on this CPU, as for its figures."""
        own = self.device(device)
        if own == "CPU":
            return super().golden(device, precision)
        from rsedge.runtimes.openvino.core import is_here, shared_core
        from rsedge.runtimes.openvino.session import load_openvino

        load_openvino(Path(f"{self.runtime}-{device}-{precision}"))
        return super().golden(device, precision) if is_here(shared_core(), own) else self.here(device, precision)

    def runs_language_model(self, device: str) -> bool:
        return self.device(device) == "CPU"

    def engine(self, device: str, asked: str | None, built: bool) -> Engine:
        if built:
            return BLOB
        return ON_CPU if (asked or self.device(device)).upper() == "CPU" else ON_DEVICE

    def open(self, model: Model, how: Opening) -> Session:
        from rsedge.runtimes.openvino.session import OpenVinoSession

        return OpenVinoSession(model, how.input_spec, how.device, how.precision, how.threads, how.hint)

    def open_part(self, model: Model, how: Opening) -> PartSession:
        from rsedge.runtimes.openvino.part import OpenVinoPart

        return OpenVinoPart(model, how)

    def open_bundle(
        self, bundle: BundleView, threads: int | None = None, device: str | None = None, hint: Hint = "latency"
    ) -> Session:
        if (found := self.built(bundle, device)) is None:
            return super().open_bundle(bundle, threads, device, hint)
        from rsedge.runtimes.openvino.session import OpenVinoSession

        target = bundle.target
        own = self.device(target.device)
        return OpenVinoSession(bundle.model(), bundle.input_spec, own, target.precision, threads, hint, found)

    def built(self, bundle: BundleView, device: str | None = None) -> Built | None:
        """The model as OpenVINO compiled it on this device.

        Raises:
            IntegrityError: it was altered.
        """
        if device is not None or not any_for("blob", bundle.manifest_sha256):
            return None
        from rsedge.runtimes.openvino.core import check_device, shared_core
        from rsedge.runtimes.openvino.session import device_name, load_openvino

        load_openvino(bundle.path)
        own = self.device(bundle.target.device)
        check_device(shared_core(), bundle.path, own, bundle.target.precision)
        return load(Slot("blob", bundle.manifest_sha256, device_name(shared_core(), own), bundle.path))

    def build(self, bundle: BundleView, options: Mapping[str, Any]) -> dict[str, Any]:
        from rsedge.runtimes.openvino.build import build_blob

        made = build_blob(bundle, self.device(bundle.target.device), **options)
        return {"built": str(made), "bytes": made.stat().st_size}


BACKEND = OpenVinoBackend()
