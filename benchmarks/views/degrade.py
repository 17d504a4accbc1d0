"""Under which product degradations does a student fall further than its teacher?

    python benchmarks/views/degrade.py recipes/cloud-mask.yaml mask=runs/cloud-mask/stages/prune/model --scenes landsat7-olinda

Judged on the recipe's selection or test blocks by their labels, and on each of the ``--scenes``, which no training should have
seen, under simulated clouds by the teacher's own answers on the tiles before they are degraded. Students are model folders or
bundles, each with a name that may be left out. The 37 conditions (plain tiles are one of them) are those of ``rspdbench``
(arXiv 2609.23427; HLS contract), which ``make bench-degrade`` installs; its operators judge and are no training views. Beside them
the kinds of change of data/scenes/changes.py, in the upper third of their bounds: for a student that was not trained with a kind,
or with none, how it bears a kind that it never saw.

*Further* is how much more kappa the student loses than its teacher from plain to degraded tiles, with a 95 % interval by a
bootstrap over spatial blocks, the same picks for both networks and for plain and degraded tiles.

Results are kept by seed (of the recipe: it says which blocks judge) in benchmarks/results/degrade.json; docs/degradations.md is
written from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rspdbench
import torch
from degrade_page import DOCUMENT, FURTHER, page

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RsedgeError
from rsedge.data.files import read_json, write_bytes, write_json
from rsedge.data.metrics.confusion import block_tables, kappas
from rsedge.data.metrics.statistics import Estimate, Statistic, estimate, of_sums, units_of
from rsedge.data.scenes.changes import CHANGES, Seen
from rsedge.data.scenes.fractal import FractalBank
from rsedge.data.scenes.splits import SPLITS, BlockSplit
from rsedge.data.sets.scene_files import named_scene
from rsedge.flight import load
from rsedge.models.structure import STRUCTURE_FILE, load_model
from rsedge.models.students import build_student
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.runtimes.session import cpu_count
from rsedge.stages.context import logits_of, prepare_torch
from rsedge.stages.teacher_model import openvino_teacher, recipe_teacher
from rsedge.tasks.scene_data import JudgedTiles, SplitScene, judged_tiles, load_scenes

RESULTS = Path(__file__).parents[1] / "results" / "degrade.json"
CONTRACT = rspdbench.get_contract("hls-burn-scars")
HLS = {"blue": "BLUE", "green": "GREEN", "red": "RED", "nir": "NIR_NARROW", "swir16": "SWIR_1", "swir22": "SWIR_2"}
"""Common names of bands as the contract of the conditions has them."""
STRONG = (2 / 3, 1.0)
"""Strengths at which the kinds of change of training views are judged."""

SALT = 0xDE64
TEACHER = "the teacher"
Role = Literal["selection", "test"]
Tiles = npt.NDArray[np.generic]
Reflectance = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8]
Network = Callable[[Tiles], Classes]


@dataclass(frozen=True)
class Ground:
    """Tiles of one scene and its pixel size; without ``labels`` the teacher's answers on them judge."""

    name: str
    tiles: JudgedTiles
    labels: Classes | None
    gsd_m: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe over scenes with a teacher of the six HLS bands")
    parser.add_argument("students", nargs="+", help="NAME=PATH of model folders (of a stage) or bundles")
    parser.add_argument(
        "--role", choices=("selection", "test"), default="test", help="whose blocks judge; choose by selection"
    )
    parser.add_argument("--scenes", nargs="*", default=(), help="named scenes that no training has seen")
    parser.add_argument("--clouds", type=int, default=8, help="simulated cloud fields over each of these")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--seed", type=int, help="the recipe's, which says what the test blocks are")
    parser.add_argument("--conditions", nargs="*", help="only these of the 37 and of the kinds of change")
    parser.add_argument("--key", type=Path, help="the public key of bundles")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"JSON; default {RESULTS}")
    return parser.parse_args()


