"""Weights in the wrappings that people have: entries of a training script, prefixes of wrappers, averages beside the plain ones.

A network's own names say what to look for: an entry of the file, and a prefix in it, under which all of them lie. Whatever was
entered, taken off names or left aside is told, and where several would fill the network it is asked which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.checkpoint import misfit

ANYWHERE = ("_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that torch.compile, data-parallel and sharded training, and activation checkpointing put in anywhere."""
AVERAGED = ("ema", "ema_model", "model_ema", "averaged_model", "avg_model", "swa_model", "shadow")
"""Prefixes of averages that stand beside plain weights without any prefix."""
TOP = "top"
"""What the file itself is called among its entries."""
_DEPTH = 4
_NAMED = 4
_COUNTERS = "num_batches_tracked"
_CLASS_ENTRIES = ("classes", "class_names", "CLASSES", "labels", "names", "id2label")
_AROUND_CLASSES = ("hyper_parameters", "meta", "dataset_meta", "config", "args")


@dataclass(frozen=True)
class Found:
    """Weights under a network's own names.

    Attributes:
        entry: how a recipe names them (``teacher.entry``).
        notes: what was entered, taken off and left aside; empty where the file was a plain state dict.
    """

    tensors: dict[str, Tensor]
    entry: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    path: tuple[str, ...]
    prefix: str
    anywhere: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    outside: tuple[str, ...]
    head: tuple[str, ...] = ()

    def without(self, head: Collection[str]) -> _Candidate:
        """The same without the tensors of these names."""
        left = {name: tensor for name, tensor in self.tensors.items() if name not in head}
        return replace(self, tensors=left, head=tuple(name for name in self.tensors if name in head))

    @property
    def entry(self) -> str:
        return "/".join([*self.path, *([self.prefix.rstrip(".")] if self.prefix else [])]) or TOP

    def notes(self) -> tuple[str, ...]:
        words = []
        if self.path:
            words.append(f"weights from its entry {'/'.join(self.path)}")
        if taken := [*([self.prefix] if self.prefix else []), *(f"{part}." for part in self.anywhere)]:
            words.append(f"{', '.join(repr(t) for t in taken)} taken off their names")
        if self.outside:
            words.append(f"left aside: {len(self.outside)} of other names ({_some(self.outside)})")
        if modules := list(dict.fromkeys(name.rpartition(".")[0] for name in self.head)):
            words.append(
                f"its head is left out ({_some(modules)}): without teacher.classes the network gives what lies before it"
            )
        return ("; ".join(words),) if words else ()


Hint = Callable[[Mapping[str, tuple[int, ...]], Mapping[str, Tensor]], str]


def unwrapped(
    content: Any,
    net: nn.Module,
    where: str | Path,
    entry: str | None = None,
    hint: Hint = lambda own, found: "",
    head: Callable[[], Collection[str]] = tuple,
) -> Found:
    """The weights in a checkpoint's content that fill ``net`` exactly.

    Args:
        content: what :func:`rsedge.models.checkpoint.read_checkpoint` gives.
        entry: which of several, by its name in the question that is raised without it.
        hint: what to say of weights that do not fit, beside their names and shapes.
        head: names of a head that the network could have and has not; asked where nothing fits. They are left out, and told.

    Raises:
        RequestError: none do (the nearest is held against the network's names), several different ones do, or ``entry`` is none.
    """
    own = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    every = [c for path, state in _state_dicts(content) for c in _candidates(path, state, own)]
    if not every:
        kind = f"a {type(content).__name__}" if not isinstance(content, Mapping) else "no tensors"
        entries = (
            f" among its entries {_some(list(map(str, content)))}"
            if isinstance(content, Mapping)
            else ", not a state dict"
        )
        raise RequestError(f"{where}: holds {kind}{entries}")
    fitting = [c for c in every if not misfit(own, c.tensors)]
    if not fitting and (names := set(head()) - set(own)):
        fitting = [bare for c in every if not misfit(own, (bare := c.without(names)).tensors)]
    if entry is not None:
        return _asked_for(fitting, every, own, entry, where)
    if not fitting:
        best = max(every, key=lambda c: (len(set(own) & set(c.tensors)), -len(c.prefix)))
        at = "" if best.entry == TOP else f" (its entry {best.entry})"
        problem = misfit(own, best.tensors) + hint(own, best.tensors)
        raise RequestError(f"{where}{at}: checkpoint does not fit {type(net).__name__}: {problem}")
    different = _different(fitting)
    if len(different) > 1:
        raise RequestError(
            f"{where}: holds {len(different)} different sets of weights that all fit; say which with teacher.entry: "
            f"{' or '.join(c.entry for c in different)}"
        )
    return _found(different[0])


def _asked_for(
    fitting: Sequence[_Candidate], every: Sequence[_Candidate], own: Mapping[str, Any], entry: str, where: str | Path
) -> Found:
    for one in fitting:
        if one.entry == entry:
            return _found(one)
    near = next((c for c in every if c.entry == entry), None)
    why = f"does not fit: {misfit(own, near.tensors)}" if near else "is none of its entries that hold weights"
    fit = f"; these fit: {', '.join(dict.fromkeys(c.entry for c in fitting))}" if fitting else ""
    raise RequestError(f"{where}: teacher.entry: '{entry}' {why}{fit}")


