"""Arrays that may lie in a file: the same numbers, whatever their size, and nothing is left behind."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsedge.data import paged
from rsedge.data.errors import MissingCapability
from rsedge.data.files import sha256_of


def mapped_from_a_file(array: np.ndarray) -> bool:
    """Whether the kernel can take the array's memory back."""
    at = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        first, last = (int(edge, 16) for edge in line.split()[0].split("-"))
        if first <= at < last:
            return "(deleted)" in line
    return False


def test_a_large_array_lies_in_a_file_that_nobody_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(paged.tempfile, "tempdir", None)
    monkeypatch.setattr(paged, "LARGE", 4096)
    small, large = paged.zeros((10, 10), np.float32), paged.zeros((64, 64), np.float32)
    assert not mapped_from_a_file(small) and mapped_from_a_file(large) and type(large) is np.ndarray
    assert not large.any() and not list(tmp_path.iterdir())
    large[3, 4] = 7
    assert large.sum() == 7


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that finds no room later would end the process."""

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paged, "LARGE", 1)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MissingCapability, match=r"No space left on device; make room, or name a folder .* TMPDIR="):
        paged.zeros((1000, 1000), np.float32)
    monkeypatch.undo()
    monkeypatch.setattr(paged, "LARGE", 1)
    monkeypatch.setattr(paged, "folder", lambda: tmp_path)
    with pytest.raises(MissingCapability, match="GB of a large scene"):
        paged.zeros((1 << 40, 1 << 20), np.float32)


@given(st.integers(0, 300), st.integers(1, 1 << 27))
def test_strips_cover_all_rows_once(height: int, row_bytes: int) -> None:
    rows = [np.arange(height)[strip] for strip in paged.strips(height, row_bytes)]
    assert np.array_equal(np.concatenate([*rows, np.empty(0, int)]), np.arange(height)) and all(map(len, rows))


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.data())
def test_places_are_those_of_the_set_pixels(mask: np.ndarray, data: st.DataObject) -> None:
    every = np.flatnonzero(mask)
    numbers = np.array(sorted(data.draw(st.sets(st.integers(0, len(every) - 1)))) if len(every) else [], int)
    rows, cols = paged.places(mask, numbers)
    assert np.array_equal(rows * mask.shape[1] + cols, every[numbers])


@given(
    arrays(st.sampled_from((np.uint8, np.int32, np.bool_)), st.tuples(st.integers(0, 5), st.integers(0, 5))), st.text()
)
def test_hashed_as_by_its_hex(array: np.ndarray, text: str) -> None:
    values = [text, [1, 2], array, array.T]
    plain = [text, [1, 2], array.tobytes().hex(), np.ascontiguousarray(array.T).tobytes().hex()]
    assert paged.sha256_with_arrays(values) == sha256_of(plain)


@given(arrays(st.sampled_from((np.uint16, np.float32, np.bool_)), st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_read_as_numpy_reads_it(array: np.ndarray) -> None:
    file = io.BytesIO()
    np.save(file, array)
    whole = file.getvalue()
    found = paged.read_npy(io.BytesIO(whole))
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    if array.size:
        with pytest.raises(ValueError, match="too early"):
            paged.read_npy(io.BytesIO(whole[:-1]))


def test_objects_are_not_read() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{}], object), allow_pickle=True)
    file.seek(0)
    with pytest.raises(ValueError, match="no plain array"):
        paged.read_npy(file)
