"""Distillation of parts: several named inputs, several outputs, samples that are read as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.distill.objective import Objective
from rsedge.compress.distill.statistics import OutputStatistics
from rsedge.compress.distill.teacher_outputs import PartOutputs
from rsedge.compress.distill.training import DistillSettings, Tap, distill
from rsedge.data.errors import RequestError
from rsedge.models.parts import Arrays, Part

STEPS = 8
"""Of the sampler: times are numbered."""


class Denoiser(nn.Module):
    """Latent (N, 2, 6, 6) and the number of a step (N,) -> noise of the latent's shape, and its level (N, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.time = nn.Conv2d(2, width, 3, padding=1), nn.Embedding(STEPS, width)
        self.last, self.level = nn.Conv2d(width, 2, 3, padding=1), nn.Linear(width, 1)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, latent: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append((latent.detach().clone(), step.clone()))
        when = self.time(step)
        return self.last(torch.tanh(self.first(latent) + when[..., None, None])), self.level(when)


def network(width: int, seed: int) -> Denoiser:
    torch.manual_seed(seed)
    return Denoiser(width)


def part(net: nn.Module) -> Part:
    return Part(net, {"latent": torch.zeros(1, 2, 6, 6), "step": torch.zeros(1, dtype=torch.int64)}, ("noise", "level"))


def samples(count: int, seed: int = 0) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    return [
        {"latent": rng.normal(size=(1, 2, 6, 6)).astype(np.float32), "step": np.array([i % STEPS])}
        for i in range(count)
    ]


def source(count: int = 32) -> PartOutputs:
    return PartOutputs(part(network(16, seed=0)), samples(count))


def settings(**changes: Any) -> DistillSettings:
    return DistillSettings(**({"steps": 30, "batch": 8, "loss": "outputs", "autocast": "off"} | changes))


def apart(net: nn.Module) -> dict[str, float]:
    """Distance of a student from the teacher on samples that it has not seen, for each output."""
    taught, held_out = source().teacher, samples(16, seed=9)
    found, wanted = ([p.run(s) for s in held_out] for p in (part(net), taught))
    pairs = {n: [np.concatenate([answer[n] for answer in run]) for run in (found, wanted)] for n in taught.outputs}
    return {n: apart_by(*map(torch.from_numpy, pair)) for n, pair in pairs.items()}


def apart_by(student: Tensor, teacher: Tensor) -> float:
    """The distance, as if ``teacher`` were the whole training set."""
    rows = teacher.movedim(1, -1).flatten(0, -2).numpy()
    mean, std = (tuple(float(v) for v in found) for found in (rows.mean(0), rows.std(0)))
    return float(Objective("outputs")(student, teacher, statistics=OutputStatistics(mean, std, mean)))


