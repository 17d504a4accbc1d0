"""How fast text comes: the time to the first token, and that of each one after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rsedge.data.errors import RequestError
from rsedge.data.metrics.evidence import Evidence, evidence
from rsedge.data.metrics.statistics import Statistics, median, ratio
from rsedge.devices.measure.protocol import LatencyMs, latency_stats


class TextSpeed(BaseModel):
    """Measured on this machine; one picture and its text at a time."""

    model_config = ConfigDict(extra="forbid")

    provenance: Literal["measured"] = "measured"
    texts: int = Field(ge=1, description="timed texts, after one that is not")
    tokens: int = Field(ge=1)
    threads: int
    first_token_ms: LatencyMs = Field(description="from the picture's digital numbers: tower, question and first token")
    token_ms: LatencyMs | None = Field(description="of every later token; None where texts have one token alone")
    tokens_per_s: float | None = Field(description="of later tokens")
    evidence: dict[str, Evidence] = Field(
        default_factory=dict, description="of first_token_ms and tokens_per_s: intervals over the timed texts"
    )

    def figures(self) -> dict[str, float]:
        """The figures that reports and gates take."""
        found = {"first_token_ms": self.first_token_ms.p50}
        if self.token_ms is not None and self.tokens_per_s is not None:
            found |= {"token_ms": self.token_ms.p50, "tokens_per_s": self.tokens_per_s}
        return found


def measure_text(speak: Callable[[int], Iterator[int]], seconds: float, threads: int) -> TextSpeed:
    """Times texts for about so many seconds, two at least.

    Args:
        speak: number of a text -> its tokens, from the picture on.

    Raises:
        RequestError: a text without tokens.
    """
    first: list[float] = []
    later: list[float] = []
    counts: list[int] = []
    seconds_of: list[float] = []
    list(speak(0))
    began = time.perf_counter()
    while len(first) < 2 or time.perf_counter() - began < seconds:
        times = _times(speak(len(first)))
        if not times:
            raise RequestError("a text without tokens cannot be timed")
        first.append(times[0])
        later += times[1:]
        counts.append(len(times) - 1)
        seconds_of.append(sum(times[1:]) / 1000)
    return TextSpeed(
        texts=len(first), tokens=len(first) + len(later), threads=threads, first_token_ms=latency_stats(first),
        token_ms=latency_stats(later) if later else None, tokens_per_s=1000 * len(later) / sum(later) if later else None,
        evidence=evidence(Statistics("texts", {
            "first_token_ms": median(first), "tokens_per_s": ratio(counts, seconds_of, 0.0, math.inf),
        }), Statistics("texts")),
    )  # fmt: skip


def _times(tokens: Iterator[int]) -> list[float]:
    """Milliseconds until each token, from the one before it."""
    found = []
    before = time.perf_counter()
    for _ in tokens:
        now = time.perf_counter()
        found.append((now - before) * 1000)
        before = now
    return found
