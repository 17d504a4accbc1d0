"""Texts of others stay texts in Markdown."""

from __future__ import annotations

import pytest

from rsedge.reports.tables import code, plain


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("- a", "\\- a"),
        ("12. a", "12\\. a"),
        ("1.5 ms", "1.5 ms"),
        ("-3", "-3"),
        ("a\n# b | c", "a \\# b \\| c"),
        ("~~a~~ *b* <i>", "\\~\\~a\\~\\~ \\*b\\* \\<i\\>"),
    ],
)
def test_nothing_is_read_as_markup(text: str, wanted: str) -> None:
    assert plain(text) == wanted


def test_code_ends_where_its_text_does() -> None:
    assert code("a`b\nc") == "`a'b c`"
