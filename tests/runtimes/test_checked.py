"""Bytes that are read once, checked, and then are what runs."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import IntegrityError
from rsedge.runtimes import Bundle
from rsedge.runtimes.checked import read_checked, read_whole
from tests.runtimes import tiny_models as tiny


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=64), other=st.binary(max_size=64))
def test_only_the_very_bytes_pass(content: bytes, other: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("read") / "f"
    path.write_bytes(other)
    sha256 = hashlib.sha256(content).hexdigest()
    if other == content:
        assert read_checked(path, len(content), sha256) == content
    else:
        with pytest.raises(IntegrityError, match=r"copy it again"):
            read_checked(path, len(content), sha256)


def test_pipes_folders_and_nothing_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("pipe", "no plain file"), (".", "no plain file"), ("none", "is missing")):
        with pytest.raises(IntegrityError, match=words):
            read_whole(tmp_path / name, 0)


@pytest.mark.parametrize("target", ["openvino-cpu-f32", "onnxruntime-cpu-f32"])
def test_an_open_session_keeps_its_bytes(own_bundle: Callable[..., Path], target: str) -> None:
    folder = own_bundle(target)
    tile = tiny.random_scene(tiny.spec(), 32, 32)[None]
    expected, _ = tiny.reference(tiny.spec(), tile[0])
    with Bundle.open(folder) as opened, contextlib.closing(opened.session(threads=1)) as session:
        for name in opened.manifest.files:
            with (folder / name).open("r+b") as file:
                file.write(b"other")
                file.truncate(5)
        gc.collect()
        junk = [np.full(1 << 20, 7, np.uint8) for _ in range(20)]
        for _ in range(3):
            np.testing.assert_allclose(session({"dn": tile})["logits"][0], expected, atol=1e-4)
        del junk
        with pytest.raises(IntegrityError, match=r"has 5 bytes"):
            opened.session()
        with pytest.raises(IntegrityError, match=r"has 5 bytes"):
            opened.golden()


def test_nothing_of_a_bundle_is_mapped(own_bundle: Callable[..., Path]) -> None:
    folder = own_bundle()
    with Bundle.open(folder) as opened, contextlib.closing(opened.session(threads=1)):
        assert str(folder) not in Path("/proc/self/maps").read_text()
