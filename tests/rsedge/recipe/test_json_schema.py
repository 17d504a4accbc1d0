"""The JSON Schemas: every field says what it is, ready recipes fit, wrong ones do not; the reference is theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsedge.data.documents import read_document
from rsedge.data.errors import RequestError
from rsedge.devices.mission.description import KINDS as MISSIONS
from rsedge.devices.mission.description import example
from rsedge.devices.profiles.profile import PROFILES
from rsedge.recipe.json_schema import DIALECT, KINDS, json_schema
from rsedge.recipe.reading import packaged_recipes
from rsedge.recipe.reference import COMMAND, PARTS_COMMAND, reference

ROOT = Path(__file__).parents[3]
NUMBERS = {
    "minimum": lambda value, limit: value >= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMaximum": lambda value, limit: value < limit,
}
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
KNOWN = {
    "$ref", "anyOf", "allOf", "if", "then", "type", "enum", "const", "properties", "required", "additionalProperties",
    "minProperties", "maxProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "pattern", *NUMBERS,
    "title", "description", "default", "examples", "unit", "format", "$schema", "$id", "$defs", "propertyNames",
}  # fmt: skip
"""Words that the schemas use: those that check, which :func:`wrong` knows all, and those that only tell."""


def wrong(value: Any, node: dict[str, Any], top: dict[str, Any], place: str = "") -> Iterator[str]:
    """What a value has that its schema forbids; only the keywords that these schemas use."""
    if "$ref" in node:
        yield from wrong(value, top["$defs"][node["$ref"].removeprefix("#/$defs/")], top, place)
    if "anyOf" in node:
        tried = [list(wrong(value, form, top, place)) for form in node["anyOf"]]
        if all(tried):
            yield from min(tried, key=len)
    for case in node.get("allOf", []):
        if not list(wrong(value, case["if"], top)):
            yield from wrong(value, case["then"], top, place)
    if "type" in node and not _is_a(value, node["type"]):
        yield f"{place}: no {node['type']}: {value!r}"
        return
    if "enum" in node and value not in node["enum"]:
        yield f"{place}: {value!r} is none of {node['enum']}"
    if "const" in node and value != node["const"]:
        yield f"{place}: {value!r} is not {node['const']!r}"
    if isinstance(value, dict):
        yield from _wrong_object(value, node, top, place)
    elif isinstance(value, list):
        yield from _wrong_array(value, node, top, place)
    elif isinstance(value, str):
        if not node.get("minLength", 0) <= len(value) <= node.get("maxLength", len(value)):
            yield f"{place}: length"
        if "pattern" in node and not re.search(node["pattern"], value):
            yield f"{place}: {value!r} is not {node['pattern']}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from (f"{place}: {k}" for k, fits in NUMBERS.items() if k in node and not fits(value, node[k]))


def _is_a(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])


def _wrong_object(value: dict[str, Any], node: dict[str, Any], top: dict[str, Any], place: str) -> Iterator[str]:
    properties, extra = node.get("properties", {}), node.get("additionalProperties", True)
    yield from (f"{place}: lacks {name}" for name in node.get("required", []) if name not in value)
    if not node.get("minProperties", 0) <= len(value) <= node.get("maxProperties", len(value)):
        yield f"{place}: {len(value)} fields"
    for name, item in value.items():
        inner = properties.get(name, extra)
        if inner is False:
            yield f"{place}: unknown {name}"
        elif isinstance(inner, dict):
            yield from wrong(item, inner, top, f"{place}.{name}")


def _wrong_array(value: list[Any], node: dict[str, Any], top: dict[str, Any], place: str) -> Iterator[str]:
    if not node.get("minItems", 0) <= len(value) <= node.get("maxItems", len(value)):
        yield f"{place}: {len(value)} entries"
    for number, item in enumerate(value):
        first = node.get("prefixItems", [])
        inner = first[number] if number < len(first) else node.get("items", {})
        yield from wrong(item, inner, top, f"{place}[{number}]")


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Schemas in a schema; names of fields are none."""
    if not isinstance(node, dict):
        return
    yield node
    for key, value in node.items():
        inner = value.values() if key in ("properties", "$defs") else value if isinstance(value, list) else [value]
        if key not in ("default", "examples", "enum", "const", "required"):
            for item in inner:
                yield from schemas(item)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "report"])  # which nobody writes by hand
def test_every_field_says_what_it_is(kind: str) -> None:
    schema = json_schema(kind)
    assert schema["$schema"] == DIALECT
    assert schema["$id"].startswith(f"urn:rsedge:{kind}:")
    silent = {
        f"{node.get('title')}.{name}: give Field(description=...)"
        for node in schemas(schema)
        for name, field in node.get("properties", {}).items()
        if node.get("type") == "object" and "description" not in field
    }
    assert not silent


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_here_knows_every_word_of_the_schemas(kind: str) -> None:
    assert {word for node in schemas(json_schema(kind)) for word in node} <= KNOWN


def test_recipes_have_an_example_for_every_field_without_a_default() -> None:
    schema = json_schema("recipe")
    ours = [schema, *(d for name, d in schema["$defs"].items() if name.endswith("Section") or name == "Step")]
    bare = {
        f"{section['title']}.{name}: give Field(examples=[...])"
        for section in ours
        for name, field in section["properties"].items()
        if name != "$import" and "examples" not in field and field.get("default") is None
    }
    assert not bare


