"""Files that commands are given, of every wrong kind: what each says is our own error, or an answer, never a traceback."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rsedge.cli.main import run_app
from tests.faults.kinds import Result, kind
from tests.faults.material import damaged, material
from tests.runtimes import tiny_models as tiny

ROOT = Path(__file__).resolve().parents[2]
FINE = (0, 2, 3, 4)
LEAVES: list[Any] = [
    None, True, -1, 0, 1e308, -1e308, float("nan"), float("inf"), 10**400, -(10**30), 1e-320, "", "x" * 100_000, "\0", "nan", [],
    {}, [[[[]]]], {"a": {"b": 1}}, "../../etc/passwd", "1:2:3", "\ud7ff\u202e",
]  # fmt: skip
TEXTS = [
    b"a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c]\n",
    b"<<: {name: x}\nname: y\n",
    b"<<: *nothing\n",
    b"a: &a {<<: *a}\n",
    b"name: !!python/object/apply:os.system [id]\n",
    b"name: !x y\n",
    b"name: 2001-12-14t21:59:43.10-05:00\n",
    b"name: 0o777\norbit: 0777\n",
    b"name: " + b"9" * 10_000 + b"\n",
    b"? [a, b]\n: c\n",
    b"{}: x\n",
    b"name: a\nname: b\n",
    b"- " * 5_000 + b"x\n",
    b"[" * 5_000,
    b"{" * 5_000,
    b"name: !!binary x\n",
    b"--- a\n--- b\n",
    b"%YAML 9.9\n---\na: b\n",
    b"\xff\xfea\x00:\x00 \x001\x00",
    b"\xef\xbb\xbfname: x\n",
    b"name: \xff\xfe\n",
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b"\x00",
    b"",
    b"\n" * 1000,
    b"name: .nan\n",
    b"!!set {a, b}\n",
    b"name: 2001-99-99\n",
    b"1: 2\ntrue: 3\n",
]


@functools.cache
def inputs() -> dict[str, Path]:
    """Whole files of what commands read; made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="rsedge-commands-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = {
        name: folder / name
        for name in ("orbit.yaml", "profile.yaml", "bench.json", "recipe.yaml", "model.onnx", "scene.tif")
    }
    run_app(["budget", "--example", "orbit", "--output", str(found["orbit.yaml"])])
    shipped = sorted((ROOT / "devices" / "profiles" / "shipped").glob("atom-x7425e.yaml"))[0]
    shutil.copy(shipped, found["profile.yaml"])
    shutil.copy(ROOT / "recipes" / "quickstart.yaml", found["recipe.yaml"])
    contract = tiny.spec(32)
    tiny.make_onnx(found["model.onnx"], contract)
    tiny.write_scene(found["scene.tif"], tiny.random_scene(contract, 40, 40), tiny.NAMES)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run_app(["bench", str(material().bundle), "--seconds", "0.1", "--threads", "1", "--json"])
    found["bench.json"].write_text(out.getvalue())
    return found


@kind("commands: documents that they read, a value or the text made odd", few=15)
def documents(rng: np.random.Generator, folder: Path) -> Result:
    source = inputs()[str(rng.choice(["orbit.yaml", "profile.yaml", "bench.json"]))]
    file = folder / source.name
    way = str(rng.choice(["value", "value", "text", "damaged"]))
    what = way
    if way == "value":
        value = yaml.safe_load(source.read_text())
        what = _odd_value(value, rng)
        file.write_text(json.dumps(value) if file.suffix == ".json" or rng.random() < 0.3 else yaml.safe_dump(value))
    elif way == "text":
        at = int(rng.integers(len(TEXTS)))
        what = f"text {at}"
        file.write_bytes(TEXTS[at] + (source.read_bytes() if rng.random() < 0.3 else b""))
    else:
        content, what = damaged(source.read_bytes(), rng)
        file.write_bytes(content)
    return _ran(f"{file.name}: {what}", _reading(file, rng))


