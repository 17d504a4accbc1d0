"""What share of a device's peaks a runtime reaches, how wide a prediction is, and what evidence both rest on.

``efficiencies.yaml`` is written by ``make fit-public`` from public rows and priors; a calibration of the user's own
device (:mod:`rsedge.devices.predict.calibrate`) is a file of the same form and takes its place.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from rsedge.data.documents import read_document
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path, sha256_file
from rsedge.data.record import Record
from rsedge.devices.predict.onnx_graph import GraphCost
from rsedge.devices.profiles.own import own_folder
from rsedge.devices.profiles.profile import DeviceProfile, Sourced
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.registry import RuntimeName

SHIPPED = Path(__file__).parent / "efficiencies.yaml"
Architecture = Literal["convolutional", "depthwise", "transformer", "hybrid"]
"""What a network is made of, by its multiply-accumulates and kernels; see :func:`architecture_of`."""


class Evidence(Record):
    """Measured rows behind a set of figures: on which device, in which precision, of what kind of network and size."""

    device: str
    precision: PrecisionName
    architecture: Architecture
    rows: int = Field(ge=1)
    gmacs: tuple[float, float] = Field(description="least and most multiply-accumulates (1e9) of its networks")


class Spread(Record):
    """Factor of the interval ``[mid / factor, mid * factor]`` by what the evidence covers; 90 % is aimed at."""

    known: Sourced
    new_architecture: Sourced
    new_device: Sourced


class Efficiencies(Record):
    """Figures of a runtime on a kind of device; names as in :data:`rsedge.devices.predict.roofline.Figures`."""

    figures: dict[str, Sourced]
    spread: Spread
    evidence: list[Evidence] = Field(default_factory=list)
    runtime_mb: Sourced = Field(description="memory of the runtime itself, without weights and activations (MB)")
    calibrated_on: str | None = Field(default=None, description="processor, threads and versions of a calibration")

    def values(self) -> dict[str, float]:
        """The figures alone."""
        return {name: figure.value for name, figure in self.figures.items()}


def efficiencies_for(profile: DeviceProfile, runtime: RuntimeName) -> Efficiencies:
    """The user's calibration of this device and runtime where there is one, else what the package ships.

    Raises:
        RequestError: a calibration file that is damaged, or a profile that names no known set of figures.
    """
    name = profile.priors[runtime]
    shipped = shipped_efficiencies()
    if name not in shipped:
        raise RequestError(
            f"device '{profile.name}': no efficiencies '{name}' for {runtime} (known: {', '.join(shipped)})"
        )
    path = calibration_path(profile.name, runtime)
    if not path.is_file():
        return shipped[name]
    own = read_calibration(path)  # one of an older release may lack a figure
    return own.model_copy(update={"figures": {**shipped[name].figures, **own.figures}})


@functools.lru_cache(maxsize=1)
def shipped_efficiencies() -> dict[str, Efficiencies]:
    """All sets of figures that come with the package, by name."""
    return {name: Efficiencies.model_validate(v) for name, v in yaml.safe_load(SHIPPED.read_text("utf-8")).items()}


def calibration_path(device: str, runtime: RuntimeName) -> Path:
    """Where the calibration of a device and runtime is kept; never inside the package."""
    return own_folder() / f"{device}.{runtime}.yaml"


def calibrations_of(targets: Iterable[tuple[str, RuntimeName]]) -> dict[str, str]:
    """Hashes of the calibrations that there are of devices with their runtimes, by name of file: what predictions rest on
    beside the package."""
    paths = {calibration_path(device, runtime) for device, runtime in targets}
    return {path.name: sha256_file(path) for path in sorted(paths) if path.is_file()}


def read_calibration(path: Path) -> Efficiencies:
    """A calibration file.

    Raises:
        RequestError: not YAML, or a field is missing or wrong.
    """
    try:
        return Efficiencies.model_validate(read_document(path, "calibration").value)
    except RequestError as error:
        raise RequestError(f"{path}: not a calibration file ({error}); delete it or calibrate again") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise RequestError(f"{path}: {where}: {first['msg']}; delete it or calibrate again") from error


def write_calibration(found: Efficiencies, path: Path) -> None:
    """Writes a calibration, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(plain(found), sort_keys=False, width=120), encoding="utf-8")


def plain(found: Efficiencies) -> dict[str, object]:
    """As YAML values, a figure as ``[value, source]``."""

    def pairs(value: object) -> object:
        if isinstance(value, dict):
            if set(value) == {"value", "source"}:
                return [float(f"{value['value']:.4g}"), value["source"]]
            return {key: pairs(item) for key, item in value.items() if item is not None}
        return [pairs(item) for item in value] if isinstance(value, list) else value

    return pairs(found.model_dump(mode="json"))  # type: ignore[return-value]


def architecture_of(graph: GraphCost) -> Architecture:
    """What a network is made of: transformer from 60 % of its MACs in matrix products, hybrid where it has attention
    products besides convolutions, depthwise where those are a tenth of its convolutions, else convolutional."""
    macs = {kind: sum(k.macs for k in graph.kernels if k.kind == kind) for kind in ("matmul", "attention")}
    count = {kind: sum(k.kind == kind for k in graph.kernels) for kind in ("conv", "depthwise", "attention")}
    if macs["matmul"] + macs["attention"] > 0.6 * max(1, graph.macs):
        return "transformer"
    if macs["attention"] > 0.02 * max(1, graph.macs):
        return "hybrid"
    return "depthwise" if count["depthwise"] > 0.1 * (count["conv"] + count["depthwise"]) else "convolutional"
