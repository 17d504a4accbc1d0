"""What the stages of a recipe of several parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results
from rsedge.data.arrays import read_arrays
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.files import sha256_of
from rsedge.data.metrics.evidence import Evidence, evidence
from rsedge.data.metrics.figures import record_of, statistics_of
from rsedge.data.metrics.parts import part_comparison
from rsedge.data.metrics.statistics import Statistics
from rsedge.models.parts import Part
from rsedge.models.zoo import from_columns
from rsedge.progress import Reporter
from rsedge.recipe.parts import PartsRecipe
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays, cpu_count
from rsedge.runtimes.wholes.base import Parts, Whole
from rsedge.stages.outputs import Output
from rsedge.stages.parts.teachers import TeacherPart, load_part

Role = Literal["train", "selection", "test"]
ROLES: tuple[Role, ...] = ("train", "selection", "test")
UNIT = "groups"
OUT, GROUP, SAMPLE = "output.", "group", "sample"
TRIAL_SAMPLES = 4
TEST_READERS = ("teacher", "verify")
"""The stages that judge; whatever chooses reads selection."""


def role_file(role: Role) -> Output:
    """Samples of the whole of one role, and their groups."""
    return Output("data", f"{role}.npz")


def whole_file(role: Role) -> Output:
    """What the teacher's parts give together on a role."""
    return Output("teacher", f"whole-{role}.npz")


def part_file(part: str, role: Role) -> Output:
    """What a part was given on a role, and what the teacher's gave."""
    return Output("teacher", f"{part}-{role}.npz")


def weights_of(part: str) -> Output:
    """A smaller part, taught."""
    return Output("distill", part)


def float_file(part: str, suffix: str, teacher: bool = False) -> Output:
    """A part's float file; ``teacher``: of the teacher's, where a smaller one takes its place."""
    return Output("export", f"teacher-{part}{suffix}" if teacher else f"{part}{suffix}")


def int8_file(runtime: str, part: str, suffix: str) -> Output:
    """A part in INT8, where it is."""
    return Output("quantize", f"{runtime}/{part}{suffix}")


@dataclass
class TorchPart:
    """A part in torch, in the form in which wholes take parts; ``seen`` is told of every call."""

    part: Part
    seen: list[tuple[Arrays, Arrays]] | None = None

    @property
    def inputs(self) -> Tensors:
        return self.part.signature

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.part.outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        given = {name: np.asarray(inputs[name], dtype=dtype) for name, (_, dtype) in self.part.signature.items()}
        found = self.part.run(given)
        if self.seen is not None:
            self.seen.append((given, found))
        return found


