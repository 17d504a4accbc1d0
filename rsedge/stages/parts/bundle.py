"""The stage ``bundle`` of several parts: one signed bundle a target, opened again and proven by its golden sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsedge.cache.stage import StageContext, StageResult
from rsedge.data.errors import GateFailed
from rsedge.export.bundle import About
from rsedge.export.parts_bundle import write_parts_bundle
from rsedge.recipe.places import recipe_hash
from rsedge.recipe.reading import resolved
from rsedge.results.parts import PartsVerify
from rsedge.results.records import BundleCheck, Bundles
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.whole import verify_bundle
from rsedge.stages.bundle import latency_note, published, signing_key
from rsedge.stages.parts.context import PartsContext
from rsedge.stages.parts.files import files_of, part_path
from rsedge.stages.parts.judge import verdicts


def bundle_stage(context: StageContext, ctx: PartsContext) -> Bundles:
    """Writes the bundles with what became of their gates.

    Raises:
        GateFailed: a bundle does not give its own golden sample on this machine.
    """
    recipe, judged = ctx.recipe, verdicts(ctx.recipe, ctx.results)
    key, public = signing_key(recipe.signing.key, ctx.run)
    sample = ctx.samples("selection")[0][0]
    verify = ctx.results.of(PartsVerify)
    checks = {}
    for target in recipe.parsed_targets:
        found = verify.targets[target.name]
        folder = write_parts_bundle(
            context.folder / target.name,
            About(
                name=recipe.name, classes=tuple(ctx.reference("selection")[0]), task=ctx.whole.task,
                metrics=found.metrics | {"agreement": found.agreement},
                latency=latency_note(verify.measurements.get(target.name), found.interval),
                verdict=judged[target.name], teacher=", ".join(dict.fromkeys(o.teacher.spec.name for o in ctx.teachers.values())),
                recipe_sha256=recipe_hash(resolved(recipe)),
            ),
            target=target, whole=recipe.whole.name, settings=ctx.whole.settings.model_dump(mode="json"), input_spec=ctx.spec,
            part_files={name: files_of(part_path(ctx, target, name)) for name in ctx.teachers}, golden=sample,
            threads=ctx.threads, signing_key=key,
        )  # fmt: skip
        checks[target.name] = _check(folder, public, target, ctx)
    return Bundles(checks=checks, verdicts=judged)


def _check(folder: Path, public: Path, target: Target, ctx: PartsContext) -> BundleCheck:
    device = target.backend.check_device(target.device)
    if device is None:
        return BundleCheck(golden=None, note="the golden sample is checked on the device, by rsedge verify")
    with Bundle.open(folder, key=public) as bundle:
        result = verify_bundle(bundle, ctx.threads, None if device == target.backend.device(target.device) else device)
    if not result.passed:
        raise GateFailed(f"bundle {target.name}: its own golden sample is missed by {result.max_abs_difference:.3g}")
    return BundleCheck(golden=result.as_dict(), note=None)


def publish(ctx: PartsContext, result: StageResult[Any]) -> None:
    """Brings ``bundles/`` in line with the stage's folder."""
    published(ctx.run, result.folder, ctx.recipe.targets)
