"""Archives, JSON, YAML and arrays that are built to exhaust a device, or to slip past what looks at them."""

from __future__ import annotations

import io
import itertools
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.documents import read_document
from rsedge.data.errors import RsedgeError
from rsedge.data.files import read_json
from rsedge.export.signing import write_public
from rsedge.runtimes import Bundle
from rsedge.runtimes.inference.vectors import read_samples
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged, flipped, material
from tests.runtimes import tiny_models as tiny

MOST_WRITTEN, MOST_MEMORY = 32 << 20, 256 << 20
BOMB = 96 << 20
THEIRS = Ed25519PrivateKey.generate()
SERIES = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), dtype="float32", tile=1, layout="TC", frames=3)


def written() -> int:
    """Bytes that this process has written so far."""
    return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])


def peak() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10


def bounded(what: str, act: Callable[[], bool]) -> Result:
    """As :func:`told`, but it is wrong where much was written or held on the way."""
    Path("/proc/self/clear_refs").write_text("5")
    before, held = written(), peak()
    found = told(what, act)
    wrote, took = written() - before, peak() - held
    if wrote > MOST_WRITTEN or took > MOST_MEMORY:
        return Result(
            "wrong", what, f"wrote {wrote >> 20} MiB, held {took >> 20} MiB more; {found.outcome} {found.note}"
        )
    return found


def info(name: str, method: int = zipfile.ZIP_DEFLATED, **more: Any) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.compress_type = method
    for field, value in more.items():
        setattr(found, field, value)
    return found


