"""`make on-gpu`: its document is that of its record, it says where it is skipped, and parts that fail are told."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts as modules: they lie outside the package."""
    sys.path.insert(0, str(ROOT / "benchmarks/gpu"))
    yield
    sys.path.remove(str(ROOT / "benchmarks/gpu"))


def test_the_document_is_that_of_the_record() -> None:
    import gpu_page

    assert gpu_page.DOCUMENT.read_text(encoding="utf-8") == gpu_page.document(gpu_page.stored()), (
        "`python benchmarks/gpu/gpu_page.py` writes it"
    )


def test_without_a_gpu_it_says_that_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import on_gpu

    monkeypatch.setattr(on_gpu, "card_here", lambda: None)
    monkeypatch.setattr(sys, "argv", ["on_gpu.py"])
    assert on_gpu.main() == 0
    assert capsys.readouterr().out.startswith("skipped: torch sees no CUDA GPU")


def test_every_part_is_in_the_document_and_failures_are_told_by_their_message() -> None:
    import gpu_page
    import on_gpu

    card = {
        "name": "a card",
        "memory_gb": 8,
        "compute_capability": "9.0",
        "driver": "1",
        "date": "2026-01-01",
        "versions": {"torch": "2"},
    }
    engine = {"p50": 1.0, "p99": 2.0, "max_abs_difference": 0.01, "logit_scale": 10.0, "classes_agree": 1.0,
              "execution": "CUDA graph",
              "spread": {"builds": 3, "distinct_engines": 2, "max_abs_difference": [0.1, 0.2], "build_seconds": 4.0},
              "build_with_timing_cache_seconds": 1.0}  # fmt: skip
    students = {"students": {"cloud-mask": {"TensorRT fp16": engine, "TensorRT int8": {"error": "SM 90 is refused"}}}}
    text = gpu_page.document(
        {"card": card, "parts": {"training": {"error": "no module named x"}, "students": students}}
    )
    assert (
        "no module named x" in text
        and "SM 90 is refused" in text
        and "3 builds, 2 distinct" in text
        and "CUDA graph" in text
    )
    assert set(gpu_page.SECTIONS) == set(on_gpu.PARTS)


def test_a_part_that_has_no_time_left_or_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import on_gpu

    assert on_gpu.run("teacher", "cpu", tmp_path, time.monotonic()) == {"error": "no time was left for it"}
    (tmp_path / "on_gpu.py").write_text("import sys; print('first'); sys.exit('what went wrong')", encoding="utf-8")
    monkeypatch.setattr(on_gpu, "HERE", tmp_path)
    assert on_gpu.run("teacher", "cpu", tmp_path, time.monotonic() + 60) == {"error": "what went wrong"}


def test_the_large_teacher_is_measured_in_miniature(tmp_path: Path) -> None:
    import gpu_page
    import large_teacher
    import on_gpu

    found = large_teacher.measure(on_gpu.Setting("cpu", tmp_path))
    assert found["params"] < 1e6 and found["bf16_off"] < 0.1 and found["cache"]["views"] == 2
    assert {row["precision"] for row in found["speed"]} == {"f32", "bf16"}
    json.dumps(found)
    assert large_teacher.NAME in gpu_page.SECTIONS["teacher"][1](found)[0]
