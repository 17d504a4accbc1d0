"""What OpenVINO is told when it compiles, and what a device must have for a precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsedge.data.errors import MissingCapability
from rsedge.runtimes.session import Hint, cpu_count

# CPU: activations outside quantized layers stay f32, so that a host with bf16 units gives the numbers of one without.
_HINTS = {
    "CPU": {"f32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"},
    "GPU": {"f32": "f32", "int8": "f16", "fp16": "f16"},
    "NPU": {"int8": "f16", "fp16": "f16"},
}
"""Device -> precision -> INFERENCE_PRECISION_HINT; what is not there, the device cannot do (OpenVINO's device pages)."""
_NEEDS_CPU = {"bf16": "BF16", "fp16": "FP16"}


def compile_settings(device: str, precision: str, threads: int | None, hint: Hint) -> dict[str, Any]:
    """Properties for ``compile_model``.

    Raises:
        MissingCapability: the device has no such precision; says which it has.
    """
    kind = device.partition(".")[0]
    hints = _HINTS.get(kind, _HINTS["CPU"])
    if precision not in hints:
        raise MissingCapability(f"OpenVINO's {kind} does not compute in {precision}; it has {', '.join(hints)}")
    settings: dict[str, Any] = {"PERFORMANCE_HINT": hint.upper(), "INFERENCE_PRECISION_HINT": hints[precision]}
    if kind == "CPU":
        settings["INFERENCE_NUM_THREADS"] = min(threads, cpu_count()) if threads else cpu_count()
    return settings


def check_device(core: Any, path: Path, device: str, precision: str) -> None:
    """Refuses a device that is not here, and a precision that this CPU would silently widen to f32.

    Raises:
        MissingCapability: names what is here.
    """
    available = list(core.available_devices)
    if device.partition(".")[0] not in {a.partition(".")[0] for a in available}:
        raise MissingCapability(
            f"{path}: OpenVINO finds no {device} on this machine (it finds: {', '.join(available) or 'nothing'}); "
            "install the device's driver, or use a bundle for one of these"
        )
    need = _NEEDS_CPU.get(precision)
    if device == "CPU" and need and need not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        raise MissingCapability(
            f"{path}: this CPU has no {need} units, so precision '{precision}' would silently run as f32; "
            "use an f32 or int8 bundle here"
        )
