"""Moto's S3 on loopback; ``python store_server.py`` in an environment that has moto, until stdin ends.

It prints its port. ``/-/drop/N``: from now on every Nth request gets no answer (0: all do). ``/-/asked``: method and path of all.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Store:
    """A WSGI application around moto's."""

    def __init__(self) -> None:
        self.drop, self.asked = 0, list[str]()
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/-/"):
            start("200 OK", [("Content-Type", "application/json")])
            return [self._said(path.removeprefix("/-/")).encode()]
        self.asked.append(f"{environ['REQUEST_METHOD']} {path}")
        if self.drop and len(self.asked) % self.drop == 0:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        found: Iterable[bytes] = self._app(environ, start)
        return found

    def _said(self, words: str) -> str:
        if words == "asked":
            return json.dumps(self.asked)
        self.drop, self.asked = int(words.removeprefix("drop/")), []
        return "{}"


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", 0, Store(), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
