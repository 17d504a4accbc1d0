"""The front door in Python: what a call builds, what it refuses, and a module of one's own pruned and exported as it is.

The lines of docs/python.md are run by ``tests/test_docs.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rsedge
from rsedge.api_data import data_section, plain
from rsedge.compress.distill.teacher_cache import kept_in
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.samples.samples import Samples
from rsedge.data.sets.sample_sources import load_samples
from rsedge.models.structure import load_model
from rsedge.models.students import build_student

SPEC: dict[str, Any] = {"bands": ["red", "nir"], "tile": 32, "scale": 1e-4, "nodata": 0, "mean": 0.2, "std": 0.1}


class Own(nn.Module):
    """Nobody's library knows it: one channel, through a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Conv2d(24, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.body(x)))


def own() -> Own:
    torch.manual_seed(0)
    net = Own()
    net.head.weight.data *= 8
    return net


def tiles(count: int = 16) -> npt.NDArray[np.uint16]:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.gamma(2.0, 900.0, (count, 2, 4, 4)), np.ones((8, 8)))
    return (smooth + rng.normal(0, 200, (count, 2, 32, 32))).clip(1, 9000).astype(np.uint16)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Own, rsedge.Student, rsedge.Student]:
    folder = tmp_path_factory.mktemp("own")
    net = own().train()
    student = rsedge.as_student(
        net, data=tiles(), spec=SPEC, classes=["water"], run_dir=folder, threads=1, quiet=True,
        labels=(tiles()[:, 0] > 2000).astype(np.uint8), groups=np.arange(16) // 2,
    )  # fmt: skip
    cut = {
        "target": {"latency_ratio": 0.99},  # a board's launches are nearly all that so small a network takes
        "steps": 1,
        "recovery_steps": 2,
        "taylor_batches": 1,
        "max_drop": 1.0,
        "min_gain": 0.0,
    }
    board = "tensorrt-jetson-orin-nano-8gb-fp16"
    return net, student, rsedge.prune(student, scope="latency", latency_on=board, **cut)


def test_ones_own_module_is_its_own_student(pruned: tuple[Own, rsedge.Student, rsedge.Student]) -> None:
    net, student, _ = pruned
    assert net.training and next(net.parameters()).requires_grad, "the module that was handed over has changed"
    assert student.classes == ("background", "water") and student.spec.band_names == ("red", "nir")
    x = torch.randn(2, 2, 32, 32)
    with torch.inference_mode():
        shares = net.eval()(x)
        assert torch.allclose(student.module(x).softmax(1)[:, 1:], shares, atol=1e-5)
    net.train()


def test_it_is_pruned_and_its_structure_lies_in_the_run_folder(
    pruned: tuple[Own, rsedge.Student, rsedge.Student],
) -> None:
    _, student, smaller = pruned
    counts = [sum(p.numel() for p in s.module.parameters()) for s in (student, smaller)]
    record = smaller.record.record
    assert record.outcome == "applied" and counts[1] < counts[0]
    assert record.steps[0].removed and sum(ms.before for ms in record.layers.values()) > 0
    saved = json.loads((smaller.folder / "stages/prune/model/structure.json").read_text())
    assert saved["factory"] == "teacher" and saved["kwargs"]["arch"]["name"] == "python:Own"
    with pytest.raises(rsedge.RequestError, match="'python:Own' is a module in memory, which a file cannot hold"):
        load_model(smaller.folder / "stages/prune/model", build_student)


