"""Bundles that are whole open; every other one is refused with the file at fault."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.runtimes import Bundle
from rsedge.runtimes.registry import backend_for
from tests.runtimes import tiny_models as tiny


def zipped(folder: Path, target: Path, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{top}{file.name}")
    return target


@pytest.mark.parametrize("top", ["", "bundle/"])
def test_folder_and_zip_verify(bundle: Callable[..., Path], tmp_path: Path, top: str) -> None:
    for path in (bundle(), zipped(bundle(), tmp_path / "b.zip", top)):
        with Bundle.open(path) as opened:
            result = opened.verify(threads=1)
            folder = opened.folder
        assert result.passed and result.max_abs_difference < 1e-3 and result.agreement == 1.0 and result.n > 1000
    assert not folder.exists()


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such bundle"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(RequestError, match=r"no manifest\.json"):
        Bundle.open(tmp_path)


def test_truncated_altered_missing_extra(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle()
    model = folder / "model.bin"
    content = model.read_bytes()
    model.write_bytes(content[:-1])
    with pytest.raises(IntegrityError, match=r"'model\.bin' has .* bytes"):
        Bundle.open(folder)
    model.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(IntegrityError, match=r"'model\.bin' is not what"):
        Bundle.open(folder)
    model.unlink()
    with pytest.raises(IntegrityError, match=r"'model\.bin' is missing"):
        Bundle.open(folder)
    model.write_bytes(content)
    (folder / "sitecustomize.py").write_text("")
    with pytest.raises(IntegrityError, match=r"does not list: sitecustomize\.py"):
        Bundle.open(folder)


def test_signatures(own_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder, key = own_bundle(), Ed25519PrivateKey.generate()
    assert Bundle.open(folder).signature.trust == "UNSIGNED"
    public = tmp_path / "team.pub"
    public.write_bytes(b"no key")
    with pytest.raises(RequestError, match="not a PEM public key"):
        Bundle.open(folder, key=public)
    tiny.sign(folder, key)
    shutil.copy(folder / "signing.pub", public)
    (folder / "manifest.sig").rename(folder / "kept")
    with pytest.raises(IntegrityError, match="UNSIGNED"):
        Bundle.open(folder, key=public)
    (folder / "kept").rename(folder / "manifest.sig")
    assert Bundle.open(folder).signature.trust == "consistent"
    assert Bundle.open(folder, key=public).signature.trust == "trusted"
    with pytest.raises(RequestError, match="no such public key"):
        Bundle.open(folder, key=tmp_path / "none.pub")
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    tiny.sign(other, Ed25519PrivateKey.generate())
    with pytest.raises(IntegrityError, match="signed by someone else"):
        Bundle.open(folder, key=other / "signing.pub")


def test_tampered_manifest(own_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder, key = own_bundle(), Ed25519PrivateKey.generate()
    tiny.sign(folder, key)
    public = Path(shutil.copy(folder / "signing.pub", tmp_path / "team.pub"))
    tiny.edit_manifest(folder, classes=["cloud", "background", "shadow"])
    for given_key in (public, None):
        with pytest.raises(IntegrityError, match="altered"):
            Bundle.open(folder, key=given_key)
    tiny.sign(folder, Ed25519PrivateKey.generate())
    assert Bundle.open(folder).signature.trust == "consistent"
    with pytest.raises(IntegrityError, match="altered"):
        Bundle.open(folder, key=public)
    (folder / "manifest.sig").write_text("not base64!")
    with pytest.raises(IntegrityError):
        Bundle.open(folder, key=public)


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "c:evil.txt", "a\\evil.txt"])
def test_zip_cannot_write_elsewhere(bundle: Callable[..., Path], tmp_path: Path, name: str) -> None:
    path = zipped(bundle(), tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(IntegrityError, match="unsafe file name"):
        Bundle.open(path)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_zip_bombs_links_extras_and_truncation(bundle: Callable[..., Path], tmp_path: Path) -> None:
    def altered(change: Callable[[zipfile.ZipFile], None], skip: str = "") -> Path:
        with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(bundle().iterdir()):
                if file.name != skip:
                    archive.write(file, file.name)
            change(archive)
        return tmp_path / "b.zip"

    def link(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("model.bin")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")

    with pytest.raises(IntegrityError, match=r"manifest.json says"):
        Bundle.open(altered(lambda a: a.writestr("model.bin", bytes(1 << 24)), skip="model.bin"))
    with pytest.raises(IntegrityError, match="symbolic link"):
        Bundle.open(altered(link, skip="model.bin"))
    with pytest.raises(IntegrityError, match="does not list"):
        Bundle.open(altered(lambda a: a.writestr("extra.so", b"x")))
    with pytest.raises(IntegrityError, match="missing"):
        Bundle.open(altered(lambda a: None, skip="model.bin"))
    whole = altered(lambda a: None).read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="not a whole"):
        Bundle.open(tmp_path / "b.zip")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_of_a_zip_is_noticed_or_harmless(
    data: st.DataObject, tmp_path_factory, _bundles: Path
) -> None:
    folder = _bundles / "openvino-cpu-f32-32"
    if not folder.exists():
        tiny.make_bundle(folder, tiny.spec(32))
    place = tmp_path_factory.mktemp("flip") / "b.zip"
    content = bytearray(zipped(folder, place).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    place.write_bytes(content)
    original = json.loads((folder / "manifest.json").read_text())
    try:
        with Bundle.open(place) as opened:
            assert json.loads(opened.manifest.to_bytes()) == original
    except RequestError as error:
        assert str(place) in str(error)


def test_golden_vector_catches_other_numbers(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle()
    stored = dict(np.load(folder / "golden.npz"))
    stored["logits"] = stored["logits"][:, ::-1]
    np.savez(folder / "golden.npz", **stored)
    tiny.write_manifest(folder, tiny.spec(), "openvino-cpu-f32", "model.xml")
    result = Bundle.open(folder).verify()
    assert not result.passed and result.agreement < 0.9 and result.max_abs_difference > 0.1
    (folder / "golden.npz").write_bytes(b"PK no npz")
    tiny.write_manifest(folder, tiny.spec(), "openvino-cpu-f32", "model.xml")
    with pytest.raises(IntegrityError, match="not a golden vector"):
        Bundle.open(folder).verify()


def test_golden_vector_with_a_pickle_inside_runs_nothing(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle()
    np.savez(folder / "golden.npz", dn=np.array([print], dtype=object), logits=np.zeros(1), valid=np.zeros(1))
    tiny.write_manifest(folder, tiny.spec(), "openvino-cpu-f32", "model.xml")
    with pytest.raises(IntegrityError, match="not a golden vector"):
        Bundle.open(folder).verify()


def test_tensorrt_without_engine_names_the_command(bundle: Callable[..., Path]) -> None:
    folder = bundle("tensorrt-jetson-orin-nano-8gb-fp16")
    with pytest.raises(MissingCapability, match=f"rsedge build {folder}"):
        Bundle.open(folder).session()


@pytest.mark.parametrize(
    ("runtime", "device", "name"),
    [
        ("openvino", "cpu", "CPU"),
        ("openvino", "intel-npu", "NPU"),
        ("openvino", "myriad-x", "MYRIAD"),
        ("openvino", "arc-gpu", "GPU"),
        ("onnxruntime", "cpu", "CPU"),
        ("onnxruntime", "cuda", "CUDA"),
        ("tensorrt", "jetson-orin-nano-8gb", "CUDA"),
    ],
)
def test_device_names(runtime: str, device: str, name: str) -> None:
    assert backend_for(runtime, device).device(device) == name
