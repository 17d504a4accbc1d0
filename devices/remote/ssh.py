"""Connections to devices over SSH, with the host's key verified and every refusal explained.

Keys and agent are found as ``ssh`` finds them (``~/.ssh/config``, ``~/.ssh/id_*``, ``SSH_AUTH_SOCK``). Host keys come
from ``~/.ssh/known_hosts`` and ``/etc/ssh/ssh_known_hosts`` alone, so that no setting can turn their verification off.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import urllib.parse
from typing import TYPE_CHECKING, Any

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError, missing_extra
from rsedge.data.folders import user_path

if TYPE_CHECKING:
    import asyncssh

CONNECT_S, LOGIN_S = 20, 30
KEEPALIVE_S, KEEPALIVE_MISSED = 5, 3
KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a device is: ``ssh://[user@]host[:port][/folder]``; ``folder`` is an absolute path to work in."""

    host: str
    port: int | None = None
    user: str | None = None
    folder: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address.

        Raises:
            RequestError: says what is wrong and how an address looks.
        """
        form = "write ssh://user@host, ssh://user@host:2222 or ssh://user@host/folder"
        parts = urllib.parse.urlsplit(text)
        if parts.scheme != "ssh":
            raise RequestError(f"--on '{text}': not an ssh:// address; {form}")
        try:
            port = parts.port
        except ValueError as error:
            raise RequestError(f"--on '{text}': {error}; {form}") from error
        if not parts.hostname or parts.hostname.startswith("-"):
            raise RequestError(f"--on '{text}': no host; {form}")
        if parts.password is not None:
            raise RequestError(f"--on: passwords are not taken, log in with a key (ssh-copy-id); {form}")
        if parts.query or parts.fragment:
            raise RequestError(f"--on '{text}': a folder cannot hold ? or #; {form}")
        folder = urllib.parse.unquote(parts.path).rstrip("/") or None
        return cls(parts.hostname, port, parts.username, folder)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")


async def connect(address: Address) -> asyncssh.SSHClientConnection:
    """A connection whose host key was verified and whose login went through.

    Raises:
        IntegrityError: the host shows another key than the known one, or a revoked one.
        RequestError: the host's key is not known yet; names its fingerprint and what to do.
        MissingCapability: ``asyncssh`` is missing, or the host refused the login.
        OSError, asyncssh.Error: the host was not reached, or the link broke.
    """
    try:
        import asyncssh
    except ModuleNotFoundError as error:
        raise missing_extra("asyncssh", "remote", f"{address}: measuring over SSH") from error
    known = _known_hosts(asyncssh)
    seen: list[tuple[str, str, int, asyncssh.SSHKey]] = []

    class Client(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            seen.append((host, addr, port, key))
            return False

    options: dict[str, Any] = {"username": address.user} if address.user else {}
    if address.port:
        options["port"] = address.port
    try:
        return await asyncssh.connect(
            address.host,
            client_factory=Client,
            known_hosts=known,
            preferred_auth="publickey",
            connect_timeout=CONNECT_S,
            login_timeout=LOGIN_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_MISSED,
            **options,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _refused_key(address, known, seen, error) from error
    except asyncssh.KeyExchangeFailed as error:
        raise await _other_kind_of_key(asyncssh, address, known, error) from error
    except (asyncssh.ConnectionLost, ConnectionResetError) as error:
        raise await _closed_without_reason(asyncssh, address, known, error) from error
    except asyncssh.PermissionDenied as error:
        raise MissingCapability(
            f"{address}: the host knows this machine's keys not, or not for this user ({error.reason}); put your public key "
            f"there: ssh-copy-id {_ssh_words(address)}"
        ) from error
    except (asyncssh.KeyImportError, asyncssh.ConfigParseError) as error:
        raise RequestError(f"{address}: a key or ~/.ssh/config cannot be read: {error}") from error


def unreachable(address: Address, error: Exception) -> MissingCapability:
    """The error for a host that does not answer."""
    return MissingCapability(
        f"{address}: not reached ({_words(error)}); is the device on, on this network and does it run an SSH server? "
        f"Try: ssh {_ssh_words(address)}"
    )


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return str(error) or {"TimeoutError": f"no answer within {CONNECT_S} s"}.get(type(error).__name__, repr(error))


def _known_hosts(asyncssh: Any) -> Any:
    files = [p for p in (user_path(name) for name in KNOWN_HOSTS) if p.is_file()]
    known = asyncssh.import_known_hosts("")
    for path in files:
        try:
            known.load(path.read_text())
        except (OSError, ValueError) as error:
            raise RequestError(f"{path}: cannot be read as a known_hosts file: {error}") from error
    return known


def _refused_key(address: Address, known: Any, seen: list[Any], error: Exception) -> RequestError:
    if not seen:
        return IntegrityError(f"{address}: the host's key was refused: {error}; see {KNOWN_HOSTS[0]}")
    host, addr, port, key = seen[-1]
    expected = known.match(host, addr, port if port != 22 else None)[0]
    shown = f"{_kind(key)} {key.get_fingerprint()}"
    if not expected:
        scan = f"ssh-keyscan -p {port} -t {_short(key)} {host} >> {KNOWN_HOSTS[0]}"
        return RequestError(
            f"{address}: the host's key is not known: {shown}. Compare it with the device's own (on the device: "
            f"ssh-keygen -lf /etc/ssh/ssh_host_{_short(key)}_key.pub); if they are the same: {scan}"
        )
    return _changed(address, host, port, expected, f"shows {shown}")


async def _other_kind_of_key(asyncssh: Any, address: Address, known: Any, error: Any) -> Exception:
    """A host that has a key of another kind than the known one does not come to show it."""
    port = address.port or 22
    expected = known.match(address.host, "", port if port != 22 else None)[0]
    if not expected or "host key" not in error.reason.lower():
        return MissingCapability(f"{address}: this machine and the host share no algorithm: {error.reason}")
    key = await asyncssh.get_server_host_key(address.host, port)
    shown = f"{_kind(key)} {key.get_fingerprint()}" if key is not None else "no key that can be read"
    return _changed(address, address.host, port, expected, f"shows {shown}")


async def _closed_without_reason(asyncssh: Any, address: Address, known: Any, error: Exception) -> Exception:
    """A host that lacks the known kind of key may close so fast that its reason is lost on the way.

    It is asked for any key, which shows that the link works, then for the known kinds. A host with the known key has only
    lost the link: ``error`` stands.
    """
    port = address.port or 22
    expected = known.match(address.host, "", port if port != 22 else None)[0]
    if not expected:
        return error
    lost = (OSError, asyncio.TimeoutError, asyncssh.DisconnectError)
    try:
        key = await asyncssh.get_server_host_key(address.host, port)
    except lost:
        return error
    kinds = [name for known_key in expected for name in known_key.sig_algorithms]
    if key is not None and key.algorithm not in kinds:
        with contextlib.suppress(*lost):  # refused again, and the link works: the host has no key of these kinds
            key = await asyncssh.get_server_host_key(
                address.host, port, server_host_key_algs=[name.decode() for name in kinds]
            )
    if key is None or key in expected:
        return error
    return _changed(address, address.host, port, expected, f"shows {_kind(key)} {key.get_fingerprint()}")


def _changed(address: Address, host: str, port: int, expected: list[Any], shown: str) -> IntegrityError:
    known = ", ".join(f"{_kind(k)} {k.get_fingerprint()}" for k in expected)
    entry = host if port == 22 else f"[{host}]:{port}"
    return IntegrityError(
        f"{address}: the host's key has changed: it {shown}, {KNOWN_HOSTS[0]} has {known}. Someone may stand between this "
        f"machine and the device. Only if the device was set up anew: ssh-keygen -R '{entry}', and try again"
    )


def _kind(key: Any) -> str:
    return str(key.get_algorithm())


def _short(key: Any) -> str:
    return next((n for n in ("ed25519", "ecdsa", "rsa") if n in _kind(key)), "ed25519")


def _ssh_words(address: Address) -> str:
    port = f"-p {address.port} " if address.port else ""
    return f"{port}{address.user}@{address.host}" if address.user else f"{port}{address.host}"
