"""YAML of strangers: bounded, without tags, and never an error that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.documents import parse_value, read_document
from rsedge.data.errors import RequestError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "9" * 5000, "number of 5000 signs"),
        ("a: " + "9" * 30, "no 64 bits"),
        ("a: 1e" + "9" * 50, "number of"),
        ("a: !!float abc", "no value of the tag"),
        ("a: !!bool maybe", "no value of the tag"),
        ("a: !!timestamp x", "tags are not read here"),
        ("a: !!python/object:os.system x", "tags are not read here"),
        ("a: !!binary ////", "tags are not read here"),
        ("a: " + "[" * 40 + "]" * 40, "nested deeper than 32"),
        ("a: " + "[" * 20_000, "nested too deeply|not valid YAML"),
        (BOMB, "aliases expand without end"),
        ("a: &a [*a]", "aliases expand without end|not valid YAML"),
        ("a: \x01", "not valid YAML"),
        ('a: "\\ud800"', "half a character"),
        ('"\\udfff": 1', "half a character"),
        ("x" * 1_000_001, "larger than"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RequestError, match=says) as error:
        read_document(file)
    assert str(file) in str(error.value)


def test_imports_that_branch_are_bounded(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}.yaml").write_text(f"a: {{$import: {i + 1}.yaml}}\nb: {{$import: {i + 1}.yaml}}\n")
    (tmp_path / "20.yaml").write_text("c: 1\n")
    with pytest.raises(RequestError, match="more than 1000 files"):
        read_document(tmp_path / "0.yaml")


def test_numbers_and_what_only_looks_like_one(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    many = ":".join(["1"] * 400_000)
    file.write_text(f"a: 12:30\nb: 0x1F\nc: -7\nd: 1_000\ne: 2e-3\nf: 010\ng: {many}\nh: .inf\ni: no\nj: 2026-01-01\n")
    found = read_document(file).value
    assert found.pop("g") == many
    assert [found.pop(name) for name in "aij"] == ["12:30", "no", "2026-01-01"]
    assert found == {"b": 31, "c": -7, "d": 1000, "e": 2e-3, "f": 8, "h": float("inf")}


def test_values_of_the_command_line() -> None:
    assert parse_value("[1, {a: 2e-3}]") == [1, {"a": 2e-3}] and parse_value("") is None
    with pytest.raises(RequestError, match="is for files"):
        parse_value("{$import: other.yaml}")


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60) | st.text(alphabet='&*!|>%@`"[]{},:?- \n\t#0123456789abfx._e+', max_size=80))
def test_any_text_is_a_value_or_our_error(text: str) -> None:
    try:
        parse_value(text)
    except RequestError as error:
        assert str(error)
