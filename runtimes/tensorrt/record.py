"""What is kept of a TensorRT engine beside its bytes, signed by the device that built it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rsedge.data.errors import MissingCapability
from rsedge.data.record import Record, validated
from rsedge.runtimes.device_cache import Built
from rsedge.runtimes.tensorrt.module import version_pair


class Machine(Record):
    """What engines and kernel times belong to: a TensorRT (module and version) and a GPU (name and generation)."""

    module: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    gpu: str
    sm: str

    @property
    def hardware(self) -> str:
        """The GPU, as the device's cache names it."""
        return hardware_name(self.gpu, self.sm)

    def __str__(self) -> str:
        return f"{self.module} {self.version} on {self.gpu} ({self.sm})"


class EngineRecord(Machine):
    """How an engine was built.

    Attributes:
        version_compatible: newer TensorRT of the same major version load it too; such engines carry code for the host.
        max_batch: tiles in one run at most.
        dla: which layers run on the DLA.
        seconds, built: how long it took, and when (UTC).
    """

    driver: int
    version_compatible: bool = False
    max_batch: int = Field(default=1, ge=1)
    dla: dict[str, Any] | None = None
    seconds: float
    built: str

    def fits(self, version: str, sm: str) -> bool:
        """Whether it may be loaded: same GPU generation, and the same TensorRT or, for a version-compatible engine, a newer one
        of the same major version."""
        if self.sm != sm:
            return False
        if self.version == version:
            return True
        there, here = version_pair(self.version), version_pair(version)
        return self.version_compatible and there[0] == here[0] and here >= there


def hardware_name(gpu: str, sm: str) -> str:
    """A GPU as the device's cache names it."""
    return f"{gpu} ({sm})"


def engine_record(built: Built) -> EngineRecord:
    """The record of an engine.

    Raises:
        RequestError: another release wrote it.
    """
    return validated(EngineRecord, built.about, f"{built}: {built.rebuild}")


def check_fits(built: Built, record: EngineRecord, version: str, gpu: str, sm: str) -> None:
    """Refuses an engine built by another TensorRT version or for another GPU.

    Raises:
        MissingCapability: names both sides and the command that builds a fitting one.
    """
    if not record.fits(version, sm):
        raise MissingCapability(
            f"{built}: was built by TensorRT {record.version} on {record.hardware}, this machine has {version} on "
            f"{hardware_name(gpu, sm)}; engines do not carry over, {built.rebuild}"
        )
