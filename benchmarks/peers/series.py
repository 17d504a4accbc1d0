"""Which small student of the crop series keeps F1 in zones that taught nothing (`make bench-series`).

    python benchmarks/peers/series.py [--seeds N] [--seed N] [--only NAME] [--minutes M]

Every student of TRIED is taught anew for each fold of zones, from views of the other folds alone, and answers for the fold; the
answers of all folds are judged together, beside the teacher's. What answers and is raced against the teacher's f32 graph is the
student's OpenVINO graph, in bfloat16 where this processor has it. The log is
the part ``series`` of benchmarks/results/peers.json; docs/benchmarks.md shows it. What is there already is not tried again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import page
import torch
from here import stamp
from material import RUNS, THREADS
from results import ROOT, keep, stored
from torch import nn

from rsedge.compress.distill.muon import OptimizerKind
from rsedge.compress.distill.teacher_outputs import TeacherFunction, TeacherOutputs, WithLabels
from rsedge.compress.distill.training import DistillSettings, Tap, distill
from rsedge.data.bands import InputSpec
from rsedge.devices.measure.decide import race
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.openvino import export_openvino
from rsedge.models.students import build_student, contract_arguments, student_entry
from rsedge.models.students.narrow import narrow_arguments, start_from
from rsedge.pipeline.run import run_until
from rsedge.recipe.reading import load_recipe
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.openvino.core import shared_core
from rsedge.runtimes.session import INPUT
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import TEACHER_IR, ir_bytes
from rsedge.stages.teacher_model import torch_teacher

VIEWS, STEPS, BATCH = 4096, 300, 128
EMBEDDING = "net.encoder.norm"
"""The teacher's feature that taps learn."""
RACE_SECONDS = 0.5


@dataclass(frozen=True)
class Try:
    """One student and how it is taught.

    Attributes:
        tap: the student's feature that learns the teacher's embedding.
        labels: share of the loss that labels of the other zones make up.
        optimizer: of :class:`DistillSettings`.
    """

    student: str
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = STEPS
    lr: float = 2e-3
    tap: str | None = None
    tap_weight: float = 0.3
    labels: float = 0.0
    optimizer: OptimizerKind = "muon"

    def settings(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "options": dict(self.options),
            "tap_weight": self.tap_weight if self.tap else None,
        }


def _narrow(**arch: Any) -> Try:
    """A copy starts close to the teacher: small steps towards its embedding keep what it has (muon at 2e-3 lost it)."""
    return Try("narrow-copy", {"arch": arch}, lr=5e-4, tap="encoder.norm", tap_weight=1.0, optimizer="adamw")


def _tokens(dim: int, depth: int, **more: Any) -> Try:
    return Try("series-transformer", {"dim": dim, "depth": depth, "heads": 4}, **more)


def _conv(width: int, blocks: int, kernel: int = 3, **more: Any) -> Try:
    return Try("series-conv", {"width": width, "blocks": blocks, "kernel": kernel}, **more)


TRIED: dict[str, Try] = {
    "the teacher itself": Try("narrow-copy", {"arch": {"months": 1}}, steps=0),
    "copy, tokens of 2 months": _narrow(months=2),
    "copy, tokens of 3 months": _narrow(months=3),
    "copy, tokens of 4 months": _narrow(months=4),
    "copy, tokens of 6 months": _narrow(months=6),
    "copy, tokens of 12 months": _narrow(months=12),
    "copy, one block": _narrow(depth=1),
    "copy, one block, 3 months": _narrow(depth=1, months=3),
    "copy, one block, 6 months": _narrow(depth=1, months=6),
    "copy, width 64, 3 months": _narrow(dim=64, months=3),
    "copy, width 64, one block, 4 months": _narrow(dim=64, depth=1, months=4),
    "a token a month, 32 x 2": _tokens(32, 2),
    "a token a month, 64 x 1": _tokens(64, 1),
    "a token a month, 64 x 2": _tokens(64, 2),
    "a token a month, 128 x 2": _tokens(128, 2),
    "a token a month, 128 x 2, embedding": _tokens(128, 2, tap="norm"),
    "a token a month, 128 x 2, labels": _tokens(128, 2, labels=0.3),
    "convolutions 32 x 1": _conv(32, 1),
    "convolutions 64 x 1": _conv(64, 1),
    "convolutions 64 x 2": _conv(64, 2),
    "convolutions 64 x 2, kernel 5": _conv(64, 2, 5),
    "convolutions 128 x 1": _conv(128, 1),
    "convolutions 128 x 2": _conv(128, 2),
    "convolutions 128 x 2, embedding": _conv(128, 2, tap="embedding"),
    "convolutions 128 x 2, labels": _conv(128, 2, labels=0.3),
}


