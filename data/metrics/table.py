"""The one table of metrics: what each is, what limits make sense for it, what works it out, and what it takes to have it.

The recipe's schema, the gates, the checks before a run, the judges, the search for INT8 settings and the report read it here; a
metric is added by a row and the functions that it names. A package of somebody else's adds one by an entry point of the group
``rsedge.metrics``, whose name is the metric's (docs/own-metrics.md)::

    [project.entry-points."rsedge.metrics"]
    specificity = "my_package.metrics:SPECIFICITY"
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError

from rsedge.data.entry_points import MEND, entry_words, loaded
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.metrics.comparison import Compared, Comparison

GROUP = "rsedge.metrics"
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
MADE_IMAGES = (*IMAGES, "generation")
RETRIEVAL = ("retrieval",)
DROPS: tuple[Constraint, ...] = ("max_drop", "max_relative_drop", "min")
RELATIVE: tuple[Constraint, ...] = ("max_drop", "max_relative_drop")
"""Constraints that limit how far a figure lies under the teacher's."""
FLOORS: tuple[Constraint, ...] = ("min", "min_speedup")
"""Constraints that a value must reach; the others it must not exceed."""


@dataclass(frozen=True)
class Metric:
    """One row.

    Attributes:
        title: as a report writes it.
        higher: whether more of it is better.
        tasks: what the teacher must do, by the names of :data:`rsedge.models.zoo.Task`, or the whole (``Whole.task``); none: any.
        needs: what the data or the target must have.
        in_steps: whether the report's row of a compression step shows it.
        highest: the most that it can be; None: there is no such figure.
        computed: by the kind of comparison, ``module:function`` that takes one to a
            :class:`~rsedge.data.metrics.statistics.Statistic`; none of figures that are measured, or taken over folds.
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
    computed: Mapping[Compared, str] = field(default_factory=dict)

    def statistic(self, comparison: Comparison) -> Any:
        """The figure of a comparison that :attr:`computed` names, by units."""
        module, _, name = self.computed[comparison.kind].partition(":")
        function: Callable[[Comparison], Any] = getattr(import_module(module), name)
        return function(comparison)


_ROWS = (
    Metric(
        "kappa",
        "Cohen's kappa",
        DROPS,
        tasks=CLASSES,
        needs=("labels",),
        in_steps=True,
        headline=2,
        computed={
            "map": "rsedge.data.metrics.confusion:kappa_statistic",
            "classes": "rsedge.data.metrics.confusion:kappa_statistic",
            "yes or no": "rsedge.data.metrics.confusion:kappa_statistic",
        },
    ),
    Metric(
        "accuracy",
        "accuracy",
        DROPS,
        unit="share",
        tasks=CLASSES,
        needs=("labels",),
        in_steps=True,
        headline=5,
        computed={
            "map": "rsedge.data.metrics.confusion:accuracy_statistic",
            "classes": "rsedge.data.metrics.confusion:accuracy_statistic",
            "labels": "rsedge.data.metrics.samples:accuracy_of_labels",
        },
    ),
    Metric(
        "miou",
        "mean IoU",
        DROPS,
        tasks=CLASSES,
        needs=("labels",),
        in_steps=True,
        headline=3,
        computed={
            "map": "rsedge.data.metrics.confusion:miou_statistic",
            "classes": "rsedge.data.metrics.confusion:miou_statistic",
        },
    ),
    Metric(
        "f1",
        "F1",
        DROPS,
        tasks=(*CLASSES, "detection"),
        needs=("labels",),
        in_steps=True,
        headline=4,
        computed={
            "map": "rsedge.data.metrics.confusion:f1_of_pixels",
            "classes": "rsedge.data.metrics.confusion:f1_of_samples",
            "labels": "rsedge.data.metrics.samples:f1_of_labels",
            "boxes": "rsedge.data.metrics.boxes:f1_of_boxes",
        },
    ),
    Metric("f1_crossval", "F1 over all folds", DROPS, tasks=(*CLASSES, "detection"), needs=("labels", "folds")),
    Metric("agreement_crossval", "agreement over all folds", ("min",), unit="share", needs=("folds",)),
    Metric(
        "r2",
        "R²",
        DROPS,
        tasks=("regression",),
        needs=("labels",),
        in_steps=True,
        headline=6,
        computed={"values": "rsedge.data.metrics.samples:r2_statistic"},
    ),
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
        computed={"values": "rsedge.data.metrics.samples:rmse_statistic"},
    ),
    Metric(
        "ap50",
        "AP50",
        DROPS,
        tasks=("detection",),
        needs=("labels",),
        in_steps=True,
        headline=1,
        computed={"boxes": "rsedge.data.metrics.boxes:ap50_statistic"},
    ),
    Metric(
        "ap50_95",
        "AP50:95",
        DROPS,
        tasks=("detection",),
        needs=("labels",),
        in_steps=True,
        computed={"boxes": "rsedge.data.metrics.boxes:ap50_95_statistic"},
    ),
    Metric(
        "cosine",
        "mean cosine",
        ("min",),
        tasks=("embedding", "features", "captioning"),
        in_steps=True,
        headline=9,
        computed={
            "teacher vectors": "rsedge.data.metrics.samples:cosine_statistic",
            "teacher tokens": "rsedge.data.metrics.samples:cosine_statistic",
        },
    ),
    Metric(
        "top1",
        "same nearest neighbour",
        ("min",),
        unit="share",
        tasks=("embedding",),
        in_steps=True,
        computed={"teacher vectors": "rsedge.data.metrics.samples:top1_statistic"},
    ),
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
        computed={"image": "rsedge.data.metrics.images:psnr_statistic"},
    ),
    Metric(
        "ssim",
        "SSIM",
        DROPS,
        tasks=IMAGES,
        needs=("labels",),
        in_steps=True,
        headline=11,
        computed={"image": "rsedge.data.metrics.images:ssim_statistic"},
    ),
    Metric(
        "teacher_psnr",
        "PSNR to the teacher",
        ("min",),
        unit="dB",
        tasks=MADE_IMAGES,
        in_steps=True,
        highest=None,
        computed={"teacher image": "rsedge.data.metrics.images:psnr_statistic"},
    ),
    Metric(
        "teacher_ssim",
        "SSIM to the teacher",
        ("min",),
        tasks=MADE_IMAGES,
        in_steps=True,
        computed={"teacher image": "rsedge.data.metrics.images:ssim_statistic"},
    ),
    Metric(
        "agreement",
        "agreement",
        ("min",),
        unit="share",
        computed={
            "teacher classes": "rsedge.data.metrics.samples:agreement_of_decisions",
            "teacher labels": "rsedge.data.metrics.samples:agreement_of_decisions",
            "teacher values": "rsedge.data.metrics.samples:agreement_of_values",
            "teacher vectors": "rsedge.data.metrics.samples:agreement_of_vectors",
            "teacher tokens": "rsedge.data.metrics.samples:agreement_of_vectors",
            "teacher boxes": "rsedge.data.metrics.boxes:agreement_of_boxes",
            "teacher image": "rsedge.data.metrics.images:agreement_of_images",
            "teacher part": "rsedge.data.metrics.parts:agreement_of_parts",
            "teacher masks": "rsedge.data.metrics.parts:agreement_of_masks",
            "teacher ranks": "rsedge.data.metrics.parts:agreement_of_ranks",
        },
    ),
    Metric(
        "recall1",
        "recall at 1",
        DROPS,
        unit="share",
        tasks=RETRIEVAL,
        needs=("labels",),
        in_steps=True,
        headline=12,
        computed={"pairs": "rsedge.data.metrics.parts:recall1_statistic"},
    ),
    Metric(
        "mrr",
        "mean reciprocal rank",
        DROPS,
        tasks=RETRIEVAL,
        needs=("labels",),
        in_steps=True,
        computed={"pairs": "rsedge.data.metrics.parts:mrr_statistic"},
    ),
    Metric(
        "token_agreement",
        "equal tokens",
        ("min",),
        unit="share",
        tasks=CAPTIONS,
        headline=8,
        computed={"teacher words": "rsedge.data.metrics.texts:token_agreement"},
    ),
    Metric(
        "caption_agreement",
        "equal captions",
        ("min",),
        unit="share",
        tasks=CAPTIONS,
        computed={"teacher words": "rsedge.data.metrics.texts:caption_agreement"},
    ),
    Metric(
        "rouge_l",
        "ROUGE-L",
        DROPS,
        tasks=CAPTIONS,
        needs=("texts",),
        headline=7,
        computed={"texts": "rsedge.data.metrics.texts:rouge_l_statistic"},
    ),
    Metric(
        "bleu4",
        "BLEU-4",
        DROPS,
        tasks=CAPTIONS,
        needs=("texts",),
        computed={"texts": "rsedge.data.metrics.texts:bleu4_statistic"},
    ),
    Metric(
        "cider",
        "CIDEr",
        DROPS,
        tasks=CAPTIONS,
        needs=("texts",),
        highest=None,
        computed={"texts": "rsedge.data.metrics.texts:cider_statistic"},
    ),
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


class _Metrics(Mapping[str, Metric]):
    """The rows of rsedge, of installed packages, and of this process, by name."""

    def __init__(self) -> None:
        self._own = {row.name: row for row in _ROWS}
        self._registered: dict[str, Metric] = {}

    def __getitem__(self, name: str) -> Metric:
        return (self._registered.get(name) or self._own.get(name)) or of_packages()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._own, *of_packages(), *self._registered)))

    def __len__(self) -> int:
        return len(tuple(iter(self)))

    def register(self, row: Metric) -> Metric:
        """Adds a row for this process.

        Raises:
            RequestError: its name is taken, or is none.
        """
        if row.name in self:
            raise RequestError(f"metric '{row.name}' is there already; give yours another name")
        self._registered[row.name] = checked(row)
        return row

    def unregister(self, name: str) -> None:
        """Takes away what :meth:`register` added."""
        self._registered.pop(name, None)


METRICS = _Metrics()


def checked(row: Metric) -> Metric:
    """A row of somebody else's.

    Raises:
        RequestError: recipes cannot name it, or it cannot be judged.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", row.name):
        raise RequestError(f"metric '{row.name}': names hold small letters, digits and '_', and begin with a letter")
    if not row.constraints or not row.computed:
        raise RequestError(f"metric '{row.name}': it needs constraints, and functions that work it out (computed)")
    if "max_drop" in row.constraints and not row.higher:
        raise RequestError(f"metric '{row.name}': a drop is of what should be high; leave max_drop out of constraints")
    return row


