"""OpenVINO's hints, model cache, blobs and static shapes, on the CPU for real; NPU and GPU up to what needs the device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from typer.testing import CliRunner

from rsedge.cli import app
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.runtimes import Bundle, open_session
from rsedge.runtimes.openvino_blob import npu_compiler, offline_settings
from rsedge.runtimes.openvino_build import build_blob
from rsedge.runtimes.openvino_core import settings as compile_settings
from rsedge.runtimes.openvino_session import make_static

ov = pytest.importorskip("openvino")


def tiles(count: int) -> list[dict[str, np.ndarray]]:
    return [{"dn": tiny.random_scene(tiny.spec(), 32, 32, seed)[None]} for seed in range(count)]


def test_both_hints_and_a_cache_give_the_same_numbers(bundle: Callable[..., Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with Bundle.open(bundle()) as opened:
        expected = list(opened.session().stream(tiles(6)))
        for hint in ("latency", "throughput"):
            session = opened.session(hint=hint, cache=cache)  # type: ignore[arg-type]
            told = session._compiled.get_property("PERFORMANCE_HINT")  # type: ignore[attr-defined]
            assert str(told).rpartition(".")[2].lower() == hint
            for one, other in zip(session.stream(tiles(6)), expected, strict=True):
                np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-5)
    assert list(cache.glob("*.blob"))


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("CPU", "int8", "f32"),
        ("CPU", "bf16", "bf16"),
        ("GPU.1", "int8", "f16"),
        ("GPU", "f32", "f32"),
        ("NPU", "int8", "f16"),
        ("NPU", "f32", None),
        ("GPU", "bf16", None),
    ],
)
def test_precision_by_device(device: str, precision: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(MissingCapability, match=rf"{device} does not compute in {precision}; it has"):
            compile_settings(device, precision, None, "latency")
        return
    settings = compile_settings(device, precision, 1, "throughput")
    assert settings["INFERENCE_PRECISION_HINT"] == expected and settings["PERFORMANCE_HINT"] == "THROUGHPUT"
    assert ("INFERENCE_NUM_THREADS" in settings) == (device == "CPU")


def test_a_blob_runs_like_its_model_and_only_where_it_was_made(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle()
    done = CliRunner().invoke(app, ["build", str(folder), "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["built"].endswith("model.blob")
    with Bundle.open(folder) as opened:
        assert opened.model_path.name == "model.blob"
        assert opened.verify().passed
        assert open_session(folder / "model.blob", "openvino").input_spec == tiny.spec()
    record = json.loads((folder / "blob.json").read_text())
    changes: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"openvino": "2020.1"}, MissingCapability, r"compiled by OpenVINO 2020\.1 .*rsedge build"),
        ({"device_name": "Another CPU"}, MissingCapability, "Another CPU"),
        ({"blob_sha256": "0" * 64}, IntegrityError, "altered"),
        ({"model_sha256": "0" * 64}, IntegrityError, "built from another model"),
    ]
    for change, kind, words in changes:
        (folder / "blob.json").write_text(json.dumps(record | change))
        with pytest.raises(kind, match=words):
            Bundle.open(folder).session()
    (folder / "blob.json").unlink()
    with pytest.raises(MissingCapability, match=r"blob\.json is missing"):
        Bundle.open(folder).session()
    assert Bundle.open(folder).session(device="CPU").device == "CPU"  # names a device: takes the model itself


def test_npu_bundles_without_an_npu(
    own_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(own_bundle("openvino-npu-4000-fp16"))
    libraries = Path(ov.__file__).parent / "libs"
    with pytest.raises(RequestError, match="platform '9' is unknown; choose 3720, 4000, 5010"):
        build_blob(opened, "9")
    if "NPU" not in ov.Core().available_devices:
        with pytest.raises(MissingCapability, match="finds no NPU"):
            build_blob(opened)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    if npu_compiler(libraries) is None:
        with pytest.raises(MissingCapability, match=r"NPU compiler's library is not on this machine.*LD_LIBRARY_PATH"):
            build_blob(opened, "4000")
    (tmp_path / "libopenvino_intel_npu_compiler.so").touch()
    assert offline_settings("4000", libraries) == {"NPU_PLATFORM": "4000", "NPU_COMPILER_TYPE": "PLUGIN"}
    assert (
        opened.verify(1, "CPU").passed if "FP16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else True
    )
    with pytest.raises(RequestError, match="a platform is chosen for NPU bundles"):
        build_blob(Bundle.open(own_copy(opened.folder, tmp_path)), "4000")


def own_copy(folder: Path, place: Path) -> Path:
    import shutil

    made = Path(shutil.copytree(folder, place / "cpu"))
    target = {"name": "openvino-cpu-f32", "runtime": "openvino", "device": "cpu", "precision": "f32"}
    tiny.edit_manifest(made, target=target)
    return made


def test_dynamic_graphs_become_static_for_the_npu(tmp_path: Path) -> None:
    core = ov.Core()
    source = tiny.make_onnx(tmp_path / "m.onnx", tiny.spec())
    model = core.read_model(source)
    model.reshape({"dn": [1, 4, -1, -1]})
    make_static(model, source, tiny.spec(), "CPU")
    assert model.is_dynamic()
    make_static(model, source, tiny.spec(), "NPU")
    assert list(model.input("dn").shape) == [1, 4, 32, 32]
    model.reshape({"dn": [1, 4, -1, -1]})
    with pytest.raises(RequestError, match="cannot take the static shape"):
        make_static(model, source, tiny.spec(names=("blue", "green", "red")), "NPU")
