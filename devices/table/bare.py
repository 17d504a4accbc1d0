"""Model files that are no bundles (ONNX, OpenVINO IR), timed on this machine's processor with inputs of the file's own shapes.

What they compute is nobody's business here: the inputs are drawn, since latency does not depend on them. A file that somebody else
made runs in a process of its own first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.devices.measure.protocol import Measurement, measure
from rsedge.runtimes.backend import Opening
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.child import Contents
from rsedge.runtimes.parts import PartSession
from rsedge.runtimes.rehearsal import rehearse

SUFFIXES = (".onnx", ".xml")


def measured(path: Path, target: Target, threads: int, seconds: float, **more: Any) -> Measurement:
    """Times a model file on a target whose device is this machine's processor.

    Args:
        more: as :func:`rsedge.devices.measure.protocol.measure` takes them.

    Raises:
        RequestError: no model of that runtime, open shapes, or it ends its runtime.
        MissingCapability: the runtime is not here.
    """
    question = {"path": str(path), "target": target.name, "threads": threads}
    status = path.stat()
    rehearse(path, f"{__name__}:first_run", {**question, "size": status.st_size, "changed_ns": status.st_mtime_ns})
    with opened(path, target, threads) as session:
        feed = drawn(session)
        labels = {
            "device": session.device, "runtime": session.runtime, "runtime_version": session.runtime_version,
            "precision": computed_in(session.products(feed)),
        }  # fmt: skip
        return measure(session, feed, seconds=seconds, threads=threads, labels=labels, **more)


def computed_in(products: Mapping[str, int]) -> str:
    """In what a model's products are computed, as a record has it: ``int8``, or ``int8 (40 of 52 products), f32 (12)``."""
    (most, count), *others = sorted(products.items(), key=lambda item: -item[1]) or [("not told by the runtime", 0)]
    if not others:
        return most
    return f"{most} ({count} of {sum(products.values())} products), " + ", ".join(f"{n} ({c})" for n, c in others)


def first_run(question: dict[str, Any], contents: Contents) -> bool:
    """The child's side: opens it and runs it once."""
    path, target = Path(question["path"]), Target.parse(question["target"])
    with opened(path, target, question["threads"]) as session:
        session(drawn(session))
    return True


def opened(path: Path, target: Target, threads: int) -> PartSession:
    """The file with the target's runtime.

    Raises:
        RequestError, MissingCapability: as :func:`measured`.
    """
    backend = target.backend
    if path.suffix not in backend.suffixes:
        raise RequestError(f"{path}: {backend.title} opens {' or '.join(backend.suffixes)}")
    how = Opening(device=backend.device(target.device), precision=target.precision, threads=threads)
    return backend.open_part(path, how)


def drawn(session: PartSession) -> dict[str, npt.NDArray[Any]]:
    """An input of each shape and type: floats around 0, whole numbers from 0 to 100."""
    rng = np.random.default_rng(0)
    found = {}
    for name, (shape, dtype) in session.inputs.items():
        values = (
            rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2 if dtype.kind == "b" else 100, shape)
        )
        found[name] = values.astype(dtype)
    return found
