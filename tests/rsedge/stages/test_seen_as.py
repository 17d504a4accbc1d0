"""What the teacher is shown where the student looks at something else, and what stages hand to training beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from rsedge.compress.distill.teacher_outputs import LiveOutputs, batch_in_step
from rsedge.compress.distill.training import DistillRecord, DistillSettings
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.contract_view import ContractView
from rsedge.recipe.contracts import contracts
from rsedge.recipe.steps import PruneSection
from rsedge.recipe.student import StudentSection
from rsedge.stages import recovery
from rsedge.stages.context import RunContext
from rsedge.stages.verify import seen_part

SERIES = InputSpec(
    bands=(BandSpec(name="VV", mean=0.0, std=1.0), BandSpec(name="VH", mean=0.0, std=1.0)), tile=16, layout="TCHW", frames=2
)  # fmt: skip


def context(view: ContractView) -> RunContext:
    given = SimpleNamespace(task=SimpleNamespace(spec=SERIES))
    made = RunContext(None, view.target, (), given.task, {}, None, "", None, view=view)  # type: ignore[arg-type]
    made.teacher = SimpleNamespace(spec=SimpleNamespace(input_spec=SERIES))  # type: ignore[assignment]
    made.teacher_function = lambda x: {"logits": x}
    return made


def test_a_student_that_sees_the_dates_in_another_order_leaves_the_teachers_as_they_are() -> None:
    ctx = context(contracts(SERIES, StudentSection(dates=(1, 0))).student)
    dn = np.random.default_rng(0).integers(1, 99, (3, *SERIES.shape)).astype(SERIES.dtype)
    assert np.array_equal(ctx.seen(dn), dn[:, ::-1])
    assert np.array_equal(ctx.ask_teacher(dn)["logits"], SERIES.normalise(dn))


def test_tiling_is_looked_at_on_the_scene_as_the_student_sees_it() -> None:
    """A student of two bands is not handed the teacher's three."""
    three = InputSpec(bands=tuple(BandSpec(name=name, mean=0.0, std=1.0) for name in ("red", "green", "blue")), tile=16)
    ctx = context(contracts(three, StudentSection(bands=("blue", "red"))).student)
    dn = np.random.default_rng(0).integers(1, 99, (3, 60, 50)).astype(three.dtype)
    ctx.task = SimpleNamespace(spec=three, whole_scene=lambda: dn)  # type: ignore[assignment]
    part = seen_part(ctx)
    assert part is not None and part.spec == ctx.spec and part.spec.channels == 2
    assert np.array_equal(part.read(0, 0, 60, 50)[0], dn[[2, 0]])


def test_where_both_see_the_same_nothing_is_made_twice() -> None:
    ctx = context(contracts(SERIES, StudentSection()).student)
    assert ctx.seen_as(SERIES) is ctx


def test_what_the_task_changes_is_changed_in_each_step_beside_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = LiveOutputs(lambda i: np.full(2, i), lambda dn: {"logits": dn}, lambda dn: dn.astype(np.float32), 4)
    monkeypatch.setattr(RunContext, "_teacher_source", lambda ctx: kept)
    for change, step in ((None, [[1, 1]]), (lambda dn, rng: dn + 10, [[11, 11]])):
        ctx = context(contracts(SERIES, StudentSection()).student)
        task = SimpleNamespace(change=lambda change=change: change, view_labels=lambda seed: lambda i: np.zeros(1))
        ctx.task, ctx.recipe = task, SimpleNamespace(seed=0, distill=SimpleNamespace(labels=0.5))  # type: ignore[assignment]
        x, outputs = batch_in_step(ctx.source, [1], 7)
        assert x.tolist() == step and outputs["logits"].tolist() == [[1, 1]] and outputs["labels"].tolist() == [[0]]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_recovery_draws_hard_views_by_the_trust_that_distillation_draws_by(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def distill(source, module, *more, **known):  # type: ignore[no-untyped-def]
        given.update(known)
        return module, DistillRecord()

    monkeypatch.setattr(recovery, "distill", distill)
    monkeypatch.setattr(recovery, "distill_settings", lambda ctx: DistillSettings(hard_views=share))
    section = PruneSection(target={"macs_ratio": 0.5}, recovery_steps=2)
    ctx = SimpleNamespace(recipe=SimpleNamespace(seed=0), source=None, trust=np.ones(3), reporter=None)
    recovery.recover(nn.Linear(2, 2), section, "prune step", 1, tmp_path, ctx)  # type: ignore[arg-type]
    assert (given["trust"] is ctx.trust) if share else (given["trust"] is None)
