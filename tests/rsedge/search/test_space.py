"""Search spaces: what may vary, errors that name the field, and every drawn point a recipe or refused by name."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsedge.data.document_check import checked, set_value
from rsedge.data.documents import Document, Place
from rsedge.data.errors import RequestError
from rsedge.pipeline.run import plan
from rsedge.recipe.reading import check_document, load_recipe, resolved
from rsedge.recipe.schema import Recipe
from rsedge.search.default import default_space
from rsedge.search.figures import kept_share, objectives_of, predicts_energy
from rsedge.search.reading import _overlaps, read_space
from rsedge.search.space import Space, SpaceFile, Variable, value_at

INT8, JETSON = "openvino-cpu-int8", "tensorrt-jetson-orin-nano-8gb-fp16"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    pytest.importorskip("spyndex")
    pytest.importorskip("ukis_csmask")
    found = load_recipe("quickstart")
    assert isinstance(found, Recipe)
    return found


def read(text: str, recipe: Recipe, folder: Path) -> Space:
    path = folder / "space.yaml"
    path.write_text(text)
    return read_space(path, recipe)


def every(variable: Variable) -> list[Any]:
    return [variable.value(i) for i in range(variable.count or 0)]


def test_the_default_space_holds_the_recipe_itself_and_narrower_students(recipe: Recipe) -> None:
    space = read_space(None, recipe)
    assert set(space.variables) == {"student", "steps.distill.lr", "steps.prune.target.macs_ratio"}
    assert space.base.keys() == space.variables.keys() and space.size == 36
    assert resolved(space.recipe_at(space.base)) == resolved(recipe)
    stems = [value["stem"] for value in space.variables["student"].choices or () if isinstance(value, dict)]
    assert stems == [8, 16, 16] and objectives_of(space) == ("latency", "size", "kappa", "agreement")
    assert default_space(recipe) == space.file


def test_a_recipe_without_anything_to_vary_says_so(recipe: Recipe) -> None:
    steps = tuple(step for step in recipe.steps if step.name == "quantize")
    bare = recipe.model_copy(update={"steps": steps, "student": recipe.student.model_copy(update={"name": "teacher"})})
    with pytest.raises(RequestError, match=r"nothing that a search varies by default.*--space"):
        default_space(bare)


def test_a_space_of_every_kind_of_variable(recipe: Recipe, tmp_path: Path) -> None:
    space = read(
        f"target: [{INT8}, {JETSON}]\nobjectives: [energy, agreement]\nvariables:\n"
        "  student.encoder: [[16, 24, 32, 48], [32, 48, 64, 96]]\n"
        "  student.stem: {low: 8, high: 24, step: 8}\n"
        "  steps.distill.lr: {low: 1e-3, high: 1e-2, log: true}\n"
        "  steps.distill.loss: [[], [{name: dkd}]]\n"
        "  steps.prune.target.macs_ratio: {low: 0.5, high: 0.9, step: 0.2}\n",
        recipe, tmp_path,
    )  # fmt: skip
    assert space.size is None and space.variables["target"].choices == (INT8, JETSON)
    assert every(space.variables["student.stem"]) == [8, 16, 24]
    assert every(space.variables["steps.prune.target.macs_ratio"]) == [0.5, 0.7, 0.9]
    assert set(space.base) == {"student.encoder", "student.stem", "steps.distill.lr", "steps.distill.loss", "target"}
    point = space.draw(random.Random(0))
    made = space.recipe_at(point, steps=7)
    assert made.distill.steps == 7 and made.student.options["stem"] == point["student.stem"]
    assert made.gates == recipe.gates and made.targets == recipe.targets and space.target_of(point) == point["target"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("variables: {steps.distil.lr: [1e-3]}", "variables.steps.distil.lr: .*nearest: 'distill'"),
        ("variables: {steps.distill.lrr: [1e-3]}", "steps.distill.lrr.*unknown field .nearest: 'lr'."),
        ("variables: {stunt.encoder: [1]}", "variables.stunt.encoder: no such field of a recipe .nearest: 'student'."),
        ("variables: {student.encodr: [[8]]}", "student 'slim-unet' takes no 'encodr' .nearest: 'encoder'."),
        ("variables: {student.name: [slim-unett]}", "student.name.*'slim-unett' is unknown .nearest: 'slim-unet'."),
        ("variables: {gates: [[]]}", "variables.gates: may not vary, so that all candidates are judged alike"),
        ("variables: {data.block: [10, 20]}", "variables.data.block: may not vary"),
        ("variables: {seed: [1, 2]}", "variables.seed: may not vary"),
        ("variables: {steps.distill.lr: {low: 2, high: 1}}", "steps.distill.lr: low 2 must be less than high 1"),
        ("variables: {steps.distill.lr: {low: -1, high: 1}}", "steps.distill.lr: with -1: .*greater than 0"),
        ("variables: {steps.distill.lr: {low: 0, high: 1, log: true}}", "log takes a low above 0"),
        ("variables: {steps.distill.lr: [1e-3, 1e-3]}", "a choice is there twice"),
        ("variables: {steps.distill.lr: {low: 1}}", "give choices, a list, or low and high"),
        ("variables: {steps.distill.lr: []}", "steps.distill.lr.choices"),
        ("variables: {steps.distill.steps: [0]}", "variables.steps.distill.steps: with 0: .*steps must hold 'distill'"),
        ("variables: {}", "variables: none is named"),
        ("seed: 1", "variables: required"),
        ("variables: {steps.distill.lr: [1e-3]}\ntarget: openvino-cpu-in8", "target: '.*in8' .*nearest: 'openvino-cpu-int8'"),
        ("variables: {steps.distill.lr: [1e-3]}\nobjectives: [latncy]", "objectives: 'latncy' is unknown .nearest: 'latency'."),
        ("variables: {steps.distill.lr: [1e-3]}\nrungs: {shares: [0.5, 0.2]}", "rungs.shares: shares rise"),
        ("variables: {steps.distill.lr: [1e-3]}\nobjectives: [psnr]", "objectives: psnr is of super-resolution"),
        ("variables: {steps.distill.lr: [1e-3]}\nobjectives: [ap50]", "objectives: ap50 is of "),
        ("variables: {student.encoder: [[8]], student: [slim-unet]}", "student.encoder: stands in student, which varies too"),
        ("variables: {steps.distill.lr: {low: 1e-3, high: 1, step: 1e-12}}", "too many steps of 1e-12"),
        ("variables: {steps.distill.lr: [1e-3]}\nvariable: 3", "variable: unknown field .nearest: 'variables'."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_field(text: str, words: str, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"(?s)space.yaml.*{words}"):
        read(text, recipe, tmp_path)


def test_a_space_of_which_nothing_can_run_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """Each value goes with the rest of the recipe, all together with none of their kind."""
    text = "variables:\n  steps.prune.scope: [latency]\n  steps.prune.target: [{macs_ratio: 0.8}]\n"
    with pytest.raises(RequestError, match=r"(?s)scope: latency"):
        read(text, recipe, tmp_path)
    text = "variables:\n  steps.quantize.weights_only: [int8, int4]\n  steps.quantize.qat: [{steps: 5}, {steps: 6}]\n"
    with pytest.raises(
        RequestError,
        match=r"(?s)the search space is impossible: none of 40 points .* weights_only leaves nothing for qat",
    ):
        read(text, recipe, tmp_path)


def test_what_pruning_leaves_is_told_of_what_its_aim_says_alone(recipe: Recipe) -> None:
    """Pruning of the quickstart by a fifth of its operations took half of its weights: such a student is no hopeless one."""
    aims = {
        "macs_ratio": (0.8, None),
        "latency_ratio": (0.8, None),
        "params_ratio": (None, 0.8),
        "latency_ms": (0.4, None),
    }
    for aim, (latency, size) in aims.items():
        given = {"macs_ratio": None, aim: 2.0 if aim == "latency_ms" else 0.8}
        document = Document(resolved(recipe), {(): Place("recipe.yaml")})
        set_value(document, "steps.prune.target", given, "here")
        found = check_document(document)
        assert kept_share(found, "latency", 5.0) == latency and kept_share(found, "size") == size


def test_energy_is_sought_where_a_profile_tells_it(recipe: Recipe, tmp_path: Path) -> None:
    lacking = next(name for name in (INT8, JETSON) if not predicts_energy(name))
    space = read(
        f"variables: {{steps.distill.lr: [1e-3]}}\ntarget: {lacking}\nobjectives: [energy, kappa]", recipe, tmp_path
    )
    with pytest.raises(RequestError, match="energy"):
        objectives_of(space)


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "steps.distill.lr": st.sampled_from([[1e-3, 2e-3], [-1.0], ["fast"], [[1]]]),
    "steps.distill.steps": st.sampled_from([[10, 20], [0], [1.5]]),
    "steps.distill.loss": st.sampled_from([[[], [{"name": "dkd"}]], [[{"name": "nothing"}]]]),
    "steps.prune.target.macs_ratio": st.sampled_from([[0.5, 0.9], [2.0]]),
    "steps.prune.scope": st.sampled_from([["global", "uniform"], ["latency"]]),
    "steps.quantize.weights_only": st.sampled_from([["int8"], ["int2"]]),
    "student": st.sampled_from([["slim-unet", {"name": "slim-unet", "stem": 8}], ["none"], [{"stem": 4, "bend": 1}]]),
    "student.stem": st.sampled_from([[8, 16], {"low": 8, "high": 32}]),
    "data.augment.noise": st.sampled_from([[0.1, 0.3], [7]]),
    "teacher.name": st.just(["ukis-csmask-6b-l1c"]),
    "name": st.just(["other"]),
    "nothing.at.all": st.just([1]),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 1000))
def test_a_drawn_point_is_a_recipe_or_refused_by_its_field(
    data: st.DataObject, seed: int, recipe: Recipe, tmp_path: Path
) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3, unique=True))
    written = {"variables": {name: data.draw(FIELDS[name]) for name in names}}
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(written))
    try:
        space = read_space(path, recipe)
    except RequestError as error:
        assert any(name in str(error) for name in names) or "impossible" in str(error)
        return
    for _ in range(5):
        point = space.draw(random.Random(seed))
        try:
            made = space.recipe_at(point)
        except RequestError as error:
            assert any(name.split(".")[-1] in str(error) for name in names), str(error)
            continue
        plan(made)
        assert made.gates == recipe.gates and made.data.calibration == recipe.data.calibration
        for name, value in point.items():
            kept = value_at(resolved(made), name)
            assert kept == value or name in ("student", "steps.distill.loss")


@given(
    st.integers(-50, 50), st.integers(1, 100), st.one_of(st.none(), st.integers(1, 30)), st.booleans(), st.integers(0, 99)
)  # fmt: skip
def test_numbers_stay_within_their_ends(low: int, span: int, step: int | None, whole: bool, seed: int) -> None:
    ends = (low, low + span) if whole else (low / 7, (low + span) / 7)
    variable = Variable(low=ends[0], high=ends[1], step=step if whole or step is None else step / 7)
    value = variable.draw(random.Random(seed))
    assert isinstance(value, int | float) and ends[0] <= value <= ends[1] + 1e-9 and variable.holds(value)
    assert isinstance(value, int) == whole
    if variable.count is not None:
        assert every(variable)[0] == ends[0] and len(set(every(variable))) == variable.count
        assert all(variable.holds(one) for one in every(variable))


@given(st.integers(1, 10**12), st.integers(0, 99))
def test_of_billions_of_values_none_is_listed(span: int, seed: int) -> None:
    variable = Variable(low=1, high=1 + span)
    assert variable.count == span + 1 and variable.holds(variable.draw(random.Random(seed)))
    assert not variable.holds(0) and not variable.holds(2 + span) and not variable.holds(1.5)
    assert list(variable.ends[:2]) == [1, 1 + span] and variable.holds(variable.ends[2])


@given(st.permutations(["student", "student.encoder", "steps[0].distill.lr", "steps.distill", "steps.distill.lr"]))
def test_no_variable_writes_over_another(recipe: Recipe, names: list[str]) -> None:
    """Else a trial would be listed at a point that is not what was tried."""
    values = {name: [value_at(resolved(recipe), name)] for name in names[:3]}
    space = Space(
        "here",
        recipe,
        resolved(recipe),
        SpaceFile(variables={n: Variable(choices=tuple(v)) for n, v in values.items()}),
    )
    hidden = [
        (a, b)
        for a in names[:3]
        for b in names[:3]
        if a != b and space.field(b)[: len(space.field(a))] == space.field(a)
    ]
    words = " ".join(_overlaps(space))
    assert all(a in words and b in words for a, b in hidden) and bool(hidden) == bool(words)


def test_a_space_that_is_written_reads_the_same(recipe: Recipe) -> None:
    space = read_space(None, recipe)
    document = Document(yaml.safe_load(space.text()), {(): Place("space.yaml")}, "search space")
    assert checked(document, SpaceFile) == space.file


def test_the_space_in_the_document_fits_the_quickstart(recipe: Recipe, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/search.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    space = read(block, recipe, tmp_path)
    assert set(space.file.model_fields_set) == set(SpaceFile.model_fields)
    assert all(f"| `{name}` |" in text for name in SpaceFile.model_fields)
