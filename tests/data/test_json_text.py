"""JSON within bounds gives what Python's reader gives; everything else is our error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.json_text import LABELS_BYTES, MAX_DEPTH, parse_json, read_json, read_object

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


@given(value=VALUES, ascii_only=st.booleans())
def test_json_of_ours_comes_back(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text, "x") == value and parse_json(text.encode(), "x") == value


@given(content=st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789.eE+-\\udD8NaInfity ', max_size=60))
def test_anything_else_is_our_error(content: bytes | str) -> None:
    try:
        value = parse_json(content, "x")
    except RequestError as error:
        assert str(error).startswith("x: ")
    else:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("9" * 5000, "number of 5000 digits"),
        ("18446744073709551616", "no 64 bits"),
        ("1e999", "too large"),
        ("NaN", "no JSON number"),
        ("[-Infinity]", "no JSON number"),
        ('{"a": 1, "a": 2}', "key 'a' occurs twice"),
        ("[" * 100_000, "nested deeper"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ('["\\ud800"]', "half of a sign"),
        ("", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_what_is_refused(text: str | bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        parse_json(text, "x")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[1]")
    assert read_json(file) == [1]
    with pytest.raises(RequestError, match="a list, not a JSON object"):
        read_object(file)
    with pytest.raises(RequestError, match="larger than 2 bytes"):
        read_json(file, most=2)
    for path in (tmp_path, tmp_path / "none", tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(RequestError):
            read_json(path)


def test_many_small_values_are_counted_before_they_are_read() -> None:
    few = b"[" + b"[]," * 400_000 + b"[]]"
    assert len(parse_json(few, "x")) == 400_001
    for content in (few, few.decode()):
        with pytest.raises(RequestError, match="x: holds 400001 values, more than 131072"):
            parse_json(content, "x", 2 << 20)


def test_many_small_values_are_held_against_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 10_000, "SC_PAGE_SIZE": 1000}.__getitem__)
    with pytest.raises(MissingCapability, match=r"x: 0\.04 GB would have to be read at once"):
        parse_json(b"[" + b"[]," * 400_000 + b"[]]", "x", LABELS_BYTES)
