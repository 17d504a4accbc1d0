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

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.evidence import Floats, Statistic, of_sums, ratio

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


def token_agreement(found: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> float:
    """Share of equal tokens at equal places, over all places that either text of a pair has; 1 where there are none."""
    return _or_one(agreement_statistics(found, reference)["token_agreement"].value)


def caption_agreement(found: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> float:
    """Share of texts that are equal, token by token; 1 where there are none."""
    return _or_one(agreement_statistics(found, reference)["caption_agreement"].value)


def agreement_statistics(found: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> dict[str, Statistic]:
    """``token_agreement`` and ``caption_agreement``, by image."""
    pairs = list(zip(found, reference, strict=True))
    places = [max(len(a), len(b)) for a, b in pairs]
    same = [sum(x == y for x, y in zip(a, b, strict=False)) for a, b in pairs]
    equal = [list(a) == list(b) for a, b in pairs]
    return {"token_agreement": ratio(same, places), "caption_agreement": ratio(equal, np.ones(len(pairs)))}


def _or_one(value: float | None) -> float:
    return 1.0 if value is None else value


def caption_metrics(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """``rouge_l``, ``bleu4`` (both 0..1) and ``cider`` (0..10) of N texts, each with at least one reference; None without any."""
    return {name: statistic.value for name, statistic in caption_statistics(texts, references).items()}


def caption_statistics(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Statistic]:
    """As :func:`caption_metrics`, by image. How rare words are (for ``cider``) is told by all references, in every draw."""
    told = [words_of(t) for t in texts]
    known = [[words_of(r) for r in several] for several in references]
    number = np.ones(len(told))
    return {
        "rouge_l": ratio([_rouge_one(words, several) for words, several in zip(told, known, strict=True)], number),
        "bleu4": of_sums(_bleu_parts(told, known), _bleu, 0.0, 1.0),
        "cider": ratio(_cider_parts(told, known), number, 0.0, 10.0),
    }


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


def _bleu_parts(told: Sequence[Words], known: Sequence[Sequence[Words]]) -> Floats:
    """By image, (N, 2 ORDER + 2): clipped hits and counts of runs of 1 to 4 words, words said, words of the nearest reference."""
    rows = np.zeros((len(told), 2 * ORDER + 2))
    for row, words, several in zip(rows, told, known, strict=True):
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
    hits, counts, said, wanted = sums[:, :ORDER], sums[:, ORDER : 2 * ORDER], sums[:, -2], sums[:, -1]
    shares = np.divide(hits, counts, out=np.zeros_like(hits), where=counts > 0)
    good: npt.NDArray[np.bool_] = np.all(shares > 0, axis=1, keepdims=True)
    precision = np.exp(np.log(np.where(good, shares, 1)).mean(1))
    brevity = np.minimum(1, np.exp(1 - wanted / np.maximum(said, 1)))
    return np.where(wanted > 0, np.where(good[:, 0], precision * brevity, 0.0), np.nan)


def _cider_parts(told: Sequence[Words], known: Sequence[Sequence[Words]]) -> Floats:
    """CIDEr-D by image: likeness of weighted counts of 1 to 4 words, rare ones counting more; weights are of these references."""
    by_length = [_cider_of(told, known, n) for n in range(1, ORDER + 1)]
    return 10 * np.array(by_length, dtype=np.float64).mean(0)


def _cider_of(told: Sequence[Words], known: Sequence[Sequence[Words]], n: int) -> list[float]:
    seen: Counter[tuple[str, ...]] = Counter()
    for several in known:
        seen.update(set().union(*(_grams(r, n) for r in several)))
    images = math.log(max(len(known), 1))

    def weigh(words: Words) -> dict[tuple[str, ...], float]:
        return {g: c * (images - math.log(max(seen[g], 1))) for g, c in _grams(words, n).items()}

    scores = []
    for words, several in zip(told, known, strict=True):
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
