"""A whole: parts, and what the host does between them. The same code runs the teacher's parts, the student's and a bundle's."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.record import Record, validated
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays

RunPart = Callable[[str, Mapping[str, Array]], Arrays]
"""Runs a part, by its name, on tensors with a batch axis of 1."""


class WholeSettings(Record):
    """What a recipe sets of a whole."""

    model_config = ConfigDict(strict=False)


S = TypeVar("S", bound=WholeSettings)


class PartTensors(Record):
    """What one part takes and gives, batch axis included."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inputs: Mapping[str, tuple[tuple[int, ...], Any]]
    outputs: tuple[str, ...]


class Whole(abc.ABC, Generic[S]):
    """What runs between parts.

    Samples of a whole have no batch axis; parts get one of 1. :attr:`parts` are in the order in which they run.

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
        self.settings: S = validated(self.settings_of, dict(settings), "whole")
        self.check()

    def check(self) -> None:  # noqa: B027 - most take any parts
        """Refuses parts that it does not go with.

        Raises:
            RequestError: names them.
        """

    @abc.abstractmethod
    def inputs(self, parts: Mapping[str, PartTensors]) -> Tensors:
        """What one sample holds, batch axis left out.

        Raises:
            RequestError: the parts do not go together.
        """

    @abc.abstractmethod
    def run(self, part: RunPart, sample: Mapping[str, Array]) -> Arrays:
        """What the parts give together for one sample, batch axis left out."""

    @abc.abstractmethod
    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        """What N samples' outputs are judged by, beside the teacher's."""

    def calls(self, part: str) -> int:
        """How often a part runs for one sample."""
        return 1


class Chain(Whole[S]):
    """Parts one after the other: each takes what it names of the sample and of what those before it gave."""

    def inputs(self, parts: Mapping[str, PartTensors]) -> Tensors:
        needed: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        given: set[str] = set()
        for name in self.parts:
            for tensor, (shape, dtype) in parts[name].inputs.items():
                if tensor in given:
                    continue
                if shape[:1] != (1,):
                    raise RequestError(f"parts.{name}: '{tensor}' is {shape}, without a batch axis of 1")
                if needed.setdefault(tensor, (shape[1:], np.dtype(dtype))) != (shape[1:], np.dtype(dtype)):
                    raise RequestError(
                        f"parts.{name}: takes '{tensor}' as {dtype} {shape}, another part as {needed[tensor]}"
                    )
            given |= set(parts[name].outputs)
        return needed

    def run(self, part: RunPart, sample: Mapping[str, Array]) -> Arrays:
        known = {name: np.asarray(value)[None] for name, value in sample.items()}
        return {name: value[0] for name, value in self.chained(part, known, self.parts).items()}

    def chained(self, part: RunPart, known: Mapping[str, Array], names: Sequence[str]) -> Arrays:
        """What the last of the parts gives, batch axis included."""
        held: Arrays = dict(known)
        found: Arrays = {}
        for name in names:
            found = part(name, held)
            held |= found
        return found
