"""Faults as tests: one kind is one way in which files, a device or people go wrong, tried at random many times.

An attempt breaks something by the word of a random generator and says what came of it. What must never come of it are wrong
answers, crashes and hangs; a test tries each kind a few times, ``make fuzz`` for minutes, and writes docs/reliability.md.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rsedge.data.errors import RsedgeError

Outcome = Literal["refused", "harmless", "wrong", "crashed", "hung"]
FINE: tuple[Outcome, ...] = ("refused", "harmless")


@dataclass(frozen=True)
class Result:
    """What came of one attempt; ``what`` says what was broken, so that it can be tried again."""

    outcome: Outcome
    what: str
    note: str = ""


Attempt = Callable[[np.random.Generator, Path], Result]


@dataclass(frozen=True)
class Kind:
    """A named kind of faults.

    Attributes:
        attempt: breaks something inside the folder it is given, which is its own, and tries it.
        seconds: after so long an attempt hangs.
        few: attempts in `make test`; 0: they take too long for it.
    """

    name: str
    attempt: Attempt
    seconds: float = 30.0
    few: int = 20


KINDS: dict[str, Kind] = {}


def kind(name: str, seconds: float = 30.0, few: int = 20) -> Callable[[Attempt], Attempt]:
    """Registers an attempt under a name, as documents show it."""

    def register(attempt: Attempt) -> Attempt:
        if name in KINDS:
            raise ValueError(f"two kinds are called '{name}'")
        KINDS[name] = Kind(name, attempt, seconds, few)
        return attempt

    return register


@functools.cache
def all_kinds() -> dict[str, Kind]:
    """Every kind of this folder: the modules ``faults_*.py``."""
    for found in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if found.name.startswith("faults_"):
            importlib.import_module(f"tests.faults.{found.name}")
    return KINDS


def told(what: str, act: Callable[[], bool]) -> Result:
    """Runs ``act``, which says whether the answer is the right one; our own error is a refusal, any other a crash."""
    try:
        right = act()
    except RsedgeError as error:
        return Result("refused", what, str(error)[:300])
    except Exception as error:  # noqa: BLE001 - what is looked for
        return Result("crashed", what, f"{type(error).__name__}: {error}"[:300])
    return Result("harmless" if right else "wrong", what)
