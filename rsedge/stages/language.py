"""The language stage: the language model behind a captioning teacher as OpenVINO files, and what the teacher says in torch.

The teacher's own captions are made by torch at float32 with the language model as its authors publish it; what is exported is held
against them. Here it is the stored language model alone, given the teacher's own image tokens of the pictures of selection: what
its weights in fewer bits cost. The captions stage asks of the pictures that judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsedge.cache.stage import StageContext
from rsedge.data.errors import GateFailed
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.evidence import Evidence, evidence
from rsedge.data.metrics.figures import record_of, statistics_of
from rsedge.data.metrics.statistics import Statistics
from rsedge.data.metrics.texts import TextComparison, WordComparison, caption_agreement, token_agreement
from rsedge.export.targets.genai import export_texts
from rsedge.export.targets.language import WeightSettings
from rsedge.models.outside.loading import weight_count
from rsedge.models.zoo import teacher_row
from rsedge.recipe.schema import LanguageSection
from rsedge.results.records import Language, TextAgreement, TextBytes
from rsedge.runtimes.bundle.language_files import GOLDEN_ANSWER, IMAGE_TOKEN
from rsedge.runtimes.bundle.manifest import LanguageRecord
from rsedge.runtimes.inference.captions import Speaker
from rsedge.runtimes.inference.golden_answer import golden_answer, limit_of
from rsedge.runtimes.inference.language import models_in
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import LANGUAGE
from rsedge.stages.teacher_model import vlm_files
from rsedge.tasks.base import Inputs

Answers = list[list[int]]


def language_stage(context: StageContext, ctx: RunContext) -> Language:
    """Writes ``language/`` (tokenizer, token embedding, language model) and returns what storing it costs.

    Raises:
        RequestError: the files do not fit, or the language model cannot be converted.
        GateFailed: the converted tokenizer reads the question otherwise than the teacher's own.
    """
    section = ctx.recipe.texts
    files = vlm_files(ctx.recipe.teacher, section.expert)
    language = files.language(teacher_row(ctx.recipe.teacher.name))
    tokenizer = files.tokenizer(IMAGE_TOKEN)
    ends = files.ends(language.config)
    folder = context.folder / LANGUAGE.name
    folder.mkdir()
    export_texts(language, tokenizer, folder, _weights(section), ends)
    record = LanguageRecord(
        image_token=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), ends=tuple(ends), template=section.template,
        prompt=section.prompt, max_tokens=section.max_tokens, weights=section.weights,
    )  # fmt: skip
    speaker = Speaker(models_in(folder), record, ctx.threads)
    teacher_answers, stored = _captions(ctx, language, speaker, _question(ctx, speaker, tokenizer))
    record = _with_golden_answer(ctx, speaker, folder, max(len(tokenizer), len(language.get_input_embeddings().weight)))
    stored_bytes = sum(f.stat().st_size for f in folder.iterdir())
    return Language(
        record=record, params=weight_count(language),
        bytes=TextBytes(f32=4 * weight_count(language), stored=stored_bytes),
        alone=_agreement(stored, teacher_answers),
    )  # fmt: skip


def teacher_captions(ctx: RunContext, speaker: Speaker, inputs: Inputs) -> Answers:
    """The teacher's tokens about pictures, all of it in torch, with the language model as published."""
    section = ctx.recipe.texts
    language = vlm_files(ctx.recipe.teacher, section.expert).language(teacher_row(ctx.recipe.teacher.name))
    device = torch.device(ctx.recipe.device)
    front, language, teacher_answers = ctx.teacher.to(device), language.to(device), []
    asked, pictures = speaker.question(len(ctx.classes)), ctx.spec.normalise(inputs)
    for number, x in enumerate(pictures):
        ctx.reporter.step("the teacher's captions", number, len(pictures))
        with torch.inference_mode():
            teacher_answers.append(greedy(language, asked, front(torch.from_numpy(x[None]).to(device)), speaker.record))
    front.to("cpu")
    return teacher_answers


def caption_figures(
    references: Sequence[Sequence[str]] | None, texts: Sequence[str], tokens: Answers, teacher_answers: Answers
) -> dict[str, Any]:
    """Agreement with the teacher's tokens, and metrics against reference texts where there are any."""
    return record_of(*_comparisons(references, texts, tokens, teacher_answers))


