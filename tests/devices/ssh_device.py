"""A device for tests: a real SSH server on loopback with SFTP and process execution, in a thread of its own.

Its home is a temporary folder. It can cut links, drop new ones before a word is said, show another host key, and have little disk
or memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh


class SshDevice:
    """Start with :meth:`start`; ``url`` is its address. Every attribute may be changed while it runs."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "device"
        self.home.mkdir()
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self.port = 0
        self.free_disk: int | None = None
        self.full_after: int | None = None
        self.cut_after: int | None = None
        self.more_host_keys: list[asyncssh.SSHKey] = []
        self.drop_next = 0
        self.on_command: Callable[[str], None] = lambda _: None
        self.prelude = ""
        self.environment: dict[str, str] = {}
        self.received = 0
        self.logins = 0
        self._connections: list[asyncssh.SSHServerConnection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener: asyncssh.SSHAcceptor | None = None

    @property
    def url(self) -> str:
        return f"ssh://tester@127.0.0.1:{self.port}"

    def start(self) -> None:
        self._wait(self._listen())

    def stop(self) -> None:
        """Stops listening and cuts what is connected."""
        self._wait(self._close())

    def cut(self) -> None:
        """Cuts every link, as a lost network does."""
        self._loop.call_soon_threadsafe(self._abort)

    def shut_down(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        authorized = asyncssh.import_authorized_keys(self.user_key.export_public_key().decode())
        self._listener = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=lambda: _Server(self),
            server_host_keys=[self.host_key, *self.more_host_keys],
            authorized_client_keys=authorized,
            process_factory=self._run,
            sftp_factory=lambda channel: _Files(channel, self),
            password_auth=False,
            kbdint_auth=False,
            reuse_address=True,
        )
        self.port = self._listener.get_port()

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._abort()
            await self._listener.wait_closed()
            self._listener = None

    def _abort(self) -> None:
        for connection in self._connections:
            connection.abort()
        self._connections.clear()

    async def _run(self, process: asyncssh.SSHServerProcess[str]) -> None:
        self.on_command(str(process.command))
        child = await asyncio.create_subprocess_shell(
            self.prelude + str(process.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.home,
            env={**os.environ, "HOME": str(self.home), **self.environment},
        )
        out, err = await child.communicate()
        with contextlib.suppress(OSError, asyncssh.Error):
            process.stdout.write(out.decode())
            process.stderr.write(err.decode())
            process.exit(child.returncode or 0)


class _Server(asyncssh.SSHServer):
    def __init__(self, device: SshDevice) -> None:
        self._device = device

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._device._connections.append(conn)
        if self._device.drop_next:
            self._device.drop_next -= 1
            conn.abort()

    def auth_completed(self) -> None:
        self._device.logins += 1


class _Files(asyncssh.SFTPServer):
    """The whole file system, with relative paths from the device's home."""

    def __init__(self, channel: Any, device: SshDevice) -> None:
        super().__init__(channel)
        self._device = device

    def map_path(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self._device.home), super().map_path(path))  # noqa: PTH118 (bytes)

    def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        device = self._device
        device.received += len(data)
        if device.full_after is not None and device.received > device.full_after:
            raise asyncssh.SFTPFailure("No space left on device")
        if device.cut_after is not None and device.received > device.cut_after:
            device.cut_after = None
            device.cut()
        return super().write(file_obj, offset, data)

    def statvfs(self, path: bytes) -> Any:
        if self._device.free_disk is None:
            return super().statvfs(path)
        return asyncssh.SFTPVFSAttrs(bsize=1, frsize=1, bavail=self._device.free_disk, bfree=self._device.free_disk)


@contextlib.contextmanager
def ssh_device(folder: Path) -> Iterator[SshDevice]:
    """A running device and, in ``folder/host``, a home that has its key in known_hosts and the user's key."""
    device = SshDevice(folder)
    device.start()
    ssh = folder / "host" / ".ssh"
    ssh.mkdir(parents=True, mode=0o700)
    device.user_key.write_private_key(ssh / "id_ed25519")
    device.user_key.write_public_key(ssh / "id_ed25519.pub")
    know(device, ssh / "known_hosts")
    try:
        yield device
    finally:
        device.shut_down()


def know(device: SshDevice, known_hosts: Path) -> None:
    """Writes the device's key as ``ssh-keyscan`` would."""
    key = device.host_key.export_public_key().decode()
    known_hosts.write_text(f"[127.0.0.1]:{device.port} {key}")
