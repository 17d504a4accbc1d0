"""Folds get the replacements that the shipped student came out with, and train after them where that one had to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.compress.replace.replacing import ReplaceRecord
from rsedge.devices.measure.decide import Load, Race, Turns
from rsedge.models.structure import replace_layers, replaced_layers
from rsedge.recipe.steps import ReplaceSection
from rsedge.stages import replace as stage
from rsedge.stages.latency import decided

ENTRIES: dict[str, dict[str, object]] = {"1": {"kind": "relu"}}


@pytest.mark.parametrize("trained", [False, True])
def test_a_student_of_a_fold_is_replaced_as_the_shipped_one_was(
    trained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(stage, "recover", lambda *known: given.append(known))
    section, net = ReplaceSection(), nn.Sequential(nn.Linear(2, 2), nn.SiLU())
    ctx: Any = SimpleNamespace(recipe=SimpleNamespace(replace=section))
    record = ReplaceRecord(
        outcome="applied", reason="", before=1.0, after=1.0, trials=(), replaced=ENTRIES, trained=trained
    )
    made = stage.replaced_alike(net, record, ctx, tmp_path)
    assert replaced_layers(made) == ENTRIES and not replaced_layers(net) and not made.training
    assert torch.equal(made[0].weight, net[0].weight)
    assert [known[1:] for known in given] == ([(section, "replace", 1, tmp_path, ctx)] if trained else [])


def test_after_a_kill_no_replacement_goes_on_with_the_training_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faster one is trained first, and which one that is may be told otherwise in the next run."""
    folders: list[Path] = []
    monkeypatch.setattr(stage, "recover", lambda *known: folders.append(known[4]))
    train: Any = stage._recovery(ReplaceSection(), tmp_path, None)  # type: ignore[arg-type]
    for kind in ("relu", "hardswish", "relu"):
        train(replace_layers(nn.Sequential(nn.Linear(2, 2), nn.SiLU()), {"1": {"kind": kind}}), 1)
    assert folders[0] == folders[2] != folders[1] and {f.parent for f in folders} == {tmp_path}


def test_without_a_limit_what_is_measured_decides_unless_the_machine_is_too_noisy() -> None:
    """A ratio near the limit cannot tell about it, and the prediction does; about being faster at all its interval tells."""
    steady = np.full(20, 10.0)
    turns = {"before": Turns(steady, steady), "candidate": Turns(steady * 0.98, steady * 0.98)}
    assert decided(Race(turns), 0.5, 0.98).provenance == "predicted"
    found = decided(Race(turns), 0.5, None)
    assert found.provenance == "measured" and (found.value, found.high > 1) == (pytest.approx(0.98), True)
    noisy = decided(Race(turns, Load(steal=0.5)), 0.5, None)
    assert (noisy.provenance, noisy.value) == ("predicted", 0.5) and "too noisy" in noisy.note
