"""An S3 store on loopback (moto, in a process and a folder of its own), which may drop some of the requests that it gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from obstore.store import S3Store

BUCKET = "scenes"
PLACE = Path(sys.prefix) / "store"
"""Where `make setup` puts what the server needs."""


class Store:
    """A store that runs; skips the test where its packages are not here."""

    def __init__(self) -> None:
        if not PLACE.is_dir():
            pytest.skip(f"no object store in {PLACE}: `make setup` installs it")
        search = os.pathsep.join([str(PLACE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("store_server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": search},
        )  # fmt: skip
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        self._ask(BUCKET, "PUT")

    @property
    def variables(self) -> dict[str, str]:
        """By which a store is found; obstore takes them."""
        return {"AWS_ENDPOINT": self.address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1"}  # fmt: skip

    def put(self, objects: Mapping[str, bytes]) -> None:
        to = S3Store(BUCKET, endpoint=self.address, access_key_id="key", secret_access_key="secret", region="us-east-1",
                     client_options={"allow_http": True})  # fmt: skip
        for name, content in objects.items():
            to.put(name, content)

    def drop(self, every: int) -> None:
        """From now on so many requests get no answer; those that were counted are forgotten."""
        self._ask(f"-/drop/{every}")

    @property
    def asked(self) -> list[str]:
        """Method and path of all requests since."""
        found: list[str] = json.loads(self._ask("-/asked"))
        return found

    def count(self, method: str, name: str) -> int:
        return self.asked.count(f"{method} /{BUCKET}/{name}")

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, path: str, method: str = "GET") -> bytes:
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/{path}", method=method)) as answer:
            content: bytes = answer.read()
        return content
