"""Choosing and judging are apart: who reads the test set, in our source and in a real run."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rsedge
from rsedge.cache.run_folder import RunFolder
from rsedge.data.documents import Document, Place
from rsedge.data.errors import RequestError
from rsedge.data.samples.samples import Samples
from rsedge.recipe.reading import check_document
from rsedge.recipe.schema import Recipe
from rsedge.stages.context import TEST_READERS
from tests import UNTUNED

ROOMS = Path(rsedge.__file__).parent
NAME_TEST = {
    "recipe/data", "recipe/checks", "recipe/survey", "stages/report", "stages/judge", "cache/code_closure", "pipeline/estimate",
    "api_data", "cli/kinds", "recipe/parts", "pipeline/estimate_parts", "stages/parts/data", "stages/parts/judge",
}  # fmt: skip
"""Modules that name the role without reading it: the recipe's field, what the data manifest says of it, the test of an ``if``."""
MAKE_ROLES = {"tasks"}
"""The room that says what the roles are."""
READ_TEST = {"stages/teacher", "stages/verify", "stages/captions", "stages/parts/teacher", "stages/parts/verify"}
"""Modules of the stages in ``TEST_READERS``."""


def mentions(path: Path) -> Iterator[str]:
    """Where a module reads an attribute ``test`` or writes the name of the role, or of its file, as a text."""
    tree = ast.parse(path.read_text())
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "test":
            yield f"{path.name}:{node.lineno} .test"
        if isinstance(node, ast.Constant) and node.value in ("test", "test.npz") and id(node) not in documented:
            yield f"{path.name}:{node.lineno} {node.value!r}"


def test_no_other_module_names_the_test_set() -> None:
    allowed = NAME_TEST | READ_TEST | {"stages/context", "stages/parts/context"}
    modules = {path.relative_to(ROOMS).with_suffix("").as_posix(): path for path in sorted(ROOMS.rglob("*.py"))}
    searched = {name: path for name, path in modules.items() if name.partition("/")[0] not in MAKE_ROLES}
    found = [m for name, path in searched.items() if name not in allowed for m in mentions(path)]
    assert found == []
    assert all(list(mentions(ROOMS / f"{module}.py")) for module in READ_TEST), "these would be found"


def test_in_the_stages_of_training_only_the_guard_names_it() -> None:
    assert len(list(mentions(ROOMS / "stages/context.py"))) == 1


def test_only_judging_stages_of_several_parts_get_the_test_set() -> None:
    from rsedge.stages.parts import context as parts
    from rsedge.stages.parts.table import PART_STAGES

    for stage in [row.name for row in PART_STAGES if row.name not in parts.TEST_READERS]:
        context = parts.PartsContext.__new__(parts.PartsContext)
        context.running = stage
        for asked in (context.samples, context.reference, lambda role: context.recorded("encoder", role)):  # noqa: B023
            with pytest.raises(RuntimeError, match=f"stage '{stage}' must not look at the test set"):
                asked("test")


def test_only_judging_stages_get_the_test_set() -> None:
    from rsedge.stages.context import RunContext

    class Told:
        def held_out(self, role: str) -> str:
            return role

    ctx = RunContext(None, None, (), Told(), {}, RunFolder(Path()), "", None)  # type: ignore[arg-type]
    for stage in (
        None,
        "data",
        "fit",
        "probe",
        "student",
        "distill",
        "prune",
        "export",
        "quantize",
        "crossval",
        "bundle",
    ):
        ctx.running = stage
        with pytest.raises(RuntimeError, match="what chooses reads selection"):
            _ = ctx.test
        assert ctx.selection == "selection"
    for stage in TEST_READERS:
        ctx.running = stage
        assert ctx.test == "test"


