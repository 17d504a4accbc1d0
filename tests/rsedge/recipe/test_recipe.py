"""Recipes: what loads, what is refused, and how the refusal reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.recipe.reading import dump_recipe, load_recipe, packaged_recipes, write_resolved
from rsedge.recipe.schema import parse_target

SHORT = """\
name: tiny
teacher: {name: ukis-csmask-6b-l1c}
data:
  train: [{source: ukis-sentinel2}]
  test: {source: ukis-sentinel2}
student: {name: slim-unet}
steps:
  - distill: {steps: 10}
  - quantize:
targets: [openvino-cpu-int8]
gates:
  - {metric: kappa, max_drop: 0.01}
"""


def write(folder: Path, text: str = SHORT, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def error_of(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(RequestError) as caught:
        load_recipe(write(folder, text), overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_short_recipe_gets_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert recipe.distill.steps == 10
    assert recipe.distill.batch > 0
    assert recipe.prune is None
    assert recipe.quantize is not None
    assert recipe.gates[0].constraint == "max_drop"
    assert recipe.gates_for("openvino-cpu-int8") == recipe.gates


def test_resolved_recipe_loads_to_the_same_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    write_resolved(recipe, tmp_path / "recipe.resolved.yaml")
    assert load_recipe(tmp_path / "recipe.resolved.yaml") == recipe


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_ready_recipe_loads_by_name_and_survives_writing(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


def test_unknown_field_names_file_line_field_and_nearest(tmp_path: Path) -> None:
    message = error_of(tmp_path, SHORT.replace("{steps: 10}", "{stepz: 10}"))
    assert f"{tmp_path / 'recipe.yaml'}:8: steps[0].distill.stepz: unknown field (nearest: 'steps')" in message


def test_unknown_top_field(tmp_path: Path) -> None:
    assert ":13: target: unknown field (nearest: 'targets'); valid: name, seed" in error_of(
        tmp_path, SHORT + "target: x\n"
    )


def test_wrong_types_and_several_errors_at_once(tmp_path: Path) -> None:
    text = SHORT.replace("{steps: 10}", "{steps: many, batch: true}") + "seed: 1.5\ndevice: gpu\n"
    message = error_of(tmp_path, text)
    assert "(4 errors)" in message
    assert ":8: steps[0].distill.steps: input should be a valid integer; got 'many'" in message
    assert ":8: steps[0].distill.batch" in message
    assert ":13: seed: input should be a valid integer" in message
    assert ":14: device: 'gpu' is not one of 'cpu' or 'cuda' (nearest: 'cpu')" in message


def test_missing_required_field_points_at_its_section(tmp_path: Path) -> None:
    message = error_of(tmp_path, SHORT.replace("{name: ukis-csmask-6b-l1c}", "{}"))
    assert ":2: teacher.name: required, but not given" in message


CONTRACT = """\
name: own
teacher:
  name: "onnx:net.onnx"
  input:
    bands: [red, nir]
    tile: 64
  classes: [a, b]
data:
  train: [{source: ukis-sentinel2}]
  test: {source: ukis-sentinel2}
