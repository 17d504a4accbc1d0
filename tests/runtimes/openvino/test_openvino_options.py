"""OpenVINO's hints, model cache, blobs and static shapes, on the CPU for real; NPU and GPU up to what needs the device."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rsedge.cli.main import app
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.runtimes import Bundle
from rsedge.runtimes.device_cache import Slot, store
from rsedge.runtimes.openvino.blob import BlobRecord
from rsedge.runtimes.openvino.core import settings as compile_settings
from rsedge.runtimes.openvino.session import make_static
from tests.runtimes import tiny_models as tiny

ov = pytest.importorskip("openvino")


def tiles(count: int) -> list[dict[str, np.ndarray]]:
    return [{"dn": tiny.random_scene(tiny.spec(), 32, 32, seed)[None]} for seed in range(count)]


def test_both_hints_give_the_same_numbers(bundle: Callable[..., Path]) -> None:
    with Bundle.open(bundle()) as opened:
        expected = list(opened.session().stream(tiles(6)))
        for hint in ("latency", "throughput"):
            session = opened.session(hint=hint)  # type: ignore[arg-type]
            told = session._compiled.get_property("PERFORMANCE_HINT")  # type: ignore[attr-defined]
            assert str(told).rpartition(".")[2].lower() == hint
            for one, other in zip(session.stream(tiles(6)), expected, strict=True):
                np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-5)


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


def test_a_blob_runs_like_its_model_and_only_where_it_was_made(
    own_bundle: Callable[..., Path], own_cache: Path
) -> None:
    folder = own_bundle()
    before = sorted(folder.iterdir())
    done = CliRunner().invoke(app, ["build", str(folder), "--json"])
    assert done.exit_code == 0 and Path(json.loads(done.output)["built"]).parent.parent == own_cache
    assert sorted(folder.iterdir()) == before, "a bundle stays as it was signed"
    with Bundle.open(folder) as opened:
        built = opened.built()
        assert built is not None and opened.built("CPU") is None
        assert opened.verify().passed
        record = BlobRecord.model_validate(built.about)
        slot = Slot("blob", opened.manifest_sha256, record.device_name, folder)
        for change, words in (
            ({"openvino": "2020.1"}, r"compiled by OpenVINO 2020\.1 .*rsedge build"),
            ({"device_name": "Another CPU"}, "Another CPU"),
        ):
            store(slot, built.content, built.about | change)
            with pytest.raises(MissingCapability, match=words):
                opened.session()
        assert opened.session(device="CPU").device == "CPU"  # names a device: takes the model itself


def test_blobs_in_a_bundle_are_refused(own_bundle: Callable[..., Path], own_cache: Path, tmp_path: Path) -> None:
    folder = own_bundle()
    (folder / "model.blob").write_bytes(b"compiled elsewhere")
    (folder / "blob.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"blob\.json, model\.blob; remove them.*own cache.*rsedge build"):
        Bundle.open(folder)
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for file in folder.iterdir():
            made.write(file, file.name)
    with pytest.raises(IntegrityError, match="own cache"):
        Bundle.open(archive)


def test_a_zip_is_built_for_too(bundle: Callable[..., Path], own_cache: Path, tmp_path: Path) -> None:
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for file in bundle().iterdir():
            made.write(file, file.name)
    with Bundle.open(archive) as opened:
        opened.backend.build(opened, {})
        assert opened.verify().passed
    with Bundle.open(bundle()) as same:
        assert same.built() is not None  # known by what its manifest says, not by where it lies


def test_npu_bundles_without_an_npu(own_bundle: Callable[..., Path]) -> None:
    opened = Bundle.open(own_bundle("openvino-npu-4000-fp16"))
    if "NPU" not in ov.Core().available_devices:
        with pytest.raises(MissingCapability, match="finds no NPU"):
            opened.backend.build(opened, {})
    if "FP16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert opened.verify(1, "CPU").passed


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
