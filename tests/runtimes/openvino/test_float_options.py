"""INT8 files that ask for bf16 for what is not quantized: heeded where the processor has it, else f32, refused where altered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import RequestError
from rsedge.devices.onboard.engines import OpenVino
from rsedge.runtimes import Bundle
from rsedge.runtimes.device_cache import Slot, load
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.openvino import core as core_of
from rsedge.runtimes.openvino.build import build_blob
from rsedge.runtimes.openvino.session import device_name
from tests.runtimes import tiny_models as tiny

ov = pytest.importorskip("openvino")
needs_bf16 = pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="this processor has no bf16"
)
DN = tiny.random_scene(tiny.spec(), 32, 32, 1)[None]


def asking(folder: Path, word: str) -> Path:
    """The tiny IR with a word under the key."""
    model = ov.Core().read_model(tiny.make_ir(folder, tiny.spec()))
    model.set_rt_info(word, [core_of.FLOAT_KEY])
    path = folder / "asking.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    return path


def hint(compiled: Any) -> str:
    return compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()  # type: ignore[no-any-return]


@needs_bf16
def test_int8_files_are_computed_as_they_ask(tmp_path: Path) -> None:
    path = asking(tmp_path, "bf16")
    session = open_session(path, "openvino", precision="int8", threads=1)
    assert hint(session._compiled) == "bf16"  # type: ignore[attr-defined]
    engine = OpenVino(path, "CPU", "int8", 1)
    assert hint(engine._compiled) == "bf16", "the remote runner times what flies"
    plain = open_session(path, "openvino", precision="f32", threads=1)
    assert hint(plain._compiled) == "f32"  # type: ignore[attr-defined]
    gap = np.abs(session({"dn": DN})["logits"] - plain({"dn": DN})["logits"]).max()
    assert 0 < gap < 0.05 * np.abs(plain({"dn": DN})["logits"]).max()


def test_hosts_without_bf16_compute_in_f32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_of, "has_bf16", lambda _: False)
    path = asking(tmp_path, "bf16")
    found = [open_session(path, "openvino", precision=how, threads=1)({"dn": DN}) for how in ("int8", "f32")]
    np.testing.assert_array_equal(found[0]["logits"], found[1]["logits"])


@pytest.mark.parametrize("word", ["int4", "", "bf16 "])
def test_other_words_are_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(RequestError, match=r"asking.xml: asks for layers in .*known: f32, bf16"):
        open_session(asking(tmp_path, word), "openvino", precision="int8", threads=1)


@needs_bf16
def test_a_blob_is_opened_as_it_was_compiled(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "bundle"
    tiny.make_bundle(folder, tiny.spec(), "openvino-cpu-int8")
    asked = asking(tmp_path, "bf16")
    for suffix in (".xml", ".bin"):
        asked.with_suffix(suffix).replace(folder / f"model{suffix}")
    tiny.write_manifest(folder, tiny.spec(), "openvino-cpu-int8", "model.xml")
    with Bundle.open(folder) as opened:
        build_blob(opened, "CPU")
        built = load(Slot("blob", opened.manifest_sha256, device_name(core_of.shared_core(), "CPU"), folder))
        assert built is not None and built.about["options"] == {"INFERENCE_PRECISION_HINT": "bf16"}
        assert hint(opened.session()._compiled) == "bf16"  # type: ignore[attr-defined]
