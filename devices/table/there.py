"""Bundles timed on a device over SSH, for the row of their own target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.record import validated
from rsedge.devices.measure.protocol import Measurement
from rsedge.devices.remote.bench import Settings, bench_remote
from rsedge.devices.remote.job import Options
from rsedge.devices.remote.ssh import Address
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.bundle.reading import Bundle


@dataclass(frozen=True)
class Host:
    """A device over SSH that stands for one of those that targets name."""

    device: str
    address: Address
    options: Options

    @classmethod
    def parse(cls, text: str, devices: Sequence[str], options: Options) -> Host:
        """Of ``DEVICE=ssh://...``, or of the address alone where only one of ``devices`` can be meant.

        Raises:
            RequestError: no address, or a device that no target names.
        """
        device, _, url = text.rpartition("=") if "=" in text.partition("://")[0] else ("", "", text)
        if not device and len(devices) == 1:
            device = devices[0]
        if not device:
            raise RequestError(
                f"--host {text}: say which device it is, e.g. --host {next(iter(devices), 'DEVICE')}={url}"
            )
        if device not in devices:
            raise RequestError(
                f"--host {text}: no target is of '{device}'; those of --on are {', '.join(devices) or 'none'}"
            )
        return cls(device, Address.parse(url), options)


def check_hosts(hosts: Sequence[Host]) -> None:
    """Refuses two hosts for one device, of which a table can have one.

    Raises:
        RequestError: names both.
    """
    known: dict[str, Host] = {}
    for host in hosts:
        if (other := known.setdefault(host.device, host)) is not host:
            raise RequestError(
                f"--host: {other.address} and {host.address} are both for '{host.device}', whose targets have one row each; "
                "give one of them, and the other in a command of its own"
            )


def measured(bundle: Bundle | None, target: Target, host: Host, seconds: float) -> tuple[Measurement, dict[str, Any]]:
    """What the device says of a bundle, and what it is.

    Raises:
        RequestError: no bundle, or one of another target; else as :func:`rsedge.devices.remote.bench.bench_remote`.
        MissingCapability: as it, too.
    """
    if bundle is None:
        raise RequestError(
            f"{host.address}: bundles are measured there; make one by `rsedge run`, or let `rsedge devices calibrate --on` "
            "sharpen the prediction"
        )
    if bundle.target.name != target.name:
        raise RequestError(
            f"{bundle.path}: is for {bundle.target.name}, and nothing else of it can be measured at {host.address}"
        )
    found = bench_remote(bundle, host.address, Settings(seconds=seconds, burst_seconds=0.0), host.options)
    remote = found.pop("remote")
    return validated(Measurement, found, str(host.address)), remote
