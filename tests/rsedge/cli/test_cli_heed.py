"""Options that would be ignored are refused: every option of the flying commands with every work and every engine."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rsedge.cli import bench as cli_bench
from rsedge.cli.evaluate import evaluate
from rsedge.cli.heed import engine_of
from rsedge.cli.infer import infer
from rsedge.cli.verify import verify
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.files import sha256_file
from rsedge.runtimes.bundle.manifest import BoxSettings, FileEntry, Golden, Manifest, Target
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.device_cache import Slot, store
from rsedge.runtimes.inference.works import table
from rsedge.runtimes.inference.works.table import heeded, heeding, work_of
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.openvino.core import shared_core
from rsedge.runtimes.openvino.session import device_name
from rsedge.runtimes.registry import backends
from tests.runtimes import tiny_models as tiny
from tests.runtimes.tiny_litert import make_litert
from tests.runtimes.tiny_parts import make_parts_bundle

TILE, CLASSES, DATES = 16, ("land", "water"), 2
BANDS = tuple(BandSpec(name=n, scale=1e-4, nodata=0.0) for n in ("red", "nir"))
ALWAYS = {"context", "bundle", "scene", "scenes", "labels", "output", "output_dir", "format", "again", "key", "device",
          "require_passed", "as_json"}  # fmt: skip
"""Parameters that no work and no engine ignores."""
ENGINE_OPTIONS = ("threads", "hint")
REFUSED = "would be ignored"
WORKS = tuple(work.name for work in table.WORKS)
HEED = {option: {work.name for work in heeding(option)} for option in sorted(heeded() | {*ENGINE_OPTIONS, "self_test"})}
"""The works for which an option does something."""
WHOLES = {
    "prompted masks": "prompted-masks",
    "parts": "prompted-masks",
    "neighbours": "retrieval",
    "pictures": "sampled-picture",
}
"""Works of bundles of several parts."""
TASKS: dict[str, str] = {
    "maps": "segmentation", "dates": "segmentation", "objects": "detection", "chips": "classification",
    "samples": "embedding", "features": "features", "captions": "captioning", "images": "super-resolution",
}  # fmt: skip
TARGETS: dict[str, str] = {
    "openvino-cpu": "openvino-cpu-f32", "openvino-blob": "openvino-cpu-f32", "openvino-device": "openvino-npu-3720-fp16",
    "myriad": "openvino-myriad-x-fp16", "myriad-cpu": "openvino-myriad-x-fp16", "onnxruntime": "onnxruntime-cpu-f32",
    "litert": "litert-cpu-f32",
    "tensorrt": "tensorrt-jetson-orin-nano-8gb-fp16",
}  # fmt: skip
ENGINES = {e.name: e for b in backends() for e in b.all_engines()}


def contract(work: str) -> InputSpec:
    shape: dict[str, Any] = {"dates": {"layout": "TCHW", "frames": DATES}, "samples": {"layout": "C", "tile": 1}}
    return InputSpec(bands=BANDS, dtype="uint16", **{"tile": TILE, **shape.get(work, {})})


def graph(path: Path, work: str, spec: InputSpec) -> None:
    """``dn`` -> ``logits`` in the form of the work, ``valid``: a 1x1 convolution of what was given."""
    shape, channels = [1, *spec.shape], DATES * len(BANDS) if work == "dates" else len(BANDS)
    outputs = 5 + len(CLASSES) if work == "objects" else len(CLASSES)
    edge = 1 if work == "samples" else TILE
    form = {"maps": [1, outputs, edge, edge], "dates": [1, outputs, edge, edge], "objects": [1, edge * edge, outputs],
            "images": [1, outputs, edge, edge], "features": [1, outputs, edge, edge]}  # fmt: skip
    weights = np.random.default_rng(0).normal(size=(outputs, channels, 1, 1)).astype(np.float32)
    seen = [n for n, axis in zip(spec.shape, spec.layout, strict=True) if axis not in ("C", "T")]
    constants = {
        "w": weights, "flat": np.array([1, channels, edge, edge], np.int64), "unit": np.float32(1e-4),
        "form": np.array(form.get(work, [1, outputs]), np.int64), "ones": np.ones([1, *seen], np.uint8),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Cast", ["dn"], ["x"], to=TensorProto.FLOAT),
        node("Mul", ["x", "unit"], ["scaled"]),
        node("Reshape", ["scaled", "flat"], ["image"]),
        node("Conv", ["image", "w"], ["mixed"]),
        node("Sigmoid", ["mixed"], ["scores"]),
        *([node("GlobalAveragePool", ["scores"], ["ready"])] if work in ("chips", "samples", "captions") else []),
        *([node("Transpose", ["scores"], ["ready"], perm=[0, 2, 3, 1])] if work == "objects" else []),
        *([node("Identity", ["scores"], ["ready"])] if work in ("maps", "dates", "images", "features") else []),
        node("Reshape", ["ready", "form"], ["logits"]),
        node("Identity", ["ones"], ["valid"]),
    ]
    made = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("dn", TensorProto.UINT16, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None),
         helper.make_tensor_value_info("valid", TensorProto.UINT8, [1, *seen])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def golden(model: Path, spec: InputSpec) -> None:
    folder, dn = model.parent, np.ones((1, *spec.shape), np.uint16)
    runtime = "litert" if model.suffix == ".tflite" else "onnxruntime"
    with contextlib.closing(open_session(model, runtime, input_spec=spec, threads=1)) as session:
        np.savez(folder / "golden.npz", dn=dn, **session({"dn": dn}))


def make_bundle(folder: Path, work: str, target: str = "onnxruntime-cpu-f32") -> Path:
    folder.mkdir()
    spec = contract(work)
    model = "model.onnx"
    if target.startswith("litert"):
        model = make_litert(folder / "model.tflite", spec, np.ones((len(CLASSES), len(BANDS), 1, 1), np.float32)).name
    else:
        graph(folder / model, work, spec)
    golden(folder / model, spec)
    files = {n: FileEntry(sha256=sha256_file(folder / n), bytes=(folder / n).stat().st_size)
             for n in (model, "golden.npz")}  # fmt: skip
    manifest = Manifest(
        name=work, task=TASKS[work], classes=("red", "nir") if work == "images" else CLASSES,
        target=Target.parse(target), input_spec=spec,
        model_file=model, files=files, golden=Golden(atol=1e-3),
        boxes=BoxSettings() if work == "objects" else None, finer=1 if work == "images" else None,
        stride=1 if work == "features" else None,
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle per work, scenes, samples and labels."""
    folder = tmp_path_factory.mktemp("heed")
    for work in WORKS:
        if work not in WHOLES:
            make_bundle(folder / work, work)
            continue
        _, sample = make_parts_bundle(folder / work, WHOLES[work], contract("maps"), folder / "made" / work)
        np.savez(folder / f"{work}.npz", **{name: np.stack([value, value]) for name, value in sample.items()})
    (folder / "points.csv").write_text("x,y\n5,5\n")
    spec = contract("maps")
    for number, name in enumerate(("scene", "later")):
        tiny.write_scene(folder / f"{name}.tif", tiny.random_scene(spec, 40, 40, number), ("red", "nir"))
    tiny.write_scene(folder / "labels.tif", np.zeros((1, 40, 40), np.uint8), None)
    (folder / "boxes.csv").write_text("image_path,xmin,ymin,xmax,ymax,label\nscene.tif,2,2,9,9,land\n")
    np.savez(folder / "samples.npz", dn=np.ones((3, 2), np.uint16))
    return folder