def grounds(
    recipe: Recipe, spec: InputSpec, classes: Sequence[str], role: Role, scenes: Sequence[str], clouds: int
) -> list[Ground]:
    """The blocks of a role, and tiles of each further scene under as many simulated cloud fields."""
    split = load_scenes(recipe, spec, classes)
    tiles = judged_tiles(recipe, spec, split, role)
    gsd_m = next(s.scene.gsd_m for s in split if role in s.roles)
    found = [Ground(role, tiles, tiles.labels if tiles.labelled else None, gsd_m)]
    test = recipe.scenes.test.model_copy(update={"simulated_clouds": clouds})
    clouded = recipe.model_copy(update={"data": recipe.scenes.model_copy(update={"test": test})})
    for name in scenes:
        scene = named_scene(name, spec)
        codes = np.full(scene.valid.shape, SPLITS.index("test"), np.uint8)
        whole = SplitScene(scene, BlockSplit(codes, recipe.scenes.block), ("test",))
        found.append(Ground(name, judged_tiles(clouded, spec, [whole], "test"), None, scene.gsd_m))
    return found


def degraded(ground: Ground, spec: InputSpec, condition: str) -> Tiles:
    """The tiles under one condition, as the product would hold them: digital numbers, rounded, nodata where it was."""
    dn = ground.tiles.dn
    valid = spec.valid(dn)
    plain = spec.to_physical(dn)
    mean = np.array([plain[:, i][valid].mean() for i in range(spec.channels)], dtype=np.float32)
    plain = np.where(valid[:, None], plain, mean[:, None, None])
    made = (
        changed(plain, ground, spec, condition)
        if condition in CHANGES
        else product(plain, mean, ground, spec, condition)
    )
    return np.where(valid[:, None], spec.to_dn(np.stack(made)), spec.missing_dn()[:, None, None])


def product(
    plain: Reflectance, mean: Reflectance, ground: Ground, spec: InputSpec, condition: str
) -> list[Reflectance]:
    """Tiles under a condition of the benchmark; ``mean`` (C,) is what its noise is scaled by."""
    bands = [HLS[name] for name in spec.common_names]
    return [
        rspdbench.degrade(
            torch.from_numpy(tile), condition, band_ids=bands, contract=CONTRACT,
            sample_id=f"{ground.name}-{number}", band_mean=torch.from_numpy(mean),
        ).numpy()
        for number, tile in enumerate(plain)
    ]  # fmt: skip


def changed(plain: Reflectance, ground: Ground, spec: InputSpec, kind: str) -> list[Reflectance]:
    """Tiles under a kind of change of training views, drawn anew for each."""
    seen = Seen(np.array([b.wavelength_nm for b in spec.bands], dtype=float), ground.gsd_m, FractalBank(SALT, count=4))
    made = []
    for number, tile in enumerate(plain):
        rng = np.random.default_rng([SALT, number, list(CHANGES).index(kind)])
        made.append(CHANGES[kind](tile, rng.uniform(*STRONG), seen, rng))
    return made


def student_of(path: Path, spec: InputSpec, threads: int, key: Path | None) -> Network:
    """A model folder in torch, or a bundle on its own runtime."""
    if (path / STRUCTURE_FILE).exists():
        module = load_model(path, build_student)
        return lambda dn: logits_of(module, spec.normalise(dn)).argmax(1).astype(np.uint8)
    bundle = load(path, key, threads=threads)
    return lambda dn: np.stack([bundle.predict(one) for one in dn])


def answers(
    networks: Mapping[str, Network], ground: Ground, spec: InputSpec, conditions: Sequence[str]
) -> dict[str, dict[str, Classes]]:
    """Class maps (N, T, T) that each network gives of the tiles under each condition."""
    found: dict[str, dict[str, Classes]] = {name: {} for name in networks}
    for condition in conditions:
        dn = degraded(ground, spec, condition)
        for name, network in networks.items():
            found[name][condition] = network(dn)
    return found


def tables(ground: Ground, wanted: Classes, found: Classes, classes: int) -> npt.NDArray[np.int64]:
    """Confusion of each block (B, K, K)."""
    tiles = ground.tiles
    unit, units = units_of(tiles.block[tiles.counted])
    return block_tables(wanted[tiles.counted], found[tiles.counted], unit, units, classes)


