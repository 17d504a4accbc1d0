"""Bundles: what is written opens, verifies and runs; what was altered does not; a failing writer leaves nothing."""

from __future__ import annotations

import base64
import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.export import bundle as bundle_module
from rsedge.export.bundle import About, write_bundle, zip_bundle
from rsedge.export.parity import run_torch
from rsedge.export.signing import create_key, load_key, load_or_create_key, public_pem, sign, write_public
from rsedge.export.targets.openvino import OpenVinoArtefact, export_openvino
from rsedge.export.targets.tensorrt import type_for_tensorrt
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.trust import load_public_key
from rsedge.runtimes.openvino.core import shared_core
from tests.export.conftest import Exporter
from tests.export.export_nets import CLASSES, contract, tiles

SPEC = contract()


@pytest.fixture(scope="module")
def ir(exported: Exporter, tmp_path_factory: pytest.TempPathFactory) -> OpenVinoArtefact:
    folder = tmp_path_factory.mktemp("ir")
    return export_openvino(exported("unet", SPEC)[1].path, folder / "m.xml", SPEC, CLASSES)


def _contents(ir: OpenVinoArtefact, **other: Any) -> dict[str, Any]:
    fields = {f.name for f in dataclasses.fields(About)}
    said = {name: other.pop(name) for name in fields & set(other)}
    return {
        "about": About(**{"name": "tiny", "classes": CLASSES, **said}),
        "target": "openvino-cpu-f32",
        "input_spec": SPEC,
        "model_files": {"model.xml": ir.xml, "model.bin": ir.bin},
        "golden_dn": tiles(SPEC, 2),
        **other,
    }


def test_openvino_bundle_opens_verifies_and_is_trusted(ir: OpenVinoArtefact, tmp_path: Path) -> None:
    key = create_key(tmp_path / "key.pem")
    public = write_public(key, tmp_path / "key.pub")
    made = write_bundle(
        tmp_path / "b",
        **_contents(
            ir, signing_key=key, metrics={"kappa": 0.8}, latency={"p50": 1.5}, teacher="big", recipe_sha256="ab"
        ),
    )
    with Bundle.open(made, public) as opened:
        assert opened.signature.trust == "trusted"
        manifest = opened.manifest
        assert manifest.input_spec == SPEC and manifest.classes == CLASSES and manifest.metrics == {"kappa": 0.8}
        assert manifest.tool_versions["openvino"] and manifest.created.endswith("+00:00")
        result = opened.verify()
        assert result.passed and result.max_abs_difference <= 1e-5 and result.n == 2 * 64 * 64 - 70
    text = (made / "README.txt").read_text()
    assert "rsedge verify" in text and "1. blue: value = DN * 0.0001 + -0.1, nodata DN 0" in text
    assert stat.S_IMODE(made.stat().st_mode) == 0o755


