"""The stage ``distill`` of several parts: smaller ones learn what the teacher's give."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rsedge.cache.stage import StageContext
from rsedge.compress.distill.teacher_outputs import PartOutputs
from rsedge.compress.distill.training import DistillSettings, distill
from rsedge.compress.prune.plan import count_params
from rsedge.models.parts import Part
from rsedge.recipe.parts import PartDistillSection
from rsedge.results.parts import PartsDistill, TaughtPart
from rsedge.stages.distill import finite
from rsedge.stages.parts.context import PartsContext, weights_of
from rsedge.stages.parts.teachers import deployed, save_part, student_part


def distill_stage(context: StageContext, ctx: PartsContext) -> PartsDistill:
    """Trains every part that has a smaller student; writes structure and weights.

    Raises:
        RequestError: the family does not take the smaller arguments, or the loss is not finite.
    """
    found = {}
    for name, section in ctx.recipe.parts.items():
        if section.student is None or section.distill is None:
            continue
        own, seed = ctx.teachers[name], ctx.recipe.seed
        part, arch = student_part(own, section.student.arch, seed, f"parts.{name}.student.arch")
        student = deployed(part, own.spec)
        source = PartOutputs(own.deployed, ctx.recorded(name, "train")[0])
        validate = _validate(ctx, name, student)
        _, record = distill(
            source, student.net, _settings(ctx, name, section.distill), context.resume / name, seed, validate,
            _progress(ctx, name),
        )  # fmt: skip
        student.net.cpu().eval()
        save_part(part, context.folder / weights_of(name).name, own, arch)
        agreement = validate(student.net)["score"]
        found[name] = TaughtPart(record=finite(record), params=count_params(part.net), agreement=agreement)
    return PartsDistill(parts=found)


def _settings(ctx: PartsContext, name: str, section: PartDistillSection) -> DistillSettings:
    values = section.model_dump()
    return DistillSettings(**values, device=ctx.recipe.device, section=f"parts.{name}.steps.distill")


def _validate(ctx: PartsContext, name: str, student: Part) -> Callable[[nn.Module], dict[str, float]]:
    """Agreement with the teacher's part on selection."""

    def score(module: nn.Module) -> dict[str, float]:
        training = module.training
        module.eval()
        run = Part(module, student.inputs, student.outputs).run
        found = ctx.part_evidence(run, name, "selection")["agreement"].own.value
        module.train(training)
        return {"score": found or 0.0}

    return score


def _progress(ctx: PartsContext, name: str) -> Callable[[int, int, dict[str, float]], None]:
    def on_step(step: int, total: int, parts: dict[str, float]) -> None:
        info = " ".join(f"{k} {v:.4f}" for k, v in list(parts.items())[:2])
        ctx.reporter.step(f"distill, {name}", step, total, info)
        ctx.reporter.figures(f"distill, {name}", parts, step)

    return on_step
