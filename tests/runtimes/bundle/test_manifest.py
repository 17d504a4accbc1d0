"""Target names and manifest.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.manifest import Manifest, Target


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("openvino-cpu-int8", ("openvino", "cpu", "int8")),
        ("tensorrt-jetson-orin-nano-8gb-fp16", ("tensorrt", "jetson-orin-nano-8gb", "fp16")),
        ("onnxruntime-cpu-f32", ("onnxruntime", "cpu", "f32")),
    ],
)
def test_target_names(name: str, parts: tuple[str, str, str]) -> None:
    target = Target.parse(name)
    assert (target.runtime, target.device, target.precision) == parts and target.name == name


@pytest.mark.parametrize(
    "name", ["", "openvino", "openvino-cpu", "openvino-int8", "tflite-cpu-int8", "openvino-cpu-i8"]
)
def test_wrong_target_names_teach(name: str) -> None:
    with pytest.raises(RequestError, match="runtimes: openvino, tensorrt"):
        Target.parse(name)


def test_manifest_round_trip(bundle: Callable[..., Path]) -> None:
    content = (bundle() / "manifest.json").read_bytes()
    manifest = Manifest.from_bytes(content, "here")
    assert manifest.to_bytes() == content and Manifest.from_bytes(manifest.to_bytes(), "here") == manifest


def test_boxes_of_bundles_from_before_the_names_changed(bundle: Callable[..., Path]) -> None:
    content = json.loads((bundle() / "manifest.json").read_text("utf-8"))
    content |= {"task": "detection", "boxes": {"score": 0.3, "overlap": 0.6, "most": 20}}
    found = Manifest.from_bytes(json.dumps(content).encode(), "here").boxes
    assert found is not None and (found.nms_iou, found.max_detections, found.oriented) == (0.6, 20, False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"classes": ["a"]}, "classes"),
        ({"classes": ["a", "a"]}, "occur twice"),
        ({"schema_version": 2}, "schema_version"),
        ({"colour": 1}, "colour"),
        ({"model_file": "other.xml"}, "other.xml"),
        ({"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}, "unsafe"),
        ({"target": {"name": "x", "runtime": "openvino", "device": "cpu", "precision": "int8"}}, "target"),
        ({"golden": {"file": "golden.npz", "atol": -1}}, "golden.atol"),
    ],
)
def test_broken_manifests_name_file_and_field(bundle: Callable[..., Path], change: dict, named: str) -> None:
    value = json.loads((bundle() / "manifest.json").read_text()) | change
    with pytest.raises(RequestError, match=named) as caught:
        Manifest.from_bytes(json.dumps(value).encode(), "b/manifest.json")
    assert str(caught.value).startswith("b/manifest.json: ")


def test_no_json() -> None:
    with pytest.raises(RequestError, match="not valid JSON"):
        Manifest.from_bytes(b"{", "b/manifest.json")