def test_tensorrt_bundle_holds_the_build(exported: Exporter, tmp_path: Path) -> None:
    source = exported("unet", SPEC, 19, "float32")[1]
    typed = type_for_tensorrt(source.path, tmp_path / "typed.onnx", "fp16", "10.3")
    wanted: dict[str, Any] = {
        "about": About("tiny", CLASSES), "target": "tensorrt-jetson-orin-nano-8gb-fp16", "input_spec": SPEC,
        "model_files": {"model.onnx": typed.onnx.path}, "golden_dn": tiles(SPEC, 1), "build": typed,
    }  # fmt: skip
    for other in ({"model_files": {"net.onnx": typed.onnx.path}}, {"target": "tensorrt-jetson-orin-nano-8gb-int8"}):
        with pytest.raises(RequestError, match=r"needs (fp16|int8) as 'model\.onnx', got fp16 as '(net|model)\.onnx'"):
            write_bundle(tmp_path / "b", **(wanted | other))
    made = write_bundle(tmp_path / "b", **wanted)
    with Bundle.open(made) as opened:
        build = opened.manifest.build
        assert build is not None and build == json.loads((made / "build.json").read_text())
        assert build["trtexec"].endswith("--stronglyTyped --skipInference")
        assert build["onnx_sha256"] == opened.manifest.files["model.onnx"].sha256
        golden = opened.golden()
        assert golden["dn"].dtype == np.uint16 and golden["logits"].shape == (1, 3, 64, 64)
        with pytest.raises(MissingCapability, match="rsedge build"):
            opened.verify()
    assert stat.S_IMODE((made / "build.sh").stat().st_mode) & 0o111
    assert "sh build.sh" in (made / "README.txt").read_text()


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "golden.npz", "README.txt", "manifest.json"])
def test_any_altered_file_is_found(ir: OpenVinoArtefact, name: str, tmp_path: Path) -> None:
    key = create_key(tmp_path / "key.pem")
    made = write_bundle(tmp_path / "b", **_contents(ir, signing_key=key))
    public = write_public(key, tmp_path / "key.pub")
    content = bytearray((made / name).read_bytes())
    content[len(content) // 2] ^= 1
    (made / name).write_bytes(content)
    with pytest.raises(IntegrityError):
        Bundle.open(made, public)


def test_another_key_is_not_trusted(ir: OpenVinoArtefact, tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "b", **_contents(ir, signing_key=create_key(tmp_path / "ours.pem")))
    other = write_public(create_key(tmp_path / "theirs.pem"), tmp_path / "theirs.pub")
    with pytest.raises(IntegrityError, match="does not fit"):
        Bundle.open(made, other)
    assert Bundle.open(made).signature.trust == "consistent"


def test_zip_opens_and_is_reproducible(ir: OpenVinoArtefact, tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "b", **_contents(ir))
    first, second = zip_bundle(made, tmp_path / "b.zip"), zip_bundle(made, tmp_path / "c.zip")
    assert first.read_bytes() == second.read_bytes()
    with Bundle.open(first) as opened:
        assert opened.signature.trust == "UNSIGNED" and opened.verify().passed
    with pytest.raises(RequestError, match="no manifest"):
        zip_bundle(tmp_path / "nothing", tmp_path / "d.zip")


def test_a_failing_writer_leaves_nothing_new(
    ir: OpenVinoArtefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_bundle(tmp_path / "b", **_contents(ir))
    before = {p.name: p.read_bytes() for p in made.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module, "_write_golden", full)
    for folder in (made, tmp_path / "new"):
        with pytest.raises(MissingCapability, match="no space left"):
            write_bundle(folder, **_contents(ir, name="second"))
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert {p.name: p.read_bytes() for p in made.iterdir()} == before


def test_an_older_bundle_is_replaced_whole(ir: OpenVinoArtefact, tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "b", **_contents(ir, signing_key=create_key(tmp_path / "key.pem")))
    again = write_bundle(tmp_path / "b", **_contents(ir, name="second"))
    assert again == made and Bundle.open(made).manifest.name == "second"
    assert not (made / "manifest.sig").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "key.pem"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="is no bundle"):
        write_bundle(tmp_path / "mine", **_contents(ir))
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("target", ["openvino-npu-3720-fp16", "openvino-npu-4000-int8", "openvino-igpu-fp16"])
def test_the_golden_vector_of_a_device_that_is_not_here_comes_from_this_cpu(
    ir: OpenVinoArtefact, tmp_path: Path, target: str
) -> None:
    """A machine with an NPU, or a GPU that OpenVINO finds, gives it by that one; nothing but the device can check it."""
    contents = _contents(ir, target=target, golden_dn=tiles(SPEC, 2))
    made, on_cpu = write_bundle(tmp_path / "b", **contents), write_bundle(tmp_path / "c", **_contents(ir))
    device = Target.parse(target).backend.device(Target.parse(target).device)
    limit = 1e-5 if device not in shared_core().available_devices else 0.05
    with Bundle.open(made) as bundle, Bundle.open(on_cpu) as other:
        np.testing.assert_allclose(bundle.golden()["logits"], other.golden()["logits"], atol=limit)


def test_a_target_that_cannot_run_here_takes_given_outputs(
    exported: Exporter, ir: OpenVinoArtefact, tmp_path: Path
) -> None:
    samples = tiles(SPEC, 1)
    wanted = _contents(ir, target="openvino-npu-3720-fp16", golden_dn=samples)
    golden = run_torch(exported("unet", SPEC)[0], samples)
    made = write_bundle(tmp_path / "b", **wanted, golden=golden)
    np.testing.assert_array_equal(Bundle.open(made).golden()["logits"], golden.logits)
    broken = dataclasses.replace(golden, logits=golden.logits * np.float32(np.nan))
    with pytest.raises(RequestError, match="not finite"):
        write_bundle(tmp_path / "c", **wanted, golden=broken)


def test_contents_that_do_not_fit_are_refused(ir: OpenVinoArtefact, tmp_path: Path) -> None:
    for other, message in (
        ({"golden_dn": []}, "at least one golden tile"),
        ({"golden_dn": [tiles(SPEC, 1)[0][:, :4]]}, r"must be uint16 \(1, 6, 64, 64\)"),
        ({"golden_dn": [tiles(SPEC, 1)[0].astype(np.float32)]}, "got float32"),
        ({"model_files": {}}, "at least one model file"),
        ({"model_files": {"model.xml": tmp_path / "none.xml"}}, "no such model file"),
        ({"target": "tensorrt-jetson-orin-nano-8gb-fp16"}, "a bundle for TensorRT needs what is built on the device"),
        ({"target": "openvino-f32"}, "is not <runtime>-<device>-<precision>"),
        ({"classes": ("land", "land", "cloud")}, "class names occur twice"),
    ):
        with pytest.raises(RequestError, match=message):
            write_bundle(tmp_path / "b", **_contents(ir, **other))
    assert not list(tmp_path.iterdir())


def test_private_keys_stay_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "sign.pem"
    key = load_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_pem(load_or_create_key(path)) == public_pem(key) == public_pem(load_key(path))
    with pytest.raises(RequestError, match="never overwritten"):
        create_key(path)
    path.chmod(0o644)
    with pytest.raises(RequestError, match="chmod 600"):
        load_key(path)
    other = tmp_path / "no.pem"
    other.write_text("no key")
    other.chmod(0o600)
    with pytest.raises(RequestError, match="not an unencrypted PEM"):
        load_key(other)
    with pytest.raises(RequestError, match="no such signing key"):
        load_key(tmp_path / "none.pem")
    public = load_public_key(write_public(key, tmp_path / "sign.pub"))
    public.verify(base64.b64decode(sign(key, b"manifest")), b"manifest")
