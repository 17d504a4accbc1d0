"""Stages hand files over by :mod:`rsedge.stages.outputs`, never by a name in another stage's folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "rsedge").rglob("*.py"))


def named(source: str) -> list[int]:
    """Lines that join a text to the folder of some stage."""

    def is_text(node: ast.expr) -> bool:
        return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))

    def is_folder(node: ast.expr) -> bool:
        return (
            isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "folders"
        )

    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.BinOp) and is_folder(node.left) and is_text(node.right)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_named_in_another_stages_folder(path: Path) -> None:
    assert not named(path.read_text(encoding="utf-8"))


def test_such_lines_are_found() -> None:
    assert named(
        'a = ctx.folders["export"] / "student-f32.xml"\nb = ctx.folders[s] / f"{s}.npz"\nc = ctx.folders[s]'
    ) == [1, 2]
