"""Recipe sections mirror the settings of their rooms: same fields, same defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rsedge.recipe import AugmentSection, CloudsSection, DistillSection, Section


def defaults(kind: Any) -> dict[str, Any]:
    out = {}
    for field in dataclasses.fields(kind):
        factory = field.default_factory
        out[field.name] = field.default if factory is dataclasses.MISSING else factory()
    return out


def pairs() -> list[tuple[type[Section], Any, set[str], set[str]]]:
    """(section, dataclass, fields only the section has, fields only the dataclass has)."""
    from rsedge.compress.distill import DistillSettings
    from rsedge.data.augment import AugmentSettings
    from rsedge.data.clouds import CloudSettings

    return [
        (CloudsSection, CloudSettings, set(), set()),
        (AugmentSection, AugmentSettings, set(), {"cloud"}),
        (DistillSection, DistillSettings, {"views", "cache"}, {"device"}),
    ]


@pytest.mark.parametrize("index", range(3))
def test_fields_and_defaults_agree(index: int) -> None:
    section, settings, only_section, only_settings = pairs()[index]
    own = {
        n: f.get_default(call_default_factory=True) for n, f in section.model_fields.items() if n not in only_section
    }
    theirs = {n: v for n, v in defaults(settings).items() if n not in only_settings}
    assert own == theirs
