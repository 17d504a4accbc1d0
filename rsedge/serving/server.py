"""The process around the application: its address, its token, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from rsedge.data.errors import RequestError
from rsedge.serving.engine import Engine
from rsedge.serving.guard import is_loopback

VARIABLE = "RSEDGE_TOKEN"
LEAST_TOKEN = 16
"""Letters of a token: fewer could be tried one by one."""


def token_of(file: Path | None) -> str | None:
    """The token of a file, or of the environment; None where there is none.

    Raises:
        RequestError: the file cannot be read, others may read it, or the token is short.
    """
    if file is None:
        token, where = os.environ.get(VARIABLE, "").strip(), VARIABLE
        if not token:
            return None
    else:
        where = str(file)
        try:
            if file.stat().st_mode & _others(file):
                raise RequestError(f"{file}: others may read or write the token; chmod 600 {file}")
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{file}: the token cannot be read ({error})") from error
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise RequestError(
            f"{where}: a token is {LEAST_TOKEN} or more ASCII letters, digits and signs; make one: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


def _others(file: Path) -> int:
    """The rights that nobody else may have. systemd lets a service read its credentials by an access list, which shows as the
    group's right to read; the folder is the service's alone."""
    theirs = stat.S_IRWXG | stat.S_IRWXO
    own = os.environ.get("CREDENTIALS_DIRECTORY")
    return theirs & ~stat.S_IRGRP if own and file.parent == Path(own) else theirs


def check_host(host: str, token: str | None) -> None:
    """
    Raises:
        RequestError: others could reach the service, and need no token.
    """
    if token is None and not is_loopback(host):
        raise RequestError(
            f"--host {host}: others can reach that address, so it needs a token (--token-file FILE or {VARIABLE}); the loopback "
            "(127.0.0.1) needs none"
        )


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any that is free.

    Raises:
        RequestError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise RequestError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from error
    return found


class _Server(uvicorn.Server):
    """Ends when it is asked to; signals are heard by who runs it."""

    def __init__(self, config: uvicorn.Config, ended: Callable[[], bool]) -> None:
        super().__init__(config)
        self._ended, self._asked = ended, 0.0

    @property
    def ending_s(self) -> float:
        """Seconds since it was asked to end."""
        return time.monotonic() - self._asked if self._asked else 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if self._ended():
            self._asked = self._asked or time.monotonic()
            return True
        return await super().on_tick(counter)


def serve(app: Any, sock: socket.socket, engine: Engine, ended: Callable[[], bool], drain_s: float) -> bool:
    """Answers until ``ended`` says so; then takes nothing more and goes on with what waits for so long. Whether all was done."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=max(1, int(drain_s)), server_header=False,
        limit_concurrency=256, lifespan="off",
    )  # fmt: skip
    server = _Server(config, ended)
    asyncio.run(server.serve(sockets=[sock]))
    return engine.end(max(0.0, drain_s - server.ending_s))
