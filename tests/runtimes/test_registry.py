"""Runtimes are found in the registry: those of rsedge, those of packages, those of this process; an error names the nearest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_file
from rsedge.devices.profiles.profile import load_profile
from rsedge.runtimes import Bundle
from rsedge.runtimes.backend import Opening, RuntimeBackend
from rsedge.runtimes.bundle.manifest import FileEntry, Golden, Manifest, Target
from rsedge.runtimes.checked import Model
from rsedge.runtimes.opening import open_session, open_stand_in
from rsedge.runtimes.precision import PRECISIONS
from rsedge.runtimes.registry import backend_for, backend_names, backends, register_backend, unregister_backend
from rsedge.runtimes.session import Session
from tests.runtimes import tiny_models as tiny

PACKAGE = """\
from rsedge.runtimes.backend import RuntimeBackend

class Toy(RuntimeBackend):
    name = runtime = "toy"
    title = "A toy"
    cpu_precisions = ("f32",)

    def open(self, model, how):
        raise SystemExit("the toy was opened")

BACKEND = Toy()
"""


class Toy(RuntimeBackend):
    """ONNX Runtime under another name."""

    name = runtime = "toy"
    title = "A toy"
    cpu_precisions = ("f32",)
    threads = True

    def open(self, model: Model, how: Opening) -> Session:
        from rsedge.runtimes.onnxruntime.session import OnnxSession

        return OnnxSession(model, how.input_spec, how.device, how.precision, how.threads)


@pytest.fixture
def toy() -> Iterator[RuntimeBackend]:
    yield register_backend(Toy())
    unregister_backend("toy")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.make_onnx(tmp_path / "model.onnx", tiny.spec())


def test_all_are_there_and_are_called_as_they_say() -> None:
    assert {"openvino", "tensorrt", "onnxruntime", "myriad"} <= set(backend_names())
    for one in backends():
        assert one.name in backend_names() and set(one.cpu_precisions) <= set(PRECISIONS)
        assert backend_for(one.runtime, "myriad-x" if one.name == "myriad" else "cpu") is one


def test_unknown_ones_are_refused_with_the_nearest(model: Path) -> None:
    with pytest.raises(RequestError, match=r"nearest: 'openvino'.*choose one of openvino, tensorrt, onnxruntime"):
        open_session(model, "openvinno")
    with pytest.raises(RequestError, match=r"unknown precision 'int9' .nearest: 'int8'"):
        open_session(model, "onnxruntime", precision="int9")
    with pytest.raises(RequestError, match="nearest: 'openvino'"):
        Target.parse("openvno-cpu-f32")


@pytest.mark.parametrize("runtime", ["openvino", "myriad"])
def test_a_name_that_is_taken_stays(runtime: str) -> None:
    class Other(Toy):
        name = runtime

    with pytest.raises(RequestError, match="is there already"):
        register_backend(Other())


def test_a_name_fits_into_a_targets() -> None:
    class Dashed(Toy):
        name = "my-toy"

    with pytest.raises(RequestError, match="small letters"):
        register_backend(Dashed())


def test_a_registered_one_opens_verifies_and_is_offered_by_the_cpu(
    toy: RuntimeBackend, model: Path, tmp_path: Path
) -> None:
    target = Target.parse("toy-cpu-f32")
    assert target.backend is toy and "toy-cpu-f32" in load_profile("cpu").possible_targets()
    spec = tiny.spec()
    dn = tiny.random_scene(spec, *spec.shape[1:], 0)[None]
    stand_in = target.backend.here(target.device, target.precision)
    assert stand_in.words == "this machine, its own executable"
    folder = tmp_path / "bundle"
    folder.mkdir()
    model.rename(folder / "model.onnx")
    with open_stand_in(folder / "model.onnx", stand_in, spec, 1) as session:  # type: ignore[attr-defined]
        np.savez(folder / "golden.npz", dn=dn, **session({"dn": dn}))
    files = {n: FileEntry(sha256=sha256_file(folder / n), bytes=(folder / n).stat().st_size)
             for n in ("model.onnx", "golden.npz")}  # fmt: skip
    manifest = Manifest(name="toy", classes=("land", "water"), target=target, input_spec=spec,
                        model_file="model.onnx", files=files, golden=Golden(atol=1e-4))  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    with Bundle.open(folder) as bundle:
        assert bundle.verify(threads=1).passed
        with pytest.raises(RequestError, match="no performance hint"):
            bundle.session(hint="throughput")
        with pytest.raises(RequestError, match="is ready to run"):
            bundle.backend.build(bundle, {})
    unregister_backend("toy")
    with pytest.raises(RequestError, match="'toy' is no runtime here"):
        Bundle.open(folder)


def installed(folder: Path, module: str) -> None:
    """A package with an entry point, as pip leaves one."""
    (folder / "toy_runtime.py").write_text(module)
    about = folder / "toy_runtime-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-runtime\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[rsedge.runtimes]\ntoy = toy_runtime:BACKEND\n")


def elsewhere(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)


def test_a_package_adds_one_by_an_entry_point(model: Path, tmp_path: Path) -> None:
    installed(tmp_path, PACKAGE)
    done = elsewhere(tmp_path, f"from rsedge.runtimes import open_session; open_session({str(model)!r}, 'toy')")
    assert "the toy was opened" in done.stderr, done.stderr


def test_a_broken_package_is_named_and_harms_no_other(model: Path, tmp_path: Path) -> None:
    installed(tmp_path, "import what_is_not_there")
    code = f"from rsedge.runtimes import open_session\nopen_session({str(model)!r}, 'onnxruntime')\nprint('fine')\n"
    done = elsewhere(tmp_path, code + f"open_session({str(model)!r}, 'toy')")
    assert done.stdout.strip() == "fine"
    assert MissingCapability.__name__ in done.stderr and "of the package toy-runtime cannot be imported" in done.stderr


@pytest.mark.parametrize(
    "module", ["import what_is_not_there", "raise RuntimeError('no driver')", "BACKEND = 1", "def"]
)
def test_beside_a_broken_package_all_else_works_and_doctor_names_it(module: str, tmp_path: Path) -> None:
    installed(tmp_path, module)
    code = "from rsedge.devices.profiles.profile import load_profile\nfrom rsedge.devices.doctor import diagnose\n"
    code += "print(load_profile('cpu').possible_targets())\n"
    code += "print([(r['available'], r['problem']) for r in diagnose()['runtimes'] if r['name'] == 'toy'])\n"
    done = elsewhere(tmp_path, code)
    assert "openvino-cpu-f32" in done.stdout and "toy-cpu" not in done.stdout, done.stderr
    assert "(False, " in done.stdout and "of the package toy-runtime" in done.stdout
