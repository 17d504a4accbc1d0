"""``rsedge inspect``: every kind is told by its bytes, whatever the file is called; what is no kind is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rsedge.cli.kinds import GROUND_KINDS
from rsedge.data.errors import MissingCapability, RequestError, RsedgeError
from rsedge.devices.mission.description import example
from rsedge.devices.profiles.profile import PROFILES
from rsedge.runtimes import device_cache
from rsedge.runtimes.inspecting import KINDS, describe
from tests.runtimes import tiny_litert
from tests.runtimes import tiny_models as tiny

ROOT = Path(__file__).parents[3]


def record_of(path: Path) -> dict:
    return describe(path, None, GROUND_KINDS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind that bytes tell, under a name without a suffix."""
    folder = tmp_path_factory.mktemp("kinds")
    spec = tiny.spec()
    state = {"encoder.weight": torch.zeros(3, 2), "head.bias": torch.zeros(4)}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}}, folder / "checkpoint")
    torch.save(state, folder / "old checkpoint", _use_new_zipfile_serialization=False)
    save_file(state, folder / "safetensors")
    with h5py.File(folder / "keras.h5", "w") as file:
        file.create_dataset("model_weights/conv/kernel:0", data=np.zeros((3, 3), np.float32))
    (folder / "keras.h5").rename(folder / "keras")
    np.savez(folder / "npz", dn=np.zeros((2, 3), np.uint16), logits=np.zeros(4, np.float32))
    (folder / "npz.npz").rename(folder / "npz")
    tiny.make_onnx(folder / "onnx", spec)
    tiny.write_scene(folder / "scene", tiny.random_scene(spec, 40, 40), tiny.NAMES)
    tiny.make_bundle(folder / "made", spec)
    shutil.make_archive(str(folder / "made"), "zip", folder / "made")
    (folder / "made.zip").rename(folder / "bundle")
    (folder / "engine").write_bytes(b"ftrt" + bytes(60))
    tiny_litert.make_litert(folder / "litert", spec, tiny.weights(spec.channels))
    return folder


@pytest.mark.parametrize(
    ("name", "kind", "then"),
    [
        ("checkpoint", "checkpoint", "--checkpoint"),
        ("old checkpoint", "checkpoint", "old checkpoint'"),
        ("safetensors", "safetensors", "checkpoint: "),
        ("npz", "npz", "golden"),
        ("onnx", "onnx", "devices predict"),
        ("scene", "raster", "rsedge infer BUNDLE"),
        ("bundle", "bundle", "rsedge verify"),
        ("engine", "engine", "rsedge build"),
        ("litert", "litert", "bundle"),
    ],
)
def test_bytes_tell(files: Path, name: str, kind: str, then: str) -> None:
    record = record_of(files / name)
    assert (record["kind"], record["bytes"]) == (kind, record["bytes"] or 0)
    assert then in record["next"]
    json.dumps(record)


def test_what_infer_wrote_is_no_scene_to_go_on_with(files: Path, cli: Callable, tmp_path: Path) -> None:
    code, _, told = cli("infer", files / "made", files / "scene", "--any-gsd", "--output", tmp_path / "map.tif")
    assert code == 0, told
    assert "rsedge evaluate" in record_of(tmp_path / "map.tif")["next"]


def test_a_checkpoint_says_where_its_weights_lie_and_whose_they_may_be(files: Path) -> None:
    record = record_of(files / "checkpoint")
    assert (record["weights_under"], record["tensors"], record["values"]) == ("state_dict", 2, 10)
    assert record["entries"] == ["epoch", "state_dict", "optimizer"]
    assert record["teachers"] == []
    assert record["parts"] == {"encoder": 1, "head": 1}


def test_keras_weights_are_read(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "keras", tmp_path / "w.h5")
    assert record_of(tmp_path / "w.h5")["values"] == 9


def test_arrays_are_described_without_being_read(files: Path) -> None:
    assert record_of(files / "npz")["arrays"] == [
        {"name": "dn", "dtype": "uint16", "shape": [2, 3]},
        {"name": "logits", "dtype": "float32", "shape": [4]},
    ]