targets: [openvino-cpu-f32]
"""


BANDS, TILE = "bands: [red, nir]", "tile: 64"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (TILE, "scal: 1", r"yaml:4: teacher\.input: scal: unknown field \(nearest: 'scale'\); valid: bands, layout"),
        (TILE, "tile: x", r"yaml:6: teacher\.input\.tile: input should be a valid integer"),
        (TILE, "std: [1, 0]", r"yaml:5: teacher\.input\.bands\[1\]\.std: input should be greater than 0; got 0"),
        (TILE, "mean: [1]", r"yaml:4: teacher\.input: mean: 1 values for 2 bands"),
        (TILE, "stretch: []", r"teacher\.input: stretch: 0 values for 2 bands"),
        (
            BANDS,
            "bands: red",
            r"teacher\.input: bands: needed is a list of names in the model's order, such as \[red, nir\]",
        ),
        (BANDS, "bands: 4", r"teacher\.input: bands: needed is a list of names .*, not 4"),
        (BANDS, "bands: [4, 3]", r"teacher\.input: bands: needed is a list of names"),
        (BANDS, "bands: [{name: red, scal: 1}]", r"teacher\.input: scal: unknown field .*; valid: name, wavelength_nm"),
    ],
)
def test_a_wrong_contract_is_named_by_its_field(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert re.search(expected, error_of(tmp_path, CONTRACT.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "  - distill: {steps: 10}\n  - quantize:",
            "  - quantize:\n  - distill:",
            "in the order distill, prune, replace, quantize",
        ),
        ("  - quantize:", "  - quantize:\n  - quantize:", "step 'quantize' occurs 2 times"),
        (
            "  - quantize:",
            "  - {prune: , quantize: }",
            "exactly one of distill, prune, replace, quantize; found prune, quantize",
        ),
        ("  - quantize:", "  - quantize: {weights_only: int8, qat: {steps: 5}}", "nothing for qat to train"),
        (
            "  - quantize:\ntargets: [openvino-cpu-int8]",
            "  - quantize: {weights_only: int8}\ntargets: [onnxruntime-cpu-int8]",
            "weights_only is not for",
        ),
        ("  - quantize:\n", "", "target 'openvino-cpu-int8' is INT8, but steps hold no 'quantize'"),
        (
            "openvino-cpu-int8]",
            "openvino-cpu-int4]",
            "(runtimes: openvino, tensorrt, onnxruntime, litert; precisions: f32, bf16, fp16, int8",
        ),
        ("openvino-cpu-int8]", "tflite-cpu-int8]", "target 'tflite-cpu-int8' is not <runtime>"),
        ("openvino-cpu-int8]", "openvino-cpu-f32]", "steps hold 'quantize', but no target is INT8"),
        ("openvino-cpu-int8]", "openvino]", "is not <runtime>-<device>-<precision>"),
        ("max_drop: 0.01}", "max_drop: 0.01, min: 0.7}", "exactly one of max_drop"),
        ("metric: kappa, max_drop: 0.01", "metric: latency, max_drop: 0.01", "takes max or min_speedup, not max_drop"),
        ("metric: kappa, max_drop: 0.01", "metric: latency, min_speedup: 2", "min_speedup and over go together"),
        ("max_drop: 0.01}", "max_drop: 0.01, target: openvino-cpu-f32}", "which is not in targets"),
        ("train: [{source: ukis-sentinel2}]", "train: []", "data.train"),
        ("train: [{source: ukis-sentinel2}]", "train: [{source: a, path: b.tif}]", "exactly one of 'source'"),
        ("train: [{source: ukis-sentinel2}]", "train: [{source: a, scale: 2.0}]", "scale only go with 'path'"),
        ("name: tiny", "name: ../x", "must start with a letter or digit"),
        ("  train:", "  calibration: {tiles: 0}\n  train:", "refuses to run without calibration data"),
        ("{steps: 10}", "{lr: .nan}", "finite number"),
    ],
)
def test_impossible_plans_are_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in SHORT
    assert expected in error_of(tmp_path, SHORT.replace(old, new))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1, 2\n", ":2: not valid YAML"),
        ("- 1\n", ":1: a recipe is a mapping of fields, not a list"),
        ("", "name: required"),
        ("name: a\nname: b\n", ":2: this field is given twice"),
        ("a: &x [*x]\n", "expand without end"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("name: !!python/object/apply:os.system ['echo']\n", ":1: name"),
        ("a: 1\n  b: 2\n", ":2: not valid YAML"),
    ],
)
def test_broken_yaml_names_the_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in error_of(tmp_path, text)


def test_yaml_traps_are_taken_out(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SHORT.replace("name: tiny", "name: no").replace("steps: 10", "lr: 2e-3")))
    assert recipe.name == "no"
    assert recipe.distill.lr == 0.002


def test_missing_file_and_nearest_ready_recipe(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such recipe file"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="not UTF-8"):
        load_recipe(tmp_path / "binary.yaml")


def test_import_with_keys_beside_it_overriding(tmp_path: Path) -> None:
    write(tmp_path, "lr: 1.0e-3\nsteps: 5\n", "fast.yaml")
    text = SHORT.replace("{steps: 10}", "{$import: fast.yaml, steps: 7}")
    recipe = load_recipe(write(tmp_path, text))
    assert (recipe.distill.steps, recipe.distill.lr) == (7, 0.001)


def test_import_at_the_top_merges_and_errors_name_the_imported_file(tmp_path: Path) -> None:
    write(tmp_path, SHORT, "base.yaml")
    recipe = load_recipe(write(tmp_path, "$import: base.yaml\nname: other\ndata: {block: 32}\n"))
    assert recipe.name == "other"
    assert recipe.data.block == 32
    assert recipe.data.train[0].source == "ukis-sentinel2"
    write(tmp_path, SHORT + "sed: 3\n", "base.yaml")
    with pytest.raises(RequestError, match=r"base\.yaml:13: sed: unknown field \(nearest: 'seed'\)"):
        load_recipe(tmp_path / "recipe.yaml")


def test_import_cycle_and_missing_import(tmp_path: Path) -> None:
    write(tmp_path, "$import: b.yaml\n", "a.yaml")
    write(tmp_path, "$import: a.yaml\n", "b.yaml")
    with pytest.raises(RequestError, match=r"goes in a circle: a\.yaml -> b\.yaml -> a\.yaml"):
        load_recipe(tmp_path / "a.yaml")
    assert "nowhere.yaml: no such file" in error_of(tmp_path, "$import: nowhere.yaml\n")


def test_paths_are_relative_to_the_file_they_stand_in(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    write(tmp_path / "units", "name: t\ncheckpoint: w.safetensors\n", "teacher.yaml")
    text = SHORT.replace("{name: ukis-csmask-6b-l1c}", "{$import: units/teacher.yaml}")
    assert load_recipe(write(tmp_path, text)).teacher.checkpoint == tmp_path / "units/w.safetensors"


def test_set_overrides(tmp_path: Path) -> None:
    overrides = ["seed=7", "steps.distill.lr=1e-4", "steps[1].quantize.qat.steps=3", "data.train.0.source=naip"]
    recipe = load_recipe(write(tmp_path), overrides)
    assert recipe.seed == 7
    assert recipe.distill.lr == 1e-4
    assert recipe.quantize is not None
    assert recipe.quantize.qat.steps == 3
    assert recipe.data.train[0].source == "naip"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "write field=value"),
        ("sed=3", "--set sed=3: sed: unknown field (nearest: 'seed')"),
        ("seed=many", "--set seed=many: seed: input should be a valid integer"),
        ("data.train.5.source=x", "has 1 entries; index 5 is past the end"),
        ("steps.prune.iterations=2", "is a list: give an index from 0 to 1 instead of 'prune'"),
        ("name.first=x", "is text; it has no field 'first'"),
        ("seed=[", "not valid YAML"),
        ("teacher.nme=x", "teacher.nme: unknown field (nearest: 'name')"),
    ],
)
def test_wrong_overrides_are_named(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in error_of(tmp_path, SHORT, (override,))


def test_target_names() -> None:
    target = parse_target("tensorrt-jetson-orin-nano-8gb-fp16")
    assert (target.runtime, target.device, target.precision) == ("tensorrt", "jetson-orin-nano-8gb", "fp16")
    assert target.name == "tensorrt-jetson-orin-nano-8gb-fp16"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3), max_leaves=8
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_any_yaml_gives_a_recipe_or_a_request_error(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    base = yaml.safe_load(SHORT)
    base["data"] = value
    path = write(folder, yaml.safe_dump(base))
    with pytest.raises(RequestError):
        load_recipe(path)


def test_a_mission_is_found_beside_its_recipe_and_checked_before_any_work(tmp_path: Path) -> None:
    from rsedge.recipe.checks import preflight

    recipe = load_recipe(write(tmp_path, SHORT + "mission: orbit.yaml\n"))
    assert recipe.mission == tmp_path / "orbit.yaml"
    with pytest.raises(RequestError, match=r"mission: .*no such mission file"):
        preflight(recipe)
    write(tmp_path, "orbit: {altitud_km: 500}\n", "orbit.yaml")
    with pytest.raises(RequestError, match=r"orbit\.yaml:1: orbit\.altitud_km.*nearest: 'altitude_km'"):
        preflight(recipe)
    write(tmp_path, "orbit:\n", "orbit.yaml")
    preflight(recipe)


def test_imports_stay_in_the_recipes_folder_unless_told(tmp_path: Path) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    (shared / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    for folder in (shared / "sub", elsewhere):
        write(folder, "name: ukis-csmask-6b-l1c\n", "teacher.yaml")
    (shared / "link.yaml").symlink_to(elsewhere / "teacher.yaml")
    (shared / "folder").symlink_to(elsewhere)

    def text(name: str) -> str:
        return SHORT.replace("{name: ukis-csmask-6b-l1c}", f"{{$import: {name}}}")

    assert load_recipe(write(shared, text("sub/teacher.yaml"))).teacher.name == "ukis-csmask-6b-l1c"
    for name in ("../elsewhere/teacher.yaml", str(elsewhere / "teacher.yaml"), "link.yaml", "folder/teacher.yaml"):
        message = error_of(shared, text(name))
        assert "lies outside of" in message and f"--allow-import {elsewhere}" in message
        assert load_recipe(shared / "recipe.yaml", allow_import=[elsewhere]).teacher.name == "ukis-csmask-6b-l1c"
    assert "lies outside of" in error_of(shared, text("../nothing/there.yaml")), "not whether it exists"
    write(shared, "name: x\n", "teacher.json")
    assert "is no .yaml or .yml file" in error_of(shared, text("teacher.json"))


def test_ready_recipes_may_be_imported(tmp_path: Path) -> None:
    from rsedge.recipe.reading import find_recipe

    name = str(find_recipe("quickstart"))
    assert load_recipe(write(tmp_path, f"$import: {name}\nname: mine\n")).name == "mine"


@pytest.mark.parametrize("text", ["s3cret: hunter2\ns3cret2: 1\n", "a: *s3cret\n", "a: !s3cret 1\n", "s3cret: 1\ns3cret: 2\n",
                                  "%s3cret\n---\na\n", "s3cret\n", "- s3cret\n"])  # fmt: skip
def test_what_is_no_recipe_is_not_shown(tmp_path: Path, text: str) -> None:
    message = error_of(tmp_path, text)
    assert "recipe.yaml" in message and "s3cret" not in message and "hunter2" not in message
    write(tmp_path, text, "other.yaml")
    message = error_of(tmp_path, SHORT.replace("{name: ukis-csmask-6b-l1c}", "{$import: other.yaml, name: x}"))
    assert "other.yaml" in message and "s3cret" not in message and "hunter2" not in message


def test_paths_are_told_by_the_schemas_types_not_by_their_names(tmp_path: Path) -> None:
    data = """\
