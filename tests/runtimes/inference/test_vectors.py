"""Answers for samples: what is read, what is written, and how wrong input is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.runtimes.inference.vectors import decided, read_samples, write_samples
from rsedge.runtimes.inference.works.vectors import SampleInference

SPEC = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), layout="TC", frames=3, tile=1, dtype="float32")
VECTORS = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)


def test_samples_are_read_under_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, dn=np.ones((4, 3, 2), np.float32))
    assert read_samples(path, SPEC).shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [({"x": np.ones(3)}, "has no array 'dn'"), ({"dn": np.ones((4, 2, 3), np.float32)}, r"\(4, 2, 3\) float32"),
     ({"dn": np.ones((4, 3, 2))}, "float64"), ({"dn": np.ones((0, 3, 2), np.float32)}, r"\(0, 3, 2\)")],
)  # fmt: skip
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=words) as caught:
        read_samples(tmp_path / "s.npz", SPEC)
    assert "(N, 3, 2) and type float32 (TC)" in str(caught.value)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_text("no zip")
    with pytest.raises(RequestError, match=r"not a whole \.npz"):
        read_samples(tmp_path / "s.npz", SPEC)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "object.npy").rename(tmp_path / "o.npz")
    with pytest.raises(RequestError, match=r"not a whole \.npz"):
        read_samples(tmp_path / "o.npz", SPEC)


def test_an_output_of_another_kind_is_refused_before_a_sample_is_read(tmp_path: Path) -> None:
    call: Any = SimpleNamespace(bundle=SimpleNamespace(manifest=None))
    with pytest.raises(RequestError, match=r"o\.txt: outputs of samples are written as \.npz or \.csv"):
        SampleInference().write(call, tmp_path / "gone.npz", tmp_path / "o.txt")


def test_decisions_in_words() -> None:
    assert decided("classification", VECTORS, ["a", "b"]) == ["a", "b"]
    assert decided("classification", VECTORS[:, 1:], ["crop"]) == ["no crop", "crop"]
    assert decided("embedding", VECTORS, ["e0", "e1"]) == ["", ""]


def test_answers_are_written_as_table_or_arrays(tmp_path: Path) -> None:
    write_samples(tmp_path / "o.csv", "classification", VECTORS, ["a", "b"])
    with (tmp_path / "o.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert rows[1] == {"sample": "1", "decided": "b", "a": "0.5", "b": "3"}
    write_samples(tmp_path / "o.npz", "regression", VECTORS, ["a", "b"])
    with np.load(tmp_path / "o.npz") as stored:
        np.testing.assert_array_equal(stored["outputs"], VECTORS)
    with pytest.raises(RequestError, match=r"written as \.npz or \.csv"):
        write_samples(tmp_path / "o.txt", "regression", VECTORS, ["a", "b"])
