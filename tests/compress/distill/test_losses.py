"""Every loss against its paper's formula, worked out in numpy alone; the tables; and what a wrong choice is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsedge.compress.distill.label_losses import label_loss
from rsedge.compress.distill.loss_table import CONNECTORS, LOSSES, OWN, LogitLoss, fitting, problem
from rsedge.compress.distill.losses import Given, LossChoice
from rsedge.compress.distill.objective import FUNCTIONS, Objective, loss_of
from rsedge.compress.distill.statistics import OutputStatistics
from rsedge.compress.distill.teacher_outputs import LiveOutputs, WithLabels
from rsedge.compress.distill.training import DistillSettings, Tap, distill
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError

Array = np.ndarray
KNOWN = OutputStatistics((0.5, -1.0, 2.0, 0.0), (2.0, 0.3, 1.5, 1.0), (0.6, 0.27, 0.1, 0.03))
SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0, mean=0.3, std=0.2) for n in ("red", "nir")), tile=16
)


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def divergence(q: Array, p: Array, axis: int) -> Array:
    return (q * np.log(q / p)).sum(axis)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def answers(x: Array) -> Array:
    """(N, K, ...) as (M, K)."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def kl(s: Array, t: Array, temperature: float = 1.0, balance: float = 0.0) -> float:
    p, q = softmax(answers(s) / temperature, 1), softmax(answers(t) / temperature, 1)
    weight = np.maximum(KNOWN.shares, 0.01) ** -balance
    weight = weight / np.dot(KNOWN.shares, weight)
    return float((divergence(q, p, 1) * weight[q.argmax(1)]).mean() * temperature**2)


def labels_kl(s: Array, t: Array, temperature: float = 1.0) -> float:
    p, q = sigmoid(s / temperature), sigmoid(t / temperature)
    return float((q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).mean() * temperature**2)


def dkd(s: Array, t: Array, temperature: float = 1.0, alpha: float = 1.0, beta: float = 8.0) -> float:
    total = 0.0
    for a, b in zip(answers(s) / temperature, answers(t) / temperature, strict=True):
        target = int(b.argmax())
        others = [k for k in range(len(b)) if k != target]
        p, q = softmax(a, 0), softmax(b, 0)
        two = [np.array([x[target], x[others].sum()]) for x in (q, p)]
        rest = [x[others] / x[others].sum() for x in (q, p)]
        total += alpha * divergence(two[0], two[1], 0) + beta * divergence(rest[0], rest[1], 0)
    return total / len(answers(s)) * temperature**2


def dist(s: Array, t: Array, temperature: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> float:
    p, q = softmax(answers(s) / temperature, 1), softmax(answers(t) / temperature, 1)
    within = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    between = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return float((beta * within + gamma * between) * temperature**2)


def cwd(s: Array, t: Array, tau: float = 4.0) -> float:
    p, q = (softmax(x.reshape(*x.shape[:2], -1) / tau, 2) for x in (s, t))
    return float(divergence(q, p, 2).mean() * tau**2)


def structure(s: Array, t: Array, nodes: int = 2) -> float:
    found = []
    for x in (s, t):
        n, c, h, w = x.shape
        parts = x.reshape(n, c, nodes, h // nodes, nodes, w // nodes).mean((3, 5)).reshape(n, c, -1)
        unit = parts / np.linalg.norm(parts, axis=1, keepdims=True)
        found.append(np.einsum("nci,ncj->nij", unit, unit))
    return float(((found[0] - found[1]) ** 2).mean())


def mse_tap(s: Array, t: Array) -> float:
    shape = (1, -1, *[1] * (t.ndim - 2))
    return float(((s - (t - np.reshape(KNOWN.mean, shape)) / np.reshape(KNOWN.std, shape)) ** 2).mean())


def cosine(s: Array, t: Array, axis: int) -> float:
    cosines = (s * t).sum(axis) / np.linalg.norm(s, axis=axis) / np.linalg.norm(t, axis=axis)
    return float((1 - cosines).mean())


def attention(s: Array, t: Array) -> float:
    maps = [(x**2).sum(1).reshape(len(x), -1) for x in (s, t)]
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps)
    return float(((a - b) ** 2).sum(1).mean())


def relations(s: Array, t: Array) -> float:
    found = []
    for x in (s, t):
        tokens = np.swapaxes(x.reshape(*x.shape[:2], -1), 1, 2)
        found.append(softmax(tokens @ np.swapaxes(tokens, 1, 2) / np.sqrt(x.shape[1]), -1))
    return float(divergence(found[1], found[0], -1).mean())


def huber(x: Array) -> Array:
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def rkd(s: Array, t: Array, distance: float = 1.0, angle: float = 2.0) -> float:
    n, pairs, cosines = len(s), [], []
    for x in (s, t):
        apart = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        pairs.append(apart / (apart.sum() / (n * (n - 1))))
        found = np.zeros((n, n, n))
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    if i not in (j, k):
                        u, v = x[j] - x[i], x[k] - x[i]
                        found[i, j, k] = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
        cosines.append(found)
    return float(distance * huber(pairs[0] - pairs[1]).mean() + angle * huber(cosines[0] - cosines[1]).mean())


def contrastive(s: Array, t: Array, tau: float = 0.07) -> float:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t))
    return float(-np.log(np.diag(softmax(a @ b.T / tau, 1))).mean())


