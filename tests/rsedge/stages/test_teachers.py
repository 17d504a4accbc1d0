"""Several teachers: what is learned of all together, and which have nothing in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.contract_view import ContractView
from rsedge.data.errors import RequestError
from rsedge.data.metrics.samples import Kind
from rsedge.models.outside.loading import in_memory
from rsedge.models.teachers import Teacher
from rsedge.recipe.schema import OtherTeacherSection
from rsedge.stages.teacher_model import torch_teacher
from rsedge.stages.teachers import Other, check_contract, order_of, own_taps, together

BANDS = ("red", "nir")
Array = np.ndarray


def spec(bands: tuple[str, ...] = BANDS, **more: Any) -> InputSpec:
    return InputSpec(bands=tuple(BandSpec(name=b) for b in bands), tile=16, **more)


def teacher(classes: tuple[str, ...], contract: InputSpec | None = None) -> Teacher:
    contract = contract or spec()
    net, row = in_memory(nn.Conv2d(contract.channels, len(classes), 1), contract, classes)
    return Teacher(net, row, row.arch).eval()


def other(found: Teacher, order: tuple[int, ...], weight: float = 1.0) -> Other:
    view = ContractView.by_name(spec(), found.spec.input_spec, "teachers[0]")
    return Other(2, found, weight, order, view, torch_teacher(found, (), "cpu"), tapped=True)


def dn() -> Array:
    return np.random.default_rng(0).integers(0, 3, (2, 2, 16, 16)).astype(np.uint16)


def test_a_teacher_alone_is_learned_as_it_is() -> None:
    """Of outputs too that several teachers cannot share."""
    first = {"logits": np.zeros((2, 5, 7), np.float32)}
    assert together("boxes", first, [], dn()) is first


def test_the_mixture_has_the_gradient_of_the_weighted_divergences_in_the_first_ones_order() -> None:
    torch.manual_seed(0)
    second = teacher(("b", "a", "c"), spec(("nir",)))
    first = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    order = order_of("classes", ("a", "b", "c"), second, 2, ())
    assert order == (1, 0, 2)
    found = together("classes", {"logits": first}, [other(second, order, weight=3.0)], dn())
    alone = torch_teacher(second, (), "cpu")(spec(("nir",)).normalise(dn()[:, 1:]))["logits"]
    assert np.array_equal(found["2:output"], alone)

    def gradient(pairs: list[tuple[float, Array]]) -> torch.Tensor:
        student = torch.zeros(2, 3, 16, 16, requires_grad=True)
        loss = sum(
            w * kl_div(student.log_softmax(1), torch.from_numpy(np.ascontiguousarray(t)).softmax(1), reduction="sum")
            for w, t in pairs
        )
        assert isinstance(loss, torch.Tensor)
        return torch.autograd.grad(loss, student)[0]

    each = gradient([(0.25, first), (0.75, alone[:, [1, 0, 2]])])
    assert torch.allclose(gradient([(1.0, found["logits"])]), each, atol=1e-5) and each.abs().max() > 0.1


@pytest.mark.parametrize(("kind", "mean"), [("labels", 1.0986), ("values", 1.0), ("image", 1.0)])
def test_labels_meet_in_probability_and_values_in_their_mean(kind: Kind, mean: float) -> None:
    """Logits 0 and those of a probability of 1: 3/4, whose logit is ln 3; values 0 and 2: 1."""
    second = 40.0 if kind == "labels" else 2.0
    made = other(teacher(("a", "b")), (0, 1))
    given = Other(
        2, made.teacher, 1.0, (0, 1), made.view, lambda x: {"logits": np.full((len(x), 2), second, np.float32)}
    )
    found = together(kind, {"logits": np.zeros((2, 2), np.float32)}, [given], dn())["logits"]
    assert found.dtype == np.float32 and found == pytest.approx(np.full((2, 2), mean), abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "classes", "words"),
    [
        ("classes", ("a", "d"), r"teachers\[1\]: it gives a, d, the teacher a, b: they share no meaning"),
        ("boxes", ("a", "b"), "boxes of several teachers have no mean"),
        ("embedding", ("a", "b"), "no axis in common; .*teacher: '3:output'"),
    ],
)
def test_teachers_that_share_no_meaning_are_refused(kind: Kind, classes: tuple[str, ...], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        order_of(kind, ("a", "b"), teacher(classes), 3, ["2:output"])


def test_embeddings_are_tapped_each_by_its_number() -> None:
    taps = ["blocks.3", "2:output", "2:neck", "3:neck"]
    assert own_taps(taps, 1) == ["blocks.3"] and own_taps(taps, 2) == ["neck"] == own_taps(taps, 3)
    assert order_of("embedding", (), teacher(("a", "b")), 2, taps) == ()


def test_all_are_shown_the_same_views() -> None:
    first = teacher(("a", "b"))
    check_contract(teacher(("a", "b"), spec(("nir",))), first, "teachers[0]")
    with pytest.raises(RequestError, match="inputs of another tile: 32, the teacher 16"):
        check_contract(teacher(("a", "b"), InputSpec(bands=spec().bands, tile=32)), first, "teachers[0]")
    with pytest.raises(ValueError, match="fit and probe are the first teacher's alone"):
        OtherTeacherSection(name="presto", classes=("a", "b"), probe={"task": "classification"})  # type: ignore[arg-type]
