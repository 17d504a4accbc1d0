"""Two processes that train together come to what one comes to: batch statistics, losses over a batch, taps, draws, kills."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rsedge.compress.distill.global_norm import GlobalNorm
from rsedge.compress.distill.group import Group, Member
from rsedge.compress.distill.losses import LossChoice
from rsedge.compress.distill.teacher_outputs import ChangedOutputs, WithLabels
from rsedge.compress.distill.training import DistillRecord, DistillSettings, Tap, distill
from rsedge.data.errors import RequestError
from tests.compress.distill.test_distill import live

pytest.importorskip("lightning")

LOSS_APART, WEIGHTS_APART = 1e-5, 2e-4
"""Of a loss, and of a layer's largest weight: what rounding in another order may come to over the steps here (docs/scale.md)."""
STEPS = 12
BASE = DistillSettings(steps=STEPS, lr=5e-3, autocast="off", validate_every=4, checkpoint_every=5)


def student() -> nn.Module:
    """No bias before the batch norm: its gradient would be nothing but rounding, which Adam makes whole steps of."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))


class _Unused(nn.Module):
    """A student with a layer that reaches no output: it keeps its weights, no decay of them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = student()
        self.idle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


def noisier(dn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (dn * rng.uniform(0.8, 1.2, dn.shape)).astype(dn.dtype)


def labels(view: int) -> np.ndarray:
    """Some views have no label at all."""
    return np.full((16, 16), np.nan if view % 3 else view % 2, np.float32)


def changed() -> WithLabels:
    return WithLabels(ChangedOutputs(live(), noisier, 0), labels)


CASES: dict[str, tuple[Callable[[], object], Callable[[], nn.Module], DistillSettings]] = {
    # Seven views for two processes; half of the places hidden by draws of the whole step.
    "taps": (
        changed,
        student,
        replace(BASE, batch=7, labels=0.3, taps=(Tap("difference", "2", 0.5, connector="masked"),)),
    ),
    "batch": (live, student, replace(BASE, batch=6, hard_views=0.4, losses=(LossChoice("dist"),))),
    "unused": (live, _Unused, replace(BASE, batch=6, optimizer="adamw", weight_decay=0.5)),
    "killed alone": (live, student, replace(BASE, batch=6)),
    "killed together": (live, student, replace(BASE, batch=6)),
}
KILLED = 8


@dataclass
class Trained:
    losses: list[float]
    record: DistillRecord
    weights: dict[str, Tensor]


def interrupt() -> None:
    raise KeyboardInterrupt


def train(
    case: str, folder: Path, group: Group, until: int = STEPS, end: Callable[[], None] = interrupt
) -> Trained | None:
    """One case; None where it was ended before its last step."""
    source, build, asked = CASES[case]
    losses: list[float] = []

    def step(number: int, _total: int, parts: dict[str, float]) -> None:
        losses.append(parts["loss"])
        if number == until < STEPS:
            end()

    score = lambda net: {"score": -float(net(torch.zeros(1, 2, 16, 16)).square().mean())}  # noqa: E731
    try:
        best, record = distill(source(), build(), asked, folder, 3, score, step, group=group)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        return None
    return Trained(losses, record, best.state_dict())


def all_cases(group: Group, folder: Path) -> dict[str, Trained | None]:
    """What both processes do."""
    torch.set_num_threads(1)
    found = {case: train(case, folder / case, group, KILLED if case == "killed together" else STEPS) for case in CASES}
    return found


def _second(port: int, folder: Path, ready: Event) -> None:
    from rsedge.compress.distill.fabric import join

    ready.set()
    group = join(Member("local", 1, 2, 1, 2, port), "cpu")
    all_cases(group, folder)
    train("batch", folder / "dies", group, KILLED, lambda: os.kill(os.getpid(), signal.SIGKILL))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("alone")
    return {case: found for case in CASES if (found := train(case, folder / case, Group()))}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Trained]]:
    from rsedge.compress.distill.fabric import is_lost, join

    folder = tmp_path_factory.mktemp("together")
    assert train("killed alone", folder / "killed alone", Group(), KILLED) is None
    context = multiprocessing.get_context("spawn")
    ready, threads = context.Event(), torch.get_num_threads()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = context.Process(target=_second, args=(port, folder.with_name("second"), ready), daemon=True)
    other.start()
    try:
        assert ready.wait(120), "the second process did not start"
        group = join(Member("local", 0, 2, 0, 2, port), "cpu")
        found = all_cases(group, folder)
        with pytest.raises(RuntimeError) as lost:
            train("batch", folder / "dies", group)
        assert is_lost(lost.value), "an error of ours is none of the connection"
        other.join(60)
        group.leave()
        assert other.exitcode == -signal.SIGKILL and found.pop("killed together") is None
        found["killed together"] = train("killed together", folder / "killed together", Group())
        yield {case: one for case, one in found.items() if one}
    finally:
        torch.set_num_threads(threads)
        other.kill()
        other.join()


