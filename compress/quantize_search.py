"""Search over post-training quantization settings: the fastest that stays inside the accuracy gate.

No single NNCF setting is right: in NNCF's own conformance results the bias-correction mode alone decides between -1 and
-16 points on a small network, and SmoothQuant helps one transformer and hurts the next. So a short ladder is tried,
cheapest and fastest first, under a time budget, and every rung is recorded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import nncf
import openvino as ov
from nncf import errors as nncf_errors
from pydantic import Field

from rsedge.compress.quantize import (
    Calibration,
    PtqSettings,
    Saturation,
    Tiles,
    _Record,
    check_calibration,
    is_transformer,
    model_bytes,
    quantize,
    saturation,
)
from rsedge.data.errors import RequestError

_FAILURES = (
    RuntimeError,
    ValueError,
    nncf_errors.InternalError,
    nncf_errors.UnsupportedModelError,
    nncf_errors.ValidationError,
)

WeightBits = Literal["int8", "int4"]
WEIGHTS = PtqSettings(activations="float")
INT4_SHARES = (1.0, 0.9, 0.75, 0.5)


class SearchSettings(_Record):
    """``hosts="vnni"`` says that every host has VNNI (or AMX): weights may use all 8 bits; a wrong claim saturates.

    ``seconds`` is a budget: no trial starts after it, the first always runs. ``latency_tolerance`` is the share within
    which two latencies count as equal, and the better score wins.
    """

    max_trials: int = Field(default=8, ge=1)
    seconds: float = Field(default=900.0, gt=0)
    hosts: Literal["any", "vnni"] = "any"
    latency_tolerance: float = Field(default=0.1, ge=0, lt=1)
    weights_only: WeightBits | None = Field(
        default=None, description="leave activations in float; the smallest that passes"
    )
    ladder: tuple[PtqSettings, ...] = Field(default=(), description="settings to try instead of the built-in ladder")


class Trial(_Record):
    """One setting tried. ``drop`` is reference score minus score; figures are None where quantization failed."""

    settings: PtqSettings
    outcome: Literal["passed", "missed", "failed"]
    reason: str
    score: float | None = None
    drop: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    seconds: float


class QuantizeRecord(_Record):
    """The whole search, for the report; ``best`` indexes ``trials`` (None where every trial failed)."""

    outcome: Literal["applied", "rejected"]
    reason: str
    reference_score: float
    max_drop: float
    best: int | None
    trials: tuple[Trial, ...]
    not_tried: int
    calibration: Calibration
    saturation: Saturation | None
    hosts: Literal["any", "vnni"]
    seconds: float


def ladder(transformer: bool, hosts: Literal["any", "vnni"] = "any") -> list[PtqSettings]:
    """The settings in the order they are tried: fast graphs before slow ones, likely gains before unlikely."""
    base = PtqSettings(overflow="disable" if hosts == "vnni" else "enable")

    def rung(**changes: object) -> PtqSettings:
        return base.model_copy(update=changes)

    rungs = [rung(preset="performance")]
    if transformer:
        rungs = [rung(preset="mixed", smooth_quant=a) for a in (0.95, None, 0.15, 0.5)] + rungs
    rungs += [
        rung(preset="performance", bias_correction="full"),
        rung(preset="mixed", bias_correction="full"),
        *([] if transformer else [rung(preset="mixed")]),
        rung(preset="mixed", range_estimator="quantile"),
        rung(preset="mixed", range_estimator="minmax"),
        rung(preset="mixed", range_estimator="histogram"),
        rung(preset="mixed", bias_correction="full", float_layers="last"),
        rung(preset="mixed", bias_correction="full", float_layers="first-last"),
    ]
    return rungs


def weights_ladder(bits: WeightBits) -> list[PtqSettings]:
    """Weights alone, the smallest first: as many layers in 4 bits as the limit bears, at last 8 bits everywhere."""
    shares = INT4_SHARES if bits == "int4" else ()
    return [*(WEIGHTS.model_copy(update={"int4_share": share}) for share in shares), WEIGHTS]


def search_ptq(
    model: ov.Model,
    calibration: Tiles,
    score: Callable[[ov.Model], float],
    reference_score: float,
    max_drop: float,
    latency: Callable[[ov.Model], float],
    settings: SearchSettings | None = None,
    on_trial: Callable[[int, int, Trial], None] | None = None,
) -> tuple[ov.Model | None, QuantizeRecord]:
    """Tries the ladder and picks the fastest that passes; among equally fast ones the best score.

    With ``weights_only`` the ladder goes from the smallest model upwards and ends at the first that passes.

    Args:
        model: f32 graph, ``dn`` (1, C, T, T) -> ``logits``, ``valid``; it is not changed.
        calibration: DN tiles (C, T, T), apart from what ``score`` looks at.
        score: accuracy of a model on its actual executable, higher is better.
        reference_score: what ``drop`` is counted from.
        latency: milliseconds of a model on the target.
        on_trial: called after each trial with (done, planned, trial).

    Returns:
        The chosen model and the record. Where none passes, the one with the best score and outcome ``rejected``; None where
        every trial failed.

    Raises:
        RequestError: unusable calibration, or scores and limits that are no numbers.
    """
    settings = settings or SearchSettings()
    if not math.isfinite(reference_score) or not max_drop >= 0:
        raise RequestError(
            f"quantize: reference score {reference_score} must be finite and max_drop {max_drop} not negative"
        )
    _, record = check_calibration(calibration)
    bits = settings.weights_only
    planned = list(settings.ladder) or (weights_ladder(bits) if bits else ladder(is_transformer(model), settings.hosts))
    planned = planned[: settings.max_trials]
    started = time.perf_counter()
    trials: list[Trial] = []
    models: dict[int, ov.Model] = {}
    for rung in planned:
        if trials and time.perf_counter() - started > settings.seconds:
            break
        trial, made = _try(model, calibration, rung, score, reference_score, max_drop, latency)
        if made is not None:
            models[len(trials)] = made
        trials.append(trial)
        if on_trial is not None:
            on_trial(len(trials), len(planned), trial)
        if bits and trial.outcome == "passed":
            break
    best = _choose(trials, settings.latency_tolerance)
    chosen = models[best] if best is not None else None
    outcome, reason = _verdict(trials, best, max_drop)
    return chosen, QuantizeRecord(
        outcome=outcome,
        reason=reason,
        reference_score=reference_score,
        max_drop=max_drop,
        best=best,
        trials=tuple(trials),
        not_tried=len(planned) - len(trials),
        calibration=record,
        saturation=saturation(chosen, calibration) if chosen is not None else None,
        hosts=settings.hosts,
        seconds=time.perf_counter() - started,
    )


def _try(
    model: ov.Model,
    tiles: Tiles,
    rung: PtqSettings,
    score: Callable[[ov.Model], float],
    reference: float,
    max_drop: float,
    latency: Callable[[ov.Model], float],
) -> tuple[Trial, ov.Model | None]:
    begun = time.perf_counter()
    try:
        made = quantize(model, tiles, rung)
    except RequestError:
        raise
    except _FAILURES as error:
        reason = f"NNCF {nncf.__version__} refused: {str(error).strip().splitlines()[-1] if str(error) else error!r}"
        return Trial(settings=rung, outcome="failed", reason=reason, seconds=time.perf_counter() - begun), None
    value = float(score(made))
    if not math.isfinite(value):
        reason = "the score is not a number"
        return Trial(settings=rung, outcome="failed", reason=reason, seconds=time.perf_counter() - begun), None
    drop = reference - value
    passed = drop <= max_drop
    trial = Trial(
        settings=rung,
        outcome="passed" if passed else "missed",
        reason=f"drop {drop:+.4f}, allowed {max_drop:.4f}",
        score=value,
        drop=drop,
        latency_ms=float(latency(made)),
        size_bytes=model_bytes(made),
        seconds=time.perf_counter() - begun,
    )
    return trial, made


def _choose(trials: Sequence[Trial], tolerance: float) -> int | None:
    done = [(i, t) for i, t in enumerate(trials) if t.score is not None and t.latency_ms is not None]
    passed = [(i, t) for i, t in done if t.outcome == "passed"]
    if not passed:
        return max(done, key=lambda p: (p[1].score or 0.0, -p[0]))[0] if done else None
    fastest = min(t.latency_ms or 0.0 for _, t in passed)
    near = [(i, t) for i, t in passed if (t.latency_ms or 0.0) <= fastest * (1 + tolerance)]
    return max(near, key=lambda p: (p[1].score or 0.0, -p[0]))[0]


def _verdict(trials: Sequence[Trial], best: int | None, max_drop: float) -> tuple[Literal["applied", "rejected"], str]:
    if best is None:
        return "rejected", f"all {len(trials)} settings failed; first: {trials[0].reason}"
    trial = trials[best]
    if trial.outcome == "passed":
        count = sum(t.outcome == "passed" for t in trials)
        best_of = "smallest" if trial.settings.activations == "float" else "fastest"
        return "applied", f"{trial.settings.label()}: {best_of} of {count} that passed of {len(trials)}; {trial.reason}"
    return "rejected", (
        f"none of {len(trials)} settings kept the score within {max_drop:.4f}; "
        f"best was {trial.settings.label()} with a drop of {trial.drop:.4f}"
    )
