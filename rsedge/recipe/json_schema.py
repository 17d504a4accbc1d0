"""JSON Schemas (draft 2020-12) of what people write by hand: recipes, missions, device profiles; and of ``report.json``.

They are those of the pydantic records, with what the reader (:mod:`rsedge.data.documents`, :mod:`rsedge.recipe.reading`) takes
besides: short forms, ``$import``, contracts written as columns. What a schema cannot say, ``rsedge run --dry-run`` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from pydantic import BaseModel, TypeAdapter

from rsedge.data.bands import InputSpec
from rsedge.data.documents import IMPORT_KEY
from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS, Constraint
from rsedge.data.sets.sample_sources import OPTION_MODELS
from rsedge.devices.mission.description import Mission
from rsedge.devices.profiles.profile import DeviceProfile
from rsedge.models.students import CATALOGUE
from rsedge.models.zoo import BAND_COLUMNS, LOADER_NAMES, MEMORY, OUTPUT_MARK, STUDENT, zoo
from rsedge.recipe.parts import PART_STEPS, PartsRecipe
from rsedge.recipe.schema import Recipe
from rsedge.recipe.steps import STEP_ORDER
from rsedge.recipe.track import TRACKERS
from rsedge.reports.schema import report_schema
from rsedge.runtimes.precision import PRECISIONS
from rsedge.runtimes.registry import runtime_names
from rsedge.runtimes.wholes.table import WHOLES
from rsedge.version import __version__

Kind = Literal["recipe", "parts", "mission", "device", "report"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLES: dict[str, str] = {
    "recipe": "rsedge recipe",
    "parts": "rsedge recipe of several parts",
    "mission": "rsedge mission",
    "device": "rsedge device profile",
    "report": "rsedge report",
}
DEFS = "#/$defs/"
Schema = dict[str, Any]


def json_schema(kind: str = "recipe") -> Schema:
    """The schema of one kind of file.

    Raises:
        RequestError: no such kind.
    """
    makers: dict[str, Callable[[], Schema]] = {
        "recipe": _recipe, "parts": _parts, "mission": _mission, "device": _device, "report": report_schema,
    }  # fmt: skip
    if kind not in makers:
        raise RequestError(f"schema of '{kind}': choose from {', '.join(KINDS)}")
    schema = makers[kind]()
    for node in _objects(schema):
        _plain_words(node)
        if kind != "report":  # Nobody writes one by hand.
            _takes_imports(node)
    head = {"$schema": DIALECT, "$id": f"urn:rsedge:{kind}:{__version__}", "title": TITLES[kind]}
    return {**head, **{k: v for k, v in schema.items() if k != "title"}}


def _recipe() -> Schema:
    schema = Recipe.model_json_schema()
    defs = schema["$defs"]
    defs.update(_own_defs(InputSpec))
    defs["InputSpec"] = _columns(defs["InputSpec"])
    for _, model in OPTION_MODELS:
        defs.update(_own_defs(model))
    defs["TeacherSection"]["properties"]["name"] |= _teachers()
    _replace(defs["TeacherSection"]["properties"]["input"], "object", {"$ref": f"{DEFS}InputSpec"})
    defs["SampleSetSection"]["allOf"] = [
        {
            "if": {"properties": {"source": {"pattern": pattern}}, "required": ["source"]},
            "then": {"properties": {"options": {"$ref": f"{DEFS}{model.__name__}"}}},
        }
        for pattern, model in OPTION_MODELS
    ]
    students = {"type": "string", "anyOf": [{"enum": [*CATALOGUE, "auto"]}, {"pattern": f"^{MEMORY}:"}]}
    defs["StudentSection"]["properties"]["name"] |= students
    schema["properties"]["targets"]["items"] |= {"pattern": _target_pattern()}
    defs["PruneSection"]["properties"]["latency_on"] |= {"pattern": _target_pattern()}
    defs["GateSection"]["allOf"] = list(_limits())
    _short_form(schema["properties"]["student"], students)
    _short_form(schema["properties"]["track"], {"enum": list(TRACKERS)})
    _short_form(defs["TestSection"]["properties"]["labels"], {"type": "string", "format": "path"})
    _short_form(defs["SelectionSection"]["properties"]["labels"], {"type": "string", "format": "path"})
    _short_form(schema["properties"]["steps"]["items"], {"enum": list(STEP_ORDER)})
    for one in ("Step", "PruneTargetSection"):
        defs[one] |= {"minProperties": 1, "maxProperties": 1}
    return schema


def _parts() -> Schema:
    schema = PartsRecipe.model_json_schema()
    defs = schema["$defs"]
    defs["PartTeacherSection"]["properties"]["name"] |= {"anyOf": [{"enum": [row.name for row in zoo()]}]}
    defs["WholeSection"]["properties"]["name"] |= {"enum": list(WHOLES)}
    schema["properties"]["targets"]["items"] |= {"pattern": _target_pattern()}
    defs["GateSection"]["allOf"] = list(_limits())
    _short_form(schema["properties"]["whole"], {"enum": list(WHOLES)})
    _short_form(schema["properties"]["track"], {"enum": list(TRACKERS)})
    _short_form(defs["PartSection"]["properties"]["steps"]["items"], {"enum": list(PART_STEPS)})
    part = schema["properties"]["parts"]["additionalProperties"]
    schema["properties"]["parts"]["additionalProperties"] = {"anyOf": [part, {"type": "null"}]}
    defs["PartStep"] |= {"minProperties": 1, "maxProperties": 1}
    return schema


def _teachers() -> Schema:
    """Names of all rows, and of other libraries' models."""
    outside = {"pattern": f"^({'|'.join((*LOADER_NAMES, MEMORY, STUDENT))}):"}
    return {
        "anyOf": [{"enum": [row.name for row in zoo()]}, outside, {"pattern": f"^[a-z0-9][a-z0-9.-]*{OUTPUT_MARK}."}]
    }


