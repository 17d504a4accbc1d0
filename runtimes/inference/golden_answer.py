"""The golden answer: what a language model must say again, of stored image tokens, to the question that its bundle asks.

It holds the scores of all tokens at two steps (the question, and one more token through the cache), which every weight of the
layers has a part in, and a sum of every token's embedding, since a question reads few of them. A few image tokens are enough, so
that it costs a fraction of a caption.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.arrays import read_arrays
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.bundle.language_files import GOLDEN_ANSWER
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.self_test import DRIFT_SHARE
from rsedge.runtimes.inference.captions import Speaker
from rsedge.runtimes.inference.language import Floats
from rsedge.runtimes.session import Array, Arrays

IMAGE_TOKENS = 4
IMAGE, ASKED, TOKENS, TEXT, SCORES, SUMS = "image", "asked", "tokens", "text", "scores", "embedding_sums"
LIMITS = {"f32": 1e-3, "fp16": 1e-3, "int8": 0.1, "int4": 0.1}
"""By stored weights: largest difference of scores as a share of the largest. Where weights are compressed, processors with VNNI
round activations too."""
_SUM_SHARE = 1e-5
_CHUNK, _MOST = 1024, 64


@dataclass(frozen=True)
class AnswerResult:
    """How a golden answer compares with another one: ``reason`` says what differs, empty where nothing does."""

    max_abs_difference: float
    limit: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason

    def as_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, "max_abs_difference": self.max_abs_difference, "limit": self.limit}


def golden_answer(speaker: Speaker, image: Floats, vocabulary: int) -> Arrays:
    """What is stored: the answer to image tokens (1, T, D), of which the first few are taken."""
    image = np.ascontiguousarray(image[:, :IMAGE_TOKENS], np.float32)
    first = _answered(speaker, image, [], vocabulary)
    token = int(first[SCORES][0].argmax())
    return {IMAGE: image, TOKENS: np.array([token], np.int64), **_answered(speaker, image, [token], vocabulary)}


def limit_of(stored: Arrays, weights: str) -> float:
    """The limit that the manifest keeps, in units of the scores."""
    return LIMITS[weights] * float(np.abs(stored[SCORES]).max())


class AnswerTest:
    """A speaker that proves itself: its golden answer at the start, against the stored one, and later against that of the start.

    Raises:
        IntegrityError: the answer is another one.
    """

    def __init__(self, speaker: Speaker, bundle: Bundle, limit: float) -> None:
        self._speaker, self._path, self._limit = speaker, bundle.path, limit
        self._stored = _read(bundle, speaker.record.folder)
        self.tests, self.largest_difference, self.largest_drift = 0, 0.0, 0.0
        self._first = self._run()
        self.start = _compared(self._stored, self._first, limit)
        self.largest_difference = self.start.max_abs_difference

    def check_start(self) -> None:
        """Raises where the answer of the start is not the stored one."""
        if not self.start.passed:
            raise IntegrityError(
                f"{self._path}: self-test failed at the start: the language model's golden answer differs: {self.start.reason}. "
                "The model, the memory or the runtime gives other numbers here; nothing was written. "
                f"See `rsedge verify {self._path}`; copy the bundle again"
            )

    def check_again(self) -> None:
        """Raises where the answer is not that of the start any more; equal bit by bit is what is expected."""
        found = _compared(self._first, self._run(), DRIFT_SHARE * self._limit)
        self.largest_drift = max(self.largest_drift, found.max_abs_difference)
        if not found.passed:
            raise IntegrityError(
                f"{self._path}: self-test failed behind the caption: the golden answer is not that of the start any more: "
                f"{found.reason}. The memory or the model in it is damaged; nothing was written. Run it again, which reads the "
                "model anew"
            )

    def record(self) -> dict[str, Any]:
        """As a tower's self-test, for ``--json``."""
        return {
            "tests": self.tests, "largest_difference": self.largest_difference, "limit": self._limit,
            "largest_drift": self.largest_drift, "drift_limit": DRIFT_SHARE * self._limit,
        }  # fmt: skip

    def _run(self) -> Arrays:
        self.tests += 1
        stored = self._stored
        return _answered(self._speaker, stored[IMAGE], stored[TOKENS].tolist(), len(stored[SUMS]))