def value_of(option: str, stock: Path, out: Path, work: str = "maps") -> list[str]:
    """An option as it is written on the command line, with a value that would do."""
    values = {
        "probabilities": str(out / "p.tif"), "overlap": "4", "bands": "red,nir", "scale": "0.0001", "offset": "0",
        "sensor": "sentinel-2", "nodata": "65535", "label_map": "0=land",
        "nan_nodata": None, "any_gsd": None,
        "align_tiles": None, "after": str(stock / "later.tif"), "prompt": "what?", "score": "0.3",
        "prompts": str(stock / "points.csv"), "cog": None, "probability_type": "uint8",
        "filter": str(stock / "maps"), "filter_drops": CLASSES[0], "filter_least": "0.1", "heads": str(stock / "a.head"),
        "ignore": "255", "threads": "1", "hint": "latency", "self_test": "7",
    }  # fmt: skip
    name, value = "--" + option.replace("_", "-"), values[option]
    if option == "offset":  # alone it would make reflectance of bare digital numbers
        return [name, "0", "--scale", "0.0001"][: 4 if work in HEED[option] else 2]
    return [name] if value is None else [name, value]


def given(work: str, stock: Path, out: Path) -> list[str]:
    """What a work is done with."""
    scene = {"samples": "samples.npz", **{w: f"{w}.npz" for w in WHOLES if w != "prompted masks"}}.get(
        work, "scene.tif"
    )
    suffix = {
        "objects": "geojson",
        "samples": "csv",
        "captions": "txt",
        "parts": "npz",
        "neighbours": "csv",
        "pictures": "npz",
    }.get(work, "tif")
    return [str(stock / work), str(stock / scene), "-o", str(out / f"o.{suffix}")]


