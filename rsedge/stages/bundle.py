"""The bundle stage: one signed bundle per target, with its verdict, each opened again and checked."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results, StageContext, StageResult
from rsedge.data.errors import GateFailed
from rsedge.data.files import copy_folder, replace_folder
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.measure.protocol import Measurement
from rsedge.export.bundle import About, write_bundle
from rsedge.export.signing import load_key, load_or_create_key, write_public
from rsedge.recipe.places import recipe_hash
from rsedge.recipe.reading import resolved
from rsedge.results.records import (
    BundleCheck,
    Bundles,
    Captions,
    Language,
    Predicted,
    Verify,
)
from rsedge.runtimes.bundle.manifest import LanguageRecord, Target
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.inference.golden_answer import verify_answer
from rsedge.stages.context import RunContext
from rsedge.stages.judge import verdicts
from rsedge.stages.makers.registry import maker as maker_of
from rsedge.stages.samples import GOLDEN_TILES, sample_tiles


def bundle_stage(context: StageContext, ctx: RunContext) -> Bundles:
    """Writes one signed bundle per target, with what became of its gates, and checks each as a device would.

    Raises:
        GateFailed: a bundle does not give its own golden vector on this machine.
    """
    recipe, results, run = ctx.recipe, ctx.results, ctx.run
    judged = verdicts(recipe, results)
    key, public = signing_key(recipe.signing.key, run)
    verify = results.of(Verify)
    checks: dict[str, BundleCheck] = {}
    for target in recipe.parsed_targets:
        maker = maker_of(target.backend.name)
        artefact = maker.artefact(ctx, target)
        found = verify.targets[target.name]
        spoken = _spoken(ctx, target, results)
        folder = write_bundle(
            context.folder / target.name,
            About(
                name=recipe.name, classes=ctx.classes, task=ctx.teacher.spec.task, **ctx.task.bundle_fields,
                metrics=found.metrics | spoken.metrics | {"agreement": found.agreement},
                latency=latency_note(verify.measurements.get(target.name), found.interval),
                verdict=judged[target.name], language=spoken.record,
                teacher=recipe.teacher.name, recipe_sha256=recipe_hash(resolved(recipe)),
            ),
            target=target, input_spec=ctx.spec, model_files={f"model{f.suffix}": f for f in artefact.files} | spoken.files,
            golden_dn=sample_tiles(ctx, GOLDEN_TILES), build=maker.build(ctx, target), signing_key=key,
        )  # fmt: skip
        checks[target.name] = _check_bundle(folder, public, target, ctx)
    return Bundles(checks=checks, verdicts=judged)


@dataclasses.dataclass(frozen=True)
class _Spoken:
    """What a captioning bundle holds beside its tower."""

    files: dict[str, Path] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    record: LanguageRecord | None = None


def _spoken(ctx: RunContext, target: Target, results: Results) -> _Spoken:
    captions = results.maybe(Captions)
    if captions is None:
        return _Spoken()
    from rsedge.stages.captions import language_files

    record = results.of(Language).record
    files = language_files(ctx, target, record)
    return _Spoken(files, captions.targets[target.name].metrics, record if files else None)


def latency_note(record: Measurement | None, interval: Predicted | None) -> dict[str, Any] | None:
    """What a bundle says of its latency, measured or predicted."""
    if record is not None:
        return record.without_samples().model_dump(mode="json")
    return None if interval is None else {"provenance": "predicted", **interval.model_dump()}


def _check_bundle(folder: Path, public: Path, target: Target, ctx: RunContext) -> BundleCheck:
    with Bundle.open(folder, key=public) as bundle:
        device = target.backend.check_device(target.device)
        if device is None:
            return BundleCheck(golden=None, note="the golden vector is checked on the device, by rsedge verify")
        # Named only where it is not the bundle's own.
        result = bundle.verify(ctx.threads, None if device == target.backend.device(target.device) else device)
        _check_answer(bundle, ctx)
    if not result.passed:
        raise GateFailed(f"bundle {target.name}: its own golden vector is missed by {result.max_abs_difference:.3g}")
    note = target.backend.check_note()
    return BundleCheck(golden=result.as_dict(), note=note)


def _check_answer(bundle: Bundle, ctx: RunContext) -> None:
    answer = verify_answer(bundle, ctx.threads)
    if answer is not None and not answer.passed:
        raise GateFailed(f"{bundle.path}: the language model's golden answer differs: {answer.reason}")


def signing_key(given: Path | None, run: RunFolder) -> tuple[Ed25519PrivateKey, Path]:
    """The private key, the user's or the run's own, and the file of its public half."""
    key = load_key(given) if given else load_or_create_key(run.keys / "signing.pem")
    return key, write_public(key, run.keys / "signing.pub")


def publish(ctx: RunContext, result: StageResult[Bundles]) -> None:
    """Brings ``bundles/`` in line with the stage's folder."""
    published(ctx.run, result.folder, ctx.recipe.targets)


def published(run: RunFolder, made: Path, targets: Sequence[str]) -> None:
    """Copies a stage's bundles to where a run has them; bundles of targets that are gone are removed."""
    run.bundles.mkdir(exist_ok=True)
    for old in run.bundles.iterdir():
        if old.name not in targets and (old / "manifest.json").is_file():
            shutil.rmtree(old)
    for name in targets:
        source, final = made / name, run.bundles / name
        if final.is_dir() and _same(source, final):
            continue
        with TemporaryFolder(run.bundles) as temporary:
            replace_folder(copy_folder(source, temporary / name), final)


def _same(first: Path, second: Path) -> bool:
    names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (first, second)]
    return names[0] == names[1] and all((first / n).read_bytes() == (second / n).read_bytes() for n in names[0])
