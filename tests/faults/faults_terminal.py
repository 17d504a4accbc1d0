"""Texts from outside that a terminal would obey: none reaches it, so none can hide or fake what we say of a signature."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from rsedge.cli.main import run_app
from tests.faults.kinds import Result, kind
from tests.faults.material import material
from tests.runtimes import tiny_models as tiny

TRICKS = (
    "\x1b[2K\rtrusted",
    "\x1b[1A\x1b[2K",
    "\x1b]0;x\x07",
    "\x9b2J",
    "a\u202etsurt",
    "\b" * 8 + "trusted",
    "x\x1b[8m",
    "\x7f",
)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@kind("terminal: texts of bundles, scenes and arguments that a terminal would obey", few=12)
def obeyed(rng: np.random.Generator, folder: Path) -> Result:
    made, trick = material(), str(rng.choice(TRICKS))
    bundle = made.copy(folder)
    (bundle / "manifest.sig").unlink()
    scene = tiny.write_scene(folder / "scene.tif", np.tile(made.dn[0], (1, 2, 2)), tiny.NAMES)
    where = str(rng.choice(["manifest", "manifest", "scene", "argument", "file in the bundle"]))
    name = "scene.tif"
    if where == "manifest":
        where += _altered(bundle / "manifest.json", trick, rng)
    elif where == "scene":
        with rasterio.open(scene, "r+") as file:
            file.set_band_description(1, "blue" + trick)
            file.update_tags(**{"note": trick, f"a{trick}": "b"})
    elif where == "argument":
        name = f"scene{trick}.tif".replace("/", "")
    else:
        (bundle / f"extra{trick}").touch()
    commands = {
        "inspect": ["inspect", str(bundle)],
        "inspect scene": ["inspect", str(folder / name)],
        "verify": ["verify", str(bundle)],
        "infer": ["infer", str(bundle), str(folder / name), "-o", str(folder / "map.tif"), "--threads", "1"],
    }
    command = str(rng.choice(list(commands)))
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_app(commands[command])
    what = f"{command}, {where}, {trick!r}"
    if found := OBEYED.search(said.getvalue()):
        return Result("wrong", what, f"the terminal gets {found[0]!r}: {said.getvalue()[-200:]!r}")
    return Result("harmless" if code == 0 else "refused", what, said.getvalue()[-200:])


def _altered(manifest: Path, trick: str, rng: np.random.Generator) -> str:
    """Adds the text to one of the manifest's, or to a name in it; which."""
    content = json.loads(manifest.read_text())
    places = list(_texts(content))
    holder, key = places[int(rng.integers(len(places)))]
    holder[key] += trick
    manifest.write_text(json.dumps(content))
    return f": {key}"


def _texts(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, str):
            yield value, key
        elif isinstance(inner, dict | list):
            yield from _texts(inner)
