"""Calibrating a device over SSH: what it is, and the suite's latencies from there."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_file, write_json
from rsedge.devices.onboard import keeper
from rsedge.devices.onboard.suite import ROUNDS, RUNS
from rsedge.devices.predict.calibrate import Place, Progress, shares
from rsedge.devices.profiles.cpu import cpu_info
from rsedge.devices.profiles.power import in_power_mode
from rsedge.devices.profiles.profile import DeviceProfile, load_profile, shipped_names, with_detected_cpu
from rsedge.devices.remote.job import Options, Parcel, RemoteJob, check_software, look
from rsedge.devices.remote.ssh import Address
from rsedge.runtimes.bundle.manifest import MANIFEST
from rsedge.runtimes.precision import PrecisionName
from rsedge.runtimes.registry import RuntimeName, backend_for


@dataclasses.dataclass(frozen=True)
class RemoteSuite:
    """A device over SSH to calibrate: its profile in the power mode it is in, and what the runner found there.

    Called as :class:`rsedge.devices.predict.calibrate.Measure`; one job per precision, which goes on after a lost link.
    """

    address: Address
    profile: DeviceProfile
    runtime: RuntimeName
    facts: dict[str, Any]
    options: Options
    runs: int = RUNS

    @property
    def place(self) -> Place:
        """Name, power mode and load average of the device."""
        mode = f", power mode {self.facts['power_mode']}" if self.facts["power_mode"] else ""
        version = f"{self.runtime} {self.version}"
        return Place(f"{self.facts['model']} at {self.address}{mode}, {version}", self.facts["load_average"])

    @property
    def version(self) -> str:
        """Of the runtime there."""
        return str(self.facts["runtime"]["version"])

    @property
    def threads(self) -> int:
        """Threads that the device offers a process."""
        return int(self.facts["processor"]["usable_threads"])

    def __call__(
        self, files: Mapping[str, Path], precision: PrecisionName, threads: int, progress: Progress | None = None
    ) -> dict[str, float]:
        folder = next(iter(files.values())).parent
        write_json(folder / MANIFEST, {"files": {path.name: _entry(path) for path in files.values()}})
        parcel = Parcel(
            folder=folder,
            names=[*(path.name for path in files.values()), MANIFEST],
            runtime=self.runtime,
            size_bytes=sum(path.stat().st_size for path in files.values()),
            job={
                "suite": list(files),
                "runtime": self.runtime,
                "device": backend_for(self.runtime, self.profile.name).device(self.profile.name),
                "precision": precision,
                "threads": threads,
                "rounds": ROUNDS,
                "runs": self.runs,
            },
        )
        job = RemoteJob(parcel, self.address, self.options, shares(precision, progress))
        return self._checked(asyncio.run(job.run()).result, files)

    def _checked(self, result: dict[str, Any], files: Mapping[str, Path]) -> dict[str, float]:
        found = result.get("latencies_ms")
        if not isinstance(found, dict) or set(found) != set(files) or not all(_positive(v) for v in found.values()):
            raise MissingCapability(
                f"{self.address}: {keeper.RESULT} does not hold a latency of every network; try again"
            )
        if result.get("power_mode") != self.facts["power_mode"]:
            raise RequestError(
                f"{self.address}: the power mode changed from {self.facts['power_mode']} to {result.get('power_mode')} "
                "while it was measured; keep one mode and calibrate again"
            )
        return found


def remote_suite(
    address: Address, device: str | None, runtime: RuntimeName | None, options: Options | None = None, runs: int = RUNS
) -> RemoteSuite:
    """Looks at the device and holds it against its profile.

    Args:
        device: name or file of its profile; None: its processor, as detected there, under a name of its own.
        runtime: None: the profile's first.

    Raises:
        RequestError: a Jetson without ``device``, a device that is plainly not that of the profile, a runtime that the
            profile does not have, or a power mode that it does not state.
        MissingCapability: not reached, login refused, or Python, the runtime, disk or memory is missing there.
    """
    chosen = options or Options()
    named = None if device in (None, "cpu") else load_profile(str(device))
    able = (named or load_profile("cpu")).runtimes
    wanted = next(iter(able)) if runtime is None else runtime
    if wanted not in able:
        raise RequestError(f"device '{device or 'cpu'}' does not run {wanted}; known: {', '.join(able)}")
    facts = asyncio.run(look(address, wanted, chosen))
    profile = _detected(address, facts) if named is None else named
    if "jetson" in profile.name and facts["jetson"] is None:
        raise RequestError(f"{address}: this is no Jetson ({facts['model']}), so it cannot calibrate '{profile.name}'")
    check_software(address, wanted, facts, chosen)
    mode = facts["power_mode"] if profile.power_modes else None
    return RemoteSuite(address, in_power_mode(profile, mode), wanted, facts, chosen, runs)


def _detected(address: Address, facts: dict[str, Any]) -> DeviceProfile:
    if facts["jetson"] is not None:
        known = ", ".join(n for n in shipped_names() if "jetson" in n)
        raise RequestError(f"{address}: this is a Jetson ({facts['model']}); name its profile with --device: {known}")
    cpu = facts["processor"]
    name = "cpu-" + (re.sub(r"[^a-z0-9]+", "-", cpu["model"].lower()).strip("-") or "unknown")
    memory = cpu["memory_bytes"]
    return with_detected_cpu(load_profile("cpu"), cpu_info(cpu), name, None if memory is None else memory / 1e9)


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def _positive(value: Any) -> bool:
    return isinstance(value, float | int) and 0 < value < float("inf")