def further(parts: Mapping[str, npt.NDArray[np.int64]], seed: int) -> Estimate:
    """How much more kappa the student loses than its teacher: (teacher - student), degraded less plain."""
    names = ("teacher", "student", "teacher plain", "student plain")
    stacked = np.stack([parts[n] for n in names], 1)

    def loss(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        teacher, student, teacher_plain, student_plain = kappas(sums).T
        return (teacher - student) - (teacher_plain - student_plain)

    statistic: Statistic = of_sums(stacked, loss, -2, 2)
    return estimate(statistic, seed)


def judged(
    ground: Ground, teacher: Mapping[str, Classes], student: Mapping[str, Classes], classes: int, seed: int
) -> dict[str, Any]:
    """Every condition's kappas and the summary of one student on one ground."""
    labels = teacher["clean"] if ground.labels is None else ground.labels
    by = {
        (who, name): tables(ground, labels, kept[name], classes)
        for who, kept in (("teacher", teacher), ("student", student))
        for name in teacher
    }
    rows: dict[str, Any] = {}
    for name in teacher:
        plain = {f"{who} plain": by[who, "clean"] for who in ("teacher", "student")}
        lost = further({who: by[who, name] for who in ("teacher", "student")} | plain, seed)
        rows[name] = {
            "teacher": _kappa(by["teacher", name]), "student": _kappa(by["student", name]),
            "further": lost.value, "interval": lost.interval,
        }  # fmt: skip
    lost = {name: row["further"] for name, row in rows.items() if name != "clean" and name not in CHANGES}
    kinds = {name: row for name, row in rows.items() if name in CHANGES}
    rows = {name: row for name, row in rows.items() if name not in CHANGES}
    worst = max(lost, key=lambda name: lost[name])
    return {
        "reference": "the teacher on plain tiles" if ground.labels is None else "labels",
        "blocks": len(by["teacher", "clean"]), "conditions": len(lost),
        "over": sorted(name for name, value in lost.items() if value > FURTHER),
        "worst": {"condition": worst, "further": lost[worst]}, "mean": float(np.mean(list(lost.values()))),
        "rows": rows, "kinds": kinds,
    }  # fmt: skip


def _kappa(parts: npt.NDArray[np.int64]) -> float:
    return float(kappas(parts.sum(0)))


def line(student: str, ground: str, found: Mapping[str, Any]) -> str:
    worst, plain = found["worst"], found["rows"]["clean"]
    over = f"{len(found['over'])} of {found['conditions']}"
    return (
        f"| {student} | {ground} | {plain['teacher']:.3f} | {plain['student']:.3f} | {over} | "
        f"{worst['condition']} {worst['further']:+.3f} | {found['mean']:+.3f} |"
    )


def main() -> int:
    given = arguments()
    try:
        measure(given)
    except RsedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(given: argparse.Namespace) -> None:
    recipe = load_recipe(given.recipe, [] if given.seed is None else [f"seed={given.seed}"])
    prepare_torch("cpu", given.threads)
    teacher = recipe_teacher(recipe.teacher)
    spec, names = teacher.spec.input_spec, teacher.spec.classes
    every = [*(c.name for c in rspdbench.conditions_for(CONTRACT, list(HLS.values()))), *CHANGES]
    conditions = given.conditions or every
    conditions = ["clean", *(c for c in conditions if c != "clean")]
    places = grounds(recipe, spec, names, given.role, given.scenes, given.clouds)
    run = openvino_teacher(teacher, spec, given.threads)

    def teach(dn: Tiles) -> Classes:
        return run(spec.normalise(dn))["logits"].argmax(1).astype(np.uint8)

    paths = {name or path: Path(path) for name, _, path in (one.rpartition("=") for one in given.students)}
    students = {name: student_of(path, spec, given.threads, given.key) for name, path in paths.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in students}
    print(f"| student | ground | teacher | student | over {FURTHER} further | worst | mean |\n" + "|---" * 7 + "|")
    for place in places:
        own = answers({TEACHER: teach, **students}, place, spec, conditions)
        for name in students:
            found[name][place.name] = judged(place, own[TEACHER], own[name], len(names), recipe.seed)
            print(line(name, place.name, found[name][place.name]), flush=True)
    keep(given.output, recipe, found)


def keep(output: Path, recipe: Recipe, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds students of this recipe and seed to those kept; the page is written from the shipped results alone."""
    kept = read_json(output) if output.exists() else {}
    seeds = kept.get(recipe.name, {})
    own = seeds.get(str(recipe.seed), {})
    merged = {**own, **{name: {**own.get(name, {}), **grounds} for name, grounds in found.items()}}
    record = {**kept, recipe.name: {**seeds, str(recipe.seed): merged}, "rspdbench": rspdbench.__version__}
    write_json(output, record)
    if output == RESULTS:
        write_bytes(DOCUMENT, page(record).encode())


if __name__ == "__main__":
    sys.exit(main())
