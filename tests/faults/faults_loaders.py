"""Every file that a user hands to rsedge, broken: bytes at random, and values where no reader expects them.

A loader is a name, a small real file, and the call that reads it. What is looked for is our own error or an answer, never a
traceback, a hang or more memory than the file is worth.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.faults.faults_scenes import SPEC, dn, scene
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged, flipped
from tests.runtimes import tiny_models as tiny

EDGE = 32


@dataclass(frozen=True)
class Loader:
    """``make`` writes a good file of the kind into a folder and gives its path; ``load`` reads it as a command would."""

    make: Callable[[Path], Path]
    load: Callable[[Path], Any]


def _text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return make


def _picture(folder: Path, name: str = "i.png") -> Path:
    import rasterio

    rng = np.random.default_rng(1)
    driver = {"png": "PNG", "jpg": "JPEG", "tif": "GTiff"}[name[-3:]]
    with rasterio.open(
        folder / name, "w", driver=driver, count=3, height=48, width=48, dtype="uint8", photometric="RGB"
    ) as f:
        f.write(rng.integers(0, 255, (3, 48, 48)).astype(np.uint8))
    return folder / name


def _samples(source: str, **options: Any) -> Callable[[Path], Any]:
    def load(path: Path) -> Any:
        from rsedge.data.sets.sample_sources import load_samples

        name = path.name if source == "table" else source
        filled = json.loads(json.dumps(options).replace("FILE", path.name))
        return load_samples(name, path.parent, **filled)

    return load


# Tables of samples.


def _columns() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    return {
        "a": rng.random(12),
        "b": rng.random(12),
        "kind": np.array(["x", "y", "z"] * 4),
        "lon": rng.random(12),
        "lat": rng.random(12),
    }


def _csv(folder: Path) -> Path:
    columns = _columns()
    rows = [",".join(columns), *(",".join(str(v) for v in row) for row in zip(*columns.values(), strict=True))]
    return _text("t.csv", "\n".join(rows) + "\n")(folder)


def _parquet(folder: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(_columns()), folder / "t.parquet")
    return folder / "t.parquet"


def _npz(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    arrays = {
        "values": rng.random((12, 2)).astype(np.float32),
        "kind": np.array(["x", "y"] * 6),
        "lon": rng.random(12),
        "lat": rng.random(12),
    }
    np.savez_compressed(folder / "t.npz", **arrays)
    return folder / "t.npz"


def _series_npz(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    np.savez(folder / "t.npz", values=rng.random((6, 4, 2)).astype(np.float32), y=rng.integers(0, 2, (6, 3)))
    return folder / "t.npz"


def _map_npz(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    np.savez(folder / "t.npz", values=rng.random((4, 2, 8, 8)).astype(np.float32), map=rng.integers(0, 3, (4, 8, 8)))
    return folder / "t.npz"


def _dn_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "dn.npz", dn=np.ones((3, *SPEC.shape), np.uint16))
    return folder / "dn.npz"


def _read_dn(path: Path) -> Any:
    from rsedge.runtimes.inference.vectors import read_samples

    return read_samples(path, SPEC)


_TABLE: dict[str, Any] = {"label": "kind", "longitude": "lon", "latitude": "lat"}
TABLES: Mapping[str, Loader] = {
    "csv": Loader(_csv, _samples("table", bands={"a": "a", "b": "b"}, **_TABLE)),
    "csv of times": Loader(
        _csv, _samples("table", bands={"a": "a", "b": "b"}, layout="TC", group="kind", label="a", task="regression")
    ),
    "parquet": Loader(_parquet, _samples("table", bands={"a": "a", "b": "b"}, **_TABLE)),
    "npz": Loader(_npz, _samples("table", bands=["a", "b"], **_TABLE)),
    "npz of layout TC": Loader(
        _series_npz, _samples("table", bands=["a", "b"], layout="TC", label="y", task="multilabel")
    ),
    "npz of maps": Loader(
        _map_npz, _samples("table", bands=["a", "b"], layout="CHW", label="map", task="segmentation")
    ),
    "samples of infer": Loader(_dn_npz, _read_dn),
}


# Boxes.

_COCO = {
    "images": [{"id": 1, "file_name": "i.png", "width": 48, "height": 48}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 5, 10, 12], "iscrowd": 0}],
    "categories": [{"id": 3, "name": "tree"}],
}
_VOC = """<annotation><filename>i.png</filename><size><width>48</width><height>48</height><depth>3</depth></size><object>
<name>tree</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>14</xmax><ymax>17</ymax></bndbox></object></annotation>"""
_BOX_CSV = "image,xmin,ymin,xmax,ymax,label\ni.png,4,5,14,17,tree\ni.png,20,21,30,31,bush\n"


def _with_picture(make: Callable[[Path], Path], name: str = "i.png") -> Callable[[Path], Path]:
    def both(folder: Path) -> Path:
        _picture(folder, name)
        return make(folder)

    return both


_boxes = _samples("boxes", annotations=["FILE"], tile=16)
BOXES: Mapping[str, Loader] = {
    "coco": Loader(_with_picture(_text("b.json", json.dumps(_COCO))), _boxes),
    "voc": Loader(_with_picture(_text("b.xml", _VOC)), _boxes),
    "table": Loader(_with_picture(_text("b.csv", _BOX_CSV)), _boxes),
}


def _picture_boxes(name: str) -> Callable[[Path], Any]:
    def load(path: Path) -> Any:
        from rsedge.data.sets.sample_sources import load_samples

        (path.parent / "b.csv").write_text(_BOX_CSV.replace("i.png", name))
        return load_samples("boxes", path.parent, annotations=["b.csv"], tile=16)

    return load


# Texts and pictures.

_RECORDS = [
    {"image": "i.png", "text": ["a tree", "two trees"], "split": "train"},
    {"image": "i.png", "text": ["a road"], "split": "val"},
]


def _caption_parquet(folder: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    picture = _picture(folder).read_bytes()
    table = pa.table({"image": [{"bytes": picture, "path": "i.png"}] * 2, "label": [0, 1]})
    described = {"info": {"features": {"label": {"names": ["forest", "road"], "_type": "ClassLabel"}}}}
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), folder / "c.parquet")
    return folder / "c.parquet"


def _captions(text: str = "text", records: str | None = None) -> Callable[[Path], Any]:
    layout = {"file": "FILE", "images": ".", "image": ["image"], "texts": [text], "records": records, "split": "split"}
    return _samples("captions:file", layout={k: v for k, v in layout.items() if v is not None}, tile=16)


def _rgb(path: Path) -> Any:
    from rsedge.data.scenes.images import read_rgb

    return read_rgb(path, 16), read_rgb(path.read_bytes())


CAPTIONS: Mapping[str, Loader] = {
    "json": Loader(_with_picture(_text("c.json", json.dumps({"all": _RECORDS}))), _captions(records="all")),
    "jsonl": Loader(_with_picture(_text("c.jsonl", "\n".join(map(json.dumps, _RECORDS)) + "\n")), _captions()),
    "csv": Loader(
        _with_picture(_text("c.csv", "image,text,split\ni.png,a tree,train\ni.png,a road,val\n")), _captions()
    ),
    "parquet": Loader(_caption_parquet, _captions("label")),
    "png": Loader(_picture, _rgb),
    "jpeg": Loader(functools.partial(_picture, name="i.jpg"), _rgb),
    "picture of boxes": Loader(functools.partial(_picture, name="i.tif"), _picture_boxes("i.tif")),
}


# Documents.


def _load_recipe(path: Path) -> Any:
    from rsedge.recipe.reading import load_recipe

    return load_recipe(path)


def _load_mission(path: Path) -> Any:
    from rsedge.devices.mission.description import load_mission

    return load_mission(path)


def _load_profile(path: Path) -> Any:
    from rsedge.devices.profiles.profile import load_profile

    return load_profile(path)


def _load_calibration(path: Path) -> Any:
    from rsedge.devices.predict.efficiency import read_calibration

    return read_calibration(path)


def _load_report(path: Path) -> Any:
    from rsedge.reports.schema import load_report

    return load_report(path)


def _load_bench(path: Path) -> Any:
    from rsedge.devices.mission.load import read_bench

    return read_bench(path)


def _describe(path: Path) -> Any:
    from rsedge.cli.kinds import GROUND_KINDS
    from rsedge.runtimes.inspecting import describe

    return json.dumps(describe(path, None, GROUND_KINDS), default=str)


def _mission(folder: Path) -> Path:
    from rsedge.devices.mission.description import example

    return _text("m.yaml", example("orbit"))(folder)


def _profile(folder: Path) -> Path:
    from rsedge.devices.profiles.profile import load_profile

    found = load_profile("jetson-orin-nano-8gb").model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return _text("p.yaml", yaml.safe_dump(found))(folder)


def _calibration(folder: Path) -> Path:
    from rsedge.devices.predict.efficiency import SHIPPED

    first = next(iter(yaml.safe_load(SHIPPED.read_text()).values()))
    return _text("c.yaml", yaml.safe_dump(first))(folder)


def _recipe(folder: Path) -> Path:
    from importlib import resources

    return _text("r.yaml", (resources.files("rsedge.recipes") / "quickstart.yaml").read_text())(folder)


_BENCH = {
    "provenance": "measured",
    "device": "d",
    "runtime": "openvino",
    "precision": "int8",
    "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0},
}
DOCUMENTS: Mapping[str, Loader] = {
    "recipe": Loader(_recipe, _load_recipe),
    "mission": Loader(_mission, _load_mission),
    "profile": Loader(_profile, _load_profile),
    "calibration": Loader(_calibration, _load_calibration),
    "report": Loader(_text("report.json", json.dumps({"schema_version": 1, "name": "x", "targets": []})), _load_report),
    "bench": Loader(_text("bench.json", json.dumps(_BENCH)), _load_bench),
    "inspect of json": Loader(_text("x.json", json.dumps({"a": [1, {"b": None}]})), _describe),
}


# What lies beside a scene.


def _item(folder: Path) -> Path:
    scene(folder / "s.tif", dn() + np.uint16(1000))
    band = {"scale": 1e-4, "offset": -0.1}
    item = {
        "type": "Feature", "properties": {"platform": "sentinel-2a", "s2:processing_baseline": "05.09"},
        "assets": {"a": {"href": "./s.tif", "raster:bands": [band]}},
    }  # fmt: skip
    return _text("item.json", json.dumps(item))(folder)


_MTD = """<?xml version="1.0"?><x><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>
<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>
<RADIO_ADD_OFFSET band_id="0">-1000</RADIO_ADD_OFFSET></x>"""


def _product(folder: Path) -> Path:
    scene(folder / "s.tif", dn() + np.uint16(1000))
    return _text("MTD_MSIL1C.xml", _MTD)(folder)


def _read_beside(path: Path) -> Any:
    from rsedge.data.scenes.geotiff import SceneReader

    with SceneReader(path.parent / "s.tif", SPEC, any_gsd=True) as reader:
        found, _ = reader.read(0, 0, reader.height, reader.width)
    if (found == 0).mean() > 0.99:
        raise AssertionError("a scene of nothing")
    return found


BESIDE: Mapping[str, Loader] = {"stac": Loader(_item, _read_beside), "product": Loader(_product, _read_beside)}


# Weights and graphs.


def _tensors() -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    return {"a.weight": torch.rand(4, 3, 1, 1), "a.bias": torch.rand(4)}


def _cloud_teacher(folder: Path) -> Path:
    import shutil

    from rsedge.data.root import wheel_folder

    return Path(
        shutil.copy(wheel_folder("ukis_csmask", "quickstart", "a teacher") / "model_4b_l2a.onnx", folder / "w.onnx")
    )


def _safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file(_tensors(), folder / "w.safetensors")
    return folder / "w.safetensors"


def _torch_file(folder: Path) -> Path:
    import torch

    torch.save({"state_dict": _tensors(), "epoch": 3}, folder / "w.pt")
    return folder / "w.pt"


def _keras(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "w.h5", "w") as f:
        f.create_dataset("model_weights/conv/conv/kernel:0", data=np.ones((3, 3, 2, 4), np.float32))
    return folder / "w.h5"


def _onnx(folder: Path) -> Path:
    return tiny.make_onnx(folder / "m.onnx", SPEC)


def _ir(folder: Path) -> Path:
    return tiny.make_ir(folder, SPEC)


def _teacher_onnx(folder: Path) -> Path:
    return tiny.make_onnx(folder / "t.onnx", SPEC, "float32")


def _read_tensors(path: Path) -> Any:
    from rsedge.models.checkpoint import read_tensors

    return read_tensors(path, ("state_dict",))


def _load_teacher(path: Path) -> Any:
    from rsedge.models.teachers import load_teacher

    return load_teacher("ukis-csmask-4b-l2a", checkpoint=path)


def _sniff(path: Path) -> Any:
    from rsedge.models.teachers import sniff

    return sniff(path)


def _black_box(path: Path) -> Any:
    import torch

    from rsedge.models.black_box import BlackBox

    box = BlackBox(f"{path}#logits", SPEC)
    box.weights  # noqa: B018 - reads the graph
    return box(torch.zeros(1, *SPEC.shape))


def _adapter(folder: Path) -> Path:
    from safetensors.torch import save_file

    made = {
        f"base_model.model.a.lora_{s}.weight": t
        for s, t in zip(
            "AB", (_tensors()["a.weight"].reshape(4, 3)[:2], _tensors()["a.weight"].reshape(4, 3)[:, :2]), strict=True
        )
    }
    save_file({k: v.contiguous() for k, v in made.items()}, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "bias": "none",
        "use_rslora": False,
        "alpha_pattern": {"a": 2},
    }
    return _text("adapter_config.json", json.dumps(config))(folder)


def _merge(path: Path) -> Any:
    from rsedge.models.vlm.lora import merge_lora

    return merge_lora({"a.weight": _tensors()["a.weight"].reshape(4, 3)}, path.parent)


def _structure(folder: Path) -> Path:
    from rsedge.models.structure import save_model
    from rsedge.models.students import CATALOGUE, build_student, contract_arguments

    name = next(iter(CATALOGUE))
    kwargs = contract_arguments(name, SPEC, 3)
    save_model(build_student(name, kwargs), folder, name, kwargs)
    return folder / "structure.json"


def _load_model(path: Path) -> Any:
    from rsedge.models.structure import load_model
    from rsedge.models.students import build_student

    return load_model(path.parent, build_student)


def _vlm(folder: Path) -> Path:
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "a.safetensors"}}
    _text("model.safetensors.index.json", json.dumps(index))(folder)
    return _text(
        "config.json", json.dumps({"model_type": "llava", "text_config": {"model_type": "llama", "hidden_size": 4096}})
    )(folder)


def _read_vlm(path: Path) -> Any:
    from rsedge.models import zoo
    from rsedge.models.vlm.files import VlmFiles

    row = next(r for r in zoo.zoo() if r.family == "vlm")
    files = VlmFiles(path.parent)
    return files.language_config(row), files.front(row)


WEIGHTS: Mapping[str, Loader] = {
    "safetensors": Loader(_safetensors, _read_tensors),
    "torch": Loader(_torch_file, _read_tensors),
    "keras": Loader(_keras, _read_tensors),
    "onnx": Loader(_onnx, _read_tensors),
    "checkpoint of a teacher": Loader(_cloud_teacher, _load_teacher),
    "sniffed": Loader(_cloud_teacher, _sniff),
    "adapter": Loader(_adapter, _merge),
    "structure": Loader(_structure, _load_model),
    "language folder": Loader(_vlm, _read_vlm),
}
GRAPHS: Mapping[str, Loader] = {
    "inspect of onnx": Loader(_onnx, _describe),
    "inspect of ir": Loader(_ir, _describe),
    "inspect of safetensors": Loader(_safetensors, _describe),
    "inspect of an engine": Loader(_text("m.engine", "ftrt" + "x" * 60), _describe),
    "inspect of arrays": Loader(_npz, _describe),
    "inspect of a checkpoint": Loader(_torch_file, _describe),
    "inspect of keras weights": Loader(_keras, _describe),
    "inspect of a recipe": Loader(_recipe, _describe),
    "onnx as a teacher": Loader(_teacher_onnx, _black_box),
}


# Damage.

_ODD: tuple[Any, ...] = (
    None, True, "", "x", "\u00e9\n\0%s", "9" * 5000, "nan", "1e999", -1, 0, 1.5, 1 << 70, float("nan"), float("inf"), 1e308,
    [], {}, [[]],
    {"a": None}, [None], "../../x", "/dev/zero", ["x"] * 3, {"": ""}, "2020-02-30", "!!python/object:os.system",
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(p for k, v in inner for p in _places(v, (*at, k)))]


def swapped(value: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """A JSON-like value with something odd at one of its places, or without it."""
    places = _places(value)
    place = places[int(rng.integers(len(places)))]
    odd = _ODD[int(rng.integers(len(_ODD)))]
    if not place:
        return odd, f"all = {odd!r:.40}"
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    if rng.random() < 0.2:
        del holder[place[-1]]
        return value, f"{place} removed"
    holder[place[-1]] = odd
    return value, f"{place} = {odd!r:.40}"


def _odd_json(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    value, what = swapped(json.loads(content), rng)
    return json.dumps(value).encode(), what


def _odd_lines(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    lines = content.splitlines()
    at = int(rng.integers(len(lines)))
    lines[at], what = _odd_json(lines[at], rng)
    return b"\n".join(lines), f"line {at}: {what}"


def _odd_yaml(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    if rng.random() < 0.2:
        return (
            (b"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases") if rng.random() < 0.5 else (b"[" * 4000, "depth")
        )
    value, what = swapped(yaml.safe_load(content), rng)
    return yaml.safe_dump(value).encode(), what


def _odd_text(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """A word of a table or an XML file replaced."""
    marks = [i for i, c in enumerate(content) if c in b',><\n"']
    at = int(rng.integers(len(marks) - 1))
    odd = str(_ODD[int(rng.integers(len(_ODD)))]).encode()
    return content[: marks[at] + 1] + odd + content[marks[at + 1] :], f"word {at} = {odd[:40]!r}"


_ARRAYS: tuple[Callable[[Any], Any], ...] = (
    lambda a: np.array(a, dtype=object), lambda a: a.ravel(), lambda a: a[None], lambda a: a[:0], lambda a: np.float64(3),
    lambda a: a.astype("U8"), lambda a: a.astype("S8"), lambda a: a[:-1], lambda a: np.zeros((2,) * 20, np.uint8),
    *(functools.partial(lambda a, v, t: np.full(a.shape, v, t), v=v, t=t) for v, t in (
        (0, "datetime64[s]"), (0, complex), (np.nan, float), (np.inf, float), (1e30, float), (2**63, np.uint64),
        (-(2**62), np.int64), (0, bool), (0, np.float16), (b"x", "V7"),
        (np.zeros((), [("a", "f4"), ("b", "U3")]), [("a", "f4"), ("b", "U3")]))),
)  # fmt: skip


def _odd_npz(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    way = str(rng.choice(["array", "array", "array", "gone", "encrypted", "method", "header", "text"]))
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {k: stored[k] for k in stored.files}
    name = str(rng.choice(list(arrays)))
    made = io.BytesIO()
    if way in ("array", "gone"):
        number = int(rng.integers(len(_ARRAYS)))
        arrays = {k: v for k, v in arrays.items() if way == "array" or k != name}
        if way == "array":
            arrays[name] = _ARRAYS[number](arrays[name])
        np.savez(made, **arrays)  # type: ignore[arg-type]
        return made.getvalue(), f"{way} {name} {number}"
    if way in ("encrypted", "method"):
        changed = bytearray(content)
        for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            place = content.find(mark)
            while place >= 0:
                struct.pack_into(
                    "<H", changed, place + at + (0 if way == "encrypted" else 2), 1 if way == "encrypted" else 97
                )
                place = content.find(mark, place + 4)
        return bytes(changed), way
    header = {
        "header": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9999), }".ljust(
            128
        ),
        "text": b"hello",
    }[way]
    with zipfile.ZipFile(made, "w") as archive:
        for key in arrays:
            archive.writestr(f"{key}.npy", header)
    return made.getvalue(), way


def _odd_parquet(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    import decimal

    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content))
    column, n = int(rng.integers(table.num_columns)), table.num_rows
    columns: list[Any] = [
        pa.nulls(n), pa.array([None, *range(n - 1)]), pa.array([0] * n, pa.timestamp("ns", "UTC")),
        pa.array([0] * n, pa.duration("s")),
        pa.array([2**63] * n, pa.uint64()), pa.array(["x"] * n).dictionary_encode(),
        *(pa.array([value] * n) for value in (
            [1, 2], {"a": 1}, b"\xff", decimal.Decimal("1.5"), float("nan"), 1e30, True, "x", [], {"bytes": None},
            {"bytes": b"x"}, 1)),
    ]  # fmt: skip
    number = int(rng.integers(len(columns)))
    name = table.column_names[column]
    made = io.BytesIO()
    table = table.set_column(column, name, columns[number])
    if rng.random() < 0.2:
        described = _ODD[int(rng.integers(len(_ODD)))]
        table = table.replace_schema_metadata({"huggingface": json.dumps(described)[:2000]})
    parquet.write_table(table if rng.random() < 0.8 else table.slice(0, 0), made)
    return made.getvalue(), f"column {name} as {columns[number].type}"


_STRUCTURED: Mapping[str, Callable[[bytes, np.random.Generator], tuple[bytes, str]]] = {
    ".json": _odd_json, ".jsonl": _odd_lines, ".yaml": _odd_yaml, ".csv": _odd_text, ".xml": _odd_text, ".npz": _odd_npz,
    ".parquet": _odd_parquet,
}  # fmt: skip


class _Runs:
    """A pickle that would write a file when it is opened."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


