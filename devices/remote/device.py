"""One job's folder on a device: files over SFTP, the runner's commands over an exec channel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.devices.onboard import keeper
from rsedge.devices.remote.ssh import Address

if TYPE_CHECKING:
    import asyncssh

RUNNER = "runner.pyz"
WINDOW = 1 << 20
"""Bytes in flight while a file is sent. After a lost link the last window is sent again, as it may have gaps."""
REMOVAL_S = 10.0


class RemoteDevice:
    """The folder ``folder`` (absolute) of one job; every method looks at the device, none remembers.

    Raises (all methods):
        MissingCapability: the device refuses a file operation or lacks what a command needs.
        asyncssh.DisconnectError and the like: the link broke.
    """

    def __init__(
        self,
        address: Address,
        connection: asyncssh.SSHClientConnection,
        sftp: asyncssh.SFTPClient,
        folder: str,
        python: str,
    ) -> None:
        self.folder = folder
        self._address, self._connection, self._sftp, self._python = address, connection, sftp, python

    async def exists(self, name: str) -> bool:
        """Whether a file or folder of that name is in the job's folder."""
        return bool(await self._sftp.exists(self._path(name)))

    async def make_folder(self, inside: str | None) -> None:
        """Makes the job's folder and those above it; ``inside`` is a folder that must be there already."""
        if inside is not None and not await self._sftp.isdir(inside):
            raise RequestError(f"{self._address}: there is no folder {inside} on the device; make it, or leave it out")
        with self._explained(f"make the folder {self.folder}"):
            await self._sftp.makedirs(self.folder, exist_ok=True)

    async def free_disk_bytes(self) -> int | None:
        """Free disk for this user; None where the server does not tell."""
        import asyncssh

        try:
            found = await self._sftp.statvfs(self.folder)
        except asyncssh.SFTPOpUnsupported:
            return None
        return int(found.bavail or 0) * int(found.frsize or 0)

    async def put_whole(self, name: str, content: bytes) -> None:
        """Writes a small file under a temporary name and renames it; one that is there already stays."""
        if await self.exists(name):
            return
        temporary = self._path(f"{name}.sending")
        with self._explained(f"take {name}"):
            async with self._sftp.open(temporary, "wb") as stream:
                await stream.write(content)
            await self._sftp.posix_rename(temporary, self._path(name))

    async def append(self, name: str, source: Path, size: int) -> AsyncIterator[tuple[int, int]]:
        """Sends what is missing of a file; yields, after each piece, its bytes and how much of the file is there."""
        path = self._path(name)
        with self._explained(f"take {name}"):
            await self._sftp.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            there = int((await self._sftp.stat(path)).size or 0) if await self.exists(name) else None
            if there == size:
                return
            start = max(0, there - WINDOW) if there is not None and there < size else 0
            async with self._sftp.open(path, "wb" if there is None or there > size else "r+b") as stream:
                with source.open("rb") as content:
                    content.seek(start)
                    while piece := content.read(WINDOW):
                        await stream.write(piece, start)
                        start += len(piece)
                        yield len(piece), start

    async def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the job's folder, None where it is not there (yet)."""
        import asyncssh

        try:
            async with self._sftp.open(self._path(name), "rb") as stream:
                content = await stream.read()
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return None
        try:
            value = json.loads(content)
        except ValueError as error:
            raise MissingCapability(f"{self._address}: {self._path(name)} is no JSON ({error})") from error
        if not isinstance(value, dict):
            raise MissingCapability(f"{self._address}: {self._path(name)} is no JSON object")
        return value

    async def touch(self) -> None:
        """Renews the lease: tells the keeper that someone is still there."""
        with self._explained("renew the lease"):
            async with self._sftp.open(self._path(keeper.LEASE), "wb") as stream:
                await stream.write(b"1")

    async def runner(self, command: str, *arguments: str) -> dict[str, Any]:
        """Runs one of the runner's commands and returns its answer."""
        import asyncssh

        words = [self._python, self._path(RUNNER), command, *arguments]
        done = await self._connection.run(" ".join(map(shlex.quote, words)), stdin=asyncssh.DEVNULL)
        if done.exit_status is None and done.exit_signal is None:
            raise asyncssh.ConnectionLost(f"while the device ran '{command}'")
        if done.exit_status == 0:
            return dict(json.loads(str(done.stdout)))
        reason = (str(done.stderr).strip().splitlines() or ["no message"])[-1]
        if done.exit_status in (126, 127):
            raise MissingCapability(
                f"{self._address}: no '{self._python}' there ({reason}); name its Python 3.8 or newer with --remote-python"
            )
        kind = RequestError if done.exit_status == RequestError.exit_code else MissingCapability
        raise kind(
            f"{self._address}: '{self._python} {RUNNER} {command}' failed there ({reason}); it needs Python 3.8 or newer"
        )

    async def remove(self) -> None:
        """Has the keeper stop what runs and remove the folder; removes it itself where no keeper is left."""
        import asyncssh

        with contextlib.suppress(asyncssh.SFTPError):
            if await self.exists(keeper.STATUS):
                async with self._sftp.open(self._path(keeper.STOP), "wb") as stream:
                    await stream.write(b"")
                for _ in range(round(REMOVAL_S / keeper.POLL_S)):
                    if not await self._sftp.exists(self.folder):
                        return
                    await asyncio.sleep(keeper.POLL_S)
        with contextlib.suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            await self._sftp.rmtree(self.folder, ignore_errors=True)
        for above in PurePosixPath(self.folder).parents:
            if above.name not in keeper.OWN_FOLDERS:
                return
            try:
                await self._sftp.rmdir(str(above))
            except asyncssh.SFTPError:
                return

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns a refusal of the SFTP server into an error that says what was refused."""
        import asyncssh

        try:
            yield
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
            raise
        except asyncssh.SFTPError as error:
            raise MissingCapability(
                f"{self._address}: the device would not {what}: {error.reason or type(error).__name__}; is its disk full, or "
                f"may this user not write to {self.folder}? Another folder: ssh://user@host/folder"
            ) from error
