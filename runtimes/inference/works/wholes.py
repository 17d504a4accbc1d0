"""What bundles of several parts give for samples: arrays by name from an ``.npz``, samples along their first axis."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.arrays import read_arrays
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path, write_bytes
from rsedge.runtimes.bundle.whole import OpenWhole, open_whole
from rsedge.runtimes.inference.raster_out import writing_rows
from rsedge.runtimes.inference.works.arrays import Array, ArrayScene
from rsedge.runtimes.inference.works.base import Call, Inference
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Arrays
from rsedge.runtimes.wholes.pictures import IMAGE
from rsedge.runtimes.wholes.retrieval import Retrieval

BEST = 5
"""Items that a table shows of each query."""


class WholeInference(Inference):
    """The outputs of all parts together, by name, samples along the first axis; written as ``.npz``."""

    suffixes: tuple[str, ...] = (".npz",)

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        if output.suffix.lower() not in self.suffixes:
            raise RequestError(f"{output}: what this bundle gives is written as {' or '.join(self.suffixes)}")
        with open_whole(call.bundle, call.threads, call.device, call.self_test) as whole:
            began = time.perf_counter()
            found, count = self.answers(call, whole, source)
            whole.prove()
            seconds = time.perf_counter() - began
            self.save(call, output, found)
            shapes = {name: list(value.shape) for name, value in found.items()}
            return {
                "output": str(output),
                "samples": count,
                "arrays": shapes,
                "seconds": round(seconds, 3),
                **made_by(call, whole),
            }

    def read(self, call: Call, source: Path) -> Any:
        with open_whole(call.bundle, call.threads, call.device, call.self_test) as whole:
            found, _ = self.answers(call, whole, source)
            whole.prove()
        return found

    def array(self, call: Call, values: Array) -> Any:
        raise RequestError(f"{call.bundle.path}: takes several arrays by name; give an .npz of them")

    def text(self, record: dict[str, Any]) -> str:
        arrays = ", ".join(f"{name} {tuple(shape)}" for name, shape in record["arrays"].items())
        return (
            f"{record['output']}: {record['samples']} samples; {arrays}\n"
            f"{record['seconds']:.1f} s on {record['device']} ({record['target']})"
        )

    def answers(self, call: Call, whole: OpenWhole, source: Path) -> tuple[Arrays, int]:
        """All outputs, and how many samples there are."""
        samples = read_together(source, whole.inputs)
        count = len(next(iter(samples.values())))
        found = []
        for i in range(count):
            try:
                found.append(whole({name: value[i] for name, value in samples.items()}))
            except RequestError as error:
                raise RequestError(f"{source}: sample {i}: {error}") from error
            if call.progress is not None:
                call.progress(i + 1, count)
        return {name: np.stack([one[name] for one in found]) for name in found[0]}, count

    def save(self, call: Call, output: Path, found: Arrays) -> None:
        """Writes them."""
        _save_npz(output, found)


class NeighbourInference(WholeInference):
    """For each query the items by their cosine; queries and items may differ in number. Written as ``.npz`` (``cosines``, and the
    towers' vectors) or as a table of the best of each query (.csv)."""

    suffixes = (".npz", ".csv")

    def answers(self, call: Call, whole: OpenWhole, source: Path) -> tuple[Arrays, int]:
        assert isinstance(whole.whole, Retrieval)
        arrays = read_apart(source, whole.inputs)
        total, done, vectors = sum(map(len, arrays.values())), 0, {}
        for name in whole.whole.parts:
            made = []
            for value in arrays[name]:
                made.append(whole.whole.vector(whole.sessions, name, value))
                whole.counted()
                done += 1
                if call.progress is not None:
                    call.progress(done, total)
            vectors[name] = np.stack(made)
        queries, items = (_unit(vectors[name]) for name in whole.whole.parts)
        return {**vectors, "cosines": (queries @ items.T).astype(np.float32)}, len(queries)

    def save(self, call: Call, output: Path, found: Arrays) -> None:
        if output.suffix.lower() == ".npz":
            _save_npz(output, found)
            return
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["query", "place", "item", "cosine"])
        for query, row in enumerate(found["cosines"]):
            best = np.argsort(-row, kind="stable")[:BEST]
            table.writerows([query, place, int(item), f"{row[item]:.6f}"] for place, item in enumerate(best, 1))
        write_bytes(output, text.getvalue().encode())


class PictureInference(WholeInference):
    """Pictures of the sampler, (N, bands, rows, columns) as the decoder gives them; one alone is written as a GeoTIFF too, in the
    physical values of the bundle's band contract."""

    suffixes = (".npz", ".tif", ".tiff")

    def save(self, call: Call, output: Path, found: Arrays) -> None:
        if output.suffix.lower() == ".npz":
            _save_npz(output, found)
            return
        pictures = found[IMAGE]
        if len(pictures) != 1:
            raise RequestError(
                f"{output}: holds one picture, and {len(pictures)} were made; write .npz, or give one sample"
            )
        spec = call.bundle.input_spec
        mean, std = (spec.vector(what)[:, None, None] for what in ("mean", "std"))
        values = (pictures[0] * std + mean).astype(np.float32)
        with writing_rows(output, ArrayScene(values, spec), spec.band_names, 1, call.style) as sink:
            sink.add(values)


def read_together(path: Path, wanted: Tensors) -> Arrays:
    """Arrays of an ``.npz``, samples along their first axis, as many of each.

    Raises:
        RequestError: one is missing, or of another shape or type; or they differ in number.
    """
    found = read_apart(path, wanted)
    counts = {name: len(value) for name, value in found.items()}
    if len(set(counts.values())) != 1:
        raise RequestError(f"{path}: arrays differ in their number of samples: {_counts(counts)}")
    return found


def read_apart(path: Path, wanted: Tensors) -> Arrays:
    """As :func:`read_together`, but of any number each. NaN and infinity are refused."""
    needed = ", ".join(
        f"'{name}' (N{''.join(f', {s}' for s in shape)}) {dtype}" for name, (shape, dtype) in wanted.items()
    )
    if path.suffix.lower() != ".npz":
        raise RequestError(f"{path}: samples are one .npz; needed are {needed}")
    try:
        found = read_arrays(path, list(wanted))
    except RequestError as error:
        raise RequestError(f"{error}; needed are {needed}") from error
    for name, (shape, dtype) in wanted.items():
        value = found[name]
        fits = value.ndim == len(shape) + 1 and value.shape[1:] == shape and len(value)
        if not fits or not np.can_cast(value.dtype, dtype, "safe"):
            raise RequestError(f"{path}: '{name}' is {value.shape} {value.dtype}; needed are {needed}")
        if np.issubdtype(value.dtype, np.floating) and not (finite := np.isfinite(value)).all():
            row = int(np.flatnonzero(~finite.reshape(len(value), -1).all(1))[0])
            raise RequestError(f"{path}: '{name}' holds NaN or infinity in sample {row}; leave it out, or mend it")
    return found


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _unit(vectors: Array) -> Array:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _save_npz(output: Path, found: Arrays) -> None:
    with atomic_path(output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **found)


def made_by(call: Call, whole: OpenWhole) -> dict[str, Any]:
    """By which bundle and runtime."""
    labels: Sequence[tuple[str, Any]] = [("bundle", str(call.bundle.path)), ("target", call.bundle.target.name)]
    return {**dict(labels), **whole.labels, "self_test": whole.self_test(), **call.bundle.signature.record()}
