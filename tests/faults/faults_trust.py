"""Signatures that are not what they should be, trusted keys that are damaged, and bits that flip in memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.data.scenes.geotiff import SceneReader
from rsedge.export.signing import public_pem
from rsedge.runtimes import Bundle
from rsedge.runtimes.bundle import trust
from rsedge.runtimes.bundle.self_test import self_tested
from rsedge.runtimes.inference.scene import infer_scene
from rsedge.runtimes.opening import open_session
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged, flipped, material
from tests.runtimes import tiny_models as tiny

THEIRS = Ed25519PrivateKey.generate()


@contextlib.contextmanager
def store(folder: Path) -> Iterator[Path]:
    """The user's folder of trusted keys, which holds the material's."""
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    try:
        trust.add_key(material().key, "ours")
        yield folder / "config" / "rsedge" / "trusted"
    finally:
        os.environ.pop("XDG_CONFIG_HOME")
        if before is not None:
            os.environ["XDG_CONFIG_HOME"] = before


def packed(bundle: Path, rng: np.random.Generator) -> Path:
    """The bundle as it is, or as a zip."""
    if rng.random() < 0.5:
        return bundle
    with zipfile.ZipFile(bundle.with_suffix(".zip"), "w") as archive:
        for file in sorted(bundle.iterdir()):
            archive.write(file, file.name)
    return bundle.with_suffix(".zip")


@kind("signature: missing, foreign, of another bundle, cut", few=40)
def signature_broken(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    bundle = made.copy(folder)
    signature, manifest = bundle / "manifest.sig", bundle / "manifest.json"
    content = signature.read_bytes()

    def other() -> None:
        tiny.edit_manifest(bundle, name=f"other {rng.integers(1 << 30)}")

    ways: dict[str, Callable[[], object]] = {
        "missing": signature.unlink,
        "all of it missing": lambda: (signature.unlink(), (bundle / "signing.pub").unlink()),
        "foreign": lambda: tiny.sign(bundle, THEIRS),
        "foreign, our key beside": lambda: (tiny.sign(bundle, THEIRS), shutil.copy(made.key, bundle / "signing.pub")),
        "of another manifest": other,
        "manifest altered and signed by them": lambda: (other(), tiny.sign(bundle, THEIRS)),
        "damaged": lambda: signature.write_bytes(damaged(content, rng)[0]),
        "cut": lambda: signature.write_bytes(content[: int(rng.integers(len(content) - 2))]),
        "twice": lambda: signature.write_bytes(content * 2),
        "manifest flipped": lambda: manifest.write_bytes(flipped(manifest.read_bytes(), rng)),
        "manifest longer": lambda: manifest.write_bytes(manifest.read_bytes() + b" "),
    }
    way = str(rng.choice(list(ways)))
    ways[way]()
    path = packed(bundle, rng)
    same = manifest.read_bytes() == (made.bundle / "manifest.json").read_bytes() and signature.exists() and (
        signature.read_bytes().strip() == content.strip()
    )  # fmt: skip

    def opened() -> bool:
        with Bundle.open(path):
            return same

    with store(folder):
        return told(way, opened)


@kind("trusted keys: the folder damaged", few=40)
def store_damaged(rng: np.random.Generator, folder: Path) -> Result:
    """Whatever becomes of the folder short of its removal, an unsigned or foreign bundle never opens."""
    bundle = material().copy(folder)
    if rng.random() < 0.5:
        tiny.sign(bundle, THEIRS)
    else:
        (bundle / "manifest.sig").unlink()
    with store(folder) as keys:
        file, above = keys / "ours.pub", (keys.parent, keys.parent.parent)[int(rng.integers(2))]
        ways: dict[str, Callable[[], object]] = {
            "a key damaged": lambda: file.write_bytes(damaged(file.read_bytes(), rng)[0]),
            "a key gone": file.unlink,
            "a key renamed": lambda: file.rename(keys / str(rng.choice(["ours.bak", "ours.pub~", "x y.pub", "OURS"]))),
            "a folder among them": lambda: (keys / "old").mkdir(),
            "a link": lambda: (file.unlink(), file.symlink_to(bundle / "signing.pub")),
            "a pipe": lambda: (file.unlink(), os.mkfifo(file)),
            "open to others": lambda: (keys.chmod(0o777), (keys / "theirs.pub").write_bytes(public_pem(THEIRS))),
            "a file in its place": lambda: (shutil.rmtree(keys), keys.write_text("")),
            "a link in its place": lambda: (shutil.rmtree(keys), keys.symlink_to(folder / "nowhere")),
            "a link above": lambda: (shutil.rmtree(above), above.symlink_to(folder / "nowhere" / "at")),
            "a file above": lambda: (shutil.rmtree(above), above.write_text("")),
            "open to others above": lambda: above.chmod(int(rng.choice([0o777, 0o757, 0o702]))),
        }
        way = str(rng.choice(list(ways)))
        ways[way]()

        def opened() -> bool:
            with Bundle.open(bundle):
                return False

        return told(way, opened)


def worn(bundle: Path) -> Any:
    """A session with the weights that lie there, as memory that went bad after all checks would give it."""
    return open_session(bundle / "model.xml", "openvino", input_spec=tiny.spec(32), threads=1)


def flip_weights(bundle: Path, rng: np.random.Generator) -> str:
    weights = bundle / "model.bin"
    content, bits = weights.read_bytes(), int(rng.choice([1, 1, 2, 8]))
    weights.write_bytes(flipped(content, rng, bits))
    return f"{bits} bits of {len(content)} bytes"


@kind("memory: bits of the weights flipped before the session is made", few=10)
def flipped_before(rng: np.random.Generator, folder: Path) -> Result:
    """Harmful is what moves a logit by more than the golden limit on tiles that the golden vector does not have."""
    made = material()
    bundle = made.copy(folder)
    what = flip_weights(bundle, rng)

    def right() -> bool:
        with Bundle.open(made.bundle, made.key) as opened:
            limit = opened.manifest.golden.atol
            with self_tested(worn(bundle), opened) as session:
                found = session({"dn": made.dn})["logits"]
        return bool(np.abs(found - made.logits).max() <= limit)

    return told(what, right)


class _Worn:
    """A session that goes on with another one's weights after so many tiles."""

    def __init__(self, sound: Any, worn: Any, after: int) -> None:
        self._sound, self._worn, self._left = sound, worn, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sound, name)

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        self._left -= 1
        return (self._sound if self._left >= 0 else self._worn)(inputs)

    def stream(self, inputs: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
        yield from map(self, inputs)

    def close(self) -> None:
        self._sound.close()
        self._worn.close()


@kind("memory: bits of the weights flip while a scene is mapped", few=8)
def flipped_on_the_way(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    bundle = made.copy(folder)
    scene, out = folder / "scene.tif", folder / "map.tif"
    dn = tiny.random_scene(tiny.spec(32), 120, 120, int(rng.integers(1000)))
    tiny.write_scene(scene, dn, tiny.NAMES)
    what = flip_weights(bundle, rng)
    after = int(rng.integers(1, 26))

    def mapped(session: Any) -> Any:
        with SceneReader(scene, tiny.spec(32)) as reader:
            infer_scene(session, reader, out, tiny.CLASSES)
        return out.read_bytes()

    def right() -> bool:
        with Bundle.open(made.bundle, made.key) as whole:
            with contextlib.closing(whole.session(threads=1)) as sound:
                wanted = mapped(sound)
            out.unlink()
            session = _Worn(whole.session(threads=1), worn(bundle), after)
            with self_tested(session, whole, int(rng.choice([3, 10, 100]))) as tested:
                found = mapped(tested)
        return _alike(wanted, found)

    result = told(f"{what} after {after} tiles", right)
    if result.outcome == "refused" and out.exists():
        return Result("wrong", result.what, "refused, but an output file is there")
    return result


def _alike(first: bytes, second: bytes) -> bool:
    """Whether two maps have the same class in all but one pixel in a thousand: ties fall either way within the golden limit."""
    import rasterio

    with rasterio.MemoryFile(first) as a, rasterio.MemoryFile(second) as b, a.open() as x, b.open() as y:
        return bool((x.read(1) != y.read(1)).mean() <= 1e-3)