def answer_test(speaker: Speaker, bundle: Bundle) -> AnswerTest | None:
    """The golden answer, run once; None in bundles made before there was one."""
    limit = speaker.record.golden_atol
    return None if limit is None else AnswerTest(speaker, bundle, limit)


def verify_answer(bundle: Bundle, threads: int | None = None) -> AnswerResult | None:
    """How a bundle's language model does on this machine; None where it has none, or no golden answer.

    Raises:
        RequestError, IntegrityError: it cannot be opened or run, or the stored answer is none.
    """
    record = bundle.manifest.language
    if record is None or record.golden_atol is None:
        return None
    with contextlib.closing(Speaker.of(bundle, record, threads)) as speaker:
        return AnswerTest(speaker, bundle, record.golden_atol).start


def _answered(speaker: Speaker, image: Floats, tokens: Sequence[int], vocabulary: int) -> Arrays:
    asked = speaker.question(image.shape[1])
    words = [t for t in asked if t != speaker.record.image_token]
    chunks = range(0, vocabulary, _CHUNK)
    sums = [speaker.language.embed(range(i, min(i + _CHUNK, vocabulary)))[0].astype(np.float64) for i in chunks]
    return {
        ASKED: np.array(asked, np.int64),
        TEXT: np.frombuffer(speaker.text(words).encode(), np.uint8),
        SCORES: speaker.language.scores(asked, image, speaker.record.image_token, tokens),
        SUMS: np.concatenate([np.stack([s.sum(1), np.abs(s).sum(1)], 1) for s in sums]),
    }


def _read(bundle: Bundle, folder: str) -> Arrays:
    name = f"{folder}/{GOLDEN_ANSWER}"
    place = Path(bundle.folder) / name
    try:
        found = read_arrays(place, (IMAGE, ASKED, TOKENS, TEXT, SCORES, SUMS), bundle.read(name))
    except RequestError as error:
        raise IntegrityError(f"{place}: not a golden answer ({error})") from error
    kinds = {IMAGE: (np.float32, 3), ASKED: (np.int64, 1), TOKENS: (np.int64, 1), TEXT: (np.uint8, 1), SCORES: (np.float32, 2),
             SUMS: (np.float64, 2)}  # fmt: skip
    fits = all(found[n].dtype == kind and found[n].ndim == axes for n, (kind, axes) in kinds.items())
    if not fits or found[IMAGE].shape[0] != 1 or not 1 <= found[IMAGE].shape[1] <= _MOST or len(found[TOKENS]) > _MOST:
        raise IntegrityError(f"{place}: not a golden answer (other shapes than it has); copy it again")
    if len(found[SCORES]) != len(found[TOKENS]) + 1 or found[SUMS].shape[1] != 2 or not len(found[SUMS]):
        raise IntegrityError(f"{place}: not a golden answer (its parts differ in length); copy it again")
    return found


def _compared(stored: Arrays, found: Arrays, limit: float) -> AnswerResult:
    if stored[SCORES].shape != found[SCORES].shape:
        return AnswerResult(float("inf"), limit, f"scores of {found[SCORES].shape}, not of {stored[SCORES].shape}")
    gap = float(np.abs(found[SCORES] - stored[SCORES]).max(initial=0))
    if not all(np.array_equal(stored[n], found[n]) for n in (ASKED, TEXT)):
        return AnswerResult(gap, limit, "the tokenizer reads or writes its question otherwise")
    if not gap <= limit:  # not a number counts as too much
        return AnswerResult(gap, limit, f"scores by {gap:.3g} (limit {limit:.3g})")
    other = _other_sums(stored[SUMS], found[SUMS])
    return AnswerResult(gap, limit, f"the embeddings of {other} tokens" if other else "")


def _other_sums(stored: Array, found: Array) -> int:
    return int((~(np.abs(found - stored).max(1) <= _SUM_SHARE * stored[:, 1])).sum())
