"""A whole: parts, and what the host does between them. The same code runs the teacher's parts, the student's and a bundle's."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.record import Record, validated
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays


class RunsPart(Protocol):
    """A part that runs, on whatever: :class:`rsedge.runtimes.parts.PartSession`, or a network in torch behind the same form."""

    @property
    def inputs(self) -> Tensors: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays: ...


Parts = Mapping[str, RunsPart]


class WholeSettings(Record):
    """What a recipe sets of a whole."""

    model_config = ConfigDict(allow_inf_nan=False)


S = TypeVar("S", bound=WholeSettings)


class Whole(abc.ABC, Generic[S]):
    """What runs between parts, which stand in the order in which they run.

    Samples have no batch axis; parts get one of 1.

    Attributes:
        task: what it does, as metrics and manifests call it.
        settings_of: what can be set.
    """

    task: ClassVar[str]
    settings_of: ClassVar[type[WholeSettings]] = WholeSettings

    def __init__(self, parts: Sequence[str], settings: Mapping[str, Any]) -> None:
        """
        Raises:
            RequestError: it is of other parts, or has no such setting.
        """
        self.parts = tuple(parts)
        self.settings: S = validated(self.settings_of, dict(settings), "whole")  # type: ignore[assignment]

    @abc.abstractmethod
    def inputs(self, parts: Parts) -> Tensors:
        """What one sample holds, batch axis left out.

        Raises:
            RequestError: the parts do not go together.
        """

    @abc.abstractmethod
    def run(self, parts: Parts, sample: Mapping[str, Array]) -> Arrays:
        """What the parts give together for one sample, batch axis left out."""

    @abc.abstractmethod
    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        """What N samples' outputs are judged by, beside the teacher's.

        Args:
            groups: (N,) what each sample belongs to, which intervals draw.
        """


def chain_inputs(parts: Parts, names: Sequence[str], known: Sequence[str] = ()) -> Tensors:
    """What parts that run one after the other take beside what those before them give, batch axis left out.

    Args:
        known: tensors that come from elsewhere.

    Raises:
        RequestError: a tensor has no batch axis, or two parts take it in unlike shapes or types.
    """
    needed: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    given = set(known)
    for name in names:
        for tensor, (shape, dtype) in parts[name].inputs.items():
            if tensor in given:
                continue
            if shape[:1] != (1,):
                raise RequestError(f"parts.{name}: '{tensor}' is {shape}, without a batch axis of 1")
            before = needed.setdefault(tensor, (shape[1:], dtype))
            if before != (shape[1:], dtype):
                raise RequestError(
                    f"parts.{name}: takes '{tensor}' as {dtype} {shape[1:]}, another part as {before[1]} {before[0]}"
                )
        given |= set(parts[name].outputs)
    return needed


def chained(parts: Parts, names: Sequence[str], known: Mapping[str, Array]) -> Arrays:
    """Runs parts one after the other, each on what it names of ``known`` and of what those before it gave (with batch axes).

    Returns:
        All that is known at the end, and what the parts gave is among it.
    """
    held: Arrays = dict(known)
    for name in names:
        held |= parts[name]({tensor: held[tensor] for tensor in parts[name].inputs})
    return held


def with_batch(sample: Mapping[str, Array]) -> Arrays:
    """A sample as parts take it, with a batch axis of 1."""
    return {name: np.asarray(value)[None] for name, value in sample.items()}
