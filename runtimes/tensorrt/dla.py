"""Which layers run on a Jetson's DLA, and when there are too many ways back to the GPU for it to pay.

Each change between DLA and GPU costs a copy and a synchronisation, and DLA holds 16 loadables per core (NVIDIA's DLA notes):
a network that falls back all the time is slower than on the GPU alone. It is refused with the list of its layers.

Travels with the remote runner: Python 3.8.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes.tensorrt.module import builder_flag, mechanism

if TYPE_CHECKING:
    import tensorrt as api

MAX_SEGMENTS = 4
"""Runs of layers on the DLA that are accepted. Pre-processing and mask always stay on the GPU, which makes one."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """One layer and where it runs: ``DLA`` or ``GPU``."""

    layer: str
    kind: str
    device: str


def use_dla(
    trt: Any,
    builder: api.Builder,
    network: api.INetworkDefinition,
    config: api.IBuilderConfig,
    core: int,
    precision: str,
) -> list[Placement]:
    """Tells the builder to prefer DLA core ``core`` and returns where each layer will run.

    Raises:
        MissingCapability: no such DLA core, or a precision that this TensorRT cannot bring to it.
        RequestError: too many fallbacks; lists the layers that cannot run on DLA.
    """
    if not 0 <= core < builder.num_DLA_cores:
        raise MissingCapability(f"this GPU has {builder.num_DLA_cores} DLA cores, so there is no DLA core {core}")
    check_precision(mechanism(trt.__name__, trt.__version__, dla=True), precision, trt.__version__)
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    placed = [
        Placement(layer.name, str(layer.type).rpartition(".")[2], "DLA" if config.can_run_on_DLA(layer) else "GPU")
        for layer in layers
    ]
    check_placement(placed)
    config.set_flag(builder_flag(trt, "GPU_FALLBACK"))
    return placed


def check_precision(how: str, precision: str, version: str) -> None:
    """Refuses precisions that do not reach the DLA.

    Raises:
        MissingCapability: f32, which it does not have, or int8 before TensorRT 11: explicit Q/DQ is not for DLA there.
    """
    if precision == "f32":
        raise MissingCapability("DLA computes in fp16 and int8 only; build an fp16 bundle")
    if precision == "int8" and how == "builder_flags":
        raise MissingCapability(
            f"TensorRT {version} takes no quantize/dequantize layers on DLA (11.4 does); build the fp16 bundle for DLA"
        )


def segments(placed: Sequence[Placement]) -> int:
    """Runs of consecutive layers on the DLA."""
    return sum(device == "DLA" for device, _ in itertools.groupby(p.device for p in placed))


def dla_record(core: int, placed: Sequence[Placement]) -> dict[str, Any]:
    """What a build's record says of the DLA: core, runs of layers on it, and where each layer runs."""
    return {"core": core, "segments": segments(placed), "layers": [dataclasses.asdict(p) for p in placed]}


def check_placement(placed: Sequence[Placement], limit: int = MAX_SEGMENTS) -> None:
    """Refuses a network that does not use the DLA, or comes back from it too often.

    Raises:
        RequestError: with the layers that cannot run there.
    """
    back = [p for p in placed if p.device == "GPU"]
    kinds = ", ".join(sorted({p.kind for p in back}))
    if len(back) == len(placed):
        raise RequestError(f"no layer of this network can run on DLA ({kinds}); build without --dla")
    if segments(placed) > limit:
        names = ", ".join(f"{p.layer} ({p.kind})" for p in back)
        raise RequestError(
            f"this network would change between DLA and GPU {segments(placed)} times, more than {limit}: on DLA cannot run "
            f"{names}. Build without --dla, or use a network without {kinds}"
        )