RECIPE: dict[str, Any] = {
    "name": "roles",
    "threads": 1,
    "teacher": {"name": "ukis-csmask-4b-l2a"},
    "data": {
        "train": [{"source": "spyndex-sentinel2"}],
        "test": {"source": "spyndex-sentinel2", "simulated_clouds": 1},
        "calibration": {"tiles": 4, "draws": 2},
        "block": 50,
    },
    "student": {"name": "slim-unet", "stem": 8, "encoder": [8, 16], "blocks": [0, 0], "decoder": [16, 8]},
    "steps": [
        {"distill": {"steps": 4, "views": 8, "batch": 4, "validate_every": 2}},
        {"prune": {"steps": 1, "round_to": 4, "recovery_steps": 0, "taylor_batches": 1, "max_drop": 1.0, "min_gain": 0.0,
                   "target": {"macs_ratio": 0.9}}},
        {"quantize": {"max_trials": 1, **UNTUNED, "max_drop": 1.0}},
    ],
    "targets": ["openvino-cpu-int8"],
}  # fmt: skip


def recipe(**data: Any) -> Recipe:
    value = {**RECIPE, "data": {**RECIPE["data"], **data}}
    return check_document(Document(value, {(): Place("recipe.yaml", 1)}))


def test_old_fields_are_refused_and_the_advice_works() -> None:
    with pytest.raises(RequestError, match=r"data\.validation: no longer a field: write the scene under data\.test"):
        recipe(validation={"source": "spyndex-sentinel2"})
    assert recipe(selection={"fraction": 0.15}).scenes.selection.fraction == 0.15
    samples = {"samples": {"source": "x.csv"}}
    with pytest.raises(RequestError, match=r"data\.fraction: no longer a field: write test: \{fraction"):
        sample_recipe({**samples, "fraction": 0.3})
    found = sample_recipe({**samples, "test": {"fraction": 0.3}, "selection": {"fraction": 0.2}}).samples
    assert (found.test.fraction, found.selection.fraction) == (0.3, 0.2)


def test_a_selection_of_its_own_says_all_of_itself() -> None:
    with pytest.raises(RequestError, match=r"simulated_clouds: blocks of data\.test's scene are read as it says"):
        recipe(selection={"simulated_clouds": 3})
    own = recipe(selection={"source": "ukis-sentinel2", "simulated_clouds": 3})
    assert list(own.scenes.held_out) == ["test", "selection"]


def sample_recipe(data: dict[str, Any]) -> Recipe:
    value = {"name": "s", "teacher": {"name": "ukis-csmask-4b-l2a"}, "data": data, "steps": [{"distill": {}}],
             "targets": ["openvino-cpu-f32"]}  # fmt: skip
    return check_document(Document(value, {(): Place("recipe.yaml", 1)}))


def samples(split: list[str] | None, groups: list[str], labels: list[int] | None = None) -> Samples:
    return Samples(
        "x", np.zeros((len(groups), 3), np.float32), ("a", "b", "c"), "C", "0", group=np.array(groups),
        labels=None if labels is None else np.array(labels), split=None if split is None else np.array(split),
    )  # fmt: skip


def roles_of(found: Samples, left_out: int = 0, **data: Any) -> dict[str, set[int]]:
    from rsedge.data.bands import BandSpec, InputSpec
    from rsedge.tasks.samples import SampleTask

    spec = InputSpec(bands=tuple(BandSpec(name=n) for n in "abc"), layout="C", tile=1, dtype="float32")
    made = SampleTask(sample_recipe({"samples": {"source": "x.csv"}, **data}), spec, ("k", "l"), "classification")
    made.samples = found
    placed = sorted(i for index in made.roles.values() for i in index.tolist())
    assert len(set(placed)) == len(placed) == len(found) - left_out
    return {role: set(index.tolist()) for role, index in made.roles.items()}


