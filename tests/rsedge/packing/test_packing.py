"""A folder that flies: which files it takes, and that it runs alone."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_file
from rsedge.packing import elf
from rsedge.packing.distributions import Interpreter, interpreter, taken
from rsedge.packing.our_code import our_files
from rsedge.packing.pack import check
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


def library(path: Path, *asks_for: str) -> Path:
    """A 64-bit ELF file with one mapped part and a dynamic section, as small as can be."""
    texts = b"\0" + b"".join(name.encode() + b"\0" for name in asks_for)
    at, place = 64 + 2 * 56, 1
    entries = b""
    for name in asks_for:
        entries += struct.pack("<qQ", 1, place)
        place += len(name) + 1
    dynamic = entries + struct.pack("<qQqQ", 5, at, 0, 0)
    size = at + len(texts) + len(dynamic)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, size, size, 4096)
    found = struct.pack("<IIQQQQQQ", 2, 4, at + len(texts), at + len(texts), 0, len(dynamic), len(dynamic), 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + load + found + texts + dynamic)
    return path


def test_libraries_say_what_they_ask_for(tmp_path: Path) -> None:
    place = library(tmp_path / "a.so", "libb.so.1", "libc.so.6")
    assert elf.needed(place.read_bytes()) == ["libb.so.1", "libc.so.6"] and elf.is_elf(place)
    assert elf.loadable(place.read_bytes())
    moved = bytearray(place.read_bytes())
    struct.pack_into("<Q", moved, 64 + 16, 0x10)  # mapped to an address that its place in the file does not allow
    assert not elf.loadable(bytes(moved))
    libraries = {
        "a": place,
        "libb.so.1": library(tmp_path / "b", "libd.so"),
        "libd.so": library(tmp_path / "d"),
        "e": place,
    }
    assert elf.closure(["a"], libraries) == {"a", "libb.so.1", "libd.so"}
    assert elf.glibc(b"xGLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE") == (2, 34) and elf.glibc(b"") == (0, 0)
    for content in (b"MZ", b"\x7fELF\x01" + bytes(60), place.read_bytes()[:100]):
        with pytest.raises(ValueError, match="ELF"):
            elf.needed(content)


def test_libraries_of_this_python_are_read_as_the_linker_reads_them() -> None:
    import numpy._core._multiarray_umath as compiled

    found = elf.needed(Path(compiled.__file__ or "").read_bytes())
    assert any(name.startswith("libc.so") for name in found) and all(".so" in name for name in found)


def wheel(site: Path, name: str, files: dict[str, bytes | tuple[str, ...]], requires: tuple[str, ...] = ()) -> None:
    """An installed package: files, of which a tuple is a library that asks for others."""
    for place, content in files.items():
        if isinstance(content, tuple):
            library(site / place, *content)
        else:
            (site / place).parent.mkdir(parents=True, exist_ok=True)
            (site / place).write_bytes(content)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
    (info / "WHEEL").touch()
    listed = [*files, f"{info.name}/METADATA", f"{info.name}/WHEEL", "../../bin/tool"]
    (info / "RECORD").write_text("".join(f"{one},,\n" for one in listed))


def test_of_openvino_only_what_the_device_needs(tmp_path: Path) -> None:
    libs = "openvino/libs/"
    files: dict[str, bytes | tuple[str, ...]] = {
        "openvino/__init__.py": b"", "openvino/_pyopenvino.so": ("libopenvino.so.1",), "openvino/tools/x.py": b"",
        "openvino/x.pyi": b"", libs + "libopenvino.so.1": ("libtbb.so.12", "libc.so.6"), libs + "libtbb.so.12": (),
        libs + "libopenvino_ir_frontend.so.1": (), libs + "libopenvino_intel_cpu_plugin.so": ("libopenvino.so.1",),
        libs + "libopenvino_intel_gpu_plugin.so": (), libs + "libopenvino_onnx_frontend.so.1": (), libs + "cache.json": b"{}",
    }  # fmt: skip
    needs = ("numpy", "openvino-telemetry", "gone; python_version < '3'", "extra-thing; extra == 'x'")
    wheel(tmp_path, "openvino", files, needs)
    dropped = {"numpy/tests/test_a.py": b"", "numpy/f2py/a.py": b"", "numpy/include/a.h": b""}
    wheel(tmp_path, "numpy", {"numpy/__init__.py": b"", **dropped})
    here = Interpreter("python", (3, 11), "linux-x86_64", (str(tmp_path),))
    openvino, numpy = taken(["openvino"], here, "cpu")
    assert {n.removeprefix(libs) for n in openvino.files if n.startswith(libs)} == {
        "libopenvino.so.1", "libtbb.so.12", "libopenvino_ir_frontend.so.1", "libopenvino_intel_cpu_plugin.so"
    }  # fmt: skip
    assert set(openvino.files) - {n for n in openvino.files if "/libs/" in n} == {
        "openvino/__init__.py", "openvino/_pyopenvino.so", "openvino-1.0.dist-info/METADATA"
    }  # fmt: skip
    assert set(numpy.files) == {"numpy/__init__.py", "numpy-1.0.dist-info/METADATA"}
    gpu, _ = taken(["openvino"], here, "gpu-arc")
    assert libs + "libopenvino_intel_gpu_plugin.so" in gpu.files and libs + "cache.json" in gpu.files
    shutil.rmtree(tmp_path / "numpy-1.0.dist-info")
    with pytest.raises(MissingCapability, match=r"'numpy', which openvino needs.*pip install numpy"):
        taken(["openvino"], here, "cpu")
    with pytest.raises(RequestError, match="--python"):
        interpreter(str(tmp_path / "none"))


def test_our_code_is_what_flies() -> None:
    found = our_files()
    rooms = {name.split("/")[1] for name in found if name.count("/") > 1}
    assert (
        not rooms & {"models", "compress", "export", "stages", "tasks", "pipeline"}
        and {"data", "runtimes", "devices"} <= rooms
    )
    assert {"rsedge/__init__.py", "rsedge/cli/main.py", "rsedge/runtimes/inference/works/maps.py"} <= set(found)
    assert "rsedge/devices/profiles/shipped/cpu.yaml" in found


def test_what_is_not_there_is_refused(cli: Callable[..., Any], bundle: Callable[..., Path], tmp_path: Path) -> None:
    code, _, errors = cli("pack", bundle(), "-o", tmp_path / "p", "--for", "raspberry-pi-5")
    assert code == 2 and "is for cpu" in errors
    (tmp_path / "mine").mkdir()
    code, _, errors = cli("pack", bundle(), "-o", tmp_path / "mine")
    assert code == 2 and "no pack" in errors
    with pytest.raises(RequestError, match="is no pack"):
        check(tmp_path / "mine")


def small_pack(folder: Path) -> dict[str, Any]:
    """A folder of two files with its list; what ``check`` looks at, without what runs."""
    rows = {}
    for name, content in (("run", b"#!/bin/sh"), ("bundle/model.xml", b"<net/>")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        rows[name] = {"bytes": len(content), "sha256": sha256_file(folder / name)}
    listed = {"rsedge": "0.1.0", "target": "openvino-cpu-f32", "files": rows}
    (folder / "pack.json").write_text(json.dumps(listed))
    return listed


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("files"), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_list_is_an_error_that_names_it(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes altered, cut or put in, or any value in place of any of the list's: the pack is as listed, or an error says where."""
    listed = small_pack(tmp_path)
    content = (tmp_path / "pack.json").read_bytes()
    if data.draw(st.booleans(), "by bytes"):
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.binary(max_size=4)) + content[at + data.draw(st.integers(0, 40)) :]
    else:
        row = listed["files"]["run"]
        place, name = data.draw(
            st.sampled_from([(listed, "files"), (listed["files"], "run"), (row, "bytes"), (row, "sha256")])
        )
        place[name] = data.draw(JSON_VALUES)
        content = json.dumps(data.draw(st.just(listed) | JSON_VALUES)).encode()
    (tmp_path / "pack.json").write_bytes(content)
    try:
        found = check(tmp_path)
    except RequestError as error:
        assert str(tmp_path / "pack.json") in str(error) and "copy it again" in str(error).replace("the pack", "it")
    else:
        assert all(line.endswith(("is missing", "is not listed", "was altered")) for line in found)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"), (b"\x00\xff", "not valid JSON"), (b"[]", "holds a list"), (b"{}", "files: does not list"),
        (b'{"files": []}', "files: does not list"), (b'{"files": {"run": 3}}', "files.run"),
        (b'{"files": {"run": {"sha256": "ab", "bytes": 1}}}', "files.run: sha256"),
        (b'{"files": {"run": {}}}', "files.run: sha256"), (b'{"files": ' + b"[" * 10_000, "nested deeper"),
        (b" " * ((64 << 20) + 1), "larger than"),
    ],
)  # fmt: skip
def test_verify_of_a_damaged_pack(tmp_path: Path, cli: Callable[..., Any], content: bytes, words: str) -> None:
    small_pack(tmp_path)
    (tmp_path / "pack.json").write_bytes(content)
    code, _, errors = cli("verify", tmp_path)
    assert code == 2 and words in errors and "pack.json" in errors and "copy" in errors, errors


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_verify_of_a_pack_whose_list_is_no_file(tmp_path: Path, cli: Callable[..., Any], kind: str) -> None:
    small_pack(tmp_path)
    place = tmp_path / "pack.json"
    if kind == "link":
        place.rename(tmp_path.parent / "elsewhere.json")
    else:
        place.unlink()
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path.parent / ("elsewhere.json" if kind == "link" else "gone"))
    code, _, errors = cli("verify", tmp_path)
    words = {"folder": "Is a directory", "pipe": "no plain file"}.get(kind, "is a link")
    assert code == 2 and words in errors and "pack.json" in errors, errors