def test_examples_fit_their_fields() -> None:
    schema = json_schema("recipe")
    for node in schemas(schema):
        for example_value in node.get("examples", []):
            plain = {str(k): v for k, v in example_value.items()} if isinstance(example_value, dict) else example_value
            assert not list(wrong(plain, node, schema, node.get("title", ""))), node.get("title")


@pytest.mark.parametrize("name", packaged_recipes())
def test_ready_recipes_fit(name: str) -> None:
    document = read_document(ROOT / f"recipes/{name}.yaml")
    assert not list(wrong(document.value, json_schema("recipe"), json_schema("recipe")))


@pytest.mark.parametrize(
    "document", ["docs/outside.md", "docs/detection.md", "docs/data.md", "docs/probes.md", "README.md"]
)
def test_recipes_in_documents_fit(document: str, tmp_path: Path) -> None:
    schema = json_schema("recipe")
    for block in re.findall(r"^```yaml\n(name:.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S):
        (tmp_path / "recipe.yaml").write_text(block)
        assert not list(wrong(read_document(tmp_path / "recipe.yaml").value, schema, schema))


RIGHT = {
    "name": "mine",
    "teacher": {
        "name": "onnx:a.onnx",
        "input": {"bands": ["red", "nir"], "scale": [1e-4, 1e-4]},
        "classes": ["a", "b"],
    },
    "data": {"train": [{"path": "a.tif"}], "test": {"path": "b.tif", "labels": {"path": "l.tif", "map": {"1": "a"}}}},
    "student": "slim-unet",
    "steps": ["distill", {"quantize": None}],
    "targets": ["openvino-cpu-int8"],
}
PAIRS = {"samples": {"source": "pairs", "options": {"tile": 64, "pairs": [{"before": "a.tif", "after": "b.tif"}]}}}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"data": {"$import": "data.yaml"}},
        {"teacher": {"$import": "t.yaml"}},
        {"data": PAIRS},
        {"seed": 3},
        {"gates": [{"$import": "gate.yaml"}, {"metric": "latency", "min_speedup": 2, "over": "teacher-openvino-f32"}]},
        {"gates": [{"metric": "kappa", "min": 0.5, "max_drop": None}, {"$import": "gate.yaml", "metric": "kappa"}]},
        {"student": {"name": "python:mine"}},
        {"teacher": {"name": "ukis-csmask-6b-l1c"}},
    ],
)
def test_short_forms_and_imports_fit(change: dict[str, Any]) -> None:
    schema = json_schema("recipe")
    assert not list(wrong({**RIGHT, **change}, schema, schema))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"sead": 1}, "unknown sead"),
        ({"seed": -1}, "minimum"),
        ({"seed": 1.5}, "no integer"),
        ({"steps": ["distil"]}, ".steps[0]"),
        ({"steps": [{"prune": {}, "quantize": {}}]}, ".steps[0]"),
        ({"teacher": {}}, "lacks"),
        ({"gates": [{"metric": "kapa", "min": 1}]}, "kapa"),
        ({"targets": []}, "entries"),
        ({"targets": ["opnvino-cpu-int8"]}, ".targets[0]"),
        ({"targets": ["openvino-cpu-int9"]}, ".targets[0]"),
        ({"targets": ["openvino"]}, ".targets[0]"),
        ({"gates": [{"metric": "kappa"}]}, "lacks"),
        ({"gates": [{"metric": "kappa", "max": 1}]}, ".gates[0]"),
        ({"gates": [{"metric": "kappa", "min": 0.5, "max_drop": 0.1}]}, ".gates[0]"),
        ({"gates": [{"metric": "latency", "min_speedup": 2}]}, ".gates[0]"),
        ({"student": "slim-unt"}, "slim-unt"),
        ({"teacher": {"name": "ukis-csmask-6b"}}, "ukis-csmask-6b"),
        ({"data": {"samples": {"source": "pairs", "options": {"tile": 64, "pears": []}}}}, ".data"),
        ({"student": 3}, "student"),
    ],
)
def test_what_is_wrong_does_not_fit(change: dict[str, Any], place: str) -> None:
    schema = json_schema("recipe")
    assert place in "\n".join(wrong({**RIGHT, **change}, schema, schema))


@pytest.mark.parametrize("kind", MISSIONS)
def test_missions_fit(kind: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(example(kind))
    schema = json_schema("mission")
    assert not list(wrong(read_document(tmp_path / "m.yaml").value, schema, schema))
    assert list(wrong({kind: {"altitude": 3}}, schema, schema))


def test_device_profiles_fit() -> None:
    schema = json_schema("device")
    profiles = sorted(PROFILES.glob("*.yaml"))
    assert len(profiles) > 10
    for path in profiles:
        assert not list(wrong(read_document(path).value, schema, schema)), path.name


def test_another_kind_is_refused() -> None:
    with pytest.raises(RequestError, match="choose from recipe, parts, mission, device"):
        json_schema("bundle")


def test_the_reference_is_that_of_the_schema() -> None:
    assert (ROOT / "docs/recipe-reference.md").read_text(encoding="utf-8") == reference(), f"`{COMMAND}` writes it"
    written = (ROOT / "docs/parts-reference.md").read_text(encoding="utf-8")
    assert written == reference("parts"), f"`{PARTS_COMMAND}` writes it"


def test_links_in_the_reference_lead_to_its_headings() -> None:
    text = reference()
    heads = {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.*)$", text, re.M)}
    links = set(re.findall(r"\]\(#([^)]*)\)", text))
    assert len(links) > 20
    assert links <= heads
