"""The page is self-contained, shows every target, and never a predicted number without the word."""

from __future__ import annotations

import dataclasses
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from report_example import example

from rsedge.reports import images, svg, view
from rsedge.reports.assets import BoxAsset
from rsedge.reports.compare import compare
from rsedge.reports.figures import class_colours, duration, figure, significant, size
from rsedge.reports.html import render
from rsedge.reports.images import outlined

VOID = {"meta", "img", "br", "link", "input", "wbr", "hr"}


class Page(HTMLParser):
    """Collects addresses and checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    report, assets = example()
    return render(report, assets)


def test_self_contained(page: str) -> None:
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    assert parsed.addresses
    assert all(a.startswith("data:image/png;base64,") for a in parsed.addresses)
    assert not parsed.tags & {"script", "link", "iframe", "object", "embed"}
    assert not re.search(r"url\(|@import", page)


def test_shows_every_part(page: str) -> None:
    report, assets = example()
    for name in [*(t.name for t in report.targets), *(b.name for b in report.baselines), report.teacher.name]:
        assert name in page
    for stage in report.stages:
        assert stage.name in page
    for tile in assets.tiles:
        assert tile.name in page
    for section in "targets comparison pareto latency tiles confusion steps data environment glossary".split():  # noqa: SIM905
        assert f'id="{section}"' in page
    assert page.count("<img") == 5 + 5 + 4
    assert "1 gate failed" in page


def test_predicted_numbers_carry_the_word(page: str) -> None:
    """Every place that shows a figure of the predicted interval has the word right before it."""
    text = re.sub(r"<style.*?</style>|data:image[^\"]*", "", page, flags=re.S)
    for number in ("1.13", "2.55", "1.70"):
        places = [m.start() for m in re.finditer(re.escape(number) + r"\b", text)]
        assert places, number
        for place in places:
            assert "predicted" in text[max(0, place - 40) : place], text[place - 60 : place + 20]
    assert 'class="word"' in text


def test_predicted_step_latency_carries_the_word() -> None:
    report, _ = example()
    stage = report.stages[1].model_copy(update={"after": {"latency_ms": 7.77, "latency_provenance": "predicted"}})
    row = next(r for r in view.table(report.model_copy(update={"stages": [stage]})) if r.role == "step")
    assert row.cells["p50"] == "predicted 7.77 ms"


def test_text_from_outside_is_escaped() -> None:
    report, assets = example()
    hostile = report.model_copy(update={"name": "<script>alert(1)</script>", "notes": ['"><img src=x>']})
    page = render(hostile, assets)
    assert "<script" not in page
    assert "<img src=x" not in page


def test_bare_report_renders() -> None:
    report, _ = example()
    bare = report.model_copy(update={"targets": [], "baselines": [], "stages": [], "environment": {}})
    assert "No target was measured" in render(bare)


def test_speedup_only_on_the_same_device() -> None:
    report, _ = example()
    by_name = {t.name: t for t in report.targets}
    assert view.speedup(report, by_name["openvino-cpu-int8"]) == 17.3
    assert view.speedup(report, by_name["tensorrt-jetson-orin-nano-8gb-fp16"]) is None
    other = by_name["openvino-cpu-f32"].model_copy(update={"device": "raspberry-pi-5", "gates": []})
    assert view.speedup(report, other) is None


def test_png_holds_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    content = images.png(image)
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start], "big")
    rows = np.frombuffer(zlib.decompress(content[start + 4 : start + 4 + length]), np.uint8).reshape(5, 22)
    assert (rows[:, 1:].reshape(5, 7, 3) == image).all()


def test_disagreement_tells_who_is_right() -> None:
    rgb = np.zeros((1, 5, 3), np.uint8)
    label = np.array([[0, 0, 0, 255, 0]])
    teacher = np.array([[0, 1, 1, 1, 255]])
    student = np.array([[1, 0, 2, 0, 1]])
    out = images.disagreement(rgb, teacher, student, label)[0]
    wanted = (images.TEACHER_RIGHT, images.STUDENT_RIGHT, images.NEITHER_RIGHT, images.TEACHER_RIGHT, (140, 140, 140))
    assert [tuple(int(c) for c in pixel) for pixel in out] == [tuple(w) for w in wanted]
    assert images.differing_share(teacher, student) == 1.0


def test_class_colours_differ() -> None:
    names = ["background", "clouds", "cloud shadows", "thin cloud", "water", *map(str, range(6))]
    colours = class_colours(names, {"water": "#010203"})
    assert len(set(colours)) == len(names)
    assert colours[4] == "#010203"


def test_numbers_in_words() -> None:
    assert (significant(12.345), significant(0.01234), significant(0)) == ("12.3", "0.0123", "0")
    assert size(70_300_000) == "70.3 MB"
    assert duration(3725) == "1 h 02 min"
    assert figure("latency_ms", 12.44) == "12.4 ms"
    assert figure("agreement", 0.968) == "96.8 %"


def test_ticks() -> None:
    assert svg.nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.log_ticks(0.9, 60) == [1, 2, 5, 10, 20, 50]


def test_compare_two_reports() -> None:
    report, _ = example()
    target = report.targets[0]
    faster = target.model_copy(
        update={"latency_ms": target.latency_ms.model_copy(update={"p50": 6.2}) if target.latency_ms else None}
    )
    found = {(c.target, c.figure): c for c in compare(report, report.model_copy(update={"targets": [faster]}))}
    assert found["openvino-cpu-int8", "p50_ms"].ratio == pytest.approx(0.5)
    assert found["openvino-cpu-f32", "p50_ms"].after is None
    moved = report.model_copy(update={"environment": {"machine": "another"}})
    changes = {(c.target, c.figure): c for c in compare(report, moved)}
    assert changes["openvino-cpu-int8", "p50_ms"].ratio is None
    assert changes["openvino-cpu-int8", "size_bytes"].ratio == 1.0


def test_outlines_lie_on_the_edges_of_boxes() -> None:
    grey = np.full((12, 16, 3), 90, np.uint8)
    boxes = np.array([[2, 3, 7, 9, 0], [10, 5, 30, 30, 1]], np.float32)  # the second reaches over the edge
    made = outlined(grey, boxes, ["#ff0000", "#0000ff"])
    red, blue = ((made == tone).all(2) for tone in ([255, 0, 0], [0, 0, 255]))
    assert red[3, 2:7].all() and red[8, 2:7].all() and red[3:9, 2].all() and red[3:9, 6].all() and red.sum() == 18
    assert blue[5, 10:].all() and blue[5:, 10].all() and blue[11, 10:].all() and (grey == 90).all()


def test_a_page_shows_objects_with_their_counts() -> None:
    report, assets = example()
    picture = np.full((16, 16, 3), 120, np.uint8)
    boxes = {"labels": np.array([[1, 1, 5, 5, 0]], np.float32), "student": np.zeros((0, 5), np.float32)}
    page = render(report, dataclasses.replace(assets, tiles=(), boxes=[BoxAsset("tile <1>", picture, boxes)]))
    assert "objects: labels 1, student 0" in page and "tile &lt;1&gt;" in page and "Outlines are objects" in page
    assert "pixels where teacher and student differ" not in page
