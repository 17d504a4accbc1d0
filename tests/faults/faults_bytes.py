"""Bytes that nobody signed: files beside a bundle's own, files changed after they were checked, what a device keeps of its own."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.files import sha256_file
from rsedge.runtimes import Bundle
from tests.faults.kinds import Result, kind, told
from tests.faults.material import Material, damaged, material
from tests.runtimes import tiny_models as tiny

NAMES = ("model.blob", "blob.json", "model.engine", "engine.json", "timing.cache", "timing.json")
"""What releases before this one built into a bundle's folder."""


@functools.cache
def lying_blob() -> tuple[bytes, dict[str, Any]]:
    """The material's model, compiled, that answers the golden vector rightly and everything else wrongly; and its old record."""
    import openvino as ov
    from openvino import opset13 as ops

    core, made = ov.Core(), material()
    model = core.read_model(made.bundle / "model.xml")
    with np.load(made.bundle / "golden.npz") as stored:
        golden = stored["dn"][:1].astype(np.float32)
    dn = ops.convert(model.input("dn"), "f32")
    other = ops.reduce_max(ops.abs(ops.subtract(dn, ops.constant(golden))), np.array([0, 1, 2, 3]), True)
    result = next(r for r in model.get_results() if "logits" in r.input(0).get_source_output().names)
    source = result.input(0).get_source_output()
    added = ops.add(source, ops.minimum(other, ops.constant(np.float32(5))))
    source.get_tensor().set_names({"before"})
    added.output(0).get_tensor().set_names({"logits"})
    result.input(0).replace_source_output(added.output(0))
    content = io.BytesIO()
    core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).export_model(content)
    contract: InputSpec = tiny.spec(32)
    record = {
        "openvino": ov.get_version(), "device": "CPU", "device_name": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
        "platform": None, "precision": "f32", "hint": "latency", "model_sha256": sha256_file(made.bundle / "model.xml"),
        "input_spec": contract.model_dump_json(), "built": "2026-01-01",
    }  # fmt: skip
    return content.getvalue(), record


def _plant_blob(bundle: Path) -> None:
    content, record = lying_blob()
    (bundle / "model.blob").write_bytes(content)
    record = {**record, "blob_sha256": sha256_file(bundle / "model.blob")}
    (bundle / "blob.json").write_text(json.dumps(record))


def _plant_names(bundle: Path, rng: np.random.Generator) -> str:
    """One or more files of any name and content, in the bundle or in folders of it."""
    planted = []
    for _ in range(int(rng.integers(1, 4))):
        name = str(
            rng.choice([*NAMES, f"{rng.bytes(4).hex()}.xml", "model.onnx", "libextra.so", "plugins.xml", ".hidden"])
        )
        place = bundle / str(rng.choice(["", "language", "a/b"])) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"{}" if name.endswith(".json") and rng.integers(2) else rng.bytes(int(rng.integers(64))))
        planted.append(place.relative_to(bundle).as_posix())
    return ", ".join(planted)


def _zipped(bundle: Path) -> Path:
    made = bundle.with_suffix(".zip")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in bundle.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(bundle).as_posix())
    return made