MAPS, VECTORS, LINES = (3, 4, 6, 6), (5, 4), (3, 4, 7)
CASES: list[tuple[str, dict[str, float], LogitLoss | None, tuple[int, ...], Callable[[Array, Array], float]]] = [
    ("kl", {"temperature": 2.0, "balance": 0.0}, "classes", VECTORS, lambda s, t: kl(s, t, 2.0)),
    ("kl", {"balance": 0.25}, "classes", MAPS, lambda s, t: kl(s, t, 1.0, 0.25)),
    ("kl", {"temperature": 3.0}, "labels", VECTORS, lambda s, t: labels_kl(s, t, 3.0)),
    ("dkd", {}, "classes", VECTORS, dkd),
    ("dkd", {"temperature": 4.0, "alpha": 0.5, "beta": 2.0}, "classes", MAPS, lambda s, t: dkd(s, t, 4.0, 0.5, 2.0)),
    ("dist", {}, "classes", VECTORS, dist),
    ("dist", {"temperature": 2.0, "beta": 2.0, "gamma": 0.5}, "classes", MAPS, lambda s, t: dist(s, t, 2.0, 2.0, 0.5)),
    ("cwd", {}, "classes", MAPS, cwd),
    ("cwd", {"tau": 1.0}, None, LINES, lambda s, t: cwd(s, t, 1.0)),
    ("structure", {"nodes": 2}, "image", MAPS, structure),
    ("structure", {"nodes": 3}, None, MAPS, lambda s, t: structure(s, t, 3)),
    ("mse", {}, "values", VECTORS, lambda s, t: float(((s - t) ** 2).mean() / np.square(KNOWN.std).mean())),
    ("mse", {}, "embedding", VECTORS,
     lambda s, t: float(((s - t) ** 2).sum(1).mean() / (np.square(KNOWN.mean) + np.square(KNOWN.std)).sum())),
    ("mse", {}, "image", MAPS,
     lambda s, t: float(((s - t) ** 2).mean() / (np.square(KNOWN.std).mean() + np.var(KNOWN.mean)))),
    ("mse", {}, None, MAPS, mse_tap),
    ("mse", {}, None, VECTORS, mse_tap),
    ("cosine", {}, "embedding", (3, 5, 4), lambda s, t: cosine(s, t, -1)),
    ("cosine", {}, None, MAPS, lambda s, t: cosine(s, t, 1)),
    ("attention", {}, None, MAPS, attention),
    ("relations", {}, None, MAPS, relations),
    ("relations", {}, None, LINES, relations),
    ("rkd", {}, "embedding", VECTORS, rkd),
    ("rkd", {"distance": 3.0, "angle": 0.0}, None, VECTORS, lambda s, t: rkd(s, t, 3.0, 0.0)),
    ("contrastive", {"tau": 0.2}, "embedding", VECTORS, lambda s, t: contrastive(s, t, 0.2)),
]  # fmt: skip


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw), 2 * torch.randn(shape, generator=draw) + 0.3


@pytest.mark.parametrize(
    ("name", "options", "kind", "shape", "formula"), CASES, ids=[f"{c[0]}-{c[2]}-{len(c[3])}" for c in CASES]
)
def test_a_loss_is_its_papers_formula(
    name: str, options: dict[str, float], kind: Any, shape: tuple[int, ...], formula: Callable[[Array, Array], float]
) -> None:
    student, teacher = pair(shape)
    student.requires_grad_(True)
    found = loss_of(LossChoice(name, 0.5, options), student, teacher, Given(kind, KNOWN), {})
    expected = formula(student.detach().double().numpy(), teacher.double().numpy())
    assert float(found.detach()) == pytest.approx(0.5 * expected, rel=2e-4, abs=1e-6)
    (gradient,) = torch.autograd.grad(found, student)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "options", "kind", "shape", "formula"), CASES, ids=[f"{c[0]}-{c[2]}-{len(c[3])}" for c in CASES]
)
def test_flat_views_and_batches_of_one_give_finite_gradients(
    name: str, options: dict[str, float], kind: Any, shape: tuple[int, ...], formula: Any
) -> None:
    for value in (0.0, 1.0):
        student = torch.full((1, *shape[1:]), value, requires_grad=True)
        found = loss_of(
            LossChoice(name, 1.0, options), student, torch.full((1, *shape[1:]), 1.0), Given(kind, KNOWN), {}
        )
        (gradient,) = torch.autograd.grad(found, student, allow_unused=True)
        assert torch.isfinite(found) and (
            gradient is None or (torch.isfinite(gradient).all() and gradient.abs().max() < 1e4)
        )


