"""Which file of a part a target runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rsedge.export.parts_bundle import open_here
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.parts import PartSession
from rsedge.stages.outputs import ir_bytes
from rsedge.stages.parts.context import PartsContext, float_file, int8_file

BASELINE = Target.parse("openvino-cpu-f32")
"""By which the teacher is run."""


def suffix_of(target: Target) -> str:
    """Of the files that a target's runtime opens first."""
    return target.backend.suffixes[0]


def part_path(ctx: PartsContext, target: Target, part: str) -> Path:
    """The file of a part: in INT8 where the target asks for it and the part bears it."""
    suffix = suffix_of(target)
    if target.quantized and "quantize" in ctx.folders:
        path = int8_file(target.backend.name, part, suffix).of(ctx.folders)
        if path.is_file():
            return path
    return float_file(part, suffix).of(ctx.folders)


def files_of(path: Path) -> list[Path]:
    """A model's files, the one that is opened first."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def bytes_of(path: Path) -> int:
    """Size of all of a model's files."""
    return ir_bytes(path) if path.suffix == ".xml" else path.stat().st_size


@contextlib.contextmanager
def opened(ctx: PartsContext, target: Target) -> Iterator[dict[str, PartSession]]:
    """All parts of a target, by what gives its numbers here."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(open_here(target, part_path(ctx, target, name), ctx.threads))
            for name in ctx.teachers
        }


@contextlib.contextmanager
def opened_teacher(ctx: PartsContext) -> Iterator[dict[str, PartSession]]:
    """The teacher's parts on OpenVINO, f32."""
    with contextlib.ExitStack() as stack:
        sessions = {}
        for name in ctx.teachers:
            own = float_file(name, ".xml", teacher=True).of(ctx.folders)
            path = own if own.is_file() else float_file(name, ".xml").of(ctx.folders)
            sessions[name] = stack.enter_context(open_here(BASELINE, path, ctx.threads))
        yield sessions
