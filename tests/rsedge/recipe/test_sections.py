"""Recipe sections mirror the settings of their rooms: same fields, same defaults."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from rsedge.compress.distill.loss_table import CONNECTORS
from rsedge.compress.distill.training import DistillSettings
from rsedge.compress.prune.pruning import PruneSettings, PruneTarget
from rsedge.compress.quantize.search import SearchSettings
from rsedge.compress.replace.replacing import ReplaceSettings
from rsedge.data.scenes.augment import AugmentSettings
from rsedge.data.scenes.changes import CHANGES
from rsedge.data.scenes.clouds import CloudSettings
from rsedge.recipe.data import AugmentSection, ChangeKind, CloudsSection
from rsedge.recipe.section import Section
from rsedge.recipe.steps import (
    DistillSection,
    LossSection,
    PruneSection,
    PruneTargetSection,
    QuantizeSection,
    ReplaceSection,
    TapSection,
)

# (section, settings of the room, fields only the section has, fields only the settings have)
PAIRS: list[tuple[type[Section], Any, set[str], set[str]]] = [
    (CloudsSection, CloudSettings, set(), set()),
    (AugmentSection, AugmentSettings, set(), {"cloud"}),
    (
        DistillSection,
        DistillSettings,
        {"views", "cache", "teacher_autocast", "loss"},
        {"device", "loss", "losses", "section"},
    ),
    (PruneTargetSection, PruneTarget, set(), set()),
    (PruneSection, PruneSettings, {"target", "recovery_steps", "recovery_lr", "latency_on"}, {"target", "seed"}),
    (ReplaceSection, ReplaceSettings, {"recovery_steps", "recovery_lr"}, set()),
    (QuantizeSection, SearchSettings, {"max_drop", "qat"}, {"ladder"}),
]


def defaults(kind: Any) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {n: f.get_default(call_default_factory=True) for n, f in kind.model_fields.items()}
    out = {}
    for field in dataclasses.fields(kind):
        factory = field.default_factory
        out[field.name] = field.default if factory is dataclasses.MISSING else factory()
    return out


@pytest.mark.parametrize(("section", "settings", "only_section", "only_settings"), PAIRS)
def test_fields_and_defaults_agree(
    section: type[Section], settings: Any, only_section: set[str], only_settings: set[str]
) -> None:
    own = {n: v for n, v in defaults(section).items() if n not in only_section}
    assert own == {n: v for n, v in defaults(settings).items() if n not in only_settings}


def test_ranges_of_clouds_are_ordered() -> None:
    assert CloudsSection(cover=(0.2, 0.2)).cover == (0.2, 0.2)
    with pytest.raises(ValueError, match=r"label_shadow: \[0.4, 0.1\] must be two numbers from 0 on"):
        CloudsSection(label_shadow=(0.4, 0.1))


def test_losses_and_their_options_are_known_by_name() -> None:
    assert LossSection(name="dkd", options={"beta": 2.0}).weight == 1.0
    with pytest.raises(ValueError, match=r"'dkt' is no loss \(nearest: 'dkd'\); there are kl, dkd"):
        LossSection(name="dkt")
    with pytest.raises(ValueError, match=r"'angel' is no option of rkd \(nearest: 'angle'\); it has distance, angle"):
        TapSection(teacher="a", student="b", loss=LossSection(name="rkd", options={"angel": 1.0}))
    with pytest.raises(ValueError, match="connector"):
        TapSection.model_validate({"teacher": "a", "student": "b", "connector": "poold"})


def test_connectors_are_those_of_the_room() -> None:
    assert set(get_args(TapSection.model_fields["connector"].annotation)) == set(CONNECTORS)


def test_kinds_of_changes_are_those_of_the_room() -> None:
    assert get_args(ChangeKind) == tuple(CHANGES)


def test_a_step_that_would_try_nothing_is_refused() -> None:
    with pytest.raises(
        ValidationError, match="neither activations nor merge name something to try; leave the step out"
    ):
        ReplaceSection(activations=(), merge=())
    assert ReplaceSection(activations=()).merge == (0.5, 0.25)


def test_milliseconds_are_planned_for_milliseconds_alone() -> None:
    with pytest.raises(
        ValidationError, match="scope: latency plans by milliseconds; give target: latency_ms or latency_ratio"
    ):
        PruneSection(scope="latency", target=PruneTargetSection(macs_ratio=0.5))
    assert PruneSection(scope="latency").target.latency_ratio == 0.7