def test_intervals_draw_blocks_of_groups_where_they_are_known() -> None:
    from rsedge.data.bands import BandSpec, InputSpec
    from rsedge.tasks.samples import SampleTask

    spec = InputSpec(bands=tuple(BandSpec(name=n) for n in "abc"), layout="C", tile=1, dtype="float32")
    made = SampleTask(sample_recipe({"samples": {"source": "x.csv"}}), spec, ("k", "l"), "classification")
    made.samples = samples(None, ["north", "north", "south", "south"])
    assert (made.units.word, made.units.of.tolist()) == ("groups", ["north", "north", "south", "south"])
    made = SampleTask(sample_recipe({"samples": {"source": "x.csv"}}), spec, ("k", "l"), "classification")
    made.samples = dataclasses.replace(
        samples(None, ["north", "north", "south", "south"]), block=np.array(list("0101"))
    )
    assert (made.units.word, made.units.of.tolist()) == ("blocks", ["north/0", "north/1", "south/0", "south/1"])
    assert made.groups.tolist() == ["north", "north", "south", "south"], "roles hold out whole groups"


def test_publishers_splits_become_selection_and_test() -> None:
    groups = [str(i) for i in range(12)]
    split = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    found = roles_of(samples(split, groups))
    assert (found["selection"], found["test"]) == ({6, 7, 8}, {9, 10, 11})


@pytest.mark.parametrize(("name", "role", "other"), [("valid", "selection", "test"), ("test", "test", "selection")])
def test_what_the_publisher_does_not_ship_is_held_out_of_train_by_whole_groups(
    name: str, role: str, other: str
) -> None:
    groups = [f"g{i // 3}" for i in range(24)]
    found = roles_of(samples(["train"] * 18 + [name] * 6, groups))
    assert found[role] == set(range(18, 24))
    assert found[other] and found[other] < set(range(18))
    for group in {groups[i] for i in found[other]}:
        assert {i for i in range(18) if groups[i] == group} <= found[other]


def doubled(split: list[str] | None) -> Samples:
    """20 different samples and each again; without groups, so that every sample would be one of its own."""
    values = np.random.default_rng(3).normal(size=(20, 3)).astype(np.float32)
    return dataclasses.replace(samples(split, ["g"] * 40), values=np.concatenate([values, values]), group=None)


def test_copies_of_a_sample_stand_on_one_side() -> None:
    sides = [{i % 20 for i in index} for index in roles_of(doubled(None)).values()]
    held_out = [
        side for name, side in zip(roles_of(doubled(None)), sides, strict=True) if name in ("selection", "test")
    ]
    trained = [
        side for name, side in zip(roles_of(doubled(None)), sides, strict=True) if name in ("train", "calibration")
    ]
    assert all(held_out) and all(trained)
    assert not set.union(*held_out) & set.union(*trained) and not set.intersection(*held_out)


def test_what_a_publisher_has_twice_stays_in_the_role_that_judges() -> None:
    found = roles_of(doubled(["train"] * 14 + ["val"] * 6 + ["train"] * 12 + ["test"] * 8), left_out=2 + 6)
    assert found["test"] == set(range(32, 40))
    assert not {i % 20 for i in found["test"]} & {i % 20 for name in found if name != "test" for i in found[name]}


def seen_again(split: list[str] | None) -> Any:
    """20 images, then each flipped and shifted, with little noise."""
    from scipy import ndimage

    from rsedge.data.bands import BandSpec, InputSpec
    from rsedge.tasks.samples import SampleTask

    rng = np.random.default_rng(6)
    wide = np.round(2000 + 900 * ndimage.gaussian_filter(rng.normal(size=(20, 3, 34, 34)), (0, 0, 1, 1)))
    again = wide[:, :, 1:33, 2:34][..., ::-1] + rng.integers(-1, 2, (20, 3, 32, 32))
    values = np.concatenate([wide[:, :, :32, :32], again]).astype(np.float32)
    spec = InputSpec(bands=tuple(BandSpec(name=n) for n in "abc"), layout="CHW", tile=32, dtype="uint16")
    made = SampleTask(sample_recipe({"samples": {"source": "x.csv"}}), spec, ("k", "l"), "classification")
    made.samples = dataclasses.replace(samples(split, ["g"] * 40), values=values, layout="CHW", group=None)
    return made


