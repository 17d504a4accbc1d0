"""The stage ``quantize`` of several parts: each by settings that hold its own gates on selection, then all together.

Where the whole misses a gate on selection, parts go back to float one by one, each time the one that mends most.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from rsedge.cache.stage import StageContext
from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.int8 import Hooks, to_int8
from rsedge.compress.quantize.ptq import (
    PtqSettings,
    check_part_calibration,
    compute_layers,
    is_transformer,
    quantize_part,
)
from rsedge.compress.quantize.qdq import is_onnx_transformer, onnx_layers, quantize_part_onnx
from rsedge.compress.quantize.search import Fastest, Ground, SearchSettings, Trial, ladder, onnx_ladder
from rsedge.data.metrics.evidence import Evidence
from rsedge.devices.measure.decide import Contender, Race, pick, race
from rsedge.export.parts import save_ir
from rsedge.export.parts_bundle import open_here
from rsedge.export.targets.openvino import read_openvino
from rsedge.models.parts import Arrays
from rsedge.recipe.checks import measured_here
from rsedge.recipe.parts import PartQuantizeSection
from rsedge.recipe.schema import GateSection
from rsedge.results.gates import MARGIN, check_on_selection
from rsedge.results.parts import PartsQuantize, RoundedPart, RoundedWhole
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.parts import PartSession
from rsedge.stages.parts.context import PartsContext, float_file, int8_file
from rsedge.stages.parts.files import bytes_of, files_of, suffix_of

CALIBRATION = 64
"""Recorded samples that set ranges, at most."""
RACE_SECONDS = 0.5
TOLERANCE = 0.1
"""Share by which the fastest of the settings that passed may be slower and still count as equally fast."""


@dataclass(frozen=True)
class Rounding:
    """How a runtime's files become INT8: settings of a float file to try, layers of it that may stay in float, what writes one."""

    settings: Callable[[Path, PartQuantizeSection], list[PtqSettings]]
    layers: Callable[[Path], tuple[str, ...]]
    write: Callable[[Path, Path, Sequence[Arrays], PtqSettings], None]


def _openvino(source: Path, target: Path, samples: Sequence[Arrays], chosen: PtqSettings) -> None:
    save_ir(quantize_part(read_openvino(source), samples, chosen), target)


def _onnx(source: Path, target: Path, samples: Sequence[Arrays], chosen: PtqSettings) -> None:
    quantize_part_onnx(source, target, samples, chosen)


def with_first_in_float(rungs: Sequence[PtqSettings]) -> list[PtqSettings]:
    """Every setting, and behind it the same with the first layers in float: what parts take are places, times and prompts beside
    images, and eight bits of those are often all that is lost."""
    pairs = ((rung, rung.model_copy(update={"float_layers": "first"})) for rung in rungs if rung.float_layers == "none")
    return [one for pair in pairs for one in pair]


def _ladder(path: Path, section: PartQuantizeSection) -> list[PtqSettings]:
    return with_first_in_float(ladder(is_transformer(read_openvino(path)), section.hosts))


def _onnx_ladder(path: Path, section: PartQuantizeSection) -> list[PtqSettings]:
    return with_first_in_float(onnx_ladder(is_onnx_transformer(onnx.load(str(path))), section.hosts != "vnni"))


ROUNDINGS: Mapping[str, Rounding] = {
    ".xml": Rounding(_ladder, lambda path: compute_layers(read_openvino(path)), _openvino),
    ".onnx": Rounding(_onnx_ladder, lambda path: onnx_layers(onnx.load(str(path))), _onnx),
}
"""By the files that a runtime opens."""


def quantize_stage(context: StageContext, ctx: PartsContext) -> PartsQuantize:
    """Makes the INT8 files of every runtime among the targets; what stays in float has none.

    Raises:
        RequestError: unusable samples.
    """
    targets: dict[str, Target] = {}
    for target in ctx.recipe.parsed_targets:
        if target.quantized:
            targets.setdefault(target.backend.name, target)
    return PartsQuantize(runtimes={name: _Runtime(ctx, context.folder, t).rounded() for name, t in targets.items()})