def needs(work: str, option: str, stock: Path, out: Path) -> list[str]:
    """Options without which a work does nothing, beside the one that is tried."""
    wanted = {"dates": "after", "prompted masks": "prompts"}.get(work)
    together = {
        "probability_type": ["probabilities"], "filter": ["filter_drops"], "filter_drops": ["filter"],
        "filter_least": ["filter", "filter_drops"],
    }  # fmt: skip
    more = [t for o in together.get(option, []) if work in HEED[option] for t in value_of(o, stock, out, work)]
    return more + (value_of(wanted, stock, out) if wanted not in (None, option) else [])


def pairs(options: Iterable[str]) -> Iterator[Any]:
    """Every option with every work; beyond two works that heed it, and two that do not, they are slow: each is a run of its own."""
    for option in options:
        for heeds in (True, False):
            works = [work for work in WORKS if (work in HEED[option]) is heeds]
            yield from (
                pytest.param(work, option, marks=pytest.mark.slow if i > 1 else (), id=f"{work}-{option}")
                for i, work in enumerate(works)
            )


@pytest.mark.parametrize(("work", "option"), pairs(o for o in HEED if o not in ("ignore", "label_map", "hint")))
def test_infer_takes_what_it_heeds_and_refuses_the_rest(
    work: str, option: str, stock: Path, cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    more = value_of(option, stock, tmp_path, work)
    needed = needs(work, option, stock, tmp_path)
    code, text, _ = cli("infer", *given(work, stock, tmp_path), *needed, *more, "--json")
    if work in HEED[option] and option == "heads":
        heeded = (
            "a.head: no such file" if work in ("samples", "features") else "a head goes on what an encoder gives"
        )  # samples: an encoder, but no head
        assert code == 2 and heeded in json.loads(text)["error"], text
        return
    if work in HEED[option]:
        # The captioning bundle here holds no language model, which is said once its options are through.
        assert code == (4 if work == "captions" else 0), text
        return
    record = json.loads(text)
    assert code == record["exit_code"] == 2 and f"{more[0]} {REFUSED}" in record["error"], text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("work", "option"), pairs(o for o in HEED if o in inspect.signature(evaluate).parameters))