def test_near_copies_of_an_image_stand_on_one_side_and_are_told_of(tmp_path: Path) -> None:
    from rsedge.cache.stage import StageContext

    made = seen_again(None)
    sides = {role: {i % 20 for i in index.tolist()} for role, index in made.roles.items()}
    assert all(sides.values()) and sum(map(len, made.roles.values())) == 40
    assert not sides["test"] & (sides["train"] | sides["calibration"] | sides["selection"])
    assert not sides["selection"] & (sides["train"] | sides["calibration"])
    data = made.data_stage(StageContext("data", tmp_path, tmp_path))
    assert data.samples is not None and (data.samples.equal, data.samples.near, data.samples.groups) == (0, 20, 20)
    assert any("20 are near copies of others" in text for text in data.remarks)


def test_a_near_copy_that_a_publisher_has_in_two_roles_stays_in_the_one_that_judges() -> None:
    made = seen_again(["train"] * 14 + ["val"] * 6 + ["train"] * 12 + ["test"] * 8)
    assert set(made.roles["test"].tolist()) == set(range(32, 40))
    assert {int(i) % 20 for i in made.roles["test"]}.isdisjoint(
        int(i) % 20 for role, index in made.roles.items() if role != "test" for i in index
    )


def tiles_of_an_image(edge: int, block: int, **data: Any) -> Any:
    from rsedge.data.bands import BandSpec, InputSpec
    from rsedge.tasks.samples import SampleTask

    spec = InputSpec(bands=tuple(BandSpec(name=n) for n in "abc"), layout="C", tile=1, dtype="float32")
    made = SampleTask(sample_recipe({"samples": {"source": "x.csv"}, **data}), spec, ("k", "l"), "classification")
    cells = np.array([(0, r, c) for r in range(edge) for c in range(edge)], np.intp)
    groups = [f"{r // block}-{c // block}" for _, r, c in cells.tolist()]
    made.samples = dataclasses.replace(samples(None, groups), cells=cells)
    return made


def touching(cells: np.ndarray, first: np.ndarray, second: np.ndarray) -> int:
    return int((np.abs(cells[first][:, None] - cells[second][None]).max(2) <= 1).sum())


@pytest.mark.parametrize("folds", [1, 4])
def test_tiles_of_one_image_have_a_guard_between_roles(folds: int, tmp_path: Path) -> None:
    from rsedge.cache.stage import StageContext

    made = tiles_of_an_image(36, 12, folds=folds, test={"fraction": 0.12}, selection={"fraction": 0.12})
    cells, roles = made.samples.cells, made.roles
    for role, others in {"test": ("train", "calibration", "selection"), "selection": ("train", "calibration")}.items():
        assert not sum(touching(cells, roles[role], roles[other]) for other in others)
    for fold in range(folds if folds > 1 else 0):
        assert not touching(cells, np.flatnonzero(made.fold_of == fold), made.other_folds(fold))
        assert len(made.other_folds(fold)) > 300
    assert folds == 1 or (made.fold_of >= 0).sum() > 1000, "the guard of the first fold is judged in its own"
    told = made.data_stage(StageContext("data", tmp_path, tmp_path)).remarks
    assert any("the guard between roles" in text for text in told) and not any("no guard" in text for text in told)