data:
  samples:
    source: table.csv
    root: here
    options: {bands: {path: labels}, label: labels, group: key, split: root}
"""
    text = (
        SHORT[: SHORT.index("data:")]
        + data
        + SHORT[SHORT.index("student:") :].replace("name: slim-unet", "name: x, key: y")
    )
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.samples.samples.root == tmp_path / "here"
    assert recipe.samples.samples.options == {
        "bands": {"path": "labels"}, "label": "labels", "group": "key", "split": "root"
    }  # fmt: skip
    assert recipe.student.options == {"key": "y"}
    pairs = "pairs: [{before: a.tif, after: data:b.tif, labels: /c.tif}], tile: 32"
    recipe = load_recipe(
        write(tmp_path, text.replace("table.csv", "pairs").replace(data[data.index("bands") : -2], pairs))
    )
    (found,) = recipe.samples.samples.options["pairs"]
    assert (found["before"], found["labels"]) == (str(tmp_path / "a.tif"), "/c.tif") and found["after"].endswith(
        "/b.tif"
    )


def test_labels_are_a_path_in_both_their_forms(tmp_path: Path) -> None:
    for labels in ("l.tif", "{path: l.tif, map: {0: ignore}}"):
        text = SHORT.replace("test: {source: ukis-sentinel2}", f"test: {{path: s.tif, labels: {labels}}}")
        test = load_recipe(write(tmp_path, text)).scenes.test
        assert test.path == tmp_path / "s.tif"
        assert test.label_file is not None and test.label_file.path == tmp_path / "l.tif"


def test_old_names_of_box_settings_say_the_new_ones() -> None:
    with pytest.raises(RequestError, match=r"boxes.most.*write `max_detections`"):
        load_recipe("tree-boxes", ["boxes.most=3"])
