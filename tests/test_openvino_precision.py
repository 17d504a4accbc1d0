"""OpenVINO computes in bf16 by itself where a CPU has it, so every model that rsedge compiles says what it computes in.

Else a figure would hold on the machines without bf16 alone, or the other way round.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rsedge", "models", "compress", "export", "runtimes", "devices", "data", "reports", "tests", "benchmarks")
# Strings in, numbers out: nothing to round.
STRINGS = {"TOKENIZER", "DETOKENIZER"}
# The one that everybody else's settings go through, and the runner's 2022.3.2, which knows no such property.
PASSED_ON = {"runtimes/openvino/core.py", "runtimes/myriad/worker.py", "tests/test_openvino_precision.py"}


def compiling(source: str) -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    """Calls of ``compile_model`` with the function around them."""
    for function in (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)):
        for call in (n for n in ast.walk(function) if isinstance(n, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
            if name == "compile_model":
                yield function, call


def silent(source: str) -> list[int]:
    """Lines that compile a model without saying its precision, in settings made beside the call or by its caller."""
    found = []
    for function, call in compiling(source):
        words = {getattr(n, "id", None) for n in ast.walk(call)} | {getattr(n, "attr", None) for n in ast.walk(call)}
        told = ast.get_source_segment(source, function) or ""
        handed = [a.arg for a in function.args.args if a.arg in words and a.arg in ("config", "options", "settings")]
        if words & STRINGS or "settings(" in told or "INFERENCE_PRECISION_HINT" in told or handed:
            continue
        found.append(call.lineno)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_compiled_model_says_its_precision(room: str) -> None:
    wrong = {
        name: lines
        for path in sorted((ROOT / room).rglob("*.py"))
        if (name := str(path.relative_to(ROOT))) not in PASSED_ON and (lines := silent(path.read_text()))
    }
    assert not wrong


def test_a_silent_one_is_found() -> None:
    assert silent("def f(core, model):\n    core.compile_model(model, 'CPU', {'PERFORMANCE_HINT': 'LATENCY'})") == [2]
    assert not silent("def f(core, model):\n    core.compile_model(model, 'CPU', settings('CPU', 'f32', 1))")
