"""Under which product degradations does a student fall further than its teacher?

    python benchmarks/degrade.py recipes/cloud-mask.yaml runs/cloud-mask/stages/prune/model --scenes landsat7-olinda

Judged on the recipe's test blocks by their labels, and on each of the ``--scenes``, which no training should have seen, under
simulated clouds by the teacher's own answers on the tiles before they are degraded. Students are model folders or bundles. The
37 conditions (plain tiles are one of them) are those of ``rspdbench`` (arXiv 2609.23427; HLS contract), which
``make bench-degrade`` installs; its operators judge and are no training views.

*Further* is how much more kappa the student loses than its teacher from plain to degraded tiles, with a 95 % interval by a
bootstrap over spatial blocks, the same picks for both networks and for plain and degraded tiles.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rspdbench
import torch

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RsedgeError
from rsedge.data.files import write_json
from rsedge.data.metrics.confusion import block_tables, kappas
from rsedge.data.metrics.statistics import Estimate, Statistic, estimate, of_sums, units_of
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

RESULTS = Path(__file__).parent / "results" / "degrade.json"
CONTRACT = rspdbench.get_contract("hls-burn-scars")
HLS = {"blue": "BLUE", "green": "GREEN", "red": "RED", "nir": "NIR_NARROW", "swir16": "SWIR_1", "swir22": "SWIR_2"}
"""Common names of bands as the contract of the conditions has them."""
FURTHER = 0.03
"""Kappa that a student may lose beside its teacher without being counted."""

Tiles = npt.NDArray[np.generic]
Classes = npt.NDArray[np.uint8]
Network = Callable[[Tiles], Classes]


@dataclass(frozen=True)
class Ground:
    """Tiles of one scene; without ``labels`` the teacher's answers on them judge."""

    name: str
    tiles: JudgedTiles
    labels: Classes | None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe over scenes with a teacher of the six HLS bands")
    parser.add_argument("students", nargs="+", type=Path, help="model folders (of a stage) or bundles")
    parser.add_argument("--scenes", nargs="*", default=(), help="named scenes that no training has seen")
    parser.add_argument("--clouds", type=int, default=8, help="simulated cloud fields over each of these")
    parser.add_argument("--threads", type=int, default=cpu_count())
    parser.add_argument("--seed", type=int, help="the recipe's, which says what the test blocks are")
    parser.add_argument("--conditions", nargs="*", help="only these of the 37")
    parser.add_argument("--key", type=Path, help="the public key of bundles")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"JSON; default {RESULTS}")
    return parser.parse_args()


def grounds(
    recipe: Recipe, spec: InputSpec, classes: Sequence[str], scenes: Sequence[str], clouds: int
) -> list[Ground]:
    """The recipe's test blocks, and tiles of each further scene under as many simulated cloud fields."""
    tiles = judged_tiles(recipe, spec, load_scenes(recipe, spec, classes), "test")
    found = [Ground("test", tiles, tiles.labels if tiles.labelled else None)]
    test = recipe.scenes.test.model_copy(update={"simulated_clouds": clouds})
    clouded = recipe.model_copy(update={"data": recipe.scenes.model_copy(update={"test": test})})
    for name in scenes:
        scene = named_scene(name, spec)
        codes = np.full(scene.valid.shape, SPLITS.index("test"), np.uint8)
        whole = SplitScene(scene, BlockSplit(codes, recipe.scenes.block), ("test",))
        found.append(Ground(name, judged_tiles(clouded, spec, [whole], "test"), None))
    return found


def degraded(ground: Ground, spec: InputSpec, condition: rspdbench.Condition) -> Tiles:
    """The tiles under one condition, as the product would hold them: digital numbers, rounded, nodata where it was."""
    dn = ground.tiles.dn
    valid = spec.valid(dn)
    plain = spec.to_physical(dn)
    mean = np.array([plain[:, i][valid].mean() for i in range(spec.channels)], dtype=np.float32)
    plain = np.where(valid[:, None], plain, mean[:, None, None])
    bands = [HLS[name] for name in spec.common_names]
    made = [
        rspdbench.degrade(
            torch.from_numpy(tile), condition, band_ids=bands, contract=CONTRACT,
            sample_id=f"{ground.name}-{number}", band_mean=torch.from_numpy(mean),
        ).numpy()
        for number, tile in enumerate(plain)
    ]  # fmt: skip
    return np.where(valid[:, None], spec.to_dn(np.stack(made)), spec.missing_dn()[:, None, None])


def student_of(path: Path, spec: InputSpec, threads: int, key: Path | None) -> Network:
    """A model folder in torch, or a bundle on its own runtime."""
    if (path / STRUCTURE_FILE).exists():
        module = load_model(path, build_student)
        return lambda dn: logits_of(module, spec.normalise(dn)).argmax(1).astype(np.uint8)
    bundle = load(path, key, threads=threads)
    return lambda dn: np.stack([bundle.predict(one) for one in dn])


def answers(network: Network, ground: Ground, spec: InputSpec, conditions: Sequence[str]) -> dict[str, Classes]:
    """Class maps (N, T, T) of the tiles under each condition."""
    return {name: network(degraded(ground, spec, rspdbench.get_condition(name))) for name in conditions}


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
    lost = {name: row["further"] for name, row in rows.items() if name != "clean"}
    worst = max(lost, key=lambda name: lost[name])
    return {
        "reference": "the teacher on plain tiles" if ground.labels is None else "labels",
        "blocks": len(by["teacher", "clean"]), "conditions": len(lost),
        "over": sorted(name for name, value in lost.items() if value > FURTHER),
        "worst": {"condition": worst, "further": lost[worst]}, "mean": float(np.mean(list(lost.values()))), "rows": rows,
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
    conditions = given.conditions or [c.name for c in rspdbench.conditions_for(CONTRACT, list(HLS.values()))]
    conditions = ["clean", *(c for c in conditions if c != "clean")]
    places = grounds(recipe, spec, names, given.scenes, given.clouds)
    run = openvino_teacher(teacher, spec, given.threads)

    def teach(dn: Tiles) -> Classes:
        return run(spec.normalise(dn))["logits"].argmax(1).astype(np.uint8)

    taught = {place.name: answers(teach, place, spec, conditions) for place in places}
    found: dict[str, dict[str, Any]] = {}
    print(f"| student | ground | teacher | student | over {FURTHER} further | worst | mean |\n" + "|---" * 7 + "|")
    for path in given.students:
        network = student_of(path, spec, given.threads, given.key)
        found[str(path)] = {}
        for place in places:
            own = answers(network, place, spec, conditions)
            found[str(path)][place.name] = judged(place, taught[place.name], own, len(names), recipe.seed)
            print(line(str(path), place.name, found[str(path)][place.name]), flush=True)
    record = {"recipe": recipe.name, "seed": recipe.seed, "rspdbench": rspdbench.__version__, "students": found}
    write_json(given.output, record)


if __name__ == "__main__":
    sys.exit(main())