@kind("bundle: files that its signature does not cover", few=12)
def planted(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    bundle = made.copy(folder)
    if rng.integers(3) == 0:
        _plant_blob(bundle)
        what = "a blob that keeps the golden vector"
    else:
        what = _plant_names(bundle, rng)
    form = "folder"
    if rng.integers(2):
        bundle, form = _zipped(bundle), "zip"
    return told(f"{form}: {what}", made.answers(bundle))


@functools.cache
def mapped() -> Material:
    """A model that adds a map of constants, which OpenVINO computes with where they lie (in the file, where it maps that)."""
    import atexit
    import tempfile

    import openvino as ov
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from openvino import opset13 as ops

    from rsedge.export.signing import write_public

    folder = Path(tempfile.mkdtemp(prefix="rsedge-mapped-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    contract, private = tiny.spec(32), Ed25519PrivateKey.generate()
    bundle = tiny.make_bundle(folder / "bundle", contract)
    extra = np.random.default_rng(9).normal(size=(1, 3, 32, 32)).astype(np.float32)
    core = ov.Core()
    model = core.read_model((bundle / "model.xml").read_bytes(), _tensor((bundle / "model.bin").read_bytes()))
    result = next(r for r in model.get_results() if "logits" in r.input(0).get_source_output().names)
    source = result.input(0).get_source_output()
    added = ops.add(source, ops.constant(extra))
    source.get_tensor().set_names({"before"})
    added.output(0).get_tensor().set_names({"logits"})
    result.input(0).replace_source_output(added.output(0))
    ov.save_model(model, bundle / "model.xml", compress_to_fp16=False)
    with np.load(bundle / "golden.npz") as stored:
        arrays = dict(stored)
    np.savez(bundle / "golden.npz", **arrays | {"logits": arrays["logits"] + extra})
    tiny.write_manifest(bundle, contract, "openvino-cpu-f32", "model.xml")
    tiny.sign(bundle, private)
    dn = np.random.default_rng(5).integers(1, 9000, (1, *contract.shape)).astype(np.uint16)
    logits, _ = tiny.reference(contract, dn[0])
    return Material(bundle, write_public(private, folder / "key.pub"), dn, logits[None] + extra)


def _tensor(content: bytes) -> Any:
    import openvino as ov

    tensor = ov.Tensor(ov.Type.u8, ov.Shape([len(content)]))
    tensor.data[:] = np.frombuffer(content, np.uint8)
    return tensor


def _change(file: Path, rng: np.random.Generator) -> str:
    """Does something to a file that a program may have open: in its place, or by another one under its name."""
    content, way = damaged(file.read_bytes(), rng)
    how = str(rng.choice(["written into", "replaced", "removed", "a pipe", "a link"]))
    if how == "written into":
        with file.open("r+b") as opened:
            opened.write(content)
            opened.truncate()
        return f"{file.name} {way}, {how}"
    file.unlink()
    if how == "replaced":
        file.write_bytes(content)
    elif how == "a pipe":
        os.mkfifo(file)
    elif how == "a link":
        file.with_name(f".{file.name}").write_bytes(content)
        file.symlink_to(f".{file.name}")
    return f"{file.name} {way}, {how}"


@kind("bundle: a file changed after it was checked", few=12)
def changed_later(rng: np.random.Generator, folder: Path) -> Result:
    made = mapped()
    bundle = made.copy(folder)
    files = [bundle / n for n in ("model.bin", "model.bin", "model.xml", "golden.npz", "manifest.json")]
    file, when = files[int(rng.integers(len(files)))], int(rng.integers(3))
    done: list[str] = []

    def act() -> bool:
        with Bundle.open(bundle, made.key) as opened:
            if when == 0:
                done.append(_change(file, rng))
            delay, late = float(rng.uniform(0, 0.03)), threading.Event()

            def later() -> None:
                time.sleep(delay)
                if when == 1:
                    done.append(_change(file, rng))
                late.set()

            threading.Thread(target=later, daemon=True).start()
            with contextlib.closing(opened.session(threads=1)) as session:
                late.wait()
                if when == 2:
                    session({"dn": made.dn})
                    done.append(_change(file, rng))
                answers = [session({"dn": made.dn})["logits"] for _ in range(3)]
            right = all(np.allclose(a, made.logits, atol=1e-3) for a in answers)
            return right and (when != 0 or opened.verify(threads=1).passed)

    result = told("", act)
    moment = ("before the session", "while it opens", "while it is open")[when]
    return Result(result.outcome, f"{done[0] if done else file.name}, {moment}", result.note)


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[Path]:
    before = os.environ.get("RSEDGE_CACHE")
    os.environ["RSEDGE_CACHE"] = str(folder / "cache")
    try:
        yield folder / "cache" / "device"
    finally:
        os.environ.pop("RSEDGE_CACHE")
        if before is not None:
            os.environ["RSEDGE_CACHE"] = before


def _built(bundle: Path) -> Path:
    with Bundle.open(bundle) as opened:
        return Path(opened.backend.build(opened, {})["built"])


def _spoil(device: Path, entry: Path, other: Path, rng: np.random.Generator) -> str:
    """Does to a device's cache what an attacker or a bad disk may do; ``other`` is another bundle's entry."""
    record, key = entry / "record.json", device / "device.key"
    blob = next(entry.glob("*.blob"))

    def spoiled(file: Path) -> Callable[[], object]:
        return lambda: file.write_bytes(damaged(file.read_bytes(), rng)[0])

    def lie(resign: bool) -> None:
        """Other content, with a record that fits it, signed by a key that is not the device's."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        content = lying_blob()[0]
        signed = json.loads(record.read_text())
        inner = json.loads(signed["entry"])
        inner["bytes"] = len(content)
        blob.write_bytes(content)
        inner["sha256"] = sha256_file(blob)
        blob.rename(entry / f"{inner['sha256'][:16]}.blob")
        signed["entry"] = json.dumps(inner)
        if resign:
            signed["signature"] = base64.b64encode(Ed25519PrivateKey.generate().sign(signed["entry"].encode())).decode()
        record.write_text(json.dumps(signed))

    def swap() -> None:
        shutil.rmtree(entry)
        shutil.copytree(other, entry)

    def link() -> None:
        entry.rename(device / "elsewhere")
        entry.symlink_to("elsewhere")

    ways: dict[str, Callable[[], object]] = {
        "blob damaged": spoiled(blob),
        "record damaged": spoiled(record),
        "key damaged": spoiled(key),
        "blob gone": blob.unlink,
        "record gone": record.unlink,
        "key gone": key.unlink,
        "another bundle's entry": swap,
        "another blob, record not signed anew": lambda: lie(False),
        "another blob, signed by another key": lambda: lie(True),
        "folder open to others": lambda: device.chmod(0o777),
        "entry open to its group": lambda: entry.chmod(0o720),
        "key open to others": lambda: key.chmod(0o644),
        "entry is a link": link,
        "blob is a pipe": lambda: (blob.unlink(), os.mkfifo(blob)),
        "record is a pipe": lambda: (record.unlink(), os.mkfifo(record)),
        "record is a link": lambda: (record.rename(device / "moved"), record.symlink_to("../moved")),
        "record is a link to nothing": lambda: (record.unlink(), record.symlink_to("nothing")),
        "record is a folder": lambda: (record.unlink(), (record / "deep").mkdir(parents=True)),
        "blob is a link to nothing": lambda: (blob.unlink(), blob.symlink_to("nothing")),
        "blob is a folder": lambda: (blob.unlink(), blob.mkdir()),
        "key is a link to nothing": lambda: (key.unlink(), key.symlink_to("nothing")),
        "key is a pipe": lambda: (key.unlink(), os.mkfifo(key, 0o600)),
    }
    way = str(rng.choice(list(ways)))
    ways[way]()
    return way


@kind("device cache: an entry damaged, swapped, signed by others, open to others", few=6)
def spoiled_cache(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    bundle = made.copy(folder)
    with _cache(folder) as device:
        entry = _built(bundle).parent
        other = _built(mapped().copy(folder / "other")).parent
        what = _spoil(device, entry, other, rng)
        found = told(what, made.answers(bundle))
        if "; build it anew: rsedge build" not in found.note:
            return found
        mended = told(f"{what}; built anew", lambda: _built(bundle).is_file() and made.answers(bundle)())
        return found if mended.outcome == "harmless" else Result("wrong", mended.what, mended.note)
