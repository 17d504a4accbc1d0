"""A job on a device over SSH: send its files whole, run it there, bring the result back, leave nothing.

Each step looks at what is on the device first, so going on after a lost link and starting the same command again are
the same thing. The job's folder is named after its files, the runner and the settings. What is being sent has the name
``bundle.part`` until the device has checked every hash. On the device a keeper (:mod:`rsedge.devices.onboard.keeper`)
runs the job without the link and removes the folder, also when the link never comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.data.files import sha256_of
from rsedge.devices.onboard import keeper
from rsedge.devices.remote.device import RUNNER, RemoteDevice
from rsedge.devices.remote.runner import build_runner
from rsedge.devices.remote.ssh import Address, connect, unreachable
from rsedge.runtimes.bundle.manifest import MANIFEST
from rsedge.runtimes.registry import backend

if TYPE_CHECKING:
    import asyncssh

Notice = Callable[[str, float], None]
"""Told the step under way and its share (0..1)."""

FOLDER = ".cache/rsedge/bench"
SPARE_DISK = 16 << 20
SILENT_S = 120.0
"""After this time without news a keeper is started anew, in case something ended the first one."""
CLOCK_OFF_S = 5.0
"""A device clock that is further off than this, beyond the uncertainty of the comparison, is reported."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to work with the device: its Python, how long to try after a lost link, how long the device keeps what nobody
    comes back for (s), and how often to look (s)."""

    python: str = "python3"
    reconnect_s: float = 120.0
    lease_s: float = 3600.0
    poll_s: float = 2.0


@dataclasses.dataclass(frozen=True)
class Parcel:
    """What a job takes to the device: ``names`` in ``folder``, one of them the manifest with size and SHA-256 of the others,
    and ``job``, the runner's settings. ``builds``: the runtime writes an engine about as large as the files."""

    folder: Path
    names: list[str]
    runtime: str
    size_bytes: int
    job: dict[str, Any]
    builds: bool = False


@dataclasses.dataclass(frozen=True)
class Returned:
    """A job's result as the runner wrote it, what the runner found on the device, how the clocks compare, and how it went."""

    result: dict[str, Any]
    facts: dict[str, Any]
    clock: dict[str, Any]
    bytes_sent: int
    links_lost: int
    collected: bool


