"""LiteRT sessions: the tiny model's numbers, and clear refusals of files that are damaged or another's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import RequestError
from rsedge.runtimes import child, rehearsal
from rsedge.runtimes.litert.flatbuffer import metadata, read_model, set_metadata, write_model
from rsedge.runtimes.litert.session import LiteRtSession
from tests.runtimes import tiny_litert
from tests.runtimes import tiny_models as tiny

CONTRACT = tiny.spec()
WEIGHTS = tiny.weights(CONTRACT.channels)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_litert.make_litert(tmp_path / "model.tflite", CONTRACT, WEIGHTS)


def altered(model: Path, change: Callable[[Any], None]) -> Path:
    made = read_model(model.read_bytes())
    change(made)
    model.write_bytes(write_model(made))
    return model


def test_it_gives_the_reference(model: Path) -> None:
    session = LiteRtSession(model, None)
    assert session.input_spec == CONTRACT and (session.runtime, session.device) == ("litert", "CPU")
    for seed in range(3):
        dn = tiny.random_scene(CONTRACT, 32, 32, seed)
        out = session({"dn": dn[None]})
        logits, valid = tiny.reference(CONTRACT, dn)
        assert (out["logits"].dtype, out["valid"].dtype) == (np.float32, np.uint8)
        np.testing.assert_allclose(out["logits"][0], logits, atol=1e-4)
        assert np.array_equal(out["valid"][0].astype(bool), valid)
    session.close()
    with pytest.raises(RequestError, match="closed"):
        session({"dn": dn[None]})


def test_outputs_outlive_the_next_run(model: Path) -> None:
    session = LiteRtSession(model, None)
    first = session({"dn": tiny.random_scene(CONTRACT, 32, 32, 1)[None]})
    before = first["logits"].copy()
    session({"dn": tiny.random_scene(CONTRACT, 32, 32, 2)[None]})
    assert np.array_equal(first["logits"], before)


@pytest.mark.parametrize("way", ["empty", "cut", "other", "identifier"])
def test_damaged_files_are_refused(model: Path, way: str) -> None:
    content = model.read_bytes()
    other = tiny.make_onnx(model.with_name("m.onnx"), CONTRACT).read_bytes()
    model.write_bytes(
        {"empty": b"", "cut": content[:2000], "other": other, "identifier": content[:4] + b"TFL2" + content[8:]}[way]
    )
    with pytest.raises(RequestError, match="copy it again"):
        LiteRtSession(model, CONTRACT)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        LiteRtSession(tmp_path / "no.tflite", CONTRACT)


def test_another_graph_is_refused(model: Path) -> None:
    model.write_bytes(write_model(tiny_litert.model(CONTRACT, WEIGHTS, ("dn", "scores", "valid"))))
    with pytest.raises(RequestError, match="not an rsedge graph"):
        LiteRtSession(model, CONTRACT)


def test_a_model_without_contract_is_refused(model: Path) -> None:
    tiny_litert.make_litert(model, CONTRACT, WEIGHTS, with_spec=False)
    with pytest.raises(RequestError, match="no band contract"):
        LiteRtSession(model, None)


def test_another_device_is_refused(model: Path) -> None:
    with pytest.raises(RequestError, match="choose CPU"):
        LiteRtSession(model, None, "NPU")


def behind(made: Any) -> None:
    made.buffers[1].offset, made.buffers[1].size = 64, 4


def elsewhere(made: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    group, buffer = schema.ExternalBufferGroupT(), schema.ExternalBufferT()
    group.name, buffer.group, buffer.length = b"/etc/passwd", 0, 8
    made.externalBufferGroups, made.externalBuffers = [group], [buffer]


@pytest.mark.parametrize("change", [behind, elsewhere])
def test_weights_that_nothing_checks_are_refused(model: Path, change: Callable[[Any], None]) -> None:
    with pytest.raises(RequestError, match=r"weights outside|valid Flatbuffer"):
        LiteRtSession(altered(model, change), None)


def test_metadata_come_back_and_are_replaced(model: Path) -> None:
    made = read_model(model.read_bytes())
    set_metadata(made, {"rsedge": b"new", "more": bytes(range(256))})
    content = write_model(made)
    assert metadata(content) == {"rsedge": b"new", "more": bytes(range(256))}
    assert write_model(read_model(content)) == content


def test_what_ends_its_process_ends_a_child(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dies(child.Child):
        def ask(self, seconds: int, question: Any, *contents: bytes) -> Any:
            self._process.kill()
            return super().ask(seconds, question, *contents)

    monkeypatch.setattr(rehearsal, "_kept", {})
    monkeypatch.setattr(rehearsal, "_known", set())
    monkeypatch.setattr(rehearsal, "Child", Dies)
    with pytest.raises(RequestError, match=r"was ended by SIGKILL.*get it again"):
        LiteRtSession(model, None)
    monkeypatch.setattr(rehearsal, "Child", child.Child)
    assert LiteRtSession(model, None).input_spec == CONTRACT


def test_nothing_is_written_to_standard_error(model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rsedge.runtimes.litert.session import LiteRtSession; "
        "LiteRtSession(Path(sys.argv[1]), None); sys.stderr.write('ours'); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "ours")
