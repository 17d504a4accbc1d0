"""What faults are done to: a small signed bundle with a real executable, its key, and a scene that it runs on."""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.export.signing import write_public
from rsedge.runtimes import Bundle
from tests.runtimes import tiny_models as tiny


@dataclass(frozen=True)
class Material:
    """A bundle that ``key`` (PEM of the public key) has signed, and what its model answers to ``dn``."""

    bundle: Path
    key: Path
    dn: npt.NDArray[np.uint16]
    logits: npt.NDArray[np.float32]

    def copy(self, folder: Path) -> Path:
        """The bundle, to be broken."""
        return Path(shutil.copytree(self.bundle, folder / "bundle"))

    def answers(self, bundle: Path, key: Path | None = None) -> Callable[[], bool]:
        """Whether a bundle, opened by the key, gives the right answer for ``dn``."""

        def right() -> bool:
            with Bundle.open(bundle, key or self.key) as opened:
                session = opened.session(threads=1)
                try:
                    found = session({"dn": self.dn})["logits"]
                finally:
                    session.close()
            return bool(np.allclose(found, self.logits, atol=1e-3))

        return right


@functools.cache
def material() -> Material:
    """Made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="rsedge-material-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    private = Ed25519PrivateKey.generate()
    contract = tiny.spec(32)
    bundle = tiny.make_bundle(folder / "bundle", contract, key=private)
    dn = np.random.default_rng(5).integers(1, 9000, (1, *contract.shape)).astype(np.uint16)
    logits, _ = tiny.reference(contract, dn[0])
    return Material(bundle, write_public(private, folder / "key.pub"), dn, logits[None])


def flipped(content: bytes, rng: np.random.Generator, bits: int = 1) -> bytes:
    """Some bits the other way round."""
    found = bytearray(content)
    for _ in range(bits if found else 0):
        found[int(rng.integers(len(found)))] ^= 1 << int(rng.integers(8))
    return bytes(found)


_WORDS = ("0", "-1", "7", str(2**31 - 1), str(2**62), str(10**20), "", "i64", "u1", "f64", "string", "Result", "Const", "nan",
          "1,1,0", "-1,-1", "../../etc/passwd")  # fmt: skip


def reworded(graph: str, rng: np.random.Generator, times: int = 1) -> str:
    """An IR's graph with other words at some attributes and dimensions."""
    for _ in range(times):
        spots = list(re.finditer(r'(?<==")[^"]*(?=")|(?<=<dim>)[^<]*', graph))
        spot = spots[int(rng.integers(len(spots)))]
        graph = graph[: spot.start()] + str(rng.choice(_WORDS)) + graph[spot.end() :]
    return graph


def damaged(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Content with a random fault of files, and its name: flips, a cut, a gap, more of it, garbage, nothing."""
    at = int(rng.integers(len(content) + 1))
    ways = {
        "flipped": lambda: flipped(content, rng, int(rng.integers(1, 9))),
        "cut": lambda: content[:at],
        "gap": lambda: content[:at] + content[at + int(rng.integers(1, 64)) :],
        "longer": lambda: content + rng.bytes(int(rng.integers(1, 512))),
        "garbage": lambda: rng.bytes(len(content)),
        "empty": lambda: b"",
    }
    way = str(rng.choice(list(ways)))
    return ways[way](), way