def _target_pattern() -> str:
    """What names of targets look like, with the runtimes that are installed here."""
    return f"^({'|'.join(runtime_names())})-[a-z0-9][a-z0-9-]*-({'|'.join(PRECISIONS)})$"


def _limits() -> Iterator[Schema]:
    """For gates: one limit, of those that the metric takes; and what a speed-up is over."""
    for takes in dict.fromkeys(row.constraints for row in METRICS.values()):
        metrics = [row.name for row in METRICS.values() if row.constraints == takes]
        forms: list[Schema] = [{"required": [IMPORT_KEY]}]
        for limit in takes:
            needs = ["over"] if limit == "min_speedup" else []
            others = [name for name in (*get_args(Constraint), "over") if name not in (limit, *needs)]
            forms.append({"required": [limit, *needs], "properties": {name: {"type": "null"} for name in others}})
        yield {"if": {"properties": {"metric": {"enum": metrics}}, "required": ["metric"]}, "then": {"anyOf": forms}}


def _mission() -> Schema:
    return TypeAdapter[Mission](Mission).json_schema()


def _device() -> Schema:
    schema = DeviceProfile.model_json_schema()
    pair = {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "minItems": 2, "maxItems": 2}
    sourced = schema["$defs"].pop("Sourced")
    schema["$defs"]["Sourced"] = {"description": sourced["description"], "anyOf": [pair, sourced]}
    return schema


def _own_defs(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema()
    return {**schema.pop("$defs", {}), model.__name__: schema}


def _columns(spec: Schema) -> Schema:
    """A band contract as recipes write it: names of bands, their fields beside them, one value for all or one per band."""
    band = spec["properties"]["bands"]
    band["items"] = {"anyOf": [{"type": "string"}, band["items"]]}
    fields = InputSpec.model_fields["bands"].annotation
    properties = get_args(fields)[0].model_json_schema()["properties"]
    for name in BAND_COLUMNS:
        field = {k: v for k, v in properties[name].items() if k in ("title", "description", "default")}
        single = {k: v for k, v in properties[name].items() if k not in field}
        spec["properties"][name] = {**field, "anyOf": [single, {"type": "array", "items": single}]}
    return spec


def _replace(field: Schema, kind: str, by: Schema) -> None:
    """Another schema for the form of a field that is of some type."""
    field["anyOf"] = [by if form.get("type") == kind else form for form in field["anyOf"]]


def _short_form(field: Schema, form: Schema) -> None:
    """Takes ``form`` beside what a field takes."""
    if "$ref" in field:
        field["anyOf"] = [{"$ref": field.pop("$ref")}]
    elif "oneOf" in field:
        field["anyOf"] = field.pop("oneOf")
    field["anyOf"].append(form)


def _objects(node: Any) -> Iterator[Schema]:
    """All schemas in a schema, itself among them."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from _objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _objects(value)


def _plain_words(node: Schema) -> None:
    """Descriptions without the marks of our docstrings."""
    if isinstance(text := node.get("description"), str):
        text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text)
        node["description"] = re.sub(r"`+", "`", text)


def _takes_imports(node: Schema) -> None:
    """``$import`` in every mapping, which then need not hold what it requires; forms may not be told apart any more."""
    if "oneOf" in node:
        node["anyOf"] = node.pop("oneOf")
    properties = node.get("properties")
    if node.get("type") != "object" or not isinstance(properties, dict):
        return
    properties[IMPORT_KEY] = {
        "type": "string",
        "title": "Import",
        "description": "a YAML file that this mapping is taken from; keys beside it override its",
    }
    alone = {key: node.pop(key) for key in ("required", "maxProperties") if key in node}
    if alone:
        node["anyOf"] = [{"required": [IMPORT_KEY]}, alone]
