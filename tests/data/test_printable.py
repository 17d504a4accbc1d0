"""What a terminal would obey is written as escapes; all other text stays as it is."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.printable import commanding, printable, printable_values


@given(st.text())
def test_no_control_is_left_and_nothing_else_is_changed(text: str) -> None:
    found = printable(text)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in found) and printable(found) == found
    plain = "".join(c for c in text if printable(c) == c)
    assert printable(plain) == plain


LINES = st.text(st.characters(exclude_characters="\n"))


@given(st.recursive(LINES | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(LINES, inner)))
def test_nested_values_too(value: object) -> None:
    assert not list(commanding(printable_values(value)))


def test_the_place_is_named() -> None:
    assert list(commanding({"classes": ["a", "b\x1b[2K"], "bad\u202e": {"x": "fine"}})) == ["classes.1", "a name"]