def _found(one: _Candidate) -> Found:
    return Found(dict(one.tensors), one.entry, one.notes())


def _different(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Those whose weights are not those of one before."""
    found: list[_Candidate] = []
    for one in candidates:
        if not any(_same(one.tensors, other.tensors) for other in found):
            found.append(one)
    return found


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    common = set(first) & set(second)
    return all(torch.equal(first[name], second[name]) for name in common)


def _state_dicts(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every mapping in a checkpoint that holds tensors by name, with the entries that lead to it."""
    if not isinstance(content, Mapping):
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield path, tensors
    if len(path) < _DEPTH:
        for key, inner in content.items():
            if isinstance(key, str):
                yield from _state_dicts(inner, (*path, key))


def _candidates(path: tuple[str, ...], state: Mapping[str, Tensor], own: Mapping[str, Any]) -> Iterator[_Candidate]:
    """The ways to read a state dict: as it is, without a prefix, without what wrappers put in the middle."""
    needed = [n for n in own if not n.endswith(_COUNTERS)] or list(own)
    for anywhere in _inserted(state, own):
        named = {_without(name, anywhere): tensor for name, tensor in state.items()}
        if len(named) < len(state):
            continue
        prefixes = _prefixes(named, needed)
        whole = not set(needed) - set(named)
        if whole:  # beside plain names, only what averages are called is another set of weights
            prefixes = ["", *(p for p in prefixes if p and p.rstrip(".").rpartition(".")[2] in AVERAGED)]
        for prefix in prefixes or [""]:
            others = tuple(p for p in prefixes if p != prefix and len(p) > len(prefix))
            outside = tuple(n for n in named if not n.startswith(prefix) or n.startswith(others))
            apart = set(outside)
            inside = {n[len(prefix) :]: t for n, t in named.items() if n not in apart}
            yield _Candidate(path, prefix, anywhere, inside, outside)
        if whole or any(not set(needed) - {n[len(p) :] for n in named if n.startswith(p)} for p in prefixes):
            return


def _inserted(state: Mapping[str, Tensor], own: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Nothing, then the parts that wrappers put into names, as far as the network has none of that name itself."""
    parts = {part for name in state for part in name.split(".")} - {part for name in own for part in name.split(".")}
    yield ()
    if there := tuple(part for part in ANYWHERE if part in parts):
        yield there


def _without(name: str, parts: Sequence[str]) -> str:
    """A name without ``parts``, but for those at its start: they are a prefix, which tells a network's weights from a loss's."""
    words = name.split(".")
    start = next((i for i, word in enumerate(words) if word not in parts), len(words))
    return ".".join([*words[:start], *(word for word in words[start:] if word not in parts)])


def _prefixes(names: Mapping[str, Tensor], needed: Sequence[str]) -> list[str]:
    """What stands before the network's names: prefixes under which all of them lie, else the one under which most do."""
    counts: dict[str, int] = {}
    ends: dict[str, list[str]] = {}
    for name in needed:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    for name in names:
        for own in ends.get(name.rpartition(".")[2], ()):
            if name == own or name.endswith(f".{own}"):
                prefix = name[: len(name) - len(own)]
                counts[prefix] = counts.get(prefix, 0) + 1
    if not counts:
        return []
    whole = sorted((p for p, count in counts.items() if count == len(needed)), key=len)
    return whole or [max(counts, key=lambda p: (counts[p], -len(p)))]


def check_class_names(content: Any, classes: Sequence[str], where: str | Path) -> tuple[str, ...]:
    """Holds the class names that a checkpoint keeps beside its weights against those of a recipe.

    Returns:
        What is to be told: the checkpoint calls its classes otherwise.

    Raises:
        RequestError: the same names stand in another order, or it names another number of classes.
    """
    kept = _class_names(content)
    if not kept or not classes:
        return ()
    own, given = [n.casefold() for n in kept], [n.casefold() for n in classes]
    if own == given or (len(given) == 1 and own[-1] == given[0]):
        return ()
    if sorted(own) == sorted(given):
        raise RequestError(
            f"{where}: its classes are {', '.join(kept)}, in this order; teacher.classes has them as {', '.join(classes)}: "
            "write them in the checkpoint's order"
        )
    return (f"the checkpoint calls its classes {', '.join(kept)}, the recipe {', '.join(classes)}",)


def _class_names(content: Any) -> list[str]:
    """Names of classes that training scripts keep; empty where there are none to be recognised."""
    if not isinstance(content, Mapping):
        return []
    places = [place for place in (content, *(content.get(k) for k in _AROUND_CLASSES)) if isinstance(place, Mapping)]
    for names in (place.get(key) for place in places for key in _CLASS_ENTRIES):
        if isinstance(names, Mapping) and all(str(k).isdigit() for k in names):
            names = [names[k] for k in sorted(names, key=int)]
        if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
            return list(names)
    return []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
