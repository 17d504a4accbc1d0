"""Measuring a bundle on a device over SSH."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.record import validated
from rsedge.devices.measure.protocol import Measurement
from rsedge.devices.onboard import keeper
from rsedge.devices.remote.job import Notice, Options, Parcel, RemoteJob, Returned
from rsedge.devices.remote.ssh import Address
from rsedge.runtimes.bundle.manifest import MANIFEST
from rsedge.runtimes.bundle.reading import Bundle


@dataclasses.dataclass(frozen=True)
class Settings:
    """The measurement's settings, as the runner takes them."""

    seconds: float = 5.0
    threads: int | None = None
    layers: bool = False
    burst_seconds: float = 2.0
    idle_seconds: float = 1.0
    warmup: int = 10
    min_runs: int = 20


def bench_remote(
    bundle: Bundle, address: Address, settings: Settings, options: Options | None = None, notice: Notice | None = None
) -> dict[str, Any]:
    """Measures an opened bundle on the device at ``address``.

    Returns:
        The fields of :class:`Measurement` and ``remote``: ``address``, ``device`` (what the runner found there), ``clock``,
        ``golden``, ``build``, ``layers``, ``bytes_sent``, ``links_lost``, ``collected`` (True: the result of a run that an
        earlier command began).

    Raises:
        RequestError: the host's key is unknown or has changed, or the device cannot run the model.
        MissingCapability: not reached, login refused, link lost for good, or the device lacks Python, the runtime, disk
            or memory.
    """
    if not settings.seconds > 0:
        raise RequestError(f"a measurement needs seconds > 0, not {settings.seconds}")
    parcel = _parcel(bundle, settings)
    job = RemoteJob(parcel, address, options or Options(), notice or (lambda _, __: None))
    return _record(asyncio.run(job.run()), address)


def _parcel(bundle: Bundle, settings: Settings) -> Parcel:
    target = bundle.manifest.target
    return Parcel(
        folder=bundle.folder,
        names=[*bundle.manifest.files, MANIFEST],
        runtime=target.runtime,
        size_bytes=bundle.size_bytes,
        job={**dataclasses.asdict(settings), "device": bundle.backend.device(target.device)},
        builds=bundle.backend.built_on_device,
    )


def _record(found: Returned, address: Address) -> dict[str, Any]:
    measured = validated(Measurement, found.result.get("measurement"), f"{address}: {keeper.RESULT}")
    remote = {k: v for k, v in found.result.items() if k != "measurement"}
    return {
        **measured.model_dump(),
        "remote": {
            "address": str(address),
            "device": found.facts,
            "clock": found.clock,
            **remote,
            "bytes_sent": found.bytes_sent,
            "links_lost": found.links_lost,
            "collected": found.collected,
        },
    }