def test_the_tables_name_the_same_losses() -> None:
    assert set(FUNCTIONS) == set(LOSSES)
    assert {name for name, *_ in CASES} | {"boxes"} == set(LOSSES)
    for kind, names in OWN.items():
        assert set(names) <= set(fitting(kind))


def test_the_sections_temperature_stands_below_a_losss_own() -> None:
    student, teacher = pair(VECTORS)
    shared = Objective("classes", temperature=3.0)(student, teacher)
    named = Objective("classes", (LossChoice("kl", 1.0, {"temperature": 3.0}),))(student, teacher)
    assert float(shared) == pytest.approx(float(named))
    own = Objective("classes", (LossChoice("dkd", 1.0, {"temperature": 2.0}),), temperature=3.0)(student, teacher)
    assert float(own) == pytest.approx(dkd(student.double().numpy(), teacher.double().numpy(), 2.0), rel=1e-4)


# -- labels beside the teacher ------------------------------------------------------------------------------------------


def test_labels_of_classes_are_cross_entropy_over_what_is_known() -> None:
    found = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[[0, 255], [3, 1]], [[-1, 255], [255, 255]], [[2, 2], [2, 2]]], dtype=torch.float32)
    logs = np.log(softmax(found.double().numpy(), 1))
    first = -np.mean([logs[0, 0, 0, 0], logs[0, 3, 1, 0], logs[0, 1, 1, 1]])
    last = -logs[2, 2].mean()
    assert float(label_loss(found, labels, Given("classes"))) == pytest.approx((first + 0 + last) / 3, rel=1e-5)


def test_labels_yes_or_no_and_values_leave_out_what_is_unknown() -> None:
    found = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    labels = torch.tensor([[1.0, 0.0, float("nan")], [float("nan")] * 3])
    expected = -(np.log(sigmoid(np.array(2.0))) + np.log(1 - sigmoid(np.array(-1.0)))) / 2
    assert float(label_loss(found, labels, Given("labels"))) == pytest.approx(float(expected) / 2, rel=1e-5)
    by_values = ((2.0 - 1) ** 2 + (-1.0 - 0) ** 2) / 2 / np.square(KNOWN.std).mean()
    assert float(label_loss(found, labels, Given("values", KNOWN))) == pytest.approx(float(by_values) / 2, rel=1e-5)


# -- what a wrong choice is told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "kind", "words"),
    [
        (("dkt", {}), "classes", r"'dkt' is no loss \(nearest: 'dkd'\)"),
        (
            ("dkd", {"betta": 1.0}),
            "classes",
            r"'betta' is no option of dkd \(nearest: 'beta'\); it has temperature, alpha, beta",
        ),
        (("cosine", {"tau": 1.0}), "embedding", "'tau' is no option of cosine; it has none"),
        (("cwd", {"tau": 0.0}), "classes", "tau is 0; it must be above 0"),
        (("dkd", {"beta": -1.0}), "classes", "beta is -1; it must be at least 0"),
        (
            ("dkd", {}),
            "embedding",
            "dkd is no loss of outputs that are embedding; those are mse, cosine, rkd, contrastive",
        ),
        (("dkd", {}), None, "dkd is no loss of a tap; those are cwd, structure, mse, cosine"),
    ],
)
def test_a_wrong_loss_is_told_what_there_is(choice: tuple[str, dict[str, float]], kind: Any, words: str) -> None:
    import re

    found = problem(*choice, kind)
    assert found is not None and re.search(words, found), found


def views(i: int) -> Array:
    """Noise about a brightness of its own in each band."""
    rng = np.random.default_rng([9, i])
    return (rng.integers(1000, 6000, (2, 1, 1)) + rng.integers(0, 1500, (2, 16, 16))).astype(np.uint16)


def teacher_of(x: Array) -> dict[str, Array]:
    d = (x[:, :1] - x[:, 1:]).astype(np.float32)
    wide = np.concatenate([d, -d, x, d**2], 1).astype(np.float32)
    return {"logits": np.concatenate([2 * d, -2 * d, 0 * d], 1), "wide": wide, "vector": wide.mean((2, 3))}


def live() -> LiveOutputs:
    return LiveOutputs(views, lambda dn: teacher_of(SPEC.normalise(dn)), SPEC.normalise, 32)


def student_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))