class Answered:
    """Views with the teacher's answers, all in memory: a year of one pixel is small."""

    def __init__(self, views: Sequence[np.ndarray], teacher: TeacherFunction, spec: InputSpec) -> None:
        self.count, self._x = len(views), spec.normalise(np.stack(views))
        parts = [teacher(self._x[at : at + BATCH]) for at in range(0, self.count, BATCH)]
        self._outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Normalised views and the teacher's answers for these numbers."""
        rows = np.asarray(indices)
        return self._x[rows], {name: values[rows] for name, values in self._outputs.items()}


class Zones:
    """The recipe's teacher and folds for one seed, with the teacher's answers on views of each fold's other zones."""

    def __init__(self, seed: int) -> None:
        self.seed, self.folder = seed, RUNS / f"series-{seed}"
        recipe = load_recipe(
            ROOT / "recipes/crop-series.yaml",
            [f"seed={seed}", f"threads={THREADS}", "targets=[openvino-cpu-f32, openvino-cpu-int8]", "gates=[]"],
        )
        self.ctx: RunContext = run_until(recipe, self.folder, "teacher").ctx
        self.task, self.spec = self.ctx.task, self.ctx.spec
        self.folds = self.task.folds
        self.teacher = torch_teacher(self.ctx.teacher, [EMBEDDING], "cpu")
        self.precision = _precision()

    @functools.cache  # noqa: B019 - as many as there are seeds, for the life of the process
    def source(self, fold: int) -> Answered:
        views = self.folds.views(fold, self.fold_seed(fold))
        return Answered([views(number) for number in range(VIEWS)], self.teacher, self.spec)

    def labelled(self, fold: int) -> TeacherOutputs:
        return WithLabels(self.source(fold), self.folds.labels(fold, self.fold_seed(fold)))

    def fold_seed(self, fold: int) -> int:
        return self.seed + 100 * (fold + 1)

    def reference(self, fold: int) -> np.ndarray:
        """What is kept of the teacher's answers for a fold."""
        found: np.ndarray = self.task.keep_logits(self.teacher(self.spec.normalise(self.folds.inputs(fold)))["logits"])
        return found

    def fresh(self, one: Try, fold: int) -> nn.Module:
        """An untaught student; copies start from the teacher's weights."""
        torch.manual_seed(self.fold_seed(fold))
        if student_entry(one.student).copies:
            net = build_student(one.student, narrow_arguments(self.ctx.teacher, one.options))
            start_from(net, self.ctx.teacher.net)
            return net
        arguments = contract_arguments(one.student, self.spec, len(self.ctx.classes), self.ctx.teacher.spec.finer)
        return build_student(one.student, {**arguments, **one.options})


def tried(one: Try, zones: Zones) -> dict[str, Any]:
    """F1 and agreement over all folds beside the teacher's, and the time as a share of the teacher's."""
    answers, references, began = [], [], time.process_time()
    with _folder(zones.folder) as work:
        for fold in range(zones.folds.count):
            xml = _exported(_taught(one, zones, fold), zones, work / f"{fold}.xml")
            answers.append(zones.task.keep_logits(_answers(xml, zones, fold)))
            references.append(zones.reference(fold))
        seconds = time.process_time() - began
        timed = _timed(xml, zones)
    kept, reference = zones.folds.joined(answers), zones.folds.joined(references)
    found = zones.folds.judge.evidence(kept, reference)
    f1, drop, alike = found["f1"].own, found["f1"].drop, found["agreement"].own
    return {
        "settings": one.settings(), "seed": zones.seed, "f1": f1.value, "teacher_f1": found["f1"].teacher,
        "drop": None if drop is None else drop.model_dump(), "agreement": alike.model_dump(), "seconds": round(seconds, 1),
        "precision": zones.precision, **timed,
    }  # fmt: skip


