"""What a candidate comes to: predicted before any training, and measured or predicted on selection once it is made. Nothing
here, nor in the whole room, looks at what verdicts rest on."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.folder_lock import folder_lock
from rsedge.data.metrics.table import FLOORS
from rsedge.recipe.checks import measured_here
from rsedge.recipe.schema import GateSection, Recipe, parse_target
from rsedge.recipe.student_auto import AUTO
from rsedge.results.gates import accuracy_gates, of_evidence
from rsedge.runtimes.precision import precision
from rsedge.search.front import Figure
from rsedge.search.space import COSTS, Space

if TYPE_CHECKING:
    from pathlib import Path

    from rsedge.data.metrics.evidence import Evidence
    from rsedge.devices.measure.decide import Race
    from rsedge.devices.predict.latency import Prediction
    from rsedge.stages.context import RunContext

BASELINE = "teacher-openvino-f32"
TIMING_S = 600.0
LEAST_ROOM = 0.01
"""Shortfalls are shares of their limit, which counts as no smaller than this."""


@dataclass(frozen=True)
class Foreseen:
    """Predicted of a student before it is trained, on its target.

    Attributes:
        costs: ms (0 where the target has no prediction) and bytes as it is, for comparisons at a rung, where nothing is pruned yet.
        fastest_ms, size_bytes: the best that it can come to, if pruning takes all that it is asked for; ms of the fast end of the
            prediction. None where nothing is known of it.
        speedups: at the most, by baseline.
    """

    costs: tuple[float, float]
    fastest_ms: float | None
    size_bytes: float | None
    speedups: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """Of a finished candidate: objective -> figure, gate -> how far from holding it is (0 or less: it holds), and remarks."""

    figures: dict[str, Figure]
    shortfalls: dict[str, float]
    words: str


def objectives_of(space: Space) -> tuple[str, ...]:
    """What is sought: as the space says, else latency, size, energy where it can be predicted, and the metrics of the gates on
    accuracy (agreement where there are none).

    Raises:
        RequestError: energy is asked for, and a target has no prediction of it.
    """
    lacking = [name for name in space.targets if not predicts_energy(name)]
    asked = space.file.objectives
    if asked is None:
        gates = [
            g.metric
            for g in accuracy_gates(space.recipe)
            if g.target in (None, *space.targets) and not g.metric.endswith("_crossval")
        ]
        return (*(name for name in COSTS if name != "energy" or not lacking), *dict.fromkeys(gates or ["agreement"]))
    if "energy" in asked and lacking:
        raise RequestError(
            f"{space.where}: objectives: the profile of {lacking[0]} says too little for a prediction of energy "
            "(idle_w, a mode's cap_w); leave energy out"
        )
    return asked


def predicts_energy(target: str) -> bool:
    """Whether the device's profile states what a prediction of energy needs."""
    from rsedge.devices.profiles.profile import check_target

    try:
        profile = check_target(target)
    except RequestError:
        return False
    return profile.idle_w is not None and any(mode.cap_w for mode in profile.power_modes.values())


# -- before training ------------------------------------------------------------------------------------------------
def foreseen(ctx: RunContext, target: str, teacher: TeacherMs) -> Foreseen | None:
    """What can be predicted of the recipe's student once the teacher is there; None where its run chooses it."""
    from rsedge.compress.prune.plan import count_params
    from rsedge.stages.latency import TargetLatency

    if ctx.recipe.student.name == AUTO or isinstance(ctx.recipe.student.bands, int):
        return None
    net = ctx.build()[0].eval()
    size = count_params(net) * precision(parse_target(target).precision).bits / 8
    try:
        found = TargetLatency(ctx, target).predicted(net)
    except MissingCapability:
        return Foreseen((0.0, size), None, _times(size, kept_share(ctx.recipe, "size")), {})
    fastest = _times(found.low, kept_share(ctx.recipe, "latency", found.ms))
    over = [g.over for g in ctx.recipe.gates_for(target) if g.over is not None]
    speedups: dict[str, float] = {} if fastest is None else {name: teacher(ctx, name) / fastest for name in over}
    return Foreseen((found.ms, size), fastest, _times(size, kept_share(ctx.recipe, "size")), speedups)


def _times(value: float, share: float | None) -> float | None:
    return None if share is None else value * share


