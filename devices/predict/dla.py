"""What NVIDIA's deep-learning accelerator (DLA) can take, checked on the ONNX graph before anything is built.

Rules from NVIDIA's table of DLA operators (facts A.4 [S DLA-SW]): fp16 and int8 only, and matrix products only with a
constant second input, so that attention cannot run there and neither can the normalisation of a transformer.
"""

from __future__ import annotations

from pathlib import Path

from rsedge.data.errors import RequestError
from rsedge.devices.predict.onnx_graph import graph_cost, operations
from rsedge.devices.profiles.profile import DeviceProfile
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.tensorrt.module import mechanism

PRECISIONS: tuple[PrecisionName, ...] = ("fp16", "int8")
# Operations that have no native DLA layer; each would send its part of the network back to the GPU.
NOT_NATIVE = frozenset(
    [
        "LayerNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "Erf",
        "Gelu",
        "Sqrt",
        "Exp",
        "Softmax",
        "GlobalAveragePool",
        "ReduceMean",
        "Pad",
        "Expand",
        "HardSwish",
        "Where",
        "Gather",
        "GatherND",
        "ScatterND",
        "Einsum",
    ]
)


def check_dla(
    profile: DeviceProfile, precision: PrecisionName, release: str | None = None, onnx_path: str | Path | None = None
) -> None:
    """Refuses what cannot run on a device's DLA; ``release`` is the software, by default the profile's first.

    Raises:
        RequestError: no DLA, a release that cannot use it, a precision it lacks, or a graph with attention or with
            operations that it does not have; each with what would be possible.
    """
    if profile.dla is None:
        raise RequestError(f"device '{profile.name}' has no DLA; leave it out and the GPU is used")
    if precision not in PRECISIONS:
        raise RequestError(f"the DLA of '{profile.name}' computes in fp16 and int8, not {precision}")
    software = profile.software_for("tensorrt", release)
    if software is not None and not software.dla:
        able = ", ".join(s.release for s in profile.software if s.dla) or "none"
        raise RequestError(f"{software.release} cannot use the DLA of '{profile.name}'; possible: {able}, or the GPU")
    if precision == "int8" and software is not None:
        version = software.runtime_version
        if mechanism("tensorrt", version, dla=True) == "builder_flags":
            raise RequestError(
                f"{software.release}: TensorRT {version} takes no quantize/dequantize layers on the DLA (TensorRT 11 does); "
                f"possible: fp16 on the DLA of '{profile.name}', or int8 on its GPU"
            )
    if onnx_path is not None:
        _check_graph(Path(onnx_path))


def check_dla_core(profile: DeviceProfile, core: int) -> None:
    """Refuses a core that the device does not have.

    Raises:
        RequestError: names the cores that it has; as :func:`check_dla` where it has no DLA.
    """
    if profile.dla is None:
        raise RequestError(f"device '{profile.name}' has no DLA; leave it out and the GPU is used")
    if not 0 <= core < profile.dla.cores:
        known = ", ".join(map(str, range(profile.dla.cores)))
        raise RequestError(f"device '{profile.name}' has no DLA core {core}; known: {known}")


def expected_placement(onnx_path: str | Path) -> list[dict[str, str]]:
    """Where each operation of a graph is expected to run by the rules above: ``layer``, ``kind``, ``device`` (DLA or GPU).

    What the builder really does with its fused layers stands in the engine's record after the build.

    Raises:
        RequestError: the graph cannot be read.
    """
    return [
        {"layer": o.name, "kind": o.op, "device": "DLA" if o.inside and o.op not in NOT_NATIVE else "GPU"}
        for o in operations(onnx_path)
    ]


def _check_graph(path: Path) -> None:
    cost = graph_cost(path)
    products = sum(1 for k in cost.kernels if k.kind == "attention")
    if products:
        raise RequestError(
            f"{path}: {products} matrix products of two computed tensors (attention), which the DLA does not have. "
            "Use the GPU, or a convolutional student"
        )
    missing = sorted(NOT_NATIVE & {o.op for o in operations(path) if o.inside})
    if missing:
        raise RequestError(
            f"{path}: the DLA has no native {', '.join(missing)}; these would fall back to the GPU. Use the GPU, or a "
            "student without them"
        )