def _taught(one: Try, zones: Zones, fold: int) -> nn.Module:
    if not one.steps:
        return zones.fresh(one, fold).eval()
    taps = (Tap(EMBEDDING, one.tap, one.tap_weight),) if one.tap else ()
    settings = DistillSettings(
        steps=one.steps,
        batch=BATCH,
        lr=one.lr,
        ema=0.99,
        taps=taps,
        labels=one.labels,
        autocast="off",
        optimizer=one.optimizer,
        loss=zones.task.kind,
        validate_every=one.steps,
        checkpoint_every=one.steps,
    )
    source = zones.labelled(fold) if one.labels else zones.source(fold)
    with _folder(zones.folder) as work:
        best, _ = distill(source, zones.fresh(one, fold), settings, work, zones.fold_seed(fold))
    return best.cpu().eval()


def _exported(net: nn.Module, zones: Zones, place: Path) -> Path:
    """A student's OpenVINO graph."""
    spec, classes = zones.spec, zones.ctx.classes
    onnx = export_onnx(Deployable(net, spec, zones.task.output), spec, classes, place.with_suffix(".onnx"))
    return export_openvino(onnx.path, place, spec, classes).xml


def _answers(xml: Path, zones: Zones, fold: int) -> np.ndarray:
    """The graph's logits on a fold."""
    with contextlib.closing(open_session(xml, "openvino", precision=zones.precision, threads=THREADS)) as session:
        return np.concatenate([session({INPUT: dn[None]})["logits"] for dn in zones.folds.inputs(fold)])


def _timed(xml: Path, zones: Zones) -> dict[str, Any]:
    """Size, and the share of the teacher's time in f32, of a student's graph."""
    files = {"student": (xml, zones.precision), "teacher": (TEACHER_IR["f32"].of(zones.ctx.folders), "f32")}
    tile = {INPUT: zones.folds.inputs(0)[:1]}
    with contextlib.ExitStack() as stack:
        sessions = {name: stack.enter_context(contextlib.closing(open_session(file, "openvino", precision=how, threads=THREADS)))
                    for name, (file, how) in files.items()}  # fmt: skip
        raced = race({n: functools.partial(s, tile) for n, s in sessions.items()}, seconds=RACE_SECONDS)
    return {"time": raced.ratio("student", "teacher").model_dump(), "size_bytes": ir_bytes(xml)}


def _precision() -> str:
    """What students are computed in here."""
    return "bf16" if "BF16" in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


@contextlib.contextmanager
def _folder(root: Path) -> Iterator[Path]:
    from rsedge.data.temporary import TemporaryFolder

    with TemporaryFolder(root) as folder:
        yield folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--seed", type=int, action="append", help="this seed alone (more than once: these)")
    parser.add_argument("--only", action="append", choices=list(TRIED), help="only these students")
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="begin no other student after so many; a later start goes on"
    )
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    until = time.monotonic() + 60 * given.minutes
    for seed in given.seed or range(given.seeds):
        _grid(seed, given.only or list(TRIED), until)
    page.write()
    return 0


def _grid(seed: int, names: list[str], until: float) -> None:
    have = stored().get("series", {})
    missing = [
        n
        for n in names
        if (row := have.get(f"{n}|{seed}", {})).get("settings") != TRIED[n].settings()
        or row.get("precision") != _precision()
    ]
    zones = Zones(seed) if missing else None
    for name in missing:
        if time.monotonic() > until:
            return
        assert zones is not None
        row = {"name": name, **tried(TRIED[name], zones), "made_on": stamp()}
        keep("series", f"{name}|{seed}", row)
        drop = row["drop"]["value"]
        print(
            f"{name}, seed {seed}: {1 / row['time']['value']:.1f}x, F1 {drop:+.3f} under, {row['seconds']} s",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