class RemoteJob:
    """One job on the device at ``address``; :meth:`run` does it all, over lost links too."""

    def __init__(self, parcel: Parcel, address: Address, options: Options, notice: Notice) -> None:
        self._parcel, self._address, self._options, self._notice = parcel, address, options, notice
        self._runner = build_runner()
        self._key = sha256_of([(parcel.folder / MANIFEST).read_text(), parcel.job, self._runner.hex()])[:16]
        self._sent = self._lost = 0
        self._collected = False
        self._reached = False
        self._returned: Returned | None = None
        self._progress_at = time.monotonic()
        self._place = ""

    async def run(self) -> Returned:
        """Goes on over lost links until the result is here.

        Raises:
            RequestError: the host's key is unknown or has changed, or the device cannot run the model.
            MissingCapability: not reached, login refused, link lost for good, or the device lacks Python, the runtime, disk
                or memory.
        """
        try:
            import asyncssh
        except ModuleNotFoundError as error:
            raise missing_extra("asyncssh", "remote", f"{self._address}: measuring over SSH") from error
        broken = _link_errors(asyncssh)
        while True:
            try:
                async with await connect(self._address) as connection:
                    self._reached = True
                    await self._on(connection)
                if self._returned is not None:
                    return self._returned
            except broken as error:
                if not self._reached:
                    raise unreachable(self._address, error) from error
                self._lost += 1
                if time.monotonic() - self._progress_at > self._options.reconnect_s:
                    if self._returned is not None:
                        return self._returned  # only the tidying up is missing, which the keeper does
                    raise MissingCapability(
                        f"{self._address}: the link was lost ({error or type(error).__name__}) and did not come back within "
                        f"{self._options.reconnect_s:g} s; the same command goes on where it stopped. The device removes "
                        f"{self._place} by itself after {self._options.lease_s / 60:.0f} minutes"
                    ) from error
                self._notice("link lost, trying again", 0.0)
                await asyncio.sleep(min(2.0, self._options.reconnect_s / 4))

    async def _on(self, connection: asyncssh.SSHClientConnection) -> None:
        """Fetches the result, if it is not here yet, and has the device tidied up."""
        import asyncssh

        async with await _files(connection, self._address) as sftp:
            device = await _device(connection, sftp, self._address, self._key, self._options)
            self._place = device.folder
            if self._returned is None:
                try:
                    self._returned = await self._measured(device)
                except _link_errors(asyncssh):
                    raise
                except BaseException:
                    with contextlib.suppress(OSError, asyncssh.Error):  # the keeper does it when the lease is over
                        await device.remove()
                    raise
            await device.remove()

    async def _measured(self, device: RemoteDevice) -> Returned:
        facts, clock = await self._prepare(device)
        await self._deliver(device)
        result = await self._wait(device)
        return Returned(result, facts, clock, self._sent, self._lost, self._collected)

    async def _prepare(self, device: RemoteDevice) -> tuple[dict[str, Any], dict[str, Any]]:
        """Folder, runner and keeper on the device; refuses what it lacks before anything large is sent."""
        self._notice("looking at the device", 0.0)
        await device.make_folder(self._address.folder)
        begun = await device.exists(keeper.JOB)
        if not begun:
            await self._check_disk(device)
        await device.put_whole(RUNNER, self._runner)
        started = time.time()
        facts = await device.runner("probe", device.folder, "--runtime", self._parcel.runtime)
        clock = _clock(facts["wall_clock_s"], started, time.time())
        if not begun:
            self._check(facts)
        await self._keep(device)
        return facts, clock

    async def _keep(self, device: RemoteDevice) -> None:
        """Starts a keeper, which leaves at once where there is one."""
        await device.runner("keep", device.folder, "--lease", str(self._options.lease_s))
        self._moved()

    async def _deliver(self, device: RemoteDevice) -> None:
        """Sends the files and the job, unless they are there from before."""
        if await device.exists(keeper.JOB):
            self._collected = self._lost == 0
            return
        names = self._parcel.names
        for _ in range(2):
            if not await device.exists(keeper.BUNDLE):
                await self._send(device, names)
            wrong = (await device.runner("accept", device.folder))["wrong"]
            if not wrong:
                await device.put_whole(keeper.JOB, json.dumps(self._parcel.job).encode())
                self._moved()
                return
        raise MissingCapability(
            f"{self._address}: files arrive altered there, twice: {', '.join(wrong)}; check its disk"
        )

    async def _send(self, device: RemoteDevice, names: list[str]) -> None:
        sizes = {name: (self._parcel.folder / name).stat().st_size for name in names}
        total, done = sum(sizes.values()), 0
        for name in names:
            source = self._parcel.folder / name
            async for sent, there in device.append(f"{keeper.UPLOAD}/{name}", source, sizes[name]):
                self._sent += sent
                self._moved()
                self._notice("sending", (done + there) / total)
            done += sizes[name]

    async def _wait(self, device: RemoteDevice) -> dict[str, Any]:
        """Polls the keeper until the job is done; the link may go meanwhile."""
        seen, since = None, time.monotonic()
        while True:
            status = await device.read_json(keeper.STATUS) or {"phase": "waiting"}
            if status["phase"] == "done":
                return await device.read_json(keeper.RESULT) or {}
            if status["phase"] == "failed":
                kind = RequestError if status["exit_code"] == RequestError.exit_code else MissingCapability
                raise kind(f"{self._address}: {status['message']}")
            now = await device.read_json(keeper.PROGRESS) or {"step": "starting", "share": 0.0}
            self._notice(now["step"], now["share"])
            if (status, now) != seen:
                seen, since = (status, now), time.monotonic()
            elif time.monotonic() - since > SILENT_S:
                await self._keep(device)
                since = time.monotonic()
            await device.touch()
            self._moved()
            await asyncio.sleep(self._options.poll_s)

    def _moved(self) -> None:
        self._progress_at = time.monotonic()

    async def _check_disk(self, device: RemoteDevice) -> None:
        """An engine that is built there takes about as much again as its model, twice while it is written."""
        need = self._parcel.size_bytes * (3 if self._parcel.builds else 1) + SPARE_DISK
        free = await device.free_disk_bytes()
        if free is not None and free < need:
            raise MissingCapability(
                f"{self._address}: too little disk: {_mib(free)} are free in {device.folder}, the job takes about "
                f"{_mib(need)}; free some, or name a folder on another disk: ssh://user@host/folder"
            )

    def _check(self, facts: dict[str, Any]) -> None:
        runtime = self._parcel.runtime
        need = backend(runtime).memory_bytes + 3 * self._parcel.size_bytes
        free = facts["memory_available_bytes"]
        if free is not None and free < need:
            raise MissingCapability(
                f"{self._address}: too little memory: {_mib(free)} are free for a process, {runtime} with this model takes "
                f"about {_mib(need)}; stop other programs there or take a smaller model"
            )
        check_software(self._address, runtime, facts, self._options)


