"""An S3 store on loopback (moto), which may drop some of the requests that it gets."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "scenes"


class Store:
    """``drop``: every so many requests get no answer; ``asked``: methods and paths of all."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.drop, self.asked = 0, list[str]()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.client = boto3.client("s3", endpoint_url=self.address, **CREDENTIALS)
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def variables(self) -> dict[str, str]:
        """By which a store is found; obstore takes them."""
        found = {name.upper(): value for name, value in CREDENTIALS.items()}
        return {**found, "AWS_REGION": found.pop("REGION_NAME"), "AWS_ENDPOINT": self.address}

    def put(self, objects: Mapping[str, bytes]) -> None:
        for name, content in objects.items():
            self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def count(self, method: str, name: str) -> int:
        return self.asked.count(f"{method} /{BUCKET}/{name}")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if self.drop and len(self.asked) % self.drop == 0:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        found: Iterable[bytes] = self._app(environ, start)
        return found


CREDENTIALS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