@pytest.mark.parametrize("folds", [1, 3])
def test_what_calibrates_is_apart_even_where_there_is_no_room_for_a_guard(folds: int, tmp_path: Path) -> None:
    from rsedge.cache.stage import StageContext

    made = tiles_of_an_image(
        12, 2, folds=folds, test={"fraction": 0.2}, selection={"fraction": 0.2}, calibration={"tiles": 8}
    )
    made.samples = dataclasses.replace(made.samples, values=np.arange(144 * 3, dtype=np.float32).reshape(144, 3) ** 2)
    assert any("no guard" in text for text in made.data_stage(StageContext("data", tmp_path, tmp_path)).remarks)
    cells, roles = made.samples.cells, made.roles
    held_out = np.concatenate([roles["test"], roles["selection"]])
    assert touching(cells, roles["train"], held_out) and not touching(cells, roles["calibration"], held_out)
    with np.load(tmp_path / "calibration.npz") as drawn:
        assert {tuple(one) for one in drawn["dn"].tolist()} <= {
            tuple(made.dn[i].tolist()) for i in roles["calibration"]
        }
    number = {tuple(one): i for i, one in enumerate(made.dn.tolist())}
    for fold in range(folds if folds > 1 else 0):
        judged = np.concatenate([np.flatnonzero(made.fold_of == fold), roles["selection"]])
        assert touching(cells, made.other_folds(fold), judged)
        index = np.array([number[tuple(one)] for one in made.fold_calibration(fold).tolist()])
        assert len(index) and not touching(cells, index, judged)


def test_a_small_image_has_no_room_for_a_guard_and_that_is_said(tmp_path: Path) -> None:
    from rsedge.cache.stage import StageContext

    made = tiles_of_an_image(4, 1)
    assert sum(map(len, made.roles.values())) == 16
    assert any("no guard" in text for text in made.data_stage(StageContext("data", tmp_path, tmp_path)).remarks)


def test_what_is_to_be_said_of_samples_reaches_the_report(tmp_path: Path) -> None:
    from rsedge.cache.stage import StageContext
    from rsedge.data.bands import BandSpec, InputSpec
    from rsedge.tasks.samples import SampleTask

    bands = tuple(BandSpec(name=n, sensor="sentinel-2") for n in "abc")
    spec = InputSpec(bands=bands, layout="C", tile=1, dtype="float32")
    made = SampleTask(sample_recipe({"samples": {"source": "x.csv"}}), spec, ("k", "l"), "classification")
    made.samples = dataclasses.replace(
        doubled(None), notes=("2 samples hold absurd values",), sensors=("landsat-7", "sentinel-2")
    )
    told = made.data_stage(StageContext("data", tmp_path, tmp_path)).remarks
    assert "samples 'x': 2 samples hold absurd values" in told
    assert [text.split(":")[1] for text in told if "is of" in text] == [
        " is of landsat-7, but the model's bands are those of sentinel-2"
    ]
    assert any("20 hold what others hold too" in text for text in told)


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="split 'fold9' is unknown"):
        roles_of(samples(["train", "train", "fold9"], ["a", "b", "c"]))


def test_a_small_set_is_noted_with_the_classes_it_lacks() -> None:
    from rsedge.data.bands import BandSpec, InputSpec
    from rsedge.tasks.samples import SampleTask

    spec = InputSpec(bands=tuple(BandSpec(name=n) for n in "abc"), layout="C", tile=1, dtype="float32")
    made = SampleTask(sample_recipe({"samples": {"source": "x.csv"}}), spec, ("k", "l"), "classification")
    made.samples = samples(None, [f"g{i // 2}" for i in range(20)], [0] * 20)
    note = made.held_out("test").note
    assert note is not None and "groups with labels and nothing of class l" in note


def test_the_advice_of_a_missing_guard_makes_room_for_one(tmp_path: Path) -> None:
    from rsedge.cache.stage import StageContext

    for made, guard in (
        (tiles_of_an_image(32, 1), False),
        (tiles_of_an_image(32, 8), True),
        (tiles_of_an_image(32, 1, test={"fraction": 0.02}, selection={"fraction": 0.02}), True),
    ):
        told = made.data_stage(StageContext("data", tmp_path, tmp_path)).remarks
        assert any("larger blocks or smaller fractions" in text for text in told) is not guard