def caption_evidence(
    references: Sequence[Sequence[str]] | None,
    texts: Sequence[str],
    tokens: Answers,
    teacher_answers: Answers,
    teacher_texts: Sequence[str],
    seed: int,
) -> dict[str, Evidence]:
    """How sure :func:`caption_figures` are, by image; of metrics against references also how far under the teacher's."""

    def of(texts: Sequence[str], answers: Answers) -> Statistics:
        return Statistics("images", statistics_of(*_comparisons(references, texts, answers, teacher_answers)))

    return evidence(of(texts, tokens), of(teacher_texts, teacher_answers), seed)


def _comparisons(
    references: Sequence[Sequence[str]] | None, texts: Sequence[str], tokens: Answers, teacher_answers: Answers
) -> tuple[Comparison, ...]:
    words = WordComparison("teacher words", tokens, teacher_answers)
    return (words,) if references is None else (words, TextComparison("texts", texts, references))


def _agreement(tokens: Answers, teacher_answers: Answers) -> TextAgreement:
    """1 where neither says anything."""
    words = WordComparison("teacher words", tokens, teacher_answers)
    same, equal = (
        1.0 if found is None else found for found in (token_agreement(words).value, caption_agreement(words).value)
    )
    return TextAgreement(token_agreement=same, caption_agreement=equal)


def _with_golden_answer(ctx: RunContext, speaker: Speaker, folder: Path, vocabulary: int) -> LanguageRecord:
    """Writes what the stored language model answers to the teacher's image tokens of one picture; the record with its limit."""
    device = torch.device(ctx.recipe.device)
    with torch.inference_mode():
        x = torch.from_numpy(ctx.spec.normalise(ctx.selection.inputs[:1])).to(device)
        image = ctx.teacher.to(device)(x)
    stored = golden_answer(speaker, np.asarray(image.float().cpu()), vocabulary)
    np.savez_compressed(folder / GOLDEN_ANSWER, **stored)  # type: ignore[arg-type]
    return speaker.record.model_copy(update={"golden_atol": limit_of(stored, speaker.record.weights)})


def _weights(section: LanguageSection) -> WeightSettings:
    return WeightSettings(section.weights, section.group_size, section.ratio)


def _question(ctx: RunContext, speaker: Speaker, tokenizer: Any) -> list[int]:
    asked = speaker.question(len(ctx.classes))
    own = tokenizer.encode(speaker.record.question(None, len(ctx.classes)))
    if asked != own:
        at = next((i for i, (a, b) in enumerate(zip(asked, own, strict=False)) if a != b), min(len(asked), len(own)))
        raise GateFailed(
            f"language: OpenVINO's tokenizer gives {len(asked)} tokens for the question, the teacher's own {len(own)}; they differ "
            f"at token {at}; another wording of language.template may read alike"
        )
    return asked


def _captions(ctx: RunContext, language: Any, speaker: Speaker, asked: Sequence[int]) -> tuple[Answers, Answers]:
    """Tokens by torch with the language model as published, and by OpenVINO with it as stored, on the same image tokens."""
    device = torch.device(ctx.recipe.device)
    front, language = ctx.teacher.to(device), language.to(device)
    teacher_answers, stored = [], []
    pictures = ctx.spec.normalise(ctx.selection.inputs)
    for number, x in enumerate(pictures):
        ctx.reporter.step("the teacher's captions", number, len(pictures))
        with torch.inference_mode():
            image = front(torch.from_numpy(x[None]).to(device))
            teacher_answers.append(greedy(language, asked, image, speaker.record))
        stored.append(list(speaker.stream(np.asarray(image.float().cpu()))))
    front.to("cpu")
    return teacher_answers, stored


def greedy(language: Any, asked: Sequence[int], image: torch.Tensor, record: LanguageRecord) -> list[int]:
    """The most probable tokens of a causal model of transformers after a question about an image (1, T, D)."""
    ids = torch.tensor([list(asked)], device=image.device)
    places = ids[0] == record.image_token
    new = language.get_input_embeddings()(ids.masked_fill(ids == record.image_token, 0)).clone()
    new[0, places] = image[0]
    given: list[int] = []
    past = None
    while len(given) < record.max_tokens:
        found = language(inputs_embeds=new, past_key_values=past, use_cache=True)
        given.append(int(found.logits[0, -1].argmax()))
        if given[-1] in record.ends:
            break
        past = found.past_key_values
        new = language.get_input_embeddings()(torch.tensor([[given[-1]]], device=image.device))
    return given