def test_a_student_learns_all_outputs_of_a_part(tmp_path: Path) -> None:
    student = network(12, seed=1)
    before = apart(student)
    best, record = distill(source(64), student, settings(steps=250, lr=1e-2), tmp_path, seed=0)
    assert record.history[-1]["loss"] < 0.1 * record.history[0]["loss"]
    after = apart(best)
    assert after["noise"] < 0.1 * before["noise"] and after["level"] < 0.1 * before["level"]


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    chosen = settings(checkpoint_every=10, taps=(Tap("noise", "first"),))
    whole, record = distill(source(), network(12, seed=1), chosen, tmp_path / "a", 1)
    assert record.history[0]["tap:first"] > 0

    def stop(step: int, *_: object) -> None:
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(source(), network(12, seed=1), chosen, tmp_path / "b", 1, on_step=stop)
    again, _ = distill(source(), network(12, seed=1), chosen, tmp_path / "b", 1)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_other_samples_is_not_continued(tmp_path: Path) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 6:
            raise KeyboardInterrupt

    given = settings(checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        distill(source(), network(8, seed=1), given, tmp_path, 0, on_step=stop)
    others = PartOutputs(part(network(16, seed=0)), samples(32, seed=9))
    seen: list[int] = []
    distill(others, network(8, seed=1), given, tmp_path, 0, on_step=lambda step, *_: seen.append(step))
    assert seen[0] == 1


def test_samples_reach_the_student_as_they_are(tmp_path: Path) -> None:
    """No flips or turns in any epoch, and whole numbers stay whole."""
    given, student = source(8), network(4, seed=1)
    distill(given, student, settings(steps=12, batch=2), tmp_path, 0)
    known = {s["latent"].tobytes(): s["step"].item() for s in given.samples}
    assert len(student.seen) > 12
    for latents, steps in student.seen:
        assert (latents.dtype, steps.dtype) == (torch.float32, torch.int64)
        for latent, step in zip(latents, steps, strict=True):
            assert known[latent.contiguous().numpy().tobytes()] == step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_student_learns_on_a_gpu_and_the_teacher_answers_where_it_is(tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        given = PartOutputs(part(network(16, seed=0).to(device)), samples(8))
        best, _ = distill(given, network(12, seed=1), settings(device="cuda"), tmp_path, 0)
        assert all(p.is_cuda for p in best.parameters())


def test_answers_are_kept_unless_told_otherwise() -> None:
    for keep, asked in ((True, 2), (False, 4)):
        teacher = network(4, seed=0).train()
        given = PartOutputs(part(teacher), samples(4), keep=keep)
        first, second = (given.batch([3, 1])[1] for _ in range(2))
        assert len(teacher.seen) == asked and not teacher.training
        assert {n: v.shape for n, v in first.items()} == {"noise": (2, 2, 6, 6), "level": (2, 1)}
        assert all(np.array_equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"latent": None}, r"sample 1 holds \['step'\], the part takes \['latent', 'step'\]"),
        ({"text": np.zeros(1)}, r"holds \['latent', 'step', 'text'\]"),
        ({"latent": np.zeros((1, 2, 6, 5), np.float32)}, r"'latent' of sample 1 is float32 \(1, 2, 6, 5\), .* \(1, 2, 6, 6\)"),
        ({"step": np.zeros(1, np.float32)}, "'step' of sample 1 is float32 .* the part takes int64"),
        ({"latent": np.full((1, 2, 6, 6), np.nan, np.float32)}, "'latent' of sample 1 holds NaN"),
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_refused_by_name(changed: dict[str, Any], message: str) -> None:
    good, bad = samples(2)
    wrong = {n: v for n, v in {**bad, **changed}.items() if v is not None}
    with pytest.raises(RequestError, match=message):
        PartOutputs(part(network(4, seed=0)), [good, wrong])
    with pytest.raises(RequestError, match="no samples"):
        PartOutputs(part(network(4, seed=0)), [])


def test_wrong_losses_and_students_are_refused(tmp_path: Path) -> None:
    for wrong in ({"loss": "classes"}, {"labels": 0.5}):
        with pytest.raises(RequestError, match="by loss outputs or embedding and without labels"):
            distill(source(), network(4, seed=0), settings(**wrong), tmp_path, 0)
    narrow = network(4, seed=0)
    narrow.level = nn.Linear(4, 3)
    with pytest.raises(RequestError, match=r"'level' of the student is \(8, 3\), the teacher's \(8, 1\)"):
        distill(source(), narrow, settings(), tmp_path, 0)
    alone = PartOutputs(Part(network(4, seed=0), source().teacher.inputs, ("noise",)), samples(2))
    with pytest.raises(RequestError, match="gives 2 tensors, its outputs are noise"):
        distill(alone, network(4, seed=0), settings(), tmp_path, 0)


class Lookup(nn.Module):
    """A table (3, 2), which is no batch, and picks (1,) -> what was picked (1, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, table: Tensor, pick: Tensor) -> Tensor:
        return table[pick] * self.scale


def test_an_input_without_a_batch_axis_is_learned_one_by_one(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    inputs = {"table": torch.zeros(3, 2), "pick": torch.zeros(1, dtype=torch.int64)}
    given = PartOutputs(Part(Lookup(), inputs, ("row",)), [{"table": rows, "pick": np.array([i])} for i in range(3)])
    with pytest.raises(RequestError, match=r"'table' of the part is \(3, 2\).*use batch 1"):
        distill(given, Lookup(), settings(), tmp_path, 0)
    _, record = distill(given, Lookup(), settings(steps=2, batch=1), tmp_path, 0)
    assert record.steps == 2


def test_the_distance_does_not_depend_on_the_unit() -> None:
    teacher = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert apart_by(teacher, teacher) == 0
    assert apart_by(0 * teacher + teacher.mean(), teacher) == pytest.approx(1)
    assert apart_by(50 * teacher + 1, 100 * teacher) == pytest.approx(apart_by(0.5 * teacher + 0.01, teacher), rel=1e-5)