def test_evaluate_takes_what_it_heeds_and_refuses_the_rest(
    work: str, option: str, stock: Path, cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    more = value_of(option, stock, tmp_path, work)
    needed = value_of("after", stock, tmp_path) if work == "dates" and option != "after" else []
    scene, labels = (
        given(work, stock, tmp_path)[1],
        stock / {"objects": "boxes.csv", "images": "scene.tif"}.get(work, "labels.tif"),
    )
    code, text, _ = cli("evaluate", stock / work, scene, labels, *needed, *more, "--json")
    if work not in ("maps", "dates", "objects", "images"):
        assert code == 2 and "no labels on a grid" in json.loads(text)["error"]
    elif work in HEED[option]:
        assert code == 0, text
    else:
        assert code == 2 and f"{more[0]} {REFUSED}" in json.loads(text)["error"]


@pytest.mark.parametrize("option", ENGINE_OPTIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_refuse_what_they_ignore(
    engine: str, option: str, stock: Path, cli: Callable[..., tuple[int, str, str]], tmp_path: Path, own_cache: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", "maps", TARGETS[engine])
    if engine == "openvino-blob":
        with Bundle.open(bundle) as opened:
            store(Slot("blob", opened.manifest_sha256, device_name(shared_core(), "CPU"), bundle), b"compiled", {})
    device = ["--device", "cpu"] if engine == "myriad-cpu" else []
    with Bundle.open(bundle) as opened:
        assert engine_of(opened, device[-1] if device else None).name == engine
    more = value_of(option, stock, tmp_path)
    _, text, _ = cli("infer", bundle, stock / "scene.tif", "-o", tmp_path / "o.tif", *device, *more, "--json")
    heeded = option in ENGINES[engine].heeds
    assert (f"{more[0]} {REFUSED}" in text) is not heeded, text
    if option != "threads":
        return
    for command in ("verify", "bench"):
        more = ["--seconds", "0.1"] if command == "bench" else device
        if command == "bench" and device:
            continue
        assert (REFUSED in cli(command, bundle, *more, "--threads", "1", "--json")[1]) is not heeded


def test_every_option_has_its_row() -> None:
    for command in (infer, evaluate, verify):
        assert set(inspect.signature(command).parameters) - ALWAYS <= set(HEED), command.__name__
    bench = set(inspect.signature(cli_bench.bench).parameters)
    assert bench - ALWAYS - set(HEED) == {"seconds", "on", "layers", "html", "remote_python", "reconnect", "target"}


def test_bench_refuses_what_needs_another_option(stock: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    for more, needed in (
        (["--html", "page.html"], "--layers"),
        (["--reconnect", "5"], "--on"),
        (["--remote-python", "python3"], "--on"),
    ):
        code, text, _ = cli("bench", stock / "maps", *more, "--json")
        assert code == 2 and f"{more[0]} {REFUSED} without {needed}" in json.loads(text)["error"]


@pytest.mark.parametrize(
    ("words", "option", "needed"),
    [
        (("latency", "STOCK", "--remote-python", "python3"), "--remote-python", "--host"),
        (("devices", "calibrate", "--remote-python", "python3"), "--remote-python", "--on"),
        (("devices", "check", "openvino-cpu-f32", "--onnx", "net.onnx"), "--onnx", "--dla"),
        (("budget", "STOCK", "--device", "cpu", "--mission", "m.yaml", "--output", "o.json"), "--output", "--example"),
    ],
)
def test_what_needs_another_option_is_not_ignored_without_it(
    stock: Path, cli: Callable[..., tuple[int, str, str]], words: tuple[str, ...], option: str, needed: str
) -> None:
    code, _, errors = cli(*(stock / "maps" if word == "STOCK" else word for word in words))
    assert code == 2 and f"{option} would be ignored without {needed}" in errors, errors


def test_a_device_has_one_host(stock: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    own = "tensorrt-jetson-orin-nano-8gb-fp16"
    for first, second in (("", ""), ("jetson-orin-nano-8gb=", ""), ("", "jetson-orin-nano-8gb=")):
        hosts = ("--host", f"{first}ssh://a", "--host", f"{second}ssh://b")
        code, _, errors = cli("latency", stock / "maps", "--on", own, *hosts)
        assert code == 2 and "ssh://a and ssh://b are both for 'jetson-orin-nano-8gb'" in errors, errors


def test_a_language_model_has_no_hint(stock: Path, cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    more = value_of("hint", stock, tmp_path)
    code, text, _ = cli("infer", *given("captions", stock, tmp_path), *more, "--json")
    assert code == 2 and f"{more[0]} {REFUSED}" in json.loads(text)["error"] and "captions" in text


def test_several_are_named_together(stock: Path, cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    arguments = given("samples", stock, tmp_path)
    code, text, _ = cli("infer", *arguments, "--overlap", "4", "--bands", "red,nir", "--any-gsd", "--json")
    assert code == 2 and f"--overlap, --bands and --any-gsd {REFUSED}" in json.loads(text)["error"]


def test_samples_for_a_bundle_that_takes_scenes(stock: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    with Bundle.open(stock / "chips") as opened:
        assert work_of(opened, stock / "samples.npz").name == "samples"
    for command in (["infer", "-o", "o.tif"], ["evaluate", str(stock / "labels.tif")]):
        code, text, _ = cli(command[0], stock / "maps", stock / "samples.npz", *command[1:], "--json")
        assert code == 2 and "a scene is an array 'image' or 'dn'" in json.loads(text)["error"]