@kind("commands: no plain file, or another kind of file, where one is read", seconds=20, few=15)
def other_files(rng: np.random.Generator, folder: Path) -> Result:
    ways: dict[str, Callable[[Path], object]] = {
        "empty": lambda p: p.write_bytes(b""),
        "folder": lambda p: p.mkdir(),
        "pipe": os.mkfifo,
        "zero": lambda p: p.symlink_to("/dev/zero"),
        "loop": lambda p: p.symlink_to(p.name),
        "nowhere": lambda p: p.symlink_to("no"),
        "sparse": _sparse,
        "noise": lambda p: p.write_bytes(rng.bytes(5000)),
        "missing": lambda p: None,
        **{name: functools.partial(shutil.copy, path) for name, path in inputs().items()},
    }
    way = str(rng.choice(list(ways)))
    file = folder / str(
        rng.choice(
            [
                "orbit.yaml",
                "bench.json",
                "profile.yaml",
                "model.onnx",
                "model.xml",
                "bundle.zip",
                "x.pub",
                "x.npz",
                "scene.tif",
                "recipe.yaml",
                "report.json",
                "x.safetensors",
                "x.pth",
                "x",
            ]
        )
    )
    ways[way](file)
    return _ran(f"{file.name} is {way}", _reading(file, rng))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50 << 30)


def _reading(file: Path, rng: np.random.Generator) -> list[str]:
    """A command that reads the file."""
    bundle, out, name, made = str(material().bundle), str(file.parent / "out.tif"), str(file), inputs()
    mission = ["--mission", str(made["orbit.yaml"]), "--onnx", str(made["model.onnx"])]
    by_name = {
        "orbit.yaml": [["budget", bundle, "--device", "atom-x7425e", "--mission", name, *mission[2:]]],
        "profile.yaml": [["budget", bundle, "--device", name, *mission], ["devices", "show", name],
                         ["devices", "predict", str(made["model.onnx"]), "openvino-atom-x7425e-f32", "--profile", name]],
        "bench.json": [["budget", bundle, "--device", "atom-x7425e", *mission, "--bench", name]],
    }  # fmt: skip
    every = [
        ["inspect", name],
        ["compare", name, name],
        ["verify", name],
        ["verify", bundle, "--key", name],
        ["build", name],
        ["bench", name, "--seconds", "0.1"],
        ["trust", "add", name, "--name", "x"],
        ["evaluate", bundle, name, name],
        ["evaluate", bundle, str(made["scene.tif"]), name],
        ["infer", bundle, name, "-o", out],
        ["budget", name, "--device", "cpu", *mission],
        ["run", name, "--until", "data"],
        ["budget", bundle, "--device", "atom-x7425e", *mission[:2], "--onnx", name],
        ["devices", "show", name],
        ["devices", "predict", name, "openvino-cpu-f32"],
        ["teachers", name],
        ["sources", name],
    ]
    choices = by_name.get(file.name, every) if rng.random() < 0.7 else every
    chosen = choices[int(rng.integers(len(choices)))]
    return chosen + (["--json"] if rng.random() < 0.5 else [])


def _odd_value(value: Any, rng: np.random.Generator) -> str:
    """Puts something odd at a random place of a document; says where."""
    place = ""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[int(rng.integers(len(keys)))]
        place += f".{key}"
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.85:
            value = value[key]
            continue
        odd = LEAVES[int(rng.integers(len(LEAVES)))]
        value[key] = odd
        return f"{place} = {str(odd)[:30]!r}"


def _ran(what: str, arguments: list[str]) -> Result:
    told, said = io.StringIO(), io.StringIO()
    before, home = Path.cwd(), os.environ.get("XDG_CONFIG_HOME")
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["XDG_CONFIG_HOME"] = place
        try:
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(said):
                code = run_app(arguments)
        except Exception as error:  # noqa: BLE001 - what is looked for
            return Result("crashed", f"{what}: {' '.join(arguments[:3])}", f"{type(error).__name__}: {error}"[:300])
        finally:
            os.chdir(before)
            os.environ.pop("XDG_CONFIG_HOME") if home is None else os.environ.update(XDG_CONFIG_HOME=home)
    if code not in FINE or "Traceback" in said.getvalue():
        return Result("crashed", f"{what}: {' '.join(arguments)}", f"exit code {code}: {said.getvalue()}"[:300])
    if "--json" in arguments and code == 0:
        try:
            json.loads(told.getvalue(), parse_constant=lambda text: 1 / 0)
        except (ValueError, ZeroDivisionError):
            return Result("wrong", f"{what}: {' '.join(arguments)}", told.getvalue()[:300])
    return Result("refused" if code else "harmless", what)