def test_documents_are_told_by_their_fields(tmp_path: Path) -> None:
    (tmp_path / "orbit.yaml").write_text(example("orbit"))
    recipe = record_of(ROOT / "recipes/quickstart.yaml")
    assert recipe["kind"] == "recipe"
    assert recipe["stages"][0] == "data" and "openvino-cpu-int8" in recipe["targets"]
    assert [band["name"] for band in recipe["contract"]["bands"]] == ["blue", "green", "red", "nir"]
    assert recipe["next"].endswith("--dry-run")
    assert record_of(tmp_path / "orbit.yaml")["kind"] == "mission"
    device = record_of(PROFILES / "raspberry-pi-5.yaml")
    assert device["kind"] == "device" and device["targets"]


def test_an_engine_says_what_the_device_that_built_it_recorded(tmp_path: Path) -> None:
    content = b"ftrt" + bytes(60)
    path = tmp_path / "a.engine"
    path.write_bytes(content)
    assert "no record" in record_of(path)["built"]
    entry = device_cache.Entry(
        kind="engine", manifest_sha256="0" * 64, hardware="Orin", sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content), about={"tensorrt": "10.3"},
    ).model_dump_json()  # fmt: skip
    signed = {"entry": entry, "signature": base64.b64encode(bytes(64)).decode()}
    (tmp_path / device_cache.RECORD).write_text(json.dumps(signed))
    found = record_of(path)["built"]
    assert (found["hardware"], found["about"]) == ("Orin", {"tensorrt": "10.3"})
    (tmp_path / device_cache.RECORD).write_text("{}")
    assert "no record" in record_of(path)["built"]


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(RequestError, match="was not opened"):
        record_of(tmp_path / "whole.pt")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"hello there", "known: scene"),
        ("empty", b"", "it is empty"),
        ("a.keras", b"PK", "export it to ONNX"),
        ("a.pt", b"not torch", "by its first bytes"),
        ("a.safetensors", b"x" * 20, "no safetensors file"),
    ],
)
def test_the_rest_is_refused_in_words(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RsedgeError, match=says):
        record_of(tmp_path / name)


STARTS = (
    b"",
    b"II*\0",
    b"ftrt",
    b"\x08\x08\x12",
    b"PK\x03\x04",
    b"\x89HDF\r\n\x1a\n",
    b"\x80\x02",
    b"<net",
    b"{",
    b"\x40\0\0\0\0\0\0\0{",
)

SUFFIXES = ("", ".tif", ".pt", ".h5", ".npz", ".yaml")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(STARTS),
    rest=st.binary(max_size=200),
    suffix=st.sampled_from(["", ".tif", ".pt", ".h5", ".npz", ".yaml"]),
)
def test_any_bytes_are_described_or_refused(tmp_path: Path, start: bytes, rest: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(start + rest)
    try:
        assert record_of(path)["kind"]
    except RsedgeError as error:
        assert str(path) in str(error)


def test_kinds_have_names_of_their_own() -> None:
    names = [kind.name for kind in (*KINDS, *GROUND_KINDS)]
    assert len(set(names)) == len(names)


def test_on_board_there_is_no_torch(files: Path) -> None:
    """Kinds that need none import none; a checkpoint says what is missing."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from rsedge.cli.main import run_app\n"
        "codes = [run_app(['inspect', path, '--json']) for path in sys.argv[1:]]\n"
        "print(codes)"
    )
    names = ["scene", "npz", "bundle", "safetensors", "onnx", "engine", "checkpoint"]
    done = subprocess.run(
        [sys.executable, "-c", program, *(str(files / n) for n in names)], capture_output=True, text=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == str([0] * 6 + [MissingCapability.exit_code]), done.stdout + done.stderr
    assert "rsedge[compress]" in json.loads(lines[-2])["error"]


def test_the_command_prints_what_to_do_next(files: Path, cli: Callable) -> None:
    code, text, _ = cli("inspect", files / "onnx")
    assert code == 0 and text.splitlines()[-1].startswith("next: rsedge devices predict")
