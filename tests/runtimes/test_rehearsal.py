"""Rehearsals: what ends or hangs its process is told of and never opened; what ran is not run again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.export.signing import write_public
from rsedge.runtimes import Bundle, rehearsal
from rsedge.runtimes.child import Child, Contents
from rsedge.runtimes.rehearsal import rehearse
from tests.runtimes import tiny_models as tiny


def answer(question: Any, contents: Contents) -> int:
    """The child's side of these tests: adds a line to a file, then does what it is told."""
    place, what = question
    with Path(place).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(60)
    if what == "refuse":
        raise IntegrityError("model: altered")
    return len(contents())


ENTRY = f"{__name__}:answer"


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    rehearsal._known.clear()
    yield
    while rehearsal._kept:
        rehearsal._kept.popitem()[1].close()


def runs(place: Path) -> list[str]:
    return place.read_text().split()


def test_the_same_bytes_run_once(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    for content in (b"one", b"one", b"two"):
        rehearse("model", ENTRY, [str(place), "run"], content)
    assert len(set(runs(place))) == 2  # each in a process of its own


def test_a_kept_child_serves_the_next_ones(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    for content in (b"one", b"two"):
        rehearse("model", ENTRY, [str(place), "run"], content, keep=True)
    assert len(runs(place)) == 2 and len(set(runs(place))) == 1


@pytest.mark.parametrize(("what", "told"), [("die", "was ended by SIGSEGV"), ("hang", "gave no answer in 1 s")])
@pytest.mark.parametrize("keep", [False, True])
def test_what_ends_or_hangs_is_told_each_time(tmp_path: Path, what: str, told: str, keep: bool) -> None:
    place = tmp_path / "runs"
    for _ in range(2):
        with pytest.raises(RequestError, match=rf"^model: the model ends its runtime: .*{told}.* not opened"):
            rehearse("model", ENTRY, [str(place), what], b"one", seconds=1, keep=keep)
    assert len(set(runs(place))) == 2 and not rehearsal._kept
    for number in runs(place):
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)


def test_our_own_errors_are_told_and_not_taken_for_success(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"^model: altered$"):
            rehearse("model", ENTRY, [str(tmp_path / "runs"), "refuse"], b"one")


CONTRACT = tiny.spec(32)


class Dies(Child):
    """Its process is ended as it is asked, as a model may end it."""

    def ask(self, seconds: int, question: Any, *contents: bytes) -> Any:
        self._process.send_signal(signal.SIGSEGV)
        return super().ask(seconds, question, *contents)


class Never(Child):
    def __init__(self, entry: str) -> None:
        raise MissingCapability("no process is to be started")


def opens(bundle: Path, key: Path | None = None) -> bool:
    with Bundle.open(bundle, key) as opened, contextlib.closing(opened.session(threads=1)) as session:
        tile = opened.golden()
        return len(session({"dn": tile["dn"][:1]})["logits"]) == 1


@pytest.mark.parametrize("target", ["openvino-cpu-f32", "onnxruntime-cpu-f32", "litert-cpu-f32"])
def test_an_unsigned_model_that_ends_its_runtime_is_not_opened(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny.make_bundle(tmp_path / "bundle", CONTRACT, target)
    monkeypatch.setattr(rehearsal, "Child", Dies)
    for _ in range(2):
        with pytest.raises(RequestError, match=rf"^{bundle}: the model ends its runtime: .*SIGSEGV.*get it again"):
            opens(bundle)
    monkeypatch.setattr(rehearsal, "Child", Child)
    assert opens(bundle)
    monkeypatch.setattr(rehearsal, "Child", Never)
    assert opens(bundle)  # the second time it is known


@pytest.mark.parametrize("target", ["openvino-cpu-f32", "litert-cpu-f32"])
def test_what_a_trusted_key_has_signed_needs_no_process(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = Ed25519PrivateKey.generate()
    bundle = tiny.make_bundle(tmp_path / "bundle", CONTRACT, target, private)
    monkeypatch.setattr(rehearsal, "Child", Never)
    assert opens(bundle, write_public(private, tmp_path / "key.pub"))
    with pytest.raises(MissingCapability, match="no process"):
        opens(bundle)  # signed, but by whom is not known


@pytest.mark.parametrize("kind", ["u1", "string"])
def test_types_that_openvino_computes_past_its_memory_are_refused(tmp_path: Path, kind: str) -> None:
    bundle = tiny.make_bundle(tmp_path / "bundle", CONTRACT)
    graph = bundle / "model.xml"
    text = graph.read_text()
    assert 'destination_type="u8"' in text
    graph.write_text(text.replace('destination_type="u8"', f'destination_type="{kind}"'))
    tiny.write_manifest(bundle, CONTRACT, "openvino-cpu-f32", "model.xml")
    with pytest.raises(RequestError, match=kind):
        opens(bundle)