@pytest.mark.parametrize("name", ["dkd", "dist", "cwd", "structure"])
def test_a_map_is_learned_by_each_loss(name: str, tmp_path: Path) -> None:
    choice = (LossChoice(name), LossChoice("kl", 0.1))
    settings = DistillSettings(steps=60, batch=32, lr=1e-2, losses=choice, autocast="off")
    _, record = distill(live(), student_net(), settings, tmp_path, 0)
    assert record.history[-1]["loss"] < 0.9 * record.history[0]["loss"]


@pytest.mark.parametrize(
    ("loss", "connector", "side"),
    [
        *[(name, "linear", "wide") for name in ("mse", "cosine", "cwd", "structure", "attention", "relations")],
        ("mse", "mlp", "wide"), ("mse", "masked", "wide"), ("mse", "pooled", "wide"), ("attention", "none", "wide"),
        ("rkd", "pooled", "vector"), ("contrastive", "linear", "vector"), ("rkd", "none", "vector"),
    ],
)  # fmt: skip
def test_a_tap_is_learned_by_each_loss_and_connector(loss: str, connector: str, side: str, tmp_path: Path) -> None:
    tap = Tap(side, "3", 3.0, LossChoice(loss), connector)
    settings = DistillSettings(steps=80, batch=32, lr=5e-3, taps=(tap,), autocast="off", balance=0.0)
    _, record = distill(live(), student_net(), settings, tmp_path, 0)
    first, last = (record.history[i]["tap:3"] for i in (0, -1))
    assert last < 0.97 * first


@pytest.mark.parametrize(
    ("tap", "words"),
    [
        (Tap("wide", "3", 1.0, LossChoice("mse"), "liner"), r"'liner' is no connector \(nearest: 'linear'\)"),
        (Tap("wide", "3", 1.0, LossChoice("mse"), "none"), "8 channels beside the teacher's 5; use connector: linear"),
        (Tap("vector", "3", 1.0, LossChoice("cwd")), "cwd: it compares places, and these features meet as vectors"),
        (
            Tap("wide", "3", 1.0, LossChoice("rkd")),
            r"rkd: it compares vectors, and these are .*; use connector: pooled",
        ),
        (Tap("vector", "3", 1.0, LossChoice("mse"), "masked"), "masked hides places"),
        (Tap("wide", "3", 1.0, LossChoice("dkd")), r"taps\.loss: dkd is no loss of a tap"),
    ],
)
def test_a_wrong_tap_is_told_what_mends_it(tap: Tap, words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        distill(live(), student_net(), DistillSettings(steps=2, taps=(tap,)), tmp_path, 0)


def test_a_masked_tap_resumes_bit_for_bit(tmp_path: Path) -> None:
    """What the connector hides is drawn from the step."""
    tap = Tap("wide", "3", 1.0, LossChoice("mse"), "masked")
    settings = DistillSettings(steps=12, batch=4, taps=(tap,), checkpoint_every=5, autocast="off")

    def stop(step: int, *_: object) -> None:
        if step == 8:
            raise KeyboardInterrupt

    whole, _ = distill(live(), student_net(), settings, tmp_path / "a", 1)
    with pytest.raises(KeyboardInterrupt):
        distill(live(), student_net(), settings, tmp_path / "b", 1, on_step=stop)
    again, _ = distill(live(), student_net(), settings, tmp_path / "b", 1)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_labels_beside_the_teacher_win_where_both_disagree(tmp_path: Path) -> None:
    """A teacher that is always wrong and labels of a share that outweighs it."""

    def wrong(x: Array) -> dict[str, Array]:
        return {"logits": -teacher_of(x)["logits"][:, [0, 1, 2]]}

    def right(i: int) -> Array:
        return teacher_of(SPEC.normalise(views(i)[None]))["logits"][0].argmax(0).astype(np.float32)

    source = WithLabels(LiveOutputs(views, lambda dn: wrong(SPEC.normalise(dn)), SPEC.normalise, 32), right)
    for share, better in ((0.9, True), (0.1, False)):
        settings = DistillSettings(steps=80, batch=8, lr=1e-2, labels=share, balance=0.0)
        net, _ = distill(source, student_net(), settings, tmp_path / str(share), 0)
        x, out = live().batch(range(8))
        with torch.no_grad():
            agreed = float((net(torch.from_numpy(x)).argmax(1).numpy() == out["logits"].argmax(1)).mean())
        assert (agreed > 0.8) == better, (share, agreed)


def test_every_connector_has_words() -> None:
    from rsedge.compress.distill.connectors import _PROJECTIONS

    assert set(CONNECTORS) == {*_PROJECTIONS}


def test_the_document_is_that_of_the_tables() -> None:
    from rsedge.compress.distill.doc import COMMAND, document

    written = Path(__file__).parents[3] / "docs" / "distillation.md"
    assert written.read_text() == document(), COMMAND
