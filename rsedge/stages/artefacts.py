"""The model files of targets, opened: what runs their numbers on this machine."""

from __future__ import annotations

from rsedge.runtimes.opening import open_stand_in
from rsedge.runtimes.session import Session
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Artefact


def open_artefact(artefact: Artefact, ctx: RunContext) -> Session:
    """The executable that stands for the target here: its own on this CPU, else the same file on the CPU."""
    target = artefact.target
    stand_in = target.backend.here(target.device, target.precision)
    return open_stand_in(artefact.path, stand_in, ctx.spec, ctx.threads)
