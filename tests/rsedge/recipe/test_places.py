"""What a recipe says, apart from where its files lie: one hash on every machine, no path of the schema forgotten."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rsedge.data.documents import Document, Place
from rsedge.recipe.places import placeless, placeless_name, recipe_hash
from rsedge.recipe.reading import AnyRecipe, check_any, load_recipe, packaged_recipes, resolved
from rsedge.recipe.schema import Recipe

READY = {
    "cloud-mask": "d8cad2d6be9857118fca931ec6cfbce977343b47527ea3fb2ab8cbe823fa92e7",
    "crop-series": "27b6bfe546408ea2036b792b03d9f6ac888df57a71f39eda97aebcee963ea45e",
    "geo-embedding": "aa35bac0208792e2eb705ac24e0a7aea7ed25b83e2471ece2dc3ca28dd63fd4c",
    "local-climate-zones": "35a70bec4422c6cf9d76527e783996198916fa5c3b158825b4dfaec96949371c",
    "quickstart": "49ed052cfcaf455a61ceace804fcf25f770f48ed51951fa4d7a971f42250e914",
    "tree-boxes": "ebf6b7916a37c8a59d3f2baa4e44bd9963166c79d937f089fdc8766fca41f3d5",
}
"""A change here makes every measured row of the recipe another recipe's: a new field says nothing where it is left out."""
INPUT = {"bands": ["red", "nir"], "tile": 64, "scale": 1e-4, "mean": 0.1, "std": 0.1}
STEPS = [{"distill": {"steps": 2}}]
SCENES: dict[str, Any] = {
    "name": "x",
    "teacher": {"name": "onnx:net.onnx#/head/out", "input": INPUT, "classes": ["a"]},
    "teachers": [{"name": "transformers:other", "input": INPUT, "classes": ["a"]},
                 {"name": "ukis-csmask-4b-l1c", "checkpoint": "b.safetensors", "adapter": "lora", "vision": "tower"}],
    "data": {"train": [{"path": "train.tif"}], "test": {"path": "judge.tif", "labels": {"path": "map.tif"}},
             "selection": {"path": "choose.tif", "labels": "map-2.tif"}},
    "student": {"name": "slim-unet"}, "steps": STEPS, "targets": ["openvino-cpu-f32"],
    "signing": {"key": "key.pem"}, "mission": "orbit.yaml",
}  # fmt: skip
PAIR = [{"before": "a.tif", "after": "b.tif", "labels": "c.tif"}]
TABLE = SCENES | {"data": {"samples": {"source": "fields.parquet", "options": {"labels": "crop"}}}}
CHIPS = SCENES | {"data": {"samples": {"source": "chips", "root": "set", "options": {"folder": "chips", "tile": 8}}}}
PAIRS = SCENES | {"data": {"samples": {"source": "pairs", "options": {"pairs": PAIR, "tile": 8}}}}
FINER = SCENES | {
    "data": {"samples": {"source": "finer", "options": {"scenes": [{"scene": "a", "finer": "b"}], "tile": 16}}}
}
PARTS: dict[str, Any] = {
    "name": "x", "whole": "prompted-masks", "teacher": {"name": "sam-base", "checkpoint": "sam.safetensors"},
    "parts": {"encoder": {"teacher": {"name": "sam-base", "checkpoint": "own.safetensors"}}, "decoder": {}},
    "data": {"samples": "prompts.npz"}, "targets": ["openvino-cpu-f32"],
}  # fmt: skip
OF = {"scenes": SCENES, "table": TABLE, "chips": CHIPS, "pairs": PAIRS, "finer": FINER, "parts": PARTS}


def at(folder: Path, content: dict[str, Any]) -> AnyRecipe:
    return check_any(Document(json.loads(json.dumps(content)), {(): Place("recipe.yaml", 1, folder)}))


@pytest.mark.parametrize("name", packaged_recipes())
def test_a_ready_recipe_has_the_hash_it_had_wherever_its_data_lie(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSEDGE_DATA", "/somewhere/else")
    assert recipe_hash(resolved(load_recipe(name))) == READY[name]


@pytest.mark.parametrize("content", OF.values(), ids=OF)
def test_paths_are_taken_from_the_recipes_folder_and_are_no_part_of_its_hash(content: dict[str, Any]) -> None:
    one, two = at(Path("/first"), content), at(Path("/second/place"), content)
    written = json.dumps(resolved(one))
    assert written.count("/first/") == json.dumps(resolved(two)).count("/second/place/") > 0
    assert recipe_hash(resolved(one)) == recipe_hash(resolved(two))
    assert placeless(one) == placeless(two) and "/first" not in json.dumps(placeless(one))
    renamed = json.loads(written.replace('"x"', '"y"', 1))
    assert recipe_hash(renamed) != recipe_hash(resolved(one))


def test_what_is_no_path_stays() -> None:
    assert placeless_name("onnx:/far/net.onnx#/head/out") == "onnx:(file)#/head/out"
    assert placeless_name("timm:resnet50") == "timm:resnet50" and placeless_name("a#net.b[1]") == "a#net.b[1]"
    recipe = at(Path("/first"), SCENES)
    assert isinstance(recipe, Recipe) and recipe.teacher.name == "onnx:/first/net.onnx#/head/out"
    assert recipe.teachers[0].name == "transformers:/first/other"


def test_no_field_that_is_a_path_is_forgotten_above() -> None:
    """Every field of the schema whose type is a path stands in one of the recipes above."""
    from rsedge.recipe.parts import PartsRecipe

    fields = {name for kind in (Recipe, PartsRecipe) for name in paths_in(kind)}
    written = json.dumps(list(OF.values()))
    assert {name for name in fields if f'"{name}"' not in written} == set()
    assert len(fields) >= 8


def paths_in(kind: Any) -> Iterator[str]:
    """Names of the fields below a section that are paths."""
    for name, field in kind.model_fields.items():
        for inner in leaves(field.annotation):
            if inner is Path:
                yield name
            elif isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from paths_in(inner)


def leaves(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from leaves(inner)
