"""Heads fitted on what a bundle itself gives: the executable that flies, with its rounding, and not the network before it."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.files import write_bytes
from rsedge.data.metrics.figures import statistics_of
from rsedge.data.metrics.samples import Kind, kind_of, sample_comparisons
from rsedge.data.metrics.statistics import estimate
from rsedge.data.samples.samples import Samples
from rsedge.flight import Bundle
from rsedge.models.probe import PARTS, LinearHead, fit_head
from rsedge.runtimes.bundle.head import ENCODERS, NO_ENCODER, SUFFIX, HeadRecord, encoded, file_text, signed_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Progress = Callable[[int, int], None]


def fitted_head(
    bundle: Bundle,
    samples: Samples,
    name: str,
    classes: Sequence[str] = (),
    task: Literal["classification", "regression"] = "classification",
    progress: Progress | None = None,
) -> HeadRecord:
    """A linear head on an encoder's vectors, as :func:`rsedge.models.probe.fit_head` fits it, and what it reaches on groups of
    samples that it had not seen (five parts; intervals draw whole groups).

    Args:
        samples: with labels: one class each, or zeros and ones (a yes or no), or values.
        classes: names of the outputs, in the order of the labels' numbers; the samples' own when not given.
        progress: called with the number of samples done and all.

    Raises:
        RequestError: the bundle is no encoder; no labels, or several a sample; labels that do not fit; fewer than two groups.
        MissingCapability: scikit-learn is not installed.
    """
    if bundle.manifest.stride is not None:
        raise RequestError(f"{bundle.path}: gives maps of features, so that its heads are fitted on labelled scenes")
    if bundle.task not in ENCODERS:
        raise RequestError(f"{bundle.path}: {NO_ENCODER}; this bundle is for {bundle.task}")
    names, kind = _outputs(samples, classes, task)
    labels = samples.labels
    assert labels is not None
    groups = samples.group if samples.group is not None else np.arange(len(samples)).astype(str)
    vectors = bundle.predict(samples.dn(bundle.spec), progress=progress)
    table = labels.reshape(len(labels), -1).astype(np.float64)
    known = (np.isfinite(table) if kind == "values" else table >= 0).all(1)
    about = HeadSamples(samples.name, samples.sha256, vectors[known], labels[known], groups[known])
    return made_record(bundle, name, task, names, kind, about)


@dataclass(frozen=True)
class HeadSamples:
    """What a head is fitted on: the encoder's ``vectors`` (N, D), ``labels`` (N,), ``groups`` (N,) that are never split."""

    name: str
    sha256: str
    vectors: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    groups: npt.NDArray[np.str_]


def made_record(
    bundle: Bundle,
    name: str,
    task: Literal["classification", "regression"],
    classes: tuple[str, ...],
    kind: Kind,
    samples: HeadSamples,
) -> HeadRecord:
    """A head of these samples, for this bundle, with its figures; raises as :func:`fitted_head`."""
    head = fit_head(samples.vectors, samples.labels, kind, classes, samples.groups)
    return HeadRecord(
        name=name, task=task, classes=classes, encoder=bundle.manifest.name, encoder_sha256=bundle.opened.manifest_sha256,
        features=samples.vectors.shape[1], stride=bundle.manifest.stride, weight=encoded(head.weight), bias=encoded(head.bias),
        samples=samples.name, samples_sha256=samples.sha256, count=len(samples.labels),
        figures=_figures(samples.vectors, samples.labels, kind, classes, samples.groups),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )  # fmt: skip


def _outputs(samples: Samples, classes: Sequence[str], task: str) -> tuple[tuple[str, ...], Kind]:
    names = tuple(classes or samples.classes)
    if samples.labels is None:
        raise RequestError(f"samples '{samples.name}': have no labels, and a head is fitted on them")
    if samples.labels.ndim != 1 and not (samples.labels.ndim == 2 and samples.labels.shape[1] == 1):
        raise RequestError(
            f"samples '{samples.name}': labels {samples.labels.shape}: make a head for each label, with one column"
        )
    if not names:
        raise RequestError(
            f"samples '{samples.name}': do not name their classes; give --classes A,B in the labels' order"
        )
    check_names(names)
    return names, kind_of(task, len(names), samples.labels)


def check_names(names: tuple[str, ...]) -> None:
    """Raises:
    RequestError: two outputs have one name.
    """
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise RequestError(f"classes: '{twice}' is there twice; each output has a name of its own")


def _figures(
    vectors: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    kind: Kind,
    names: Sequence[str],
    groups: npt.NDArray[np.str_],
) -> dict[str, Any]:
    """Metrics against labels of samples whose groups the head had not seen, each with ``value`` and ``interval``."""
    try:
        from sklearn.model_selection import GroupKFold
    except ImportError as error:
        raise missing_extra("sklearn", "compress", "a head") from error
    found = np.zeros((len(vectors), len(names)), np.float32)
    for seen, judged in GroupKFold(min(PARTS, len(np.unique(groups)))).split(vectors, labels, groups):
        found[judged] = outputs_of(fit_head(vectors[seen], labels[seen], kind, names, groups[seen]), vectors[judged])
    comparisons = sample_comparisons(kind, found, found, labels, names, groups)[1:]  # the first is with itself
    return {
        metric: estimate(statistic).model_dump(include={"value", "interval"})
        for metric, statistic in statistics_of(*comparisons).items()
    }


def outputs_of(head: LinearHead, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What a head says of vectors (N, D): (N, K)."""
    return np.asarray(vectors @ head.weight.T + head.bias, np.float32)


def write_head(record: HeadRecord, path: str | Path, key: Ed25519PrivateKey | None = None) -> None:
    """Writes a head's file, signed where there is a key.

    Raises:
        RequestError: it is not called ``.head``, or cannot be written there.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise RequestError(f"{path}: a head's file is called {path.with_suffix(SUFFIX).name}")
    signature = public = None
    if key is not None:
        from rsedge.export.signing import public_pem

        signature = base64.b64encode(key.sign(signed_text(record).encode())).decode()
        public = public_pem(key).decode()
    write_bytes(path, file_text(record, signature, public).encode())
