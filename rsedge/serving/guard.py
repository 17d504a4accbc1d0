"""Who may ask: by a token, or on the loopback alone. Plain ASGI, ahead of everything else."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/health"})
"""What needs no token: it says nothing but whether the service works."""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which nobody else reaches."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses who has no token; without one, whoever names another host than the loopback, as pages in a browser would."""

    def __init__(self, app: ASGIApp, token: str | None, counted: Callable[[str, int], None]) -> None:
        self._app, self._counted = app, counted
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = 500

        async def noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            refused = self._refused(scope)
            await (refused or self._app)(scope, receive, noted)
        finally:
            self._counted(getattr(scope.get("route"), "path", "other"), code)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self._token is None:
            return self._foreign(headers)
        kind, _, given = headers.get("authorization", "").partition(" ")
        if scope["path"] in OPEN or (
            kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)
        ):
            return None
        return _error(401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})

    def _foreign(self, headers: Headers) -> JSONResponse | None:
        """A page in a browser on this machine can send requests here; it cannot send them without its own host's name."""
        names = [_host(f"//{headers.get('host', '')}")]
        if origin := headers.get("origin"):
            names.append(_host(origin))
        if all(is_loopback(name) for name in names):
            return None
        return _error(403, "without a token this service answers the loopback alone; start it with --token-file")


def _host(address: str) -> str:
    """The host that an address names; "" where it names none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    content: dict[str, Any] = {"error": message}
    return JSONResponse(content, status_code=code, headers=headers)
