"""Checkpoints in the wrappings that people have: what fills a network loads, whatever stands around it, and is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.checkpoint import read_checkpoint
from rsedge.models.wrappings import check_class_names, unwrapped


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.ModuleDict({"backbone": body, "head": nn.Sequential(nn.Conv2d(4, 3, 1))})


def same(found: Mapping[str, Tensor], wanted: nn.Module) -> bool:
    state = wanted.state_dict()
    return set(found) <= set(state) and all(torch.equal(found[n], state[n]) for n in found)


PREFIXES = st.lists(
    st.sampled_from(["model.", "module.", "_orig_mod.", "net.", "network.", "segmentor.", "task.", "student."]),
    max_size=3,
).map("".join)
ENTRIES = st.lists(
    st.sampled_from(["state_dict", "model", "model_state", "model_state_dict", "net", "checkpoint", "ema"]), max_size=3
)
BESIDE: dict[str, Any] = {
    "epoch": 3,
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    "hyper_parameters": {"lr": 1e-3, "name": "run"},
    "class_weights": torch.ones(3),
    "rng": torch.zeros(8, dtype=torch.uint8),
}


@settings(max_examples=150, deadline=None)
@given(
    prefix=PREFIXES,
    entries=ENTRIES,
    beside=st.sets(st.sampled_from(sorted(BESIDE))),
    loss=st.booleans(),
    compiled=st.booleans(),
    counters=st.booleans(),
)
def test_whatever_stands_around_it_a_state_dict_loads(
    prefix: str, entries: list[str], beside: set[str], loss: bool, compiled: bool, counters: bool
) -> None:
    own = net()
    state = {
        prefix + (n.replace("backbone.", "backbone._orig_mod.") if compiled else n): v.clone()
        for n, v in own.state_dict().items()
        if counters or not n.endswith("num_batches_tracked")
    }
    if loss and prefix:
        state["criterion.weight"] = torch.ones(3)
    content: Any = state
    for name in reversed(entries):
        content = {name: content, **{k: BESIDE[k] for k in beside}}
    found = unwrapped(content, net(1), "c.pth")
    assert same(found.tensors, own)
    told = " ".join(found.notes)
    plain = not prefix and not entries and not compiled
    assert bool(found.notes) == (not plain)
    assert ("/".join(entries) in told) if entries else True
    assert ("criterion.weight" in told) == (loss and bool(prefix))
    again = unwrapped(content, net(1), "c.pth", found.entry)
    assert same(again.tensors, own) and again.entry == found.entry


@settings(max_examples=40, deadline=None)
@given(layout=st.sampled_from(["entries", "prefixes", "plain and prefix", "module"]), averaged=st.booleans())
def test_an_average_beside_the_weights_is_asked_for(layout: str, averaged: bool) -> None:
    own, ema = net(0).state_dict(), net(5).state_dict()
    content: dict[str, Any] = {
        "entries": {"state_dict": own, "state_dict_ema": ema},
        "module": {"model": own, "ema": {"module": ema, "decay": 0.9}},
        "prefixes": {**{f"model.{n}": v for n, v in own.items()}, **{f"ema_model.{n}": v for n, v in ema.items()}},
        "plain and prefix": {**own, **{f"ema.{n}": v for n, v in ema.items()}},
    }[layout]
    with pytest.raises(
        RequestError, match=r"2 different sets of weights that all fit; say which with teacher\.entry: "
    ) as asked:
        unwrapped(content, net(1), "c.pth")
    names = re.split(" or ", str(asked.value).rpartition("teacher.entry: ")[2])
    assert len(names) == 2
    found = unwrapped(content, net(1), "c.pth", names[averaged])
    assert same(found.tensors, net(5) if averaged else net(0))
    with pytest.raises(RequestError, match=rf"'other' is none of its entries.*these fit: {re.escape(names[0])}, "):
        unwrapped(content, net(1), "c.pth", "other")


def test_the_same_weights_twice_are_no_question() -> None:
    own = net().state_dict()
    assert same(
        unwrapped({"state_dict": own, "ema": {n: v.clone() for n, v in own.items()}}, net(1), "c.pth").tensors, net()
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (3, "holds a int, not a state dict"),
        ({"epoch": 3}, "no tensors among its entries epoch"),
        (
            {"state_dict": {"model.x": torch.ones(1)}},
            r"\(its entry state_dict\): checkpoint does not fit ModuleDict: .*missing keys",
        ),
        (
            {f"model.{n}": v for n, v in [*net().state_dict().items(), ("extra", torch.ones(1))]},
            "left-over keys: extra",
        ),
        (
            {n: v[:2] if n.startswith("head") else v for n, v in net().state_dict().items()},
            r"other shapes: head\.0\.weight",
        ),
    ],
)
def test_what_does_not_fit_is_held_against_the_names(content: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        unwrapped(content, net(), "c.pth")


def test_classes_in_another_order_are_refused() -> None:
    kept = {"state_dict": {}, "hyper_parameters": {"class_names": ["Land", "water", "ice"]}}
    assert not check_class_names(kept, ("land", "water", "ice"), "c.pth")
    with pytest.raises(RequestError, match="its classes are Land, water, ice, in this order"):
        check_class_names(kept, ("water", "land", "ice"), "c.pth")
    told = check_class_names({"meta": {"CLASSES": ("a", "b")}}, ("x", "y"), "c.pth")
    assert told == ("the checkpoint calls its classes a, b, the recipe x, y",)
    assert check_class_names({"id2label": {"1": "b", "0": "a"}}, ("a", "b"), "c.pth") == ()
    assert check_class_names({"names": [1, 2]}, ("a", "b"), "c.pth") == ()


def test_programs_are_refused_in_true_words(tmp_path: Path) -> None:
    scripted = torch.jit.trace(nn.Conv2d(2, 3, 1), torch.zeros(1, 2, 8, 8))
    torch.jit.save(scripted, tmp_path / "s.pt")
    with pytest.raises(RequestError, match=r"program of TorchScript.*it is not run here.*torch\.jit\.load"):
        read_checkpoint(tmp_path / "s.pt")
    torch.export.save(torch.export.export(nn.Conv2d(2, 3, 1), (torch.zeros(1, 2, 8, 8),)), tmp_path / "e.pt2")
    with pytest.raises(RequestError, match=r"program of torch\.export.*torch\.export\.load"):
        read_checkpoint(tmp_path / "e.pt2")