@functools.cache
def of_packages() -> dict[str, Metric]:
    """Rows of installed packages, by name; those of rsedge cannot be taken over.

    Raises:
        MissingCapability: a package is broken.
    """
    own = {row.name for row in _ROWS}
    return {
        point.name: _loaded(point) for point in importlib.metadata.entry_points(group=GROUP) if point.name not in own
    }


def _loaded(point: importlib.metadata.EntryPoint) -> Metric:
    row, where = loaded("metric", point), entry_words("metric", point)
    if not isinstance(row, Metric) or row.name != point.name:
        raise MissingCapability(f"{where}: {point.value} is no Metric of that name; {MEND}")
    try:
        return checked(row)
    except RequestError as error:
        raise MissingCapability(f"{where}: {error}; {MEND}") from error


def row_of(name: str) -> Metric:
    """A metric's row; of one that a package brings which is not here what its name says, so that what it was held to reads on."""
    return METRICS[name] if name in METRICS else Metric(name, name.replace("_", " "), DROPS, unit="value", highest=None)


def _known(name: str) -> str:
    if name not in METRICS:
        *others, last = (repr(one) for one in METRICS)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
    return name


class _Choice:
    """Lists the names in a JSON schema as it is written."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(METRICS)}


MetricName = Annotated[str, AfterValidator(_known), _Choice()]
"""A name of the table, as the recipe's schema takes it."""


def needing(need: Need) -> tuple[str, ...]:
    """Names of the metrics that need something."""
    return tuple(row.name for row in METRICS.values() if need in row.needs)


def judged_by_task(name: str) -> bool:
    """Whether a metric is taken of a network's outputs on the test set; others of folds, of texts, or of the executable."""
    row = METRICS[name]
    return bool(row.computed) and row.tasks != CAPTIONS


def step_scores() -> tuple[str, ...]:
    """Figures of a compression step that a report shows, in the order of the table."""
    return tuple(row.name for row in METRICS.values() if row.in_steps)


def headline_order() -> tuple[str, ...]:
    """Metrics by which a report may compare, the preferred one first."""
    rows = sorted((row.headline, row.name) for row in METRICS.values() if row.headline is not None)
    return tuple(name for _, name in rows)


def title_of(name: str) -> str:
    """A metric's title; of other figures the name in words."""
    return row_of(name).title
