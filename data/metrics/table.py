"""The one table of metrics: what each is, what limits make sense for it, and what it takes to have it.

The recipe's schema, the gates, the checks before a run, the search for INT8 settings and the report read it here; a metric is added
by a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

Constraint = Literal["max_drop", "max_relative_drop", "min", "max", "min_speedup"]
Need = Literal["labels", "texts", "folds", "measurement"]
"""What the data or the target must have."""
Unit = Literal["score", "share", "ms", "bytes", "per second", "dB", "value"]
"""How a figure is written: three decimals, percent, milliseconds, bytes, a rate, decibels, or a number in the data's own unit."""
CROSSVAL = "_crossval"
"""Ends the names of figures over all folds."""

CLASSES = ("segmentation", "classification")
CAPTIONS = ("captioning",)
IMAGES = ("super-resolution",)
DROPS: tuple[Constraint, ...] = ("max_drop", "max_relative_drop", "min")
FLOORS: tuple[Constraint, ...] = ("min", "min_speedup")
"""Constraints that a value must reach; the others it must not exceed."""


@dataclass(frozen=True)
class Metric:
    """One row.

    Attributes:
        title: as a report writes it.
        higher: whether more of it is better.
        tasks: what the teacher must do, by the names of :data:`rsedge.models.zoo.Task`; none: any of them.
        needs: what the data or the target must have.
        in_steps: whether the report's row of a compression step shows it.
        highest: the most that it can be; None: there is no such figure.
        headline: place in the order by which a report chooses the figure it compares by; None: never.
    """

    name: str
    title: str
    constraints: tuple[Constraint, ...]
    higher: bool = True
    unit: Unit = "score"
    tasks: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    in_steps: bool = False
    headline: int | None = None
    highest: float | None = 1.0


_ROWS = (
    Metric("kappa", "Cohen's kappa", DROPS, tasks=CLASSES, needs=("labels",), in_steps=True, headline=2),
    Metric("accuracy", "accuracy", DROPS, unit="share", tasks=CLASSES, needs=("labels",), in_steps=True, headline=5),
    Metric("miou", "mean IoU", DROPS, tasks=CLASSES, needs=("labels",), in_steps=True, headline=3),
    Metric("f1", "F1", DROPS, tasks=(*CLASSES, "detection"), needs=("labels",), in_steps=True, headline=4),
    Metric("f1_crossval", "F1 over all folds", DROPS, tasks=(*CLASSES, "detection"), needs=("labels", "folds")),
    Metric("agreement_crossval", "agreement over all folds", ("min",), unit="share", needs=("folds",)),
    Metric("r2", "R²", DROPS, tasks=("regression",), needs=("labels",), in_steps=True, headline=6),
    Metric(
        "rmse",
        "RMSE",
        ("max",),
        higher=False,
        unit="value",
        tasks=("regression",),
        needs=("labels",),
        in_steps=True,
        highest=None,
    ),
    Metric("ap50", "AP50", DROPS, tasks=("detection",), needs=("labels",), in_steps=True, headline=1),
    Metric("ap50_95", "AP50:95", DROPS, tasks=("detection",), needs=("labels",), in_steps=True),
    Metric("cosine", "mean cosine", ("min",), tasks=("embedding", "captioning"), in_steps=True, headline=9),
    Metric("top1", "same nearest neighbour", ("min",), unit="share", tasks=("embedding",), in_steps=True),
    Metric(
        "psnr",
        "PSNR",
        ("max_drop", "min"),
        unit="dB",
        tasks=IMAGES,
        needs=("labels",),
        in_steps=True,
        headline=10,
        highest=None,
    ),
    Metric("ssim", "SSIM", DROPS, tasks=IMAGES, needs=("labels",), in_steps=True, headline=11),
    Metric("teacher_psnr", "PSNR to the teacher", ("min",), unit="dB", tasks=IMAGES, in_steps=True, highest=None),
    Metric("teacher_ssim", "SSIM to the teacher", ("min",), tasks=IMAGES, in_steps=True),
    Metric("agreement", "agreement", ("min",), unit="share"),
    Metric("token_agreement", "equal tokens", ("min",), unit="share", tasks=CAPTIONS, headline=8),
    Metric("caption_agreement", "equal captions", ("min",), unit="share", tasks=CAPTIONS),
    Metric("rouge_l", "ROUGE-L", DROPS, tasks=CAPTIONS, needs=("texts",), headline=7),
    Metric("bleu4", "BLEU-4", DROPS, tasks=CAPTIONS, needs=("texts",)),
    Metric("cider", "CIDEr", DROPS, tasks=CAPTIONS, needs=("texts",), highest=None),
    Metric(
        "first_token_ms",
        "first token",
        ("max",),
        higher=False,
        unit="ms",
        tasks=CAPTIONS,
        needs=("measurement",),
        highest=None,
    ),
    Metric(
        "tokens_per_s",
        "tokens per second",
        ("min",),
        unit="per second",
        tasks=CAPTIONS,
        needs=("measurement",),
        highest=None,
    ),
    Metric("latency", "latency", ("max", "min_speedup"), higher=False, unit="ms", highest=None),
    Metric("size", "size", ("max",), higher=False, unit="bytes", highest=None),
    Metric("memory", "peak memory", ("max",), higher=False, unit="bytes", needs=("measurement",), highest=None),
)
METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]
"""The names, as the recipe's schema takes them."""


def needing(need: Need) -> tuple[str, ...]:
    """Names of the metrics that need something."""
    return tuple(row.name for row in _ROWS if need in row.needs)


def judged_by_task(name: str) -> bool:
    """Whether a metric is taken of a network's outputs on the test set; others of folds, of texts, or of the executable."""
    row = METRICS[name]
    return not {"folds", "measurement"} & set(row.needs) and row.tasks != CAPTIONS and name not in ("latency", "size")


def step_scores() -> tuple[str, ...]:
    """Figures of a compression step that a report shows, in the order of the table."""
    return tuple(row.name for row in _ROWS if row.in_steps)


def headline_order() -> tuple[str, ...]:
    """Metrics by which a report may compare, the preferred one first."""
    rows = sorted((row.headline, row.name) for row in _ROWS if row.headline is not None)
    return tuple(name for _, name in rows)


def title_of(name: str) -> str:
    """A metric's title; of other figures the name in words."""
    return METRICS[name].title if name in METRICS else name.replace("_", " ")
