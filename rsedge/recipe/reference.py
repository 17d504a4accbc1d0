"""The recipe references, from the schemas: ``python -m rsedge.recipe.reference FILE`` writes that of recipes of one network,
``docs/recipe-reference.md``; with ``parts`` behind it that of recipes of several, ``docs/parts-reference.md``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsedge.data.documents import IMPORT_KEY
from rsedge.data.files import write_bytes
from rsedge.recipe.json_schema import DEFS, Schema, json_schema

COMMAND = "python -m rsedge.recipe.reference docs/recipe-reference.md"
HEAD = f"""# Recipe reference

Every field of a recipe. Written by `{COMMAND}`
from the schema that `rsedge schema` prints; a test holds them together. A recipe needs `name`, `teacher`, `data`, `steps` and
`targets`; everything else has a default, and a run writes all of them to `recipe.resolved.yaml`. `{IMPORT_KEY}: other.yaml` takes
any mapping from another file, keys beside it override. `rsedge run RECIPE --set a.b=c` overrides one field, `rsedge run RECIPE
--dry-run` tries all.

In an editor with the YAML language server (VS Code's YAML extension, Neovim, Helix) fields complete and are checked as they are
written:

```console
$ rsedge schema --output recipe.schema.json
$ rsedge schema mission --output mission.schema.json
$ rsedge schema device --output device.schema.json
```

and on top of the recipe:

```
# yaml-language-server: $schema=recipe.schema.json
```
"""
PARTS_COMMAND = "python -m rsedge.recipe.reference docs/parts-reference.md parts"
PARTS_HEAD = f"""# Recipes of several parts

Every field of a recipe that has `parts` ([what they are for](parts.md)). Written by `{PARTS_COMMAND}`
from the schema that `rsedge schema parts` prints; a test holds them together.
"""
HEADS: dict[str, str] = {"recipe": HEAD, "parts": PARTS_HEAD}
FORMS = {"DataSection": "scenes", "SampleDataSection": "samples"}
"""Sections that stand at the same place, told apart."""
BOUNDS = (
    ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
)  # fmt: skip


@dataclass
class _Book:
    """The schema, and where each of its sections stands: by name the first place in a recipe."""

    schema: Schema
    places: dict[str, str] = field(default_factory=dict)

    def section(self, name: str) -> Schema:
        return self.schema["$defs"][name] if name else self.schema

    def walk(self, name: str, place: str) -> Iterator[str]:
        """Names of the sections from one on, in the order of their fields."""
        self.places[name] = place
        yield name
        for key, prop in _fields(self.section(name)).items():
            inner = f"{place}.{key}".lstrip(".")
            for other in _references(prop):
                if other not in self.places:
                    yield from self.walk(other, inner + (f" ({FORMS[other]})" if other in FORMS else ""))
        for case in self.section(name).get("allOf", []):
            for other in _references(case["then"]):
                kind = other.removesuffix("Options").lower()
                yield from self.walk(other, f"{place}.options ({kind})")


def reference(kind: str = "recipe") -> str:
    """The document of one kind of recipe."""
    book = _Book(json_schema(kind))
    order = list(book.walk("", ""))
    return HEADS[kind] + "".join(_section(book, name) for name in order)


def _section(book: _Book, name: str) -> str:
    schema, place = book.section(name), book.places[name]
    title = re.sub(r"^(\S+)", r"`\1`", place) or "The recipe"
    lines = [
        f"\n## {title}\n",
        schema.get("description", ""),
        "",
        "| field | type | default | unit | example | |",
        "|" + "---|" * 6,
    ]
    required = _required(schema)
    for key, prop in _fields(schema).items():
        default = "required" if key in required else _value(prop.get("default"))
        examples = prop.get("examples") or [prop.get("default")]
        cells = (f"`{key}`", _type(book, prop), default, prop.get("unit", ""), _value(examples[0]), prop["description"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if schema.get("additionalProperties") is True:
        lines.append("\nFurther fields go to the builder that the name stands for.")
    return "\n".join(lines) + "\n"


def _fields(schema: Schema) -> Schema:
    return {k: v for k, v in schema.get("properties", {}).items() if k != IMPORT_KEY}


def _required(schema: Schema) -> list[str]:
    return [n for form in schema.get("anyOf", []) for n in form.get("required", []) if n != IMPORT_KEY]


def _references(node: Any) -> list[str]:
    """Sections that a schema names, in order."""
    if isinstance(node, list):
        return [name for value in node for name in _references(value)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].removeprefix(DEFS)] if "$ref" in node else []
    return own + [name for value in node.values() for name in _references(value)]


def _type(book: _Book, prop: Schema) -> str:
    """What a field takes, in words."""
    if "anyOf" in prop and prop.get("type") != "string":
        forms = [_type(book, form) for form in prop["anyOf"] if form.get("type") != "null"]
        return " or ".join(dict.fromkeys(forms))
    if "$ref" in prop:
        place = book.places[prop["$ref"].removeprefix(DEFS)]
        return f"[{place}](#{re.sub(r'[^a-z0-9 _-]', '', place.lower()).replace(' ', '-')})"
    if "enum" in prop or "const" in prop:
        return ", ".join(f"`{value}`" for value in prop.get("enum", [prop.get("const")]))
    match prop.get("type"):
        case "array" if "prefixItems" in prop:
            return "[" + ", ".join(_type(book, item) for item in prop["prefixItems"]) + "]"
        case "array":
            return f"list of {_type(book, prop.get('items', {}))}"
        case "object":
            return "mapping"
        case "string":
            return "path" if prop.get("format") == "path" else "text"
        case None:
            return "any"
        case kind:
            words = {"integer": "whole number", "boolean": "true or false"}.get(str(kind), str(kind))
            return " ".join([words, *(f"{sign} {prop[key]:g}" for key, sign in BOUNDS if key in prop)])


def _value(value: Any) -> str:
    """A default or an example as YAML takes it; mappings of defaults in a word."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "its own" if len(text) > 120 else f"`{text}`" if "\n" not in text else f"`{json.dumps(text)}`"


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), reference(*sys.argv[2:]).encode())
