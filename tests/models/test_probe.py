"""Linear probes: the head that is fitted, and the network that it becomes part of."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics.samples import Kind, decisions
from rsedge.models.families import family
from rsedge.models.families.probe import pooled
from rsedge.models.probe import PENALTIES, Labels, LinearHead, Vectors, fit_head, probed, set_head
from rsedge.models.teachers import Teacher
from rsedge.models.zoo import TeacherRow

COUNT, WIDTH = 240, 6
GROUPS = np.array([f"region {i % 8}" for i in range(COUNT)])
RULE = np.random.default_rng(5).normal(size=(3, WIDTH))


def vectors(seed: int = 0) -> Vectors:
    """Features of unlike size and mean, as encoders give them."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(COUNT, WIDTH)) * [1, 5, 0.1, 1, 20, 1] + [0, 3, 1, -7, 0, 100]).astype(np.float32)


def truth(x: Vectors) -> Vectors:
    """A linear rule of the standardised features, (N, 3)."""
    return np.asarray(((x - x.mean(0)) / x.std(0)) @ RULE.T, np.float32)


def answers(head: LinearHead, x: Vectors) -> Vectors:
    return x @ head.weight.T + head.bias


LABELS: dict[Kind, Labels] = {
    "classes": truth(vectors()).argmax(1).astype(np.int64),
    "labels": (truth(vectors()) > 0).astype(np.float32),
    "values": truth(vectors()) * 10 + 50,
}
NAMES = ("water", "forest", "town")


@pytest.mark.parametrize("kind", LABELS)
def test_a_linear_rule_is_found(kind: Kind) -> None:
    head = fit_head(vectors(), LABELS[kind], kind, NAMES, GROUPS)
    assert head.weight.shape == (3, WIDTH) and head.bias.shape == (3,)
    found, unseen = answers(head, vectors()), vectors(1)
    if kind == "values":
        assert np.abs(found - LABELS[kind]).max() < 0.5
        return
    assert (decisions(kind, found) == LABELS[kind]).mean() > 0.97
    # The rule, not the samples: new ones, standardised as those it was fitted to.
    x = ((unseen - vectors().mean(0)) / vectors().std(0)) @ RULE.T
    assert (decisions(kind, answers(head, unseen)) == decisions(kind, np.asarray(x, np.float32))).mean() > 0.9


@functools.cache
def plainly(kind: Kind) -> Vectors:
    """Answers of a head fitted to the features as they are."""
    return answers(fit_head(vectors(), LABELS[kind], kind, NAMES, GROUPS), vectors())


@settings(deadline=None, max_examples=8)
@given(st.integers(0, WIDTH - 1), st.floats(-3, 3), st.floats(-100, 100))
def test_units_of_the_features_do_not_matter(column: int, power: float, shift: float) -> None:
    other = vectors()
    other[:, column] = other[:, column] * 10**power + shift * 10**power
    for kind in ("labels", "values"):
        a, b = plainly(kind), answers(fit_head(other, LABELS[kind], kind, NAMES, GROUPS), other)
        assert np.allclose(a, b, atol=0.02 * np.abs(a).max())


def test_noise_is_held_down_more_than_a_rule() -> None:
    noise = np.random.default_rng(3).permutation(LABELS["values"])
    rule, none = (fit_head(vectors(), t, "values", NAMES, GROUPS).penalties for t in (LABELS["values"], noise))
    assert max(rule) < min(none) and set(rule) | set(none) <= set(PENALTIES)


def test_features_without_variance_and_samples_without_label_change_nothing() -> None:
    x = np.concatenate([vectors(), np.full((COUNT, 1), 7, np.float32)], 1)
    labels = LABELS["labels"].copy()
    labels[:40], x[:40, 1] = -1, 1e4
    head = fit_head(x, labels, "labels", NAMES, GROUPS)
    plain = fit_head(x[40:, :WIDTH], labels[40:], "labels", NAMES, GROUPS[40:])
    assert not head.weight[:, WIDTH].any() and np.allclose(head.weight[:, :WIDTH], plain.weight, rtol=1e-3, atol=1e-6)


KINDS: list[tuple[Kind, int]] = [
    *(("classes", count) for count in (2, 3, 4)),
    *((kind, count) for kind in ("labels", "values") for count in (1, 2, 3, 4)),
]


