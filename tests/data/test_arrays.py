"""NumPy files as NumPy reads them, or our error; never more memory than the file declares and holds."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsedge.data import arrays as module
from rsedge.data.arrays import read_array, read_arrays
from rsedge.data.errors import MissingCapability, RequestError

DTYPES = st.sampled_from(["u1", ">u2", "i8", "f4", "f8", "?", "U3", "S2"])


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    content = text.encode() + b"\n"
    return b"\x93NUMPY" + version + len(content).to_bytes(2, "little") + content


def packed(path: Path, content: bytes, name: str = "a.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


@settings(max_examples=40, deadline=None)
@given(data=st.data(), fortran=st.booleans(), small=st.booleans())
def test_as_numpy_reads_them(data: st.DataObject, fortran: bool, small: bool, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    array = data.draw(hnp.arrays(data.draw(DTYPES), hnp.array_shapes(min_dims=0, min_side=0, max_dims=4)))
    array = np.asfortranarray(array) if fortran else array
    (np.savez_compressed if small else np.savez)(folder / "x.npz", a=array, b=np.arange(3))
    np.save(folder / "x.npy", array)
    for found in (read_arrays(folder / "x.npz")["a"], read_array(folder / "x.npy")):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype and found.shape == array.shape and found.flags.writeable
    assert list(read_arrays(folder / "x.npz", ["b"])) == ["b"]
    assert list(read_arrays(Path("x.npz"), content=(folder / "x.npz").read_bytes())) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}", "which 8 bytes are not"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", "is none|which 8 bytes are not|not an array"),
        ("{'descr': '<U0', 'fortran_order': False, 'shape': (10000000000,)}", "only plain numbers|which 8"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "only plain numbers"),
        ("{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (1,)}", "only plain numbers"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}", "not an array|which 8"),
        ("(" * 5000, "not an array"),
        ("x" * 20_000, "not an array"),
        ("", "not an array"),
    ],
)
def test_headers_that_lie(tmp_path: Path, text: str, says: str) -> None:
    content = header(text) + bytes(8)
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(RequestError, match=says):
        read_array(tmp_path / "x.npy")
    with pytest.raises(RequestError, match=says):
        read_arrays(packed(tmp_path / "x.npz", content))


def test_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(1 << 20), b=np.zeros(1 << 20))
    monkeypatch.setattr(module, "_memory", lambda: 3 * (8 << 20))
    assert len(read_arrays(tmp_path / "x.npz", ["a"])) == 1
    with pytest.raises(MissingCapability, match=r"array 'b': needs .* half of this machine's memory"):
        read_arrays(tmp_path / "x.npz")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_our_error_or_harmless(data: st.DataObject, tmp_path_factory) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, a=np.arange(50), b=np.ones((3, 4), np.float32))
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        found = read_arrays(Path("x.npz"), ["a"], bytes(content))
    except (RequestError, MissingCapability):
        return
    assert np.array_equal(found["a"], np.arange(50))


@settings(max_examples=60, deadline=None)
@given(
    descr=st.sampled_from(["'<f8'", "('<f8',)", "('<f8', 2)", "[('a', '<f8')]", "{}", "()", "'<U0'", "None", "'|O'"]),
    shape=st.lists(st.sampled_from([0, 1, -1, 2**31, 2**62, 2**63, 10**30, "'a'", "1.5", "True"]), max_size=4),
)
def test_headers_of_every_kind_are_read_or_refused(descr: str, shape: list[object], tmp_path_factory) -> None:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': ({''.join(f'{n},' for n in shape)}), }}"
    path = tmp_path_factory.mktemp("headers") / "a.npy"
    path.write_bytes(header(text))
    try:
        assert read_array(path).size == 0
    except RequestError as error:
        assert str(path) in str(error)


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    """NumPy takes both ``dn`` and ``dn.npy`` for 'dn'; which of them counts is nobody's to guess."""
    path = tmp_path / "a.npz"
    for names in (("dn", "dn.npy"), ("dn.npy", "dn")):
        with zipfile.ZipFile(path, "w") as archive:
            for i, name in enumerate(names):
                content = io.BytesIO()
                np.save(content, np.full(3, i))
                archive.writestr(name, content.getvalue())
        for wanted in (None, ["dn"]):
            with pytest.raises(RequestError, match="two arrays 'dn'"):
                read_arrays(path, wanted)
