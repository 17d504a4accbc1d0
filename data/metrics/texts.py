"""How a text does against reference texts, and against another network's tokens.

ROUGE-L (Lin 2004, "ROUGE"), BLEU-4 (Papineni et al. 2002, "BLEU") and CIDEr-D (Vedantam et al. 2015, "CIDEr"), with the settings
of the COCO caption evaluation (Chen et al. 2015). Words are runs of letters and digits in lower case; the COCO tools cut words by
the Penn Treebank's rules (a Java program), so third digits may differ from theirs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.statistics import Floats, Statistic, of_sums, ratio

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
ORDER = 4
"""Longest run of words that BLEU and CIDEr count."""
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class WordComparison(Comparison):
    """A language model's tokens against another's, by image."""

    found: Sequence[Sequence[int]]
    reference: Sequence[Sequence[int]]


def token_agreement(words: WordComparison) -> Statistic:
    """Share of equal tokens at equal places, over all places that either text of a pair has."""
    pairs = list(zip(words.found, words.reference, strict=True))
    same = [sum(x == y for x, y in zip(a, b, strict=False)) for a, b in pairs]
    return ratio(same, [max(len(a), len(b)) for a, b in pairs])


def caption_agreement(words: WordComparison) -> Statistic:
    """Share of texts that are equal, token by token."""
    equal = [list(a) == list(b) for a, b in zip(words.found, words.reference, strict=True)]
    return ratio(equal, np.ones(len(equal)))


@dataclass(frozen=True)
class TextComparison(Comparison):
    """N texts, each against at least one reference, by image."""

    texts: Sequence[str]
    references: Sequence[Sequence[str]]

    @cached_property
    def words(self) -> list[list[str]]:
        return [words_of(text) for text in self.texts]

    @cached_property
    def known(self) -> list[list[list[str]]]:
        """The words of each text's references."""
        return [[words_of(one) for one in several] for several in self.references]


def rouge_l_statistic(texts: TextComparison) -> Statistic:
    """Mean ROUGE-L."""
    return ratio(
        [_rouge_one(words, several) for words, several in zip(texts.words, texts.known, strict=True)],
        np.ones(len(texts.texts)),
    )


def bleu4_statistic(texts: TextComparison) -> Statistic:
    """BLEU-4 of all texts together."""
    return of_sums(_bleu_parts(texts.words, texts.known), _bleu, 0.0, 1.0)


def cider_statistic(texts: TextComparison) -> Statistic:
    """Mean CIDEr-D, 0 to 10. How rare words are is told by all references, in every draw."""
    return ratio(_cider_parts(texts.words, texts.known), np.ones(len(texts.texts)), 0.0, 10.0)


def _rouge_one(words: Words, several: Sequence[Words]) -> float:
    common = [_common(words, reference) for reference in several]
    precision = max(c / len(words) for c in common) if words else 0.0
    recall = max((c / len(r) for c, r in zip(common, several, strict=True) if r), default=0.0)
    square = ROUGE_BETA**2
    return (1 + square) * precision * recall / (recall + square * precision) if precision and recall else 0.0


def _common(a: Words, b: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _bleu_parts(candidates: Sequence[Words], known: Sequence[Sequence[Words]]) -> Floats:
    """By image, (N, 2 ORDER + 2): clipped hits and counts of runs of 1 to 4 words, words given, words of the nearest reference."""
    rows = np.zeros((len(candidates), 2 * ORDER + 2))
    for row, words, several in zip(rows, candidates, known, strict=True):
        row[-2] = len(words)
        row[-1] = min((len(r) for r in several), key=lambda n: (abs(n - len(words)), n))
        for n in range(1, ORDER + 1):
            own = _grams(words, n)
            most: Grams = Counter()
            for reference in several:
                most |= _grams(reference, n)
            row[n - 1], row[ORDER + n - 1] = sum((own & most).values()), sum(own.values())
    return rows


def _bleu(sums: Floats) -> Floats:
    """Geometric mean of clipped precisions of 1 to 4 words, times the brevity penalty; 0 where one of them has no hit."""
    hits, counts, lengths, wanted = sums[:, :ORDER], sums[:, ORDER : 2 * ORDER], sums[:, -2], sums[:, -1]
    shares = np.divide(hits, counts, out=np.zeros_like(hits), where=counts > 0)
    good: npt.NDArray[np.bool_] = np.all(shares > 0, axis=1, keepdims=True)
    precision = np.exp(np.log(np.where(good, shares, 1)).mean(1))
    brevity = np.minimum(1, np.exp(1 - wanted / np.maximum(lengths, 1)))
    return np.where(wanted > 0, np.where(good[:, 0], precision * brevity, 0.0), np.nan)


def _cider_parts(candidates: Sequence[Words], known: Sequence[Sequence[Words]]) -> Floats:
    """CIDEr-D by image: likeness of weighted counts of 1 to 4 words, rare ones counting more; weights are of these references."""
    by_length = [_cider_of(candidates, known, n) for n in range(1, ORDER + 1)]
    return 10 * np.array(by_length, dtype=np.float64).mean(0)


def _cider_of(candidates: Sequence[Words], known: Sequence[Sequence[Words]], n: int) -> list[float]:
    seen: Counter[tuple[str, ...]] = Counter()
    for several in known:
        seen.update(set().union(*(_grams(r, n) for r in several)))
    images = math.log(max(len(known), 1))

    def weigh(words: Words) -> dict[tuple[str, ...], float]:
        return {g: c * (images - math.log(max(seen[g], 1))) for g, c in _grams(words, n).items()}

    scores = []
    for words, several in zip(candidates, known, strict=True):
        own = weigh(words)
        scores.append(_mean([_likeness(own, weigh(r), len(words) - len(r)) for r in several]))
    return scores


def _likeness(own: dict[tuple[str, ...], float], other: dict[tuple[str, ...], float], longer: int) -> float:
    norms = math.hypot(*own.values()) * math.hypot(*other.values())
    if not norms:
        return 0.0
    shared = sum(min(value, other.get(gram, 0.0)) * other.get(gram, 0.0) for gram, value in own.items())
    return shared / norms * math.exp(-(longer**2) / (2 * CIDER_SIGMA**2))


def _grams(words: Words, n: int) -> Grams:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
