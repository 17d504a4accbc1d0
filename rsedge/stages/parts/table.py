"""The stages of a recipe of several parts, in order; rows as of :mod:`rsedge.stages.table`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rsedge.data.files import sha256_file
from rsedge.devices.predict.efficiency import calibrations_of
from rsedge.recipe.parts import PartsRecipe
from rsedge.recipe.places import placeless, recipe_hash
from rsedge.recipe.reading import resolved
from rsedge.stages.machine import machine
from rsedge.stages.table import Settings, Stage

if TYPE_CHECKING:
    from rsedge.stages.parts.context import PartsContext


def base_settings(recipe: PartsRecipe) -> Settings:
    """What every stage may read of a recipe."""
    return {
        "seed": recipe.seed,
        "whole": recipe.whole.model_dump(mode="json"),
        "teachers": {name: placeless(recipe.teacher_of(name)) for name in recipe.parts},
        "parts": {name: part.part for name, part in recipe.parts.items()},
        "data": placeless(recipe.data),
    }


def _parts(ctx: PartsContext, *fields: str) -> Settings:
    """Some fields of every part, the steps by their own settings."""
    return {name: {field: _plain(getattr(part, field)) for field in fields} for name, part in ctx.recipe.parts.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [one.model_dump(mode="json") for one in value]
    return None if value is None else value.model_dump(mode="json")


def _distill(ctx: PartsContext) -> Settings:
    return {"threads": ctx.threads, "device": ctx.recipe.device, "parts": _parts(ctx, "student", "distill")}


def _quantize(ctx: PartsContext) -> Settings:
    gates = [gate.model_dump(mode="json") for gate in ctx.recipe.gates]
    asked = {"parts": _parts(ctx, "quantize", "gates"), "gates": gates, "targets": list(ctx.recipe.targets)}
    return {"threads": ctx.threads, **asked}


def _verify(ctx: PartsContext) -> Settings:
    targets = ctx.recipe.parsed_targets
    calibrations = calibrations_of((t.device, t.runtime) for t in targets)
    return {
        "threads": ctx.threads,
        "targets": list(ctx.recipe.targets),
        "machine": machine(),
        "calibrations": calibrations,
    }


def _bundle(ctx: PartsContext) -> Settings:
    from rsedge.stages.parts.judge import verdicts

    recipe = ctx.recipe
    return {
        "threads": ctx.threads,
        "key": sha256_file(recipe.signing.key) if recipe.signing.key else None,
        "recipe": recipe_hash(resolved(recipe)),
        "verdicts": {name: found.model_dump(mode="json") for name, found in verdicts(recipe, ctx.results).items()},
    }


def _learns(recipe: PartsRecipe) -> bool:
    return any(part.student is not None for part in recipe.parts.values())


def _rounds(recipe: PartsRecipe) -> bool:
    return any(target.quantized for target in recipe.parsed_targets)


_RECORDS, _HERE = "rsedge.results.parts", __name__.rpartition(".")[0]
PART_STAGES: tuple[Stage, ...] = (
    Stage(
        "data", "rsedge.results.data:Data", f"{_HERE}.data:data_stage", "all samples read, dealt to the roles",
        inputs=lambda ctx: {"samples": sha256_file(ctx.recipe.data.samples)},
    ),
    Stage(
        "teacher", f"{_RECORDS}:PartsTeacher", f"{_HERE}.teacher:teacher_stage", "its parts run together on a few samples",
        after=("data",), settings=lambda ctx: {"threads": ctx.threads}, inputs=lambda ctx: {"weights": ctx.teacher_key},
    ),
    Stage(
        "distill", f"{_RECORDS}:PartsDistill", f"{_HERE}.distill:distill_stage", "a few steps of every part that learns",
        applies=_learns, after=("data", "teacher"), settings=_distill, inputs=lambda ctx: {"weights": ctx.teacher_key},
    ),
    Stage(
        "export", f"{_RECORDS}:PartsExport", f"{_HERE}.export:export_stage", "every part's files, held against torch",
        after=("teacher", "distill"), settings=lambda ctx: {"threads": ctx.threads},
        inputs=lambda ctx: {"weights": ctx.teacher_key},
    ),
    Stage(
        "quantize", f"{_RECORDS}:PartsQuantize", f"{_HERE}.quantize:quantize_stage", "one setting of every part",
        applies=_rounds, after=("data", "teacher", "export"), settings=_quantize,
    ),
    Stage(
        "verify", f"{_RECORDS}:PartsVerify", f"{_HERE}.verify:verify_stage", "every target's executables opened and judged",
        after=("data", "teacher", "export", "quantize"), settings=_verify,
    ),
    Stage(
        "bundle", "rsedge.results.records:Bundles", f"{_HERE}.bundle:bundle_stage", "written, signed, opened again",
        after=("data", "teacher", "export", "quantize", "verify"), settings=_bundle, taken=f"{_HERE}.bundle:publish",
    ),
)  # fmt: skip
"""All stages there are; their order is that of a run."""


def part_stages(recipe: PartsRecipe) -> list[Stage]:
    """The stages of a recipe, in the order they run."""
    return [stage for stage in PART_STAGES if stage.applies(recipe)]