@pytest.mark.slow  # copies 250 MB and starts Python three times
def test_a_pack_flies_alone(cli: Callable[..., Any], bundle: Callable[..., Path], tmp_path: Path) -> None:
    """In an empty environment, without site packages or a home, from a folder that nobody may write: the map of `rsedge infer`."""
    place, scene = tmp_path / "pack", tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(SPEC, 70, 80), tiny.NAMES)
    code, text, errors = cli("pack", bundle(), "-o", place)
    assert code == 0 and "python3." in text, errors
    assert check(place) == []
    listed = json.loads((place / "pack.json").read_text())
    assert listed["bytes"] == sum(p.stat().st_size for p in place.rglob("*") if p.is_file() and p.name != "pack.json")
    assert not any(part in name for name in listed["files"] for part in ("gpu_plugin", "onnx_frontend", ".pyc"))
    for folder, _, _ in os.walk(place):
        Path(folder).chmod(0o555)
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}"
    surroundings = {"PATH": "/usr/bin:/bin", "PYTHON": str(base), "HOME": "/nonexistent"}
    command = [str(place / "run"), "infer", str(scene), "-o", str(tmp_path / "packed.tif"), "--threads", "1"]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert check(place) == [] and cli("verify", place)[0] == 0
    assert cli("infer", bundle(), scene, "-o", tmp_path / "right.tif", "--threads", 1)[0] == 0
    with rasterio.open(tmp_path / "packed.tif") as one, rasterio.open(tmp_path / "right.tif") as other:
        assert np.array_equal(one.read(), other.read()) and one.profile == other.profile
    (place / "lib" / "numpy").chmod(0o755)
    (place / "lib" / "numpy" / "__init__.py").write_text("")
    assert check(place) == ["lib/numpy/__init__.py: was altered"]
    code, _, errors = cli("verify", place)
    assert code == 2 and "this pack is not whole: lib/numpy/__init__.py: was altered" in errors
    for folder, _, _ in os.walk(place):
        Path(folder).chmod(0o755)
