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
    places = sum(max(len(a), len(b)) for a, b in zip(found, reference, strict=True))
    same = sum(x == y for a, b in zip(found, reference, strict=True) for x, y in zip(a, b, strict=False))
    return same / places if places else 1.0


def caption_agreement(found: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> float:
    """Share of texts that are equal, token by token; 1 where there are none."""
    if not found:
        return 1.0
    return sum(list(a) == list(b) for a, b in zip(found, reference, strict=True)) / len(found)


def caption_metrics(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """``rouge_l``, ``bleu4`` (both 0..1) and ``cider`` (0..10) of N texts, each with at least one reference."""
    told = [words_of(t) for t in texts]
    known = [[words_of(r) for r in several] for several in references]
    return {"rouge_l": rouge_l(told, known), "bleu4": bleu4(told, known), "cider": cider(told, known)}


def rouge_l(told: Sequence[Words], known: Sequence[Sequence[Words]]) -> float:
    """Mean F-measure of the longest common subsequence; precision and recall are each the best over the references."""
    return _mean([_rouge_one(words, several) for words, several in zip(told, known, strict=True)])


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


def bleu4(told: Sequence[Words], known: Sequence[Sequence[Words]]) -> float:
    """Over the whole set: geometric mean of clipped precisions of 1 to 4 words, times the brevity penalty."""
    hits, counts, length, wanted = [0] * ORDER, [0] * ORDER, 0, 0
    for words, several in zip(told, known, strict=True):
        length += len(words)
        wanted += min((len(r) for r in several), key=lambda n: (abs(n - len(words)), n))
        for n in range(1, ORDER + 1):
            own = _grams(words, n)
            most: Grams = Counter()
            for reference in several:
                most |= _grams(reference, n)
            hits[n - 1] += sum((own & most).values())
            counts[n - 1] += sum(own.values())
    if not all(hits):
        return 0.0
    precision = math.exp(_mean([math.log(h / c) for h, c in zip(hits, counts, strict=True)]))
    return precision * min(1.0, math.exp(1 - wanted / length))


def cider(told: Sequence[Words], known: Sequence[Sequence[Words]]) -> float:
    """CIDEr-D: likeness of weighted counts of 1 to 4 words, rare ones counting more; weights are of these references."""
    return 10 * _mean([_cider_of(told, known, n) for n in range(1, ORDER + 1)])


def _cider_of(told: Sequence[Words], known: Sequence[Sequence[Words]], n: int) -> float:
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
    return _mean(scores)


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