class _Runtime:
    """One runtime's search."""

    def __init__(self, ctx: PartsContext, folder: Path, target: Target) -> None:
        self.ctx, self.folder, self.target = ctx, folder, target
        self.suffix = suffix_of(target)
        self.rounding = ROUNDINGS[self.suffix]

    def rounded(self) -> RoundedWhole:
        """Every part, then all together."""
        parts = {
            name: self._part(name, s.quantize) for name, s in self.ctx.recipe.parts.items() if s.quantize is not None
        }
        return self._whole(parts)

    def _path(self, name: str) -> Path:
        return self.folder / int8_file(self.target.backend.name, name, self.suffix).name

    def _float(self, name: str) -> Path:
        return float_file(name, self.suffix).of(self.ctx.folders)

    def _part(self, name: str, section: PartQuantizeSection) -> RoundedPart:
        source, samples = self._float(name), self.ctx.recorded(name, "train")[0][:CALIBRATION]
        made: list[Path] = []

        def make(_tiles: object, chosen: PtqSettings) -> Path:
            made.append(self._path(name).parent / "trials" / f"{name}-{len(made)}{self.suffix}")
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            self.rounding.write(source, made[-1], samples, chosen)
            return made[-1]

        ground = Ground(
            make,
            lambda path: self._accept(name, path),
            bytes_of,
            functools.partial(self._fastest, name),
            self.rounding.layers(source),
        )
        limit = Limit(self._accept(name, source), section.max_drop)
        planned = self.rounding.settings(source, section)[: 1 if self.ctx.trial else None]
        settings = SearchSettings(**section.model_dump(exclude={"max_drop"}))
        part = self.ctx.part(name)
        calibration = check_part_calibration(samples, part.signature)
        hooks = Hooks(on_trial=functools.partial(self._say, name))
        found = to_int8(
            part.net, lambda _net: ground, (), planned, limit, settings, calibration, self.target.backend.name, hooks
        )
        record = found.record
        taken = record.outcome == "applied" and found.model is not None
        if found.model is not None and taken:
            for path in files_of(found.model):
                path.replace(self._path(name).with_suffix(path.suffix))
        for path in made:
            for file in files_of(path):
                file.unlink(missing_ok=True)
        label = record.chosen.label() if taken and record.chosen is not None else None
        slower = self._slower(name) if label is not None else None
        return RoundedPart(record=record, chosen=label, reason=record.rejection or record.reason, slower=slower)

    def _slower(self, name: str) -> float | None:
        """How many times as long a part takes in INT8 as in float, where that is certain."""
        if not measured_here(self.target):
            return None
        raced = self._raced(name, {"int8": self._path(name), "float": self._float(name)})
        ratio = raced.ratio("int8", "float")
        return ratio.value if ratio.says(1.0) is False else None

    def _raced(self, name: str, paths: Mapping[str, Path]) -> Race:
        sample = self.ctx.recorded(name, "selection")[0][0]
        with contextlib.ExitStack() as stack:
            runs = {
                n: functools.partial(stack.enter_context(open_here(self.target, path, self.ctx.threads)), sample)
                for n, path in paths.items()
            }
            return race(runs, seconds=RACE_SECONDS)

    def _say(self, name: str, what: str, done: int, total: int, trial: Trial) -> None:
        words = f"{what} {done}/{total}: {trial.settings.label()}: {trial.outcome} ({trial.reason})"
        self.ctx.reporter.note(f"  {name}, {self.target.backend.name}, {words}")

    def _accept(self, name: str, path: Path) -> Acceptance:
        """A part's gates on selection, on its own executable."""
        with open_here(self.target, path, self.ctx.threads) as session:
            found = self.ctx.part_evidence(session, name, "selection")
        gates = self.ctx.recipe.parts[name].gates
        return _accepted(_Gates(gates), self.target.name, found, bytes_of(path))

    def _fastest(self, name: str, models: Mapping[str, tuple[Path, Trial]]) -> Fastest:
        contenders = {
            n: Contender(size=t.size_bytes or 0, score=t.score or 0.0, predicted=float(i))
            for i, (n, (_, t)) in enumerate(models.items())
        }
        raced = self._raced(name, {n: path for n, (path, _) in models.items()}) if measured_here(self.target) else None
        choice = pick(contenders, raced, TOLERANCE)
        return Fastest(choice.name, choice.reason, {} if raced is None else {n: raced.ms(n) for n in models})

    def _whole(self, parts: dict[str, RoundedPart]) -> RoundedWhole:
        """Parts go back to float until the gates of the whole hold on selection, or none is left."""
        rounded = {name for name, part in parts.items() if part.chosen is not None}
        sections = (section.quantize for section in self.ctx.recipe.parts.values())
        limit = Limit(self._judged(set()), sum(s.max_drop for s in sections if s is not None))
        found = self._judged(rounded)
        while not limit.passes(found) and rounded:
            tried = {name: self._judged(rounded - {name}) for name in sorted(rounded)}
            name = max(tried, key=lambda n: limit.rank(tried[n]))
            why = f"for the whole: {limit.words(found)}"
            parts[name] = parts[name].model_copy(update={"chosen": None, "reason": why})
            for path in files_of(self._path(name)):
                path.unlink()
            rounded, found = rounded - {name}, tried[name]
        return RoundedWhole(parts=parts, agreement=found.score, holds=found.holds, reason=limit.words(found))

    def _judged(self, rounded: set[str]) -> Acceptance:
        """All parts together on selection, of which some are in INT8."""
        with contextlib.ExitStack() as stack:
            sessions: dict[str, PartSession] = {}
            for name in self.ctx.teachers:
                path = self._path(name) if name in rounded else self._float(name)
                sessions[name] = stack.enter_context(open_here(self.target, path, self.ctx.threads))
            evidence, _ = self.ctx.whole_evidence(
                sessions, "selection", f"INT8 of {', '.join(sorted(rounded)) or 'no part'}"
            )
        return _accepted(_Gates(self.ctx.recipe.gates), self.target.name, evidence, None)


@dataclass(frozen=True)
class _Gates:
    """Gates of a part, or of the whole, as the check on selection asks for them."""

    gates: tuple[GateSection, ...]

    def gates_for(self, target: str) -> tuple[GateSection, ...]:
        return tuple(g for g in self.gates if g.target in (None, target))


def _accepted(gates: _Gates, target: str, evidence: Mapping[str, Evidence], size: int | None) -> Acceptance:
    check = check_on_selection(gates, target, evidence, size, MARGIN)
    return Acceptance(
        score=evidence["agreement"].own.value or 0.0,
        holds=check.holds,
        missed=check.missed,
        shortfall=check.shortfall,
        reason="; ".join([*check.shortfalls, *(f"not told by selection: {words}" for words in check.unchecked)]),
    )
