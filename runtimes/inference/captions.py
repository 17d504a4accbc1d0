"""What a picture shows, in words: a tower's image tokens, a question, and a language model that goes on from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsedge.runtimes.bundle.manifest import LanguageRecord
from rsedge.runtimes.bundle.reading import Bundle, rehearsed_bundle
from rsedge.runtimes.child import Contents
from rsedge.runtimes.inference.language import Floats, LanguageSession, Models
from rsedge.runtimes.inference.words import Words
from rsedge.runtimes.session import INPUT, LOGITS, Array, Session


@dataclass(frozen=True)
class Answer:
    """A text and its tokens, the one that ends it included."""

    text: str
    tokens: list[int]


class Speaker:
    """The language model's folder as it lies in a bundle, ready to go on from image tokens (1, T, D).

    Its files are read into memory once, checked and compiled: the peak is the largest file twice, what stays is it once. Text is
    read and written by a process of its own (:mod:`rsedge.runtimes.inference.words`).
    """

    def __init__(self, models: Models, record: LanguageRecord, threads: int | None = None) -> None:
        self.record = record
        self._words, self.language = Words(models), LanguageSession(models, threads)
        self._asked: dict[tuple[str | None, int], list[int]] = {}

    @classmethod
    def of(cls, bundle: Bundle, record: LanguageRecord, threads: int | None = None) -> Speaker:
        """That of a bundle whose manifest has ``record``; as for its tower, see :meth:`Bundle.rehearse`."""
        bundle.rehearse_by(f"{__name__}:first_words", threads=threads)
        return cls(_models(bundle, record), record, threads)

    def question(self, image_tokens: int, prompt: str | None = None) -> list[int]:
        """Tokens of the whole question about one picture."""
        key = (prompt, image_tokens)
        if key not in self._asked:
            self._asked[key] = self._words.encode(self.record.question(prompt, image_tokens))
        return self._asked[key]

    def stream(self, image: Floats, prompt: str | None = None) -> Iterator[int]:
        """The answer's tokens, each as soon as it is known."""
        asked, r = self.question(image.shape[1], prompt), self.record
        return self.language.stream(asked, image, r.image_token, r.max_tokens, r.ends)

    def answer(self, image: Floats, prompt: str | None = None) -> Answer:
        """The whole answer."""
        tokens = list(self.stream(image, prompt))
        return Answer(self.text(tokens), tokens)

    def close(self) -> None:
        """Ends the process that reads and writes text."""
        self._words.close()

    def text(self, tokens: list[int]) -> str:
        """Tokens as text, without the one that ends it."""
        return self._words.decode([t for t in tokens if t not in self.record.ends]).strip()


def _models(bundle: Bundle, record: LanguageRecord) -> Models:
    return lambda name: bundle.model(f"{record.folder}/{name}")


def first_words(question: dict[str, Any], contents: Contents) -> None:
    """The child's side of :meth:`Speaker.of`: the language model takes one token of an image, and goes on by one of its own."""
    bundle = rehearsed_bundle(question)
    if (record := bundle.manifest.language) is not None:
        language = LanguageSession(_models(bundle, record), question["threads"])
        image = np.zeros((1, 1, language.embed([0]).shape[2]), np.float32)
        language.scores([record.image_token], image, record.image_token, [0])


def describe(tower: Session, speaker: Speaker, dn: Array, prompt: str | None = None) -> Answer:
    """The answer about one picture, digital numbers (1, 3, E, E)."""
    return speaker.answer(tower({INPUT: dn})[LOGITS], prompt)
