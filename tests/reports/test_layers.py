"""The flame bar and its table: every layer is drawn in order, as wide as its share; names are not markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.reports.html import render, write_layers_html
from rsedge.reports.layers import layers_view
from rsedge.reports.schema import LayerProfile, LayerTime, Report
from rsedge.reports.svg_layers import WIDTH, flame, kinds
from tests.real_run import RealReport


def layer(ms: float, kind: str = "Convolution", name: str = "conv") -> LayerTime:
    return LayerTime(name=name, type=kind, kernel="jit_avx2", ms=ms)


def profile(layers: list[LayerTime]) -> LayerProfile:
    return LayerProfile(
        name="openvino-cpu-int8", runtime="openvino", device="cpu", precision="int8", threads=2, runs=10, layers=layers
    )


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=60))
def test_widths_are_shares_and_fill_the_bar(times: list[float]) -> None:
    text = str(flame([layer(ms, f"T{i % 11}") for i, ms in enumerate(times)], "bar"))
    found = [(float(x), float(w)) for x, w in re.findall(r'<rect [^>]*x="([\d.]+)"[^>]*width="([\d.]+)"', text)]
    assert len(found) == len(times)
    for (_, width), ms in zip(found, times, strict=True):
        assert width == pytest.approx(ms / sum(times) * WIDTH, abs=0.006)
    assert found[-1][0] + found[-1][1] == pytest.approx(WIDTH, abs=0.02)
    assert [x for x, _ in found] == sorted(x for x, _ in found)


def test_eight_colours_at_most_and_the_largest_types_have_their_own() -> None:
    layers = [layer(i + 1, f"T{i}") for i in range(12)]
    assert kinds(layers) == [*(f"T{i}" for i in range(11, 4, -1)), "other"]
    assert kinds(layers[:3]) == ["T2", "T1", "T0"]


def test_nothing_timed_draws_nothing() -> None:
    assert str(flame([layer(0.0)], "bar")) == ""
    assert layers_view(profile([])).summary == "0 ms in 0 layers"


def test_slowest_layers_and_the_rest() -> None:
    view = layers_view(profile([layer(float(i), name=f"n{i}") for i in range(1, 21)]))
    assert [row[0].text for row in view.slowest.rows] == [f"n{i}" for i in range(20, 8, -1)]
    assert view.slowest.rows[0][-1].text == "9.5 %"
    assert "210 ms in 20 layers" in view.summary and "the 8 not in the table take 36.0 ms" in view.summary


def test_section_of_the_report(ran: RealReport) -> None:
    assert 'id="layers"' not in render(ran.report.model_copy(update={"layers": []}))
    told = ran.report.model_copy(update={"layers": [profile([layer(2.0, name="<script>x"), layer(1.0, "Pooling")])]})
    page = render(told)
    assert 'id="layers"' in page and "2 threads" in page and "jit_avx2" in page
    assert "&lt;script&gt;x" in page and page.count("<script") == 1
    assert Report.model_validate_json(told.model_dump_json()).layers == told.layers


def test_page_of_its_own(tmp_path: Path) -> None:
    write_layers_html("openvino-cpu-int8", [profile([layer(2.0)])], tmp_path / "layers.html")
    page = (tmp_path / "layers.html").read_text()
    assert (
        page.lstrip().startswith("<!doctype html>") and "<svg" in page and "http" not in page.replace("http-equiv", "")
    )