def _pickled(folder: Path) -> bytes:
    import pickle

    return pickle.dumps({"a.weight": _Runs(folder / "ran")})


def _break(path: Path, rng: np.random.Generator) -> str:
    content = path.read_bytes()
    odd = _STRUCTURED.get(path.suffix)
    if odd is not None and rng.random() < 0.6:
        content, way = odd(content, rng)
    elif path.suffix in (".pt", ".safetensors", ".onnx", ".h5") and rng.random() < 0.1:
        content, way = _pickled(path.parent), "a pickle with code"
    elif rng.random() < 0.3:
        content, way = flipped(content[:400], rng, int(rng.integers(1, 5))) + content[400:], "flipped near the start"
    else:
        content, way = damaged(content, rng)
    path.write_bytes(content)
    return way


def _register(group: str, loaders: Mapping[str, Loader], few: int) -> None:
    @kind(f"loaders: {group}", few=few)
    def attempt(rng: np.random.Generator, folder: Path) -> Result:
        name = str(rng.choice(list(loaders)))
        path = loaders[name].make(folder)
        way = _break(path, rng)
        result = told(f"{name} {way}", lambda: loaders[name].load(path) is not None)
        return Result("wrong", result.what, "code was run") if (folder / "ran").exists() else result


_register("tables of samples", TABLES, 20)
_register("boxes", BOXES, 20)
_register("texts and pictures", CAPTIONS, 20)
_register("documents", DOCUMENTS, 12)
_register("what lies beside a scene", BESIDE, 15)
_register("weights", WEIGHTS, 8)
_register("graphs", GRAPHS, 12)