def test_it_is_exported_and_the_bundle_answers_as_it_does(
    pruned: tuple[Own, rsedge.Student, rsedge.Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sigmoid channel, all the way: a binary map in the bundle too."""
    smaller = pruned[2]
    with rsedge.export(smaller, "onnxruntime-cpu-f32", output=tmp_path / "own.zip") as bundle:
        assert bundle.path == tmp_path / "own.zip" and bundle.classes == ("background", "water") and not bundle.passed
        dn = tiles()[:3]
        with torch.inference_mode():
            logits = smaller.module(torch.from_numpy(smaller.spec.normalise(dn)))
        same = bundle.predict(dn) == logits.argmax(1).numpy()
        assert same.mean() > 0.999
        assert {"kappa", "iou"} <= set(bundle.manifest.metrics)


class Last(nn.Module):
    """Two classes from a map of stride 8 whose channels come last, as Swin's do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches, self.mixed, self.head = nn.Conv2d(2, width, 8, 8), nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        places = self.mixed(self.patches(x).permute(0, 2, 3, 1).relu())
        return self.head(places.mean((1, 2)))  # type: ignore[no-any-return]


def test_a_student_learns_features_of_another_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's have their channels last, the student's first; wrong names are refused before any work."""
    monkeypatch.setenv("RSEDGE_TEACHER_CACHE", str(tmp_path / "kept"))
    torch.manual_seed(0)
    teacher, learner = Last(24), Last(4)
    options = {
        "data": tiles(), "spec": SPEC, "classes": ["land", "water"], "run_dir": tmp_path, "threads": 1, "quiet": True,
        "student": learner, "steps": 31, "views": 8, "batch": 4, "cache": "always",
    }  # fmt: skip
    said = r"taps\.teacher: 'mixed' is no feature of the teacher \(nearest: 'net\.mixed'\); it has: net\.patches \(stride 8, 24"
    with pytest.raises(rsedge.RequestError, match=said):
        rsedge.distill(teacher, taps=[{"teacher": "mixed", "student": "patches"}], **options)
    with pytest.raises(rsedge.RequestError, match=r"taps\.student: 'patch' .* mixed \(stride 8, 4 channels, NHWC\)"):
        rsedge.distill(teacher, taps=[{"teacher": "net.mixed", "student": "patch"}], **options)
    student = rsedge.distill(teacher, taps=[{"teacher": "net.mixed", "student": "patches"}], **options)
    first, last = (student.record.record.history[i]["tap:patches"] for i in (0, -1))
    assert 0 < last < first
    kept = [found for folder in (tmp_path / "kept").iterdir() if (found := kept_in(folder))]
    assert [record.codings["net.mixed"].shape for record in kept] == [(24, 4, 4)]


def test_changed_code_with_the_same_weights_is_another_teacher(tmp_path: Path) -> None:
    class Turned(Own):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flip(-1)) * 0.5

    Turned.__name__ = "Own"
    options = {"data": tiles(), "spec": SPEC, "classes": ["water"], "run_dir": tmp_path, "threads": 1, "quiet": True}
    rsedge.as_student(own(), **options)
    first = json.loads((tmp_path / "stages/distill/record.json").read_text())["key"]
    torch.manual_seed(0)
    other = Turned()
    other.head.weight.data *= 8
    rsedge.as_student(other, **options)
    assert json.loads((tmp_path / "stages/distill/record.json").read_text())["key"] != first


def test_a_recipe_takes_the_module_that_it_names(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "name": "mine", "threads": 1, "teacher": {"name": "python:Own", "input": SPEC, "classes": ["water"]},
        "data": data_section(tiles(), _spec(), tmp_path), "student": "teacher", "steps": ["distill"],
        "targets": ["openvino-cpu-f32"],
    }  # fmt: skip
    arguments: dict[str, Any] = {"run_dir": tmp_path, "until": "distill", "quiet": True, "steps__distill__steps": 0}
    run = rsedge.run(recipe, teacher=own(), **arguments)
    assert not run.passed and (run.folder / "stages/distill/model/structure.json").is_file()
    with pytest.raises(rsedge.RequestError, match="stopped after distill, so there is no report yet"):
        _ = run.report
    with pytest.raises(rsedge.RequestError, match="is a module in memory; hand it over with teacher="):
        rsedge.run(recipe, **arguments)
    with pytest.raises(rsedge.RequestError, match="'ukis-csmask-4b-l1c' is no module in memory"):
        rsedge.run("quickstart", teacher=own(), run_dir=tmp_path)
    built = rsedge.Recipe.model_validate_json(json.dumps({**recipe, "steps": [{"distill": {"steps": 0}}]}))
    assert rsedge.run(built, teacher=own(), run_dir=tmp_path, until="data", quiet=True).summary.stopped_after == "data"


def _spec() -> InputSpec:
    bands = tuple(BandSpec(name=n, scale=1e-4, nodata=0, mean=0.2, std=0.1) for n in SPEC["bands"])
    return InputSpec(bands=bands, tile=32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"spec": None}, "spec: a module in memory does not say what its bands are"),
        ({"spec": {**SPEC, "tile": 8}}, "at least 16 pixels"),
        ({"spec": {**SPEC, "scal": 1}}, r"scal: unknown field \(nearest: 'scale'\)"),
        ({"data": np.zeros((9, 3, 32, 32), np.uint16)}, r"give tiles \(N, 2, 32, 32\) \(CHW: red, nir\)"),
        ({"data": np.zeros((3, 2, 32, 32), np.uint16)}, "3 tiles are too few"),
        ({"data": "none.tif"}, r"none\.tif: no such file"),
        ({"data": tiles().astype(np.int32) - 9000}, "no digital numbers of the contract's uint16"),
        ({"labels": np.zeros((3, 32, 32))}, "labels: 3 for 16 tiles"),
        ({"student": "slim-unit"}, r"'slim-unit' is unknown \(nearest: 'slim-unet'\)"),
        ({"stepz": 3}, r"stepz: unknown field \(nearest: 'steps'\)"),
        ({"classes": ["a", "b", "c"]}, "one channel, a binary map, but 3 classes are named"),
        ({"checkpoint": "w.pth"}, "a module in memory has its weights"),
        ({"student": object()}, "'python:object' is no torch.nn.Module"),
        ({"classes": "water"}, r"classes: a list of names is needed, such as \['water'\]"),
        ({"spec": {**SPEC, "bands": "red"}}, "bands: needed is a list of names in the model's order"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": tiles(), "spec": SPEC, "classes": ["water"], "run_dir": tmp_path, "quiet": True}
    with pytest.raises(rsedge.RequestError, match=words):
        rsedge.distill(own(), **{**given, **arguments})
    assert not (tmp_path / "stages/teacher").exists()


def test_as_student_trains_nothing_and_export_asks_for_a_target(
    pruned: tuple[Own, rsedge.Student, rsedge.Student], tmp_path: Path
) -> None:
    with pytest.raises(rsedge.RequestError, match="as_student takes no steps"):
        rsedge.as_student(own(), data=tiles(), spec=SPEC, steps=3)
    with pytest.raises(rsedge.RequestError, match="export: name a target"):
        rsedge.export(pruned[2])
    with pytest.raises(rsedge.RequestError, match="nope"):
        rsedge.export(pruned[2], "nope-cpu-f32")
    with pytest.raises(rsedge.RequestError, match="TorchScript"):
        rsedge.as_student(torch.jit.script(own()), data=tiles(), spec=SPEC, run_dir=tmp_path, quiet=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), physical=st.booleans(), labelled=st.sampled_from(["no", "maps", "numbers", "table"]))
def test_an_array_comes_back_as_it_was_given(seed: int, physical: bool, labelled: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    spec = _spec()
    dn = rng.integers(0, 65536, (9, 2, 32, 32)).astype(np.uint16)
    dn[:, :, :4, :4] = 0
    dn[:, :, 4:] = dn[:, :, 4:].clip(1)
    values: npt.NDArray[Any] = dn
    if physical:
        values = spec.to_physical(dn)
        values[dn == 0] = np.nan
    labels = {"no": None, "maps": rng.integers(0, 2, (9, 32, 32)), "numbers": rng.permutation(np.arange(9) % 2),
              "table": rng.integers(0, 2, (9, 2)).astype(np.float32)}[labelled]  # fmt: skip
    section = data_section(values, spec, tmp_path, labels, list("aabbccdde"), ["x", "y"])["samples"]
    found: Samples = load_samples(section["source"], **section["options"])
    known = ~(dn == 0).any(1, keepdims=True)
    assert np.array_equal(np.where(known, found.dn(spec), 0), np.where(known, dn, 0))
    assert found.group is not None and found.group.tolist() == list("aabbccdde")
    assert (found.labels is None) == (labels is None) and (labels is None or np.array_equal(found.labels, labels))


def test_geotiffs_and_sections_become_the_recipes_data(tmp_path: Path) -> None:
    spec = _spec()
    one = data_section("a.tif", spec, tmp_path, labels="l.tif")
    assert one == {"train": [{"path": "a.tif"}], "test": {"path": "a.tif", "labels": "l.tif"}}
    many = data_section([Path("a.tif"), {"path": "b.tif", "scale": 1e-4}], spec, tmp_path)
    assert many["train"][0] == {"path": "a.tif"} and many["test"] == {"path": "b.tif", "scale": 1e-4}
    assert data_section({"train": [{"source": "x"}], "test": {"source": "x"}}, spec, tmp_path)["test"] == {
        "source": "x"
    }
    with pytest.raises(rsedge.RequestError, match="a data section has its own"):
        data_section({"train": []}, spec, tmp_path, labels="l.tif")
    assert plain({"a": (np.float32(0.5), Path("x"), _spec())})["a"][:2] == [0.5, "x"]


@pytest.mark.parametrize("call", [rsedge.prune, rsedge.quantize, rsedge.export])
def test_steps_take_what_earlier_ones_gave(call: Any) -> None:
    with pytest.raises(rsedge.RequestError, match=r": takes what .* no Own; rsedge\.as_student\(module, data=\.\.\."):
        call(own())


def test_a_recipe_is_a_file_a_name_or_a_mapping(tmp_path: Path) -> None:
    for odd in (None, 5, [{}]):
        with pytest.raises(rsedge.RequestError, match=f"recipe: give a file, .* no {type(odd).__name__}"):
            rsedge.run(odd, run_dir=tmp_path)  # type: ignore[arg-type]


def test_a_place_that_is_no_bundle_is_refused_before_any_work(
    pruned: tuple[Own, rsedge.Student, rsedge.Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsedge.api.run_recipe", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(rsedge.RequestError, match="is there already and is no bundle"):
        rsedge.export(pruned[2], "openvino-cpu-f32", output=tmp_path)


@pytest.mark.parametrize("where", ["teacher", "student"])
@pytest.mark.parametrize("thing", [Own, torch.sigmoid, [1]])
def test_what_is_no_module_is_refused(thing: Any, where: str, tmp_path: Path) -> None:
    handed: dict[str, Any] = {"teacher": own(), where: thing}
    with pytest.raises(
        rsedge.RequestError, match=r"'python:\w+' is no torch\.nn\.Module; hand over the network itself"
    ):
        rsedge.distill(**handed, data=tiles(), spec=SPEC, classes=["water"], run_dir=tmp_path, quiet=True)


class Small(nn.Module):
    def __init__(self, width: int = 16, outputs: int = 2) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, width, 3, padding=1), nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def test_a_student_may_be_a_module_in_memory_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mine = Small()
    before = {n: v.clone() for n, v in mine.state_dict().items()}
    options: dict[str, Any] = {"data": tiles(), "spec": SPEC, "classes": ["water"], "run_dir": tmp_path, "threads": 1,
                               "quiet": True, "steps": 6, "views": 8, "batch": 4, "validate_every": 6}  # fmt: skip
    student = rsedge.distill(own(), mine, **options)
    assert all(torch.equal(v, before[n]) for n, v in mine.state_dict().items()), (
        "the module that was handed over has changed"
    )
    assert type(student.module) is Small and not torch.equal(student.module.first.weight, mine.first.weight)
    first = student.record
    assert rsedge.distill(own(), mine, **options).record == first
    torch.manual_seed(1)
    assert rsedge.distill(own(), Small(), **options).record != first, "other first weights, the same result"
    smaller = rsedge.prune(
        student, target={"params_ratio": 0.7}, steps=1, recovery_steps=1, taylor_batches=1, max_drop=1.0
    )
    assert smaller.module.first.out_channels < 16
    with pytest.raises(rsedge.RequestError, match=r"student 'python:Small' is a module in memory"):
        load_model(smaller.folder / "stages/prune/model", build_student)
    with pytest.raises(rsedge.RequestError, match="logits"):
        rsedge.distill(own(), Small(outputs=1), **options)
    with pytest.raises(rsedge.RequestError, match="'python:Conv2d' cannot run on its contract's input"):
        rsedge.distill(own(), nn.Conv2d(5, 2, 1), **options)


class Entries(Small):
    """As torchvision's segmenters, or transformers' networks, by its key."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.keys = keys

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return dict.fromkeys(self.keys, super().forward(x))


def test_modules_that_give_a_dictionary_are_taken_by_their_logits(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data": tiles(),
        "spec": SPEC,
        "classes": ["a", "b"],
        "run_dir": tmp_path,
        "threads": 1,
        "quiet": True,
    }
    torch.manual_seed(0)
    mine = Entries("out", "aux")
    student = rsedge.as_student(mine, **{**options, "run_dir": tmp_path / "own"})
    x = torch.randn(1, 2, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(student.module(x), mine(x)["out"])
    taught = rsedge.distill(
        Entries("logits"),
        mine,
        **{**options, "run_dir": tmp_path / "taught"},
        steps=2,
        views=4,
        batch=2,
        validate_every=2,
    )
    cut = {"target": {"params_ratio": 0.7}, "steps": 1, "recovery_steps": 1, "taylor_batches": 1, "max_drop": 1.0}
    smaller = rsedge.prune(taught, **cut)
    assert smaller.module(x).shape == (1, 2, 32, 32) and smaller.module.net.first.out_channels < 16
    for odd in (Entries("a", "b"), TwoOutputs()):
        with pytest.raises(
            rsedge.RequestError, match=r"gives a (dict of 'a', 'b'|tuple); rsedge takes .* wrap it in a module"
        ):
            rsedge.as_student(odd, **{**options, "run_dir": tmp_path / "odd"})


class Auxiliary(Small):
    """More while it learns than afterwards, as networks with auxiliary heads give, or the other way round."""

    def __init__(self, learning: bool, more: Any) -> None:
        super().__init__()
        self.learning, self.more = learning, more

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        found = super().forward(x)
        return self.more(found) if self.training == self.learning else found


@pytest.mark.parametrize("learning", [True, False])
def test_students_may_give_more_while_they_learn(learning: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": tiles(), "spec": SPEC, "classes": ["water"], "run_dir": tmp_path, "threads": 1,
                               "quiet": True, "steps": 2, "views": 4, "batch": 2, "validate_every": 2}  # fmt: skip
    student = rsedge.distill(own(), Auxiliary(learning, lambda y: {"out": y, "aux": y}), **options)
    assert student.module(torch.zeros(1, 2, 32, 32)).shape == (1, 2, 32, 32)
    with pytest.raises(rsedge.RequestError, match=r"gives a tuple; rsedge takes a tensor"):
        rsedge.distill(own(), Auxiliary(learning, lambda y: (y, y)), **options)


def test_what_is_no_tensor_in_training_alone_ends_in_words(tmp_path: Path) -> None:
    """Of a teacher that is its own student it shows where it is trained."""
    student = rsedge.as_student(
        Auxiliary(True, lambda y: {"aux": y}),
        data=tiles(),
        spec=SPEC,
        classes=["a", "b"],
        run_dir=tmp_path,
        threads=1,
        quiet=True,
    )
    with pytest.raises(rsedge.RequestError, match="the network gives a dict where it should give tensors: logits"):
        rsedge.prune(student, target={"params_ratio": 0.7}, steps=1, recovery_steps=1, taylor_batches=1, max_drop=1.0)


class TwoOutputs(Small):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


def test_a_geotiff_with_its_labels_is_data_enough(tmp_path: Path) -> None:
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(500, 6000, (2, 20, 20)), np.ones((8, 8))).astype(np.uint16)
    place = {
        "driver": "GTiff",
        "height": 160,
        "width": 160,
        "crs": "EPSG:32632",
        "transform": from_origin(0, 0, 10, 10),
    }
    with rasterio.open(tmp_path / "s.tif", "w", count=2, dtype="uint16", nodata=0, **place) as file:
        file.write(image)
        file.descriptions = ("red", "nir")
    with rasterio.open(tmp_path / "l.tif", "w", count=1, dtype="uint8", **place) as file:
        file.write((image[0] > 3000).astype(np.uint8), 1)
    # Guards and blocks of the defaults fit scenes, not these 160 pixels.
    section = {**data_section(tmp_path / "s.tif", _spec(), tmp_path, labels=tmp_path / "l.tif"), "block": 32}
    teacher = {"name": "python:Own", "input": {**SPEC, "quantity": "boa_reflectance"}, "classes": ["water"]}
    recipe = {"name": "tif", "threads": 1, "teacher": teacher, "data": section, "student": "teacher", "steps": [{"prune": {}}],
              "targets": ["openvino-cpu-f32"]}  # fmt: skip
    run = rsedge.run(recipe, teacher=own(), run_dir=tmp_path / "run", until="data", quiet=True)
    splits = json.loads((run.folder / "stages/data/record.json").read_text())["value"]["splits"]
    assert splits["test"]["labelled"] and splits["selection"]["labelled"] and splits["train"]["pixels"] > 5000


def test_a_network_of_a_library_is_its_own_student_and_what_was_stripped_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import timm

    torch.manual_seed(0)
    arch = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=2, num_classes=2, **arch).eval()
    torch.save({"net": {f"module.{n}": v for n, v in net.state_dict().items()}, "lr": 0.1}, tmp_path / "v.pth")
    about = {"name": "timm:vit_tiny_patch16_224", "arch": arch}
    student = rsedge.as_student(
        about,
        data=tiles(),
        spec=SPEC,
        classes=["a", "b"],
        checkpoint=tmp_path / "v.pth",
        run_dir=tmp_path / "run",
        threads=1,
    )
    assert "v.pth: weights from its entry net; 'module.' taken off their names" in capfd.readouterr().err
    x = torch.randn(2, 2, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(student.module(x), net(x))
    again = load_model(student.folder / "stages/distill/model", build_student)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), net(x))