@pytest.mark.parametrize(("kind", "count"), KINDS)
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 999), flat=st.booleans())
def test_a_head_has_a_row_for_each_name_and_fills_the_network(kind: Kind, count: int, seed: int, flat: bool) -> None:
    x, names = vectors(seed)[:80, :5], tuple("abcd"[:count])
    rule = ((x - x.mean(0)) / x.std(0)) @ np.random.default_rng(seed).normal(size=(5, count))
    rule -= np.median(rule, 0)
    labels: Labels = (
        rule.argmax(1) if kind == "classes" else (rule > 0).astype(np.float32) if kind == "labels" else rule
    )
    labels = labels[:, 0] if kind != "classes" and count == 1 and flat else labels
    assume(kind != "classes" or len(np.unique(labels)) == count)
    head = fit_head(x, labels, kind, names, GROUPS[:80])
    found = probed(teacher(), names, "regression" if kind == "values" else "classification")
    set_head(found, head)
    assert found.net(torch.zeros(2, 2, 16, 16)).shape == (2, count) and np.isfinite(answers(head, x)).all()
    if kind != "values":
        assert (decisions(kind, answers(head, x)) == labels.reshape(len(x), *[-1] * (kind == "labels"))).mean() > 0.85
    if (kind, count) == ("classes", 2):  # as one class alone says it
        one = answers(fit_head(x, labels, "labels", names[1:], GROUPS[:80]), x)[:, 0]
        np.testing.assert_allclose(answers(head, x) @ [-1, 1], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "labels", "names", "groups", "message"),
    [
        ("classes", LABELS["classes"], NAMES[:2], GROUPS, "samples of class 2, teacher.classes names 2"),
        ("classes", LABELS["classes"] * 2 % 3, (*NAMES, "ice"), GROUPS, "no training sample of ice"),
        ("classes", LABELS["labels"], NAMES, GROUPS, r"labels \(240, 3\) for 3 classes"),
        ("labels", LABELS["labels"], NAMES[:2], GROUPS, r"labels \(240, 3\) do not fit 2 teacher.classes"),
        ("labels", np.ones((COUNT, 3), np.float32), NAMES, GROUPS, "'water' needs training samples with and without"),
        ("values", LABELS["values"], NAMES, np.full(COUNT, "one"), "one group"),
        ("labels", (GROUPS == "region 0").astype(np.int64), NAMES[:1], np.where(GROUPS == "region 0", "a", "b"), "in one group"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(
    kind: Kind, labels: Labels, names: tuple[str, ...], groups: Any, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        fit_head(vectors(), labels, kind, names, groups)


class Encoder(nn.Module):
    """(N, 2, 16, 16) -> tokens (N, 64, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 5, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).transpose(1, 2)


def teacher(task: str = "embedding") -> Teacher:
    spec = InputSpec(bands=tuple(BandSpec(name=n, scale=1e-4) for n in ("red", "nir")), tile=16)
    row = TeacherRow.model_validate({
        "name": "t", "title": "T", "family": "vit", "task": task, "params": 1, "input": spec, "licence": "-", "source": "-",
        "published": "code", "taps": ["net.patches"]})  # fmt: skip
    return Teacher(Encoder(), row, {}).eval()


def test_a_probed_teacher_answers_as_encoder_and_head() -> None:
    plain = teacher()
    found = probed(plain, NAMES, "classification")
    assert (found.spec.family, found.spec.task, found.spec.classes) == ("probe", "classification", NAMES)
    assert found.spec.params == 2 * 4 * 5 + 5 + 3 * 6 and found.spec.taps == ("net.encoder.patches",)
    x = torch.randn(3, 2, 16, 16)
    assert not found(x).any()  # before it is fitted
    rng = np.random.default_rng(0)
    head = LinearHead(rng.normal(size=(3, 5)).astype(np.float32), np.ones(3, np.float32), (), ())
    set_head(found, head)
    wanted = plain(x).detach().mean(1).numpy() @ head.weight.T + head.bias
    assert np.allclose(found(x).detach().numpy(), wanted, atol=1e-6)


def test_what_gives_logits_takes_no_probe() -> None:
    with pytest.raises(RequestError, match="'t' is a teacher for segmentation; a probe goes on embeddings"):
        probed(teacher("segmentation"), NAMES, "classification")


def test_vectors_tokens_and_maps_are_one_vector_per_sample() -> None:
    x = torch.randn(2, 5)
    assert torch.equal(pooled(x), x)
    assert torch.allclose(pooled(x[:, None].expand(2, 7, 5)), x)
    assert torch.allclose(pooled(x[..., None, None].expand(2, 5, 3, 4)), x)


def test_the_family_builds_the_same_names() -> None:
    arch = {"dim": 8, "depth": 1, "heads": 2, "classes": 0, "land_cover": False}
    whole, encoder = (
        family("probe").build(probed="presto", features=8, outputs=2, **arch),
        family("presto").build(**arch),
    )
    assert {k.removeprefix("encoder.") for k in whole.state_dict() if k.startswith("encoder.")} == set(
        encoder.state_dict()
    )