class TeacherMs:
    """Predicted latencies of the teacher as a baseline (ms); each is worked out once, since its graph is large."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, tuple[int, ...]], float] = {}

    def __call__(self, ctx: RunContext, baseline: str) -> float:
        """On the target that the baseline is."""
        from rsedge.stages.latency import TargetLatency

        whole = ctx.seen_as(ctx.teacher.spec.input_spec)
        asked = (ctx.teacher_key, baseline, tuple(whole.spec.shape))
        if asked not in self._known:
            target = baseline.removeprefix("teacher-").replace("openvino-", "openvino-cpu-")
            self._known[asked] = TargetLatency(whole, target).predicted(whole.teacher).ms
        return self._known[asked]


def kept_share(recipe: Recipe, what: Literal["latency", "size"], ms: float | None = None) -> float | None:
    """What pruning leaves of a student's time or size, if it takes all that it is asked for; ``ms``: what the student takes.

    None where the aim does not say: what takes a fifth of the operations may take half of the weights.
    """
    if recipe.prune is None:
        return 1.0
    aim = recipe.prune.target
    if what == "size":
        return aim.params_ratio
    shares = (aim.latency_ratio, aim.macs_ratio, aim.latency_ms / ms if aim.latency_ms and ms else None)
    known = [share for share in shares if share is not None]
    return min(1.0, *known) if known else None


def hopeless(recipe: Recipe, target: str, found: Foreseen) -> dict[str, float]:
    """Gates on latency and size that a student breaks even at the best end of its prediction -> by how much, as a share."""
    broken = {}
    for gate in recipe.gates_for(target):
        if gate.metric == "size":
            value: float | None = found.size_bytes
        elif gate.metric == "latency":
            value = found.fastest_ms if gate.over is None else found.speedups.get(gate.over)
        else:
            continue
        if value is not None and (over := _over(gate, value)) > 0:
            broken[gate.name] = over
    return broken


def _over(gate: GateSection, value: float) -> float:
    """How far a value is on the wrong side of a limit, as a share of it."""
    sign = -1 if gate.constraint in FLOORS else 1
    return sign * (value - gate.limit) / max(LEAST_ROOM, abs(gate.limit))


# -- once it is made ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Clock:
    """How the trials of a search are timed alike.

    Attributes:
        reference: takes the shape of the teacher's input, and its latency as measured now (ms), to the one that the whole search
            tells latencies on such inputs in.
        turns: a folder that is locked while something is timed: workers time one after the other.
        teacher: its predicted latencies.
    """

    reference: Callable[[Sequence[int], float], float]
    turns: Path
    teacher: TeacherMs


def measured(ctx: RunContext, target: str, objectives: tuple[str, ...], clock: Clock) -> Measured:
    """A candidate's figures on selection, and on its target.

    Raises:
        RequestError: selection has no such metric, or does not define it.
    """
    from rsedge.stages.artefacts import open_artefact
    from rsedge.stages.makers.registry import find_artefact

    artefact = find_artefact(ctx, parse_target(target))
    with contextlib.closing(open_artefact(artefact, ctx)) as session:
        kept = ctx.task.predict(session, ctx.selection.inputs)
    evidence = ctx.selection.evidence(kept, ctx.teacher_on(ctx.selection))
    latency, speedups = _latency(ctx, target, clock)
    found = {"latency": latency, "size": Figure(value=artefact.size_bytes, provenance="measured")}
    if "energy" in objectives:
        found["energy"] = _energy(ctx, target)
    figures = {name: found[name] if name in COSTS else _metric(name, evidence) for name in objectives}
    shortfalls = {}
    for gate in ctx.recipe.gates_for(target):
        value = _gated(gate, found, speedups, evidence)
        if value is not None:
            shortfalls[gate.name] = _over(gate, value)
    return Measured(figures, shortfalls, latency.note)


def _metric(name: str, evidence: Mapping[str, Evidence]) -> Figure:
    known = evidence.get(name)
    if known is None or known.own.value is None:
        why = "selection has no such figure" if known is None else known.note or "it is not defined there"
        raise RequestError(f"objectives: {name}: {why}; selection has {', '.join(evidence)}")
    return Figure(value=known.own.value, provenance="measured", note=f"{known.n} {known.unit}")


def _gated(
    gate: GateSection, found: Mapping[str, Figure], speedups: Mapping[str, float], evidence: Mapping[str, Evidence]
) -> float | None:
    """The value that a gate limits, as far as selection tells it."""
    if gate.over is not None:
        return speedups.get(gate.over)
    if gate.metric in found:
        return found[gate.metric].value
    return of_evidence(gate, evidence[gate.metric]).value if gate.metric in evidence else None


def _predicted(ctx: RunContext, target: str) -> Prediction:
    from rsedge.devices.predict.latency import predict_target
    from rsedge.stages.outputs import STUDENT_ONNX

    return predict_target(STUDENT_ONNX.of(ctx.folders), target)


def _energy(ctx: RunContext, target: str) -> Figure:
    """Millijoules of one inference."""
    from rsedge.devices.predict.energy import predict_energy
    from rsedge.devices.predict.onnx_graph import graph_cost
    from rsedge.devices.profiles.profile import check_target
    from rsedge.stages.outputs import STUDENT_ONNX

    times = _predicted(ctx, target)
    graph = graph_cost(STUDENT_ONNX.of(ctx.folders))
    joules = predict_energy(
        graph, check_target(target), parse_target(target).precision, (times.low_ms, times.mid_ms, times.high_ms)
    )
    return Figure(value=joules.mid_mj, provenance="predicted", note=f"{joules.low_mj:.3g} to {joules.high_mj:.3g} mJ")


def _latency(ctx: RunContext, target: str, clock: Clock) -> tuple[Figure, dict[str, float]]:
    """Milliseconds of one inference, and how many times faster than the teacher it is, by baseline.

    On this machine's CPU in turns with the teacher, so that trials at different times can be compared; where the turns are too
    noisy, as a share of the teacher's by prediction.
    """
    if not measured_here(parse_target(target)):
        found = _predicted(ctx, target)
        return Figure(
            value=found.mid_ms, provenance="predicted", note=f"{found.low_ms:.3g} to {found.high_ms:.3g} ms"
        ), {}
    with folder_lock(clock.turns, wait_s=TIMING_S):
        return _raced(ctx, target, clock)


def quiet_ms(raced: Race, name: str, threads: int) -> float:
    """Milliseconds of a run as on a quiet machine: by the wall clock; beside other work by processor time, over the threads."""
    from rsedge.devices.measure.load import TOO_BUSY

    busy = raced.load.others is not None and raced.load.others > TOO_BUSY
    return raced.used_ms(name) / threads if busy and raced.clock == "processor time" else raced.ms(name)


def _raced(ctx: RunContext, target: str, clock: Clock) -> tuple[Figure, dict[str, float]]:
    from rsedge.devices.measure.decide import race
    from rsedge.runtimes.opening import open_session
    from rsedge.runtimes.session import INPUT
    from rsedge.stages import latency
    from rsedge.stages.artefacts import open_artefact
    from rsedge.stages.makers.registry import find_artefact
    from rsedge.stages.outputs import TEACHER_IR
    from rsedge.stages.samples import sample_tiles

    whole = ctx.seen_as(ctx.teacher.spec.input_spec)
    files = {f"teacher-openvino-{made}": file.of(ctx.folders) for made, file in TEACHER_IR.items()}
    asked = {BASELINE, *(g.over for g in ctx.recipe.gates_for(target) if g.over is not None)}
    with contextlib.ExitStack() as stack:
        sessions = {
            "it": stack.enter_context(contextlib.closing(open_artefact(find_artefact(ctx, parse_target(target)), ctx)))
        }
        for name in sorted(asked):
            if files[name].is_file():
                made = open_session(files[name], "openvino", precision=name.rpartition("-")[2], threads=ctx.threads)
                sessions[name] = stack.enter_context(contextlib.closing(made))
        tiles = {name: sample_tiles(ctx if name == "it" else whole, 1)[0] for name in sessions}
        raced = race({n: functools.partial(s, {INPUT: tiles[n]}) for n, s in sessions.items()}, seconds=latency.SECONDS)
    teacher = clock.reference(whole.spec.shape, quiet_ms(raced, BASELINE, ctx.threads))
    if (noise := raced.too_noisy()) is not None:
        share = _predicted(ctx, target).mid_ms / clock.teacher(ctx, BASELINE)
        words = f"predicted: a share of {share:.3g} of the teacher's {teacher:.3g} ms; {noise}"
        return Figure(value=teacher * share, provenance="predicted", note=words), {BASELINE: 1 / share}
    ratio = raced.ratio("it", BASELINE)
    words = f"{ratio.low * teacher:.3g} to {ratio.high * teacher:.3g} ms, in turns with the teacher, by {raced.clock}"
    speedups = {name: 1 / raced.ratio("it", name).value for name in sessions if name != "it"}
    return Figure(value=teacher * ratio.value, provenance="measured", note=words), speedups