def check_software(address: Address, runtime: str, facts: dict[str, Any], options: Options) -> None:
    """Refuses a device whose Python lacks NumPy or the runtime.

    Raises:
        MissingCapability: names what is missing and how to get it.
    """
    for name, version, problem in (
        ("numpy", facts["numpy"], "not installed"),
        (runtime, facts["runtime"]["version"], facts["runtime"]["problem"]),
    ):
        if version is None:
            own = backend(runtime).install_there if name == runtime else ""
            how = own or f"install it there: python3 -m pip install {name}"
            raise MissingCapability(
                f"{address}: {options.python} (Python {facts['python']}) there cannot import {name} ({problem}); {how}, or "
                "name another interpreter with --remote-python"
            )


async def look(address: Address, runtime: str, options: Options) -> dict[str, Any]:
    """What the device is and has, as :func:`rsedge.devices.onboard.probe.probe` tells; nothing is left there.

    Raises:
        RequestError, MissingCapability: as :meth:`RemoteJob.run`.
    """
    try:
        import asyncssh
    except ModuleNotFoundError as error:
        raise missing_extra("asyncssh", "remote", f"{address}: measuring over SSH") from error
    content = build_runner()
    try:
        async with await connect(address) as connection, await _files(connection, address) as sftp:
            device = await _device(connection, sftp, address, f"look-{sha256_of(content.hex())[:11]}", options)
            await device.make_folder(address.folder)
            try:
                await device.put_whole(RUNNER, content)
                facts = await device.runner("probe", device.folder, "--runtime", runtime)
            finally:
                await device.remove()
    except _link_errors(asyncssh) as error:
        raise unreachable(address, error) from error
    return facts


async def _files(connection: asyncssh.SSHClientConnection, address: Address) -> asyncssh.SFTPClient:
    import asyncssh

    try:
        return await connection.start_sftp_client()
    except asyncssh.ChannelOpenError as error:
        if connection.is_closed():
            raise
        raise MissingCapability(f"{address}: its SSH server offers no SFTP ({error.reason})") from error


async def _device(
    connection: asyncssh.SSHClientConnection,
    sftp: asyncssh.SFTPClient,
    address: Address,
    key: str,
    options: Options,
) -> RemoteDevice:
    base = address.folder or f"{await sftp.realpath('.')}/{FOLDER}"
    return RemoteDevice(address, connection, sftp, f"{base}/{key}", options.python)


def _link_errors(asyncssh: Any) -> tuple[type[Exception], ...]:
    """What tells that the link broke; everything else ends the job."""
    return (
        OSError,
        asyncio.TimeoutError,  # no OSError before Python 3.11
        asyncssh.DisconnectError,
        asyncssh.ChannelOpenError,
        asyncssh.SFTPConnectionLost,
        asyncssh.SFTPNoConnection,
    )


def _clock(device_s: float, before_s: float, after_s: float) -> dict[str, Any]:
    """How the device's wall clock compares with ours; both only for the record, durations are monotonic."""
    uncertainty = (after_s - before_s) / 2
    offset = device_s - (after_s + before_s) / 2
    return {
        "durations": "monotonic clock of the device",
        "device_minus_host_s": round(offset, 3),
        "uncertainty_s": round(uncertainty, 3),
        "off": abs(offset) > CLOCK_OFF_S + uncertainty,
    }


def _mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
