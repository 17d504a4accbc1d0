"""``rsedge init`` given whatever: what it writes loads and names the files it was given; the rest is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from rsedge.cli.init import Answers, ask, write_recipe
from rsedge.recipe.reading import load_recipe
from tests.faults.kinds import Result, kind, told
from tests.runtimes import tiny_models as tiny

_NAMES = ("a.tif", "b c.tif", "\u00e9.TIF", "a: b, [c].tif", "'q\".tif", "#1.tif", "{x}.tif",
          "a_mask.tif", "labels/a.tif", "x/masks/b c.tif",
          "a\nb.tif", "-.tif", "no.tif", "1e5.tif", "a/b/c/d.tif", ".hidden.tif", "mask.tif")  # fmt: skip
_TYPES = ("uint8", "int16", "uint16", "uint16", "float32", "float64", "int32", "complex64")
_TEACHERS = ("net.onnx", "onnx:net.onnx", "smp:unet/resnet18", "timm:resnet18", "ukis-csmask-4b-l1c", "presto", "nobody", "",
             "onnx:",             "set/a.tif", ":", "onnx:net.onnx#logits", "hello.txt")  # fmt: skip
_TEXTS = (
    None,
    "",
    ",",
    "a",
    "a, b",
    "a,a",
    "a, b, c",
    "blue, green, red, nir",
    "no, on",
    "\u00e9, #",
    "1, 2",
    "{a}, [b]",
    "a: b, c",
    "x" * 400,
    "\0, b",
)


def _one(rng: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _set(rng: np.random.Generator, folder: Path) -> None:
    """GeoTIFFs of a few kinds under odd names, one of them perhaps no GeoTIFF."""
    usual = _one(rng, _TYPES)
    for name in {_one(rng, _NAMES) for _ in range(int(rng.integers(1, 4)))}:
        path, dtype = folder / name, usual if rng.random() < 0.9 else _one(rng, _TYPES)
        path.parent.mkdir(parents=True, exist_ok=True)
        if rng.random() < 0.1:
            path.write_bytes(rng.bytes(50))
            continue
        label = ("mask" in name or "label" in name) == (rng.random() < 0.9)
        dtype = "uint8" if label else dtype
        values = rng.integers(
            0, 3 if label else 120, (1 if label else 4 if rng.random() < 0.8 else int(rng.integers(1, 6)), 70, 90)
        ).astype(dtype)
        if rng.random() < 0.1 and values.dtype.kind == "f":
            values[:] = np.nan
        with rasterio.open(path, "w", driver="GTiff", dtype=dtype, count=values.shape[0], height=70, width=90) as file:
            file.write(values)
            if rng.random() < 0.6 and values.shape[0] == len(tiny.NAMES):
                file.descriptions = tiny.NAMES


@kind("init: teachers, folders and answers of every kind", few=12)
def answers(rng: np.random.Generator, folder: Path) -> Result:
    os.chdir(folder)
    tiny.make_onnx(folder / "net.onnx", tiny.spec(), with_spec=False)
    (folder / "hello.txt").write_text("hello")
    _set(rng, folder / "set")
    usual = {"teacher": "net.onnx", "data": "set", "bands": ", ".join(tiny.NAMES), "classes": ", ".join(tiny.CLASSES)}
    odd = {
        "name": (None, "x", "../x", "a b", "\u00e9"),
        "teacher": _TEACHERS,
        "checkpoint": ("net.onnx", "none", "set"),
        "data": (
            "set/a.tif",
            "none",
            ",",
            "ukis-sentinel2",
            "worldcereal-crop",
            "torchgeo:eurosat",
            "x.csv",
            "set, set",
        ),
        "bands": _TEXTS,
        "classes": _TEXTS,
        "student": ("slim-unet", "none", "2", "99"),
        "targets": ("openvino-cpu-f32", "", "a-b-c"),
    }
    given = Answers(**usual | {name: _one(rng, choices) for name, choices in odd.items() if rng.random() < 0.12})
    output = folder / "out/recipe.yaml"
    output.parent.mkdir()

    def right() -> bool:
        start = ask(given, interactive=False)
        try:
            recipe = load_recipe(write_recipe(output, start))
        finally:
            assert output.exists() or not list(output.parent.iterdir()), "something is left"
        if start.samples:
            return True
        files = [section.path.resolve() for section in (*recipe.scenes.train, recipe.scenes.test) if section.path]
        return all(path.is_file() for path in files) and tuple(recipe.teacher.classes) == start.classes

    return told(f"{given}", right)