def zip_of(files: dict[str, bytes], extra: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(info(name), content)
        for one, content in extra:
            archive.writestr(one, content)
    return sink.getvalue()


def foreign_bomb(files: dict[str, bytes], folder: Path) -> bytes:
    """A bundle of someone else's, signed by themselves, of which one file unpacks to a great deal."""
    made = folder / "theirs"
    made.mkdir()
    for name, content in files.items():
        (made / name).write_bytes(content)
    with (made / "model.bin").open("wb") as file:
        file.truncate(BOMB)
    (made / "manifest.json").unlink()
    for name in ("manifest.sig", "signing.pub"):
        (made / name).unlink()
    tiny.write_manifest(made, tiny.spec(32), "openvino-cpu-f32", "model.xml")
    tiny.sign(made, THEIRS)
    return zip_of({p.name: p.read_bytes() for p in sorted(made.iterdir())}, [])


def overlaid(content: bytes, rng: np.random.Generator) -> bytes:
    """All entries of the list point at one entry's bytes."""
    found, place = bytearray(content), content.find(b"PK\x01\x02")
    target = int(rng.integers(0, 2)) * 30
    while place >= 0:
        found[place + 42 : place + 46] = struct.pack("<I", target)
        place = content.find(b"PK\x01\x02", place + 46)
    return bytes(found)


def lying(content: bytes, rng: np.random.Generator) -> bytes:
    """One number in the list of entries is another: sizes, offsets, lengths, method, flags, counts."""
    found, start = bytearray(content), content.find(b"PK\x01\x02")
    at = start + int(rng.integers(4, max(5, len(content) - start - 4)))
    width, value = int(rng.choice([1, 2, 4])), int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
    found[at : at + width] = (value & (256**width - 1)).to_bytes(width, "little")
    return bytes(found)


def many(rng: np.random.Generator) -> list[tuple[zipfile.ZipInfo, bytes]]:
    return [(info(f"{n}.txt", zipfile.ZIP_STORED), b"") for n in range(int(rng.choice([1500, 30_000])))]


def odd_name(rng: np.random.Generator) -> str:
    names = ["x" * 300, "a/" * 40 + "b", "../up", "/etc/cron.d/x", "C:\\x", "a\\b", "model.xml/inside", "MODEL.XML", "model.xml",
             "e\u0301", "a\u202egnp.x", "a\nb", "\u200b", "manifest.json/", "con", ".", "a//b", "a/./b", "é" * 150]  # fmt: skip
    return str(rng.choice(names))


@kind("bundle zip: built to exhaust or to slip past", few=15)
def zip_built(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    files = {p.name: p.read_bytes() for p in sorted(made.bundle.iterdir())}
    whole = zip_of(files, [])
    ways: dict[str, Callable[[], bytes]] = {
        "a bomb of someone else's": lambda: foreign_bomb(files, folder),
        "a bomb beside": lambda: zip_of(files, [(info("extra.bin"), bytes(BOMB))]),
        "a bomb for a signature": lambda: zip_of(
            {n: c for n, c in files.items() if n != "manifest.sig"}, [(info("manifest.sig"), bytes(BOMB // 2))]
        ),
        "many entries": lambda: zip_of(files, many(rng)),
        "an odd name": lambda: zip_of(files, [(info(odd_name(rng)), b"x")]),
        "a link": lambda: zip_of(files, [(info("l", external_attr=0o120777 << 16), b"/etc/passwd")]),
        "a device": lambda: zip_of(files, [(info("l", external_attr=0o060666 << 16), b"")]),
        "another method": lambda: zip_of(
            files, [(info("e", int(rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))), bytes(1 << 20))]
        ),
        "entries overlaid": lambda: overlaid(whole, rng),
        "a list that lies": lambda: lying(whole, rng),
        "junk before": lambda: rng.bytes(int(rng.integers(1, 4096))) + whole,
        "junk behind": lambda: whole + rng.bytes(int(rng.integers(1, 4096))),
        "two zips": lambda: zip_of({"manifest.json": b"{}"}, []) + whole,
        "bits": lambda: flipped(whole, rng, int(rng.integers(1, 5))),
        "damaged": lambda: damaged(whole, rng)[0],
    }
    way = str(rng.choice(list(ways)))
    path = folder / "b.zip"
    path.write_bytes(ways[way]())
    return bounded(way, made.answers(path))


def exhausting(rng: np.random.Generator) -> Any:
    """A value that a reader might choke on, as JSON text."""
    depth = int(rng.choice([40, 70, 500, 5000, 200_000]))
    choices = [
        "9" * int(rng.choice([19, 21, 400, 5000])), "-" + "9" * 30, "1e400", "NaN", "-Infinity", "1" + "0" * 5000 + ".5",
        "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, '{"a": 1, "a": 2}', '"\\ud800"', "null", "[]", "7",
        '"' + "x" * 300 + '"', "true", '"\\u0000"', "[" + "0," * 100_000 + "0]", "{}", '""', "1e308", "-1",
    ]  # fmt: skip
    return str(rng.choice(choices))


@kind("manifest: values built to exhaust or to slip past", few=30)
def manifest_built(rng: np.random.Generator, folder: Path) -> Result:
    """The manifest is signed, so that only its content is left to stop it."""
    made = material()
    bundle, key = made.copy(folder), Ed25519PrivateKey.generate()
    text = (bundle / "manifest.json").read_text()
    values = [m for m in range(len(text)) if text[m : m + 2] == ": "]
    at = int(rng.choice(values)) + 2
    _, end = json.JSONDecoder().raw_decode(text, at)
    value = exhausting(rng)
    whole = value if rng.random() < 0.2 else text[:at] + value + text[end:]
    (bundle / "manifest.json").write_bytes(damaged(text.encode(), rng)[0] if rng.random() < 0.2 else whole.encode())
    tiny.sign(bundle, key)
    return bounded(
        f"{text[max(0, at - 30) : at]!r} -> {value[:30]}", made.answers(bundle, write_public(key, folder / "k.pub"))
    )


@kind("JSON: built to exhaust or to slip past", few=60)
def json_built(rng: np.random.Generator, folder: Path) -> Result:
    path, value = folder / "a.json", exhausting(rng)
    if rng.random() < 0.1:  # many small values, which weigh the most in memory
        one = str(rng.choice(["[]", "{}", "1", '""', '{"a":1}', "[[1]]"]))
        value = "[" + ",".join([one] * 8_000_000) + "]"
    text = value if rng.random() < 0.5 else '{"a": [1, ' + value + '], "b": "x"}'
    content = damaged(text.encode(), rng)[0] if rng.random() < 0.3 else text.encode()
    path.write_bytes(content)

    def strict() -> bool:
        found = read_json(path)
        again = json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
        return bool(json.loads(again) == found)

    return bounded(text[:60], strict)


@kind("YAML: recipes built to exhaust or to slip past", few=15)
def yaml_built(rng: np.random.Generator, folder: Path) -> Result:
    names = "abcdefghij"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{n}: &{n} [{', '.join(['*' + b] * 9)}]\n" for b, n in itertools.pairwise(names)
    )
    depth = int(rng.choice([20, 40, 500, 5000]))
    texts = [
        bomb, "a: &a [*a]", "a: " + "[" * depth + "]" * depth, "a:\n" + "".join(" " * n + "- \n" for n in range(1, 300)),
        "a: " + "9" * 5000, "a: " + ":".join(["59"] * 150_000), "a: !!python/object/apply:os.system [id]", "a: !!float x",
        "a: !!int x", "a: !!bool x", "a: !!timestamp x", "a: !!binary '=='", "a: !!set {x, y}", "a: !!omap [x]",
        "? [a]\n: b", "<<: {a: 1}",
        "a: 1\na: 2", "- a", "x", "a: 0x", "a: 0b", "a: 1__", "a: \x07",
        "%YAML 9.9\n---\na: 1", "a: 1\n---\nb: 2", "a: .inf", "a: 1e999",
        "a: '\\", 'a: "\\ud800"', "a: |\n" + "x" * 500_000, "a: " + "{b: " * depth + "1" + "}" * depth,
    ]  # fmt: skip
    text = str(rng.choice(texts))
    content = damaged(text.encode(), rng)[0] if rng.random() < 0.3 else text.encode()
    path = folder / "recipe.yaml"
    path.write_bytes(content)
    return bounded(text[:60], lambda: isinstance(read_document(path).value, dict))


@kind("npz of samples: built to exhaust or damaged", few=12)
def npz_built(rng: np.random.Generator, folder: Path) -> Result:
    right = rng.normal(size=(4, 3, 2)).astype(np.float32)
    path, sink, npy, lies = folder / "s.npz", io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez_compressed(sink, dn=right)
    np.save(npy, right)
    np.save(lies, -right)
    shapes = [
        "(4, 3, 2)",
        "(4000000000, 3, 2)",
        "(-4, 3, 2)",
        "()",
        "(True, 3, 2)",
        "(" + "9" * 30 + ",)",
        "(4, 3, 2",
        "(0, 3, 2)",
        "(((" * 200,
    ]
    types = ["'<f4'", "'|O'", "'<U0'", "[('x', '<f4')]", "'>f4'", "'<f4' * 9", "'V400000000'", "'<M8[ns]'"]
    text = f"{{'descr': {rng.choice(types)}, 'fortran_order': {rng.choice(['True', 'False'])}, 'shape': {rng.choice(shapes)}, }}"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"
    ways: dict[str, Callable[[], bytes]] = {
        "a header that lies": lambda: zip_of({"dn.npy": head + right.tobytes()}, []),
        "a bomb": lambda: zip_of({"dn.npy": head + bytes(400 << 20)}, []),
        "an encrypted one": lambda: sink.getvalue().replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "a list that lies": lambda: lying(sink.getvalue(), rng),
        "damaged": lambda: damaged(sink.getvalue(), rng)[0],
        "no zip": lambda: head + right.tobytes(),
        "twice": lambda: zip_of({"dn.npy": head + right.tobytes()}, [(info("dn"), b"x")]),
        "another of the name first": lambda: zip_of({"dn.npy": lies.getvalue()}, [(info("dn"), npy.getvalue())]),
        "another of the name last": lambda: zip_of({"dn": npy.getvalue()}, [(info("dn.npy"), lies.getvalue())]),
    }  # fmt: skip
    way = str(rng.choice(list(ways)))
    path.write_bytes(ways[way]())

    def same() -> bool:
        found = read_samples(path, SERIES)
        return found.shape == right.shape and (
            way.startswith(("a header", "twice")) or bool(np.array_equal(found, right))
        )

    return bounded(f"{way}: {text}", same)


@kind("bundle folder: built to exhaust or to slip past", few=8)
def folder_built(rng: np.random.Generator, folder: Path) -> Result:
    made = material()
    bundle = made.copy(folder)

    def deep() -> None:
        inner = bundle
        for _ in range(60):
            inner /= "d"
            inner.mkdir()

    ways: dict[str, Callable[[], object]] = {
        "many files": lambda: [(bundle / f"{n}.txt").touch() for n in range(3000)],
        "deep folders": deep,
        "a link for a file": lambda: ((bundle / "model.bin").rename(folder / "m"), (bundle / "model.bin").symlink_to(folder / "m")),
        "a link for the manifest": lambda: (
            (bundle / "manifest.json").rename(folder / "m"), (bundle / "manifest.json").symlink_to(folder / "m")
        ),
        "a huge signature": lambda: (bundle / "manifest.sig").write_bytes(bytes(BOMB)),
        "a huge manifest": lambda: (bundle / "manifest.json").write_bytes(b" " * BOMB),
        "a pipe": lambda: os.mkfifo(bundle / "p"),
        "a pipe for the signature": lambda: (
            (bundle / "manifest.sig").unlink(), os.mkfifo(bundle / "manifest.sig")
        ),
        "a folder for the manifest": lambda: ((bundle / "manifest.json").unlink(), (bundle / "manifest.json").mkdir()),
    }  # fmt: skip
    way = str(rng.choice(list(ways)))
    ways[way]()
    return bounded(way, made.answers(bundle))


@kind("names of 300 letters and other odd paths", few=20)
def odd_paths(rng: np.random.Generator, folder: Path) -> Result:
    name = str(rng.choice(["x" * 300, "x" * 5000, "a\0b", "a/" * 2500, "\udcff", "", "."]))
    opening: dict[str, Callable[[], object]] = {
        "bundle": lambda: Bundle.open(folder / name),
        "key": lambda: Bundle.open(material().bundle, key=folder / name),
        "json": lambda: read_json(folder / name),
        "yaml": lambda: read_document(folder / name),
        "npz": lambda: read_samples(folder / name, SERIES),
    }
    what = str(rng.choice(list(opening)))

    def act() -> bool:
        try:
            opening[what]()
        except RsedgeError as error:
            str(error).encode("utf-8", "backslashreplace")
            raise
        return False

    return told(f"{what} {name[:20]!r}", act)
