"""Which option which work heeds: one that would change nothing is refused, so that nobody believes it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from rsedge.data.errors import RequestError
from rsedge.runtimes.backend import Engine
from rsedge.runtimes.inference.works.table import Work, heeding, unheeded
from rsedge.runtimes.registry import backends

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle

ENGINE_OPTIONS = ("threads", "hint")
"""Options that not every engine heeds (:attr:`rsedge.runtimes.backend.Engine.heeds`)."""


def engine_of(bundle: Bundle, device: str | None = None) -> Engine:
    """What executes a bundle, on its own device or on another of its runtime."""
    return bundle.backend.engine(bundle.target.device, device, bundle.built(device) is not None)


def refuse_unheeded(
    context: typer.Context, bundle: Bundle, work: Work | None = None, device: str | None = None
) -> None:
    """Refuses options on the command line that would be ignored.

    Args:
        work: None where the command does the same with every bundle, whatever it is for.

    Raises:
        RequestError: names the options, for what they are, and what this bundle is for.
    """
    given, engine = given_options(context), engine_of(bundle, device)
    if work is not None and (idle := unheeded(work, given)):
        heeded = _listed([row.words for row in heeding(idle[0])])
        raise RequestError(
            f"{bundle.path}: {_options(idle)} would be ignored: {_options(idle[:1])} is for {heeded}, and this gives "
            f"{work.words}; leave {_it(idle)} out"
        )
    if idle := [n for n in given if n in ENGINE_OPTIONS and n not in engine.heeds]:
        heeded = _listed([e.title for b in backends() for e in b.all_engines() if idle[0] in e.heeds])
        raise RequestError(
            f"{bundle.path}: {_options(idle)} would be ignored: {_options(idle[:1])} is for {heeded}, and this bundle "
            f"runs with {engine.title}; leave {_it(idle)} out"
        )


def refuse_without(context: typer.Context, names: Sequence[str], needed: str) -> None:
    """Refuses options that do something only together with another, which is not given.

    Raises:
        RequestError: names both.
    """
    if idle := [n for n in given_options(context) if n in names]:
        raise RequestError(f"{_options(idle)} would be ignored without {needed}: give it, or leave {_it(idle)} out")


def given_options(context: typer.Context) -> list[str]:
    """Parameters that stand on the command line, a default's value among them where it is written out."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _options(names: Sequence[str]) -> str:
    return _listed(["--" + name.replace("_", "-") for name in names])


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
