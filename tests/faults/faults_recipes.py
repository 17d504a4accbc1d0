"""Recipes by others that name files of whoever runs them: no word of such a file may come out, whatever the file is."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rsedge.cli.main import run_app
from rsedge.data.errors import RsedgeError
from rsedge.data.scenes.raster import open_raster
from rsedge.data.sets.sample_sources import load_samples
from rsedge.devices.mission.description import load_mission
from rsedge.export.signing import load_key
from rsedge.models.checkpoint import read_checkpoint
from rsedge.recipe.reading import load_recipe
from tests.faults.kinds import Result, kind

RECIPE: dict[str, Any] = {
    "name": "theirs",
    "teacher": {"name": "ukis-csmask-6b-l1c"},
    "data": {"train": [{"source": "ukis-sentinel2"}], "test": {"source": "ukis-sentinel2"}},
    "steps": [{"distill": {"steps": 10}}],
    "targets": ["openvino-cpu-f32"],
}
SECRETS: dict[str, Callable[[str], str]] = {
    "passwd": lambda s: f"root:x:0:0:{s}:/root:/bin/bash\n{s}:x:1:1::/:/bin/sh\n",
    "environment": lambda s: f"API_KEY={s}\nOTHER={s}\n",
    "netrc": lambda s: f"machine example.org login {s} password {s}\n",
    "ini": lambda s: f"[{s}]\naws_secret_access_key = {s}\n",
    "json": lambda s: json.dumps({"auths": {s: {"auth": s}}, s: 1}),
    "yaml": lambda s: f"apiVersion: v1\n{s}: {s}\nkind: Secret\nstringData: {{{s}: {s}}}\n",
    "yaml of lists": lambda s: f"- {s}\n- {s}\n",
    "twice": lambda s: f"{s}: 1\n{s}: 2\n",
    "alias": lambda s: f"x: *{s}\n",
    "tag": lambda s: f"x: !{s} 1\n",
    "anchors": lambda s: f"a: &{s} 1\nb: &{s} 2\n",
    "percent": lambda s: f"%{s}\n---\nx\n",
    "a word": lambda s: s,
    "two lines": lambda s: f"{s}\n{s}\n",
    "number": lambda s: f"x: 0b{s}\n",
    "binary": lambda s: f"\x00\x01{s}",
    "key": lambda s: f"-----BEGIN PRIVATE KEY-----\n{s}\n-----END PRIVATE KEY-----\n",
}  # fmt: skip
SUFFIXES = (
    "",
    ".yaml",
    ".yml",
    ".json",
    ".csv",
    ".xml",
    ".txt",
    ".tif",
    ".npz",
    ".jsonl",
    ".safetensors",
    ".pt",
    ".onnx",
)


def named(place: Path, secret: Path, rng: np.random.Generator) -> str:
    """The file by one of its names: absolute, relative, by a link in the recipe's folder."""
    way = int(rng.integers(4))
    if way == 0:
        return str(secret)
    if way == 1:
        return os.path.relpath(secret, place)
    link = place / f"mine{rng.choice(SUFFIXES)}"
    link.symlink_to(secret if way == 2 else secret.parent)
    return str(link.name if way == 2 else f"{link.name}/{secret.name}")


def uses(place: Path, name: str) -> dict[str, Callable[[], object]]:
    """Ways in which a recipe and what it names may reach a file."""

    def recipe(**changes: Any) -> Callable[[], object]:
        path = place / "recipe.yaml"
        path.write_text(yaml.safe_dump(RECIPE | changes))
        return lambda: _run(path)

    def samples(source: str, **options: Any) -> Callable[[], object]:
        return lambda: load_samples(source, place, **options)

    mission = place / "mission.yaml"

    def by_mission() -> object:
        mission.write_text(yaml.safe_dump({"$import": name, "orbit": {}}))
        return load_mission(mission)

    return {
        "$import": lambda: recipe(**{"$import": name})(),
        "$import, nested": lambda: recipe(teacher={"$import": name, "name": "x"})(),
        "$import alone": lambda: (place / "r.yaml").write_text(f"$import: {json.dumps(name)}\n") and load_recipe(place / "r.yaml"),
        "recipe": lambda: load_recipe(place / name),
        "mission": lambda: load_mission(place / name),
        "mission, $import": by_mission,
        "recipe's mission": lambda: recipe(mission=name)(),
        "checkpoint": lambda: read_checkpoint(place / name),
        "signing.key": lambda: load_key(place / name),
        "scene": lambda: open_raster(place / name),
        "table": samples(name, bands={"blue": "B02"}),
        "boxes": samples("boxes", annotations=[name], tile=32),
        "captions": samples("captions:file", layout={"file": name, "image": ["image"], "texts": ["text"]}, tile=32),
        "captions, records": samples(
            "captions:file", layout={"file": name, "records": "x", "image": ["image"], "texts": ["text"]}, tile=32
        ),
        "pairs": samples("pairs", pairs=[{"before": name, "after": name, "labels": name}], tile=32),
    }  # fmt: skip


def _run(path: Path) -> object:
    from rsedge.pipeline.run import plan

    return plan(load_recipe(path))


@kind("recipes: files that are none of theirs", few=40)
def named_files(rng: np.random.Generator, folder: Path) -> Result:
    secret = "s3cr" + rng.bytes(6).hex()
    place, private = folder / "shared", folder / "private"
    place.mkdir()
    private.mkdir()
    content = str(rng.choice(list(SECRETS)))
    # Where the file is what it seems, in the user's own folder too.
    file = (private if rng.random() < 0.7 else place) / f"theirs{rng.choice(SUFFIXES)}"
    file.write_text(SECRETS[content](secret))
    ways = uses(place, named(place, file, rng))
    way = str(rng.choice(list(ways)))
    what = f"{way}: {content}, {file.parent.name}/{file.name}"
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            ways[way]()
        except RsedgeError as error:
            output.write(str(error))
        except Exception as error:  # noqa: BLE001 - what is looked for
            return Result("crashed", what, f"{type(error).__name__}: {error}"[:300])
        else:
            return Result("wrong", what, "was taken")
    if secret in output.getvalue():
        return Result("wrong", what, output.getvalue()[:300].replace("\n", " "))
    return Result("refused", what, output.getvalue()[:200])


@kind("recipes: imports from elsewhere", few=5)
def imports(rng: np.random.Generator, folder: Path) -> Result:
    """Real sections: from inside the recipe's folder or one that is allowed they are taken, from elsewhere refused."""
    shared, elsewhere = folder / "shared" / "recipes", folder / "private"
    (shared / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    place = [shared, shared / "sub", elsewhere, shared.parent][int(rng.integers(4))]
    (place / "teacher.yaml").write_text("name: ukis-csmask-6b-l1c\n")
    name = named(shared, place / "teacher.yaml", rng)
    allowed = bool(rng.random() < 0.4)
    recipe = shared / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"teacher": {"$import": name}}))
    inside = place.is_relative_to(shared) or allowed
    what = f"{place.relative_to(folder)}, as {name}, {'' if allowed else 'not '}allowed"
    options = [x for p in ([place] if allowed else []) for x in ("--allow-import", str(p))]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = run_app(["run", str(recipe), "--until", "no-such-stage", "--run-dir", str(folder / "run"), *options])
    taken = "no such stage" in output.getvalue()
    if code != 2 or taken != inside:
        return Result("wrong", what, output.getvalue()[:300])
    return Result("harmless" if taken else "refused", what)
