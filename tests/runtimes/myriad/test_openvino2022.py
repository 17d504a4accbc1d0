"""The environment of OpenVINO 2022.3.2 and its child process: found, made, and clear about what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rsedge.cli.main import app
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.runtimes import open_session
from rsedge.runtimes.myriad.process import (
    VARIABLE,
    OpenVino2022Session,
    convert,
    create_environment,
    find_environment,
    need_environment,
)
from tests.runtimes import tiny_models as tiny


@pytest.fixture
def ir(tmp_path: Path, need_openvino2022: Path) -> Path:
    contract = tiny.spec()
    source = tiny.make_onnx(tmp_path / "m.onnx", contract, "float32")
    found = convert(source, tmp_path / "m.xml", {"rsedge": contract.model_dump_json()})
    assert found["version"].startswith("2022.3.2")
    assert {o["type"] for o in found["operations"]} >= {"Parameter", "Convolution"}
    return tmp_path / "m.xml"


def test_same_numbers_as_todays_openvino(ir: Path) -> None:
    inputs = [{"dn": tiny.random_scene(tiny.spec(), 32, 32, seed)[None]} for seed in range(4)]
    with OpenVino2022Session(ir, None, "CPU", threads=1) as old, open_session(ir, "openvino") as new:  # type: ignore[attr-defined]
        for one, result in zip(inputs, old.stream(inputs), strict=True):
            expected = new(one)
            np.testing.assert_allclose(result["logits"], expected["logits"], atol=2e-2)
            assert np.array_equal(result["valid"], expected["valid"])


def test_a_child_that_dies_is_told(ir: Path) -> None:
    dn = tiny.random_scene(tiny.spec(), 32, 32)[None]
    session = OpenVino2022Session(ir, None, "CPU", threads=1)
    session._child.kill()
    session._child.wait()
    with pytest.raises(MissingCapability, match="ended in the middle"):
        session({"dn": dn})


def test_broken_models_are_refused(ir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((tmp_path / "m.onnx").read_bytes()[:300])
    with pytest.raises(RequestError, match=r"broken\.onnx: OpenVINO 2022\.3\.2 cannot convert"):
        convert(broken, tmp_path / "b.xml", {})
    ir.write_bytes(ir.read_bytes()[:500])
    with pytest.raises(RequestError, match=r"m\.xml: OpenVINO 2022\.3\.2 cannot load"):
        OpenVino2022Session(ir, tiny.spec(), "CPU")


def test_without_an_environment_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openvino2022: Path | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_environment() is None
    with pytest.raises(MissingCapability, match="rsedge setup-myriad"):
        need_environment()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(MissingCapability, match="no such Python"):
        need_environment()
    monkeypatch.setenv(VARIABLE, sys.executable)  # a Python whose OpenVINO is another one
    with pytest.raises(MissingCapability, match=r"OpenVINO 2022\.3\.2 does not start there"):
        convert(tiny.make_onnx(tmp_path / "m.onnx", tiny.spec(), "float32"), tmp_path / "m.xml", {})


def test_no_python_310_and_failed_installs_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(MissingCapability, match=r"no Python 3\.10"):
        create_environment(tmp_path / "environment")
    with pytest.raises(MissingCapability, match=r"cannot be started|cannot be made"):
        create_environment(tmp_path / "environment", python=tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_setup_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    there = tmp_path / "rsedge/openvino-2022.3.2/bin/python"
    there.parent.mkdir(parents=True)
    there.touch()
    done = CliRunner().invoke(app, ["setup-myriad", "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["python"] == str(there)


def test_a_recipe_for_the_vpu_asks_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rsedge.data.documents import Document, Place
    from rsedge.recipe.checks import preflight
    from rsedge.recipe.reading import check_document

    pytest.importorskip("spyndex")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    value = {
        "name": "t",
        "teacher": {"name": "ukis-csmask-4b-l2a"},
        "data": {"train": [{"source": "spyndex-sentinel2"}], "test": {"source": "spyndex-sentinel2"}},
        "steps": ["distill"],
        "targets": ["openvino-myriad-x-fp16"],
    }
    with pytest.raises(MissingCapability, match="rsedge setup-myriad"):
        preflight(check_document(Document(value, {(): Place("test")})))
