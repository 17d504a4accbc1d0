"""The captions stage: every target's tower with the stored language model against the teacher in torch, and how fast text comes.

Targets that run on OpenVINO's CPU get the language model into their bundle. Others get the vision tower alone; their captions are
those of the same tower on this machine's CPU, with the language model beside it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from rsedge.cache.stage import StageContext
from rsedge.devices.measure.text_speed import measure_text
from rsedge.export.targets.genai import export_vision
from rsedge.export.targets.openvino import read_openvino
from rsedge.recipe.checks import measured_here
from rsedge.results.records import Captions, Language, TargetCaptions, TeacherCaptions
from rsedge.runtimes.bundle.manifest import LanguageRecord, Target
from rsedge.runtimes.inference.captions import Speaker, describe
from rsedge.runtimes.inference.language import models_in
from rsedge.runtimes.session import INPUT, LOGITS, Session
from rsedge.stages.artefacts import open_artefact
from rsedge.stages.context import RunContext
from rsedge.stages.language import caption_evidence, caption_figures, teacher_captions
from rsedge.stages.makers.registry import find_artefact
from rsedge.stages.outputs import LANGUAGE, Output
from rsedge.stages.pictures import SHOWN
from rsedge.tasks.base import Inputs

SPEED_SECONDS = 4.0
CAPTIONS_SHOWN = 8


def writes_captions(target: Target) -> bool:
    """Whether a target's bundle gets the language model: what runs it on board is OpenVINO on a CPU."""
    return target.backend.runs_language_model(target.device)


def captions_stage(context: StageContext, ctx: RunContext) -> Captions:
    """Captions of teacher and targets, figures and, of this machine's targets, speed; writes GenAI's vision model of targets that
    speak, and the pictures that the report shows."""
    test = ctx.test
    references = ctx.task.references(test)
    record = ctx.results.of(Language).record
    speaker = Speaker(models_in(LANGUAGE.of(ctx.folders)), record, ctx.threads)
    teacher_answers, found = teacher_captions(ctx, speaker, test.inputs), {}
    teacher_texts = [speaker.text(t) for t in teacher_answers]
    for target in ctx.recipe.parsed_targets:
        artefact = find_artefact(ctx, target)
        with contextlib.closing(open_artefact(artefact, ctx)) as tower:
            inputs = test.inputs
            answers = [describe(tower, speaker, dn[None]) for dn in inputs]
            speed = _speed(ctx, tower, speaker, inputs) if measured_here(target) and writes_captions(target) else None
        texts, tokens = [a.text for a in answers], [a.tokens for a in answers]
        if writes_captions(target):
            patch = int(ctx.teacher.arch.get("patch", 14))
            export_vision(read_openvino(artefact.path), ctx.spec, patch, context.folder / target.name)
        found[target.name] = TargetCaptions(
            texts=texts, speed=speed,
            metrics=caption_figures(references, texts, tokens, teacher_answers) | ({} if speed is None else speed.figures()),
            evidence=caption_evidence(references, texts, tokens, teacher_answers, teacher_texts, ctx.recipe.seed)
            | ({} if speed is None else speed.evidence),
        )  # fmt: skip
    np.savez_compressed(context.folder / SHOWN, dn=test.inputs[:CAPTIONS_SHOWN])
    teacher = TeacherCaptions(
        texts=teacher_texts,
        tokens=teacher_answers,
        metrics=caption_figures(references, teacher_texts, teacher_answers, teacher_answers),
    )
    return Captions(teacher=teacher, references=references, targets=found)


def _speed(ctx: RunContext, tower: Session, speaker: Speaker, inputs: Inputs) -> Any:
    def speak(number: int) -> Any:
        yield from speaker.stream(tower({INPUT: inputs[number % len(inputs)][None]})[LOGITS])

    ctx.reporter.step("time to first token", 0, 1)
    return measure_text(speak, SPEED_SECONDS, ctx.threads)


def language_files(ctx: RunContext, target: Target, record: LanguageRecord) -> dict[str, Any]:
    """Files of the language model for a target's bundle, by their names there; none where it does not speak."""
    if not writes_captions(target):
        return {}
    folders = (LANGUAGE.of(ctx.folders), Output(Captions.stage, target.name).of(ctx.folders))
    return {f"{record.folder}/{f.name}": f for folder in folders for f in sorted(folder.iterdir())}
