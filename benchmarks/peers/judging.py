"""How contenders are judged: on the same test tiles, with the same draws of blocks, and raced in one run by processor time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from contender import NNCF, TEACHER, Made
from material import THREADS, Material
from roofline import measured_peak, peak_runners, share_of_peak
from store import place

from rsedge.data.metrics.statistics import Estimate
from rsedge.devices.measure.decide import Race, race
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, Session
from rsedge.stages.outputs import ir_bytes

RACE_SECONDS = 1.5


def opened(made: Made) -> Session:
    return open_session(Path(made.model), made.runtime, precision=made.precision, threads=THREADS)


def judge(material: Material, made: Mapping[str, Made], seconds: float = RACE_SECONDS) -> dict[str, Any]:
    """``rows`` by contender: figures with intervals, size, time as a share of the teacher's and of plain NNCF's, and how much of
    this machine's INT8 peak it reaches; the ``peak`` itself, and how quiet the race was."""
    test = material.held_out("test")
    reference = material.ctx.teacher_on(test)
    rows: dict[str, dict[str, Any]] = {}
    for name, one in made.items():
        found = test.evidence(_kept(material, name, one), reference)
        rows[name] = {
            "figures": {metric: _estimate(e.own) for metric, e in found.items()},
            "drops": {metric: _estimate(e.drop) for metric, e in found.items() if e.drop is not None},
            "size_bytes": _size(Path(one.model)),
        }
    raced = _race(material, made, seconds)
    for name, one in made.items():
        rows[name]["ms"] = raced.ms(name)
        rows[name]["time"] = {
            over: raced.ratio(name, over).model_dump() for over in (TEACHER, NNCF) if over in raced.turns
        }
        rows[name]["peak_share"] = share_of_peak(raced, name, one.macs)
    return {"rows": rows, "peak": measured_peak(raced), "load": raced.load.words(), "noise": raced.too_noisy()}


def _kept(material: Material, name: str, made: Made) -> np.ndarray:
    """What is kept of a contender's outputs on the test tiles; taken once."""
    path = place(material.case, material.seed, name) / "test.npz"
    if not path.is_file():
        with contextlib.closing(opened(made)) as session:
            kept = material.ctx.task.predict(session, material.held_out("test").inputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, kept=kept)
    with np.load(path, allow_pickle=False) as z:
        found: np.ndarray = z["kept"]
    return found


def _estimate(found: Estimate) -> dict[str, float] | None:
    if found.value is None:
        return None
    low, high = found.interval or (found.value, found.value)
    return {"value": found.value, "low": low, "high": high}


def _size(model: Path) -> int:
    return ir_bytes(model) if model.suffix == ".xml" else model.stat().st_size


def _race(material: Material, made: Mapping[str, Made], seconds: float) -> Race:
    tile = {INPUT: material.held_out("test").inputs[:1]}
    with contextlib.ExitStack() as stack:
        sessions = {name: stack.enter_context(contextlib.closing(opened(one))) for name, one in made.items()}
        runners = {name: functools.partial(session, tile) for name, session in sessions.items()}
        return race({**runners, **peak_runners()}, seconds=seconds)