@dataclass
class PartsContext:
    """What the stages share; ``folders``: of the stages that are done; ``trial``: a run in miniature."""

    recipe: PartsRecipe
    whole: Whole[Any]
    teachers: dict[str, TeacherPart]
    run: RunFolder
    reporter: Reporter
    folders: dict[str, Path] = field(default_factory=dict)
    results: Results = field(default_factory=Results)
    running: str | None = None
    trial: bool = False

    @property
    def threads(self) -> int:
        return self.recipe.threads or cpu_count()

    @property
    def teacher_key(self) -> str:
        return sha256_of({name: own.key for name, own in self.teachers.items()})

    @cached_property
    def inputs(self) -> Tensors:
        """What one sample of the whole holds."""
        return self.whole.inputs({name: TorchPart(own.deployed) for name, own in self.teachers.items()})

    @cached_property
    def spec(self) -> InputSpec:
        """The band contract of what the whole takes, or of the picture that it makes."""
        if self.recipe.whole.picture is not None:
            return InputSpec.model_validate(from_columns(self.recipe.whole.picture))
        specs = [own.spec for own in self.teachers.values() if own.spec is not None]
        return specs[0] if specs else self._made_picture()

    def _made_picture(self) -> InputSpec:
        """Of a picture whose bands nobody named."""
        last = list(self.teachers.values())[-1].deployed
        shape = next(iter(last.run({n: t.numpy(force=True) for n, t in last.inputs.items()}).values())).shape
        bands = tuple(BandSpec(name=f"band {i}") for i in range(1, shape[1] + 1))
        return InputSpec(bands=bands, dtype="float32", tile=shape[-1], quantity="as the decoder gives it")

    def part(self, name: str) -> Part:
        """A part as it is delivered: the teacher's, or the smaller one that was taught."""
        folder = weights_of(name).of(self.folders) if "distill" in self.folders else None
        if folder is None or not folder.is_dir():
            return self.teachers[name].deployed
        return load_part(folder, self.teachers[name])

    def samples(self, role: Role) -> tuple[list[Arrays], npt.NDArray[np.str_]]:
        """Samples of the whole, and the group of each.

        Raises:
            RuntimeError: a stage that chooses asks for the test set, which is a mistake in our code.
        """
        self._guard(role)
        arrays = read_arrays(role_file(role).of(self.folders))
        groups = arrays.pop(GROUP).astype(str)
        few = TRIAL_SAMPLES if self.trial else len(groups)
        rows = [{name: value[i] for name, value in arrays.items()} for i in range(min(few, len(groups)))]
        return rows, groups[:few]

    def reference(self, role: Role) -> list[Arrays]:
        """What the teacher's parts give together for these samples; raises as :meth:`samples`."""
        self._guard(role)
        return rows_of(read_arrays(whole_file(role).of(self.folders)))

    def recorded(self, part: str, role: Role) -> tuple[list[Arrays], list[Arrays], npt.NDArray[np.str_]]:
        """What a part was given, what the teacher's gave, and the group of each; raises as :meth:`samples`."""
        self._guard(role)
        arrays = read_arrays(part_file(part, role).of(self.folders))
        groups = arrays.pop(GROUP).astype(str)
        inputs = {n: v for n, v in arrays.items() if not n.startswith(OUT)}
        outputs = {n.removeprefix(OUT): v for n, v in arrays.items() if n.startswith(OUT)}
        return rows_of(inputs), rows_of(outputs), groups

    def _guard(self, role: Role) -> None:
        if role == "test" and self.running not in TEST_READERS:
            raise RuntimeError(f"stage '{self.running}' must not look at the test set")

    def whole_evidence(self, parts: Parts, role: Role, progress: str) -> tuple[dict[str, Evidence], dict[str, Any]]:
        """How sure the figures of a whole are on a role, and the figures."""
        samples, groups = self.samples(role)
        found = []
        for i, sample in enumerate(samples):
            self.reporter.step(progress, i, len(samples))
            found.append(self.whole.run(parts, sample))
        self.reporter.clear()
        reference = self.reference(role)
        own, teacher = (self.whole.comparisons(answers, reference, groups) for answers in (found, reference))
        sure = evidence(
            Statistics(UNIT, statistics_of(*own)), Statistics(UNIT, statistics_of(*teacher)), self.recipe.seed
        )
        return sure, record_of(*own)

    def part_evidence(self, run: Any, part: str, role: Role) -> dict[str, Evidence]:
        """How sure the figures of one part are on a role; ``run`` takes a sample to outputs."""
        inputs, outputs, groups = self.recorded(part, role)
        compared = part_comparison([run(one) for one in inputs], outputs, self.teachers[part].deployed.outputs, groups)
        return evidence(Statistics(UNIT, statistics_of(compared)), Statistics(UNIT, {}), self.recipe.seed)


def rows_of(arrays: Mapping[str, Array]) -> list[Arrays]:
    """Arrays with samples along their first axis, sample by sample."""
    count = len(next(iter(arrays.values())))
    return [{name: value[i] for name, value in arrays.items()} for i in range(count)]


def save_rows(path: Path, rows: Sequence[Arrays], **more: Array) -> None:
    """Samples as one file, along their first axis."""
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    np.savez(path, allow_pickle=False, **arrays, **more)