@pytest.mark.parametrize("case", CASES)
def test_two_processes_come_to_what_one_comes_to(
    case: str, alone: dict[str, Trained], together: dict[str, Trained]
) -> None:
    one, two = alone[case], together[case]
    np.testing.assert_allclose(two.losses, one.losses[-len(two.losses) :], rtol=LOSS_APART)
    assert one.losses[0] != one.losses[-1] and [v["step"] for v in two.record.validation] == [4, 8, 12]
    for name, wanted in one.weights.items():
        apart = float((two.weights[name] - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
        assert apart < WEIGHTS_APART, name


def test_the_record_says_how_many_trained(together: dict[str, Trained]) -> None:
    numbers = {case: one.record.processes for case, one in together.items()}
    assert numbers == {
        "taps": [2], "batch": [2], "unused": [2], "killed alone": [1, 2], "killed together": [2, 1],
    }  # fmt: skip


def test_what_reaches_no_output_keeps_its_weights(together: dict[str, Trained]) -> None:
    torch.manual_seed(0)
    assert torch.equal(together["unused"].weights["idle.weight"], _Unused().idle.weight)


class _Halves(nn.Module):
    """A student whose batch norms see half of a step each, as those of processes that tell each other nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = student()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.body(half) for half in x.chunk(2)])


def test_statistics_of_half_a_step_would_be_far_outside_of_the_tolerance(
    alone: dict[str, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "halves", (live, _Halves, replace(BASE, batch=6)))
    found = train("halves", tmp_path, Group())
    assert found is not None
    assert max(abs(np.divide(found.losses, alone["killed alone"].losses) - 1)) > 20 * LOSS_APART


def test_a_step_with_fewer_views_than_processes_is_refused(tmp_path: Path) -> None:
    class Nine(Group):
        count = 9

    with pytest.raises(RequestError, match="8 views cannot be shared among 9 processes; start at most 8"):
        distill(live(), student(), replace(BASE, batch=8), tmp_path, 0, group=Nine())


@settings(max_examples=40, deadline=None)
@given(
    places=st.sampled_from([(), (3,), (4, 5), (2, 3, 4)]), views=st.integers(2, 6), channels=st.integers(1, 5),
    affine=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_of_one_process_statistics_and_gradients_are_torchs(
    places: tuple[int, ...], views: int, channels: int, affine: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(views, channels, *places, dtype=torch.float64) * 3 + 1
    weight, bias = (torch.randn(channels, dtype=torch.float64) for _ in range(2))
    slope = torch.randn_like(x)

    def run() -> list[Tensor]:
        leaves = [
            x.clone().requires_grad_(),
            *([weight.clone().requires_grad_(), bias.clone().requires_grad_()] if affine else []),
        ]
        running = [torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64)]
        out = F.batch_norm(leaves[0], *running, *(leaves[1:] or (None, None)), training=True, momentum=0.3)
        return [out.detach(), *running, *torch.autograd.grad((out * slope).sum(), leaves)]

    wanted = run()
    with GlobalNorm(lambda value: value[None]):
        found = run()
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
