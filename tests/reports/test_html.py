"""The page is self-contained, shows every target, and never a predicted number without the word."""

from __future__ import annotations

import dataclasses
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from rsedge.reports import images, svg, view, view_steps
from rsedge.reports.assets import BoxAsset
from rsedge.reports.figures import class_colours, count, duration, figure, label, significant, size
from rsedge.reports.html import render
from rsedge.reports.images import outlined
from rsedge.reports.schema import LayerDamage, Report, StageRecord
from tests.real_run import F32, INT8, JETSON, MISSED, RealReport

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
def page(ran: RealReport) -> str:
    return (ran.folder / "report.html").read_text()


def test_self_contained(page: str) -> None:
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    assert parsed.addresses
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in parsed.addresses)
    assert {a[1:] for a in parsed.addresses if a.startswith("#")} <= set(re.findall(r'id="([^"]+)"', page))
    assert not parsed.tags & {"link", "iframe", "object", "embed"}
    assert not re.search(r"url\((?!#hatch\))|@import|<script[^>]*src", page)


def test_damage_of_layers_is_shown_the_worst_first(page: str, ran: RealReport) -> None:
    stage = next(s for s in ran.report.stages if s.name == "quantize")
    assert stage.damage and "what rounding each layer does alone" in page
    assert max(stage.damage, key=lambda layer: layer.damage).layer in page
    layers = [LayerDamage(layer=f"layer {i}", damage=i / 100) for i in range(15)]
    found = view_steps.damage(StageRecord(name="quantize", outcome="applied", damage=layers))
    assert [layer.layer for layer, _ in found.rows][:2] == ["layer 14", "layer 13"] and found.rows[0][1] == 1
    assert len(found.rows) == 12 and found.rest == "the other 3: 0.0200 and less"


def test_shows_every_part(page: str, ran: RealReport) -> None:
    report = ran.report
    for name in [*(t.name for t in report.targets), *(b.name for b in report.baselines), report.teacher.name]:
        assert name in page
    for stage in report.stages:
        assert stage.name in page
    for tile in ran.assets.tiles:
        assert tile.name in page
    for section in "targets comparison pareto latency layers tiles confusion steps data environment glossary".split():  # noqa: SIM905
        assert f'id="{section}"' in page
    assert page.count("<img") == 5 * len(ran.assets.tiles) > 0
    assert [b.name for b in report.data.bands] == ["blue", "green", "red", "nir"]
    table = page.split("outside the valid range</th>")[1].split("</table>")[0]
    assert table.count('<th scope="row">') == 4 and all(count(b.count) in table for b in report.data.bands)


def test_gates_are_shown_with_unit_direction_and_interval(page: str, ran: RealReport) -> None:
    gates = sum(len(target.gates) for target in ran.report.targets)
    assert f"✗ failed: {MISSED} of {gates} gates" in page
    for text in ("Cohen&#39;s kappa at most 2.000 under the teacher&#39;s", "≤ 2.000", "≥ 0.0 %", "≥ 1,000×", "≤ 5.00 MB",
                 "≤ 1.00 kB", "≤ 1,000 ms", "at least 1,000× as fast as teacher-openvino-f32"):  # fmt: skip
        assert text in page, text
    kappa = ran.report.targets[0].gates[0]
    assert (
        kappa.interval is not None and f"{kappa.interval[0]:.3f} to {kappa.interval[1]:.3f}, {kappa.n} blocks" in page
    )


def judged_again(report: Report, limit: float) -> Report:
    """The record with the kappa gate of the first target undecided."""
    first, *rest = report.targets
    value = first.gates[0].value
    assert value is not None
    leans = "passed" if value <= limit else "failed"
    gate = first.gates[0].model_dump(exclude={"name", "passed"}) | {
        "limit": limit, "outcome": "undecided", "leans": leans, "more_needed": 37,
    }  # fmt: skip
    targets = [first.model_dump() | {"gates": [gate]}, *(t.model_dump() | {"gates": []} for t in rest)]
    return Report.model_validate(report.model_dump() | {"targets": targets, "verdict": None, "headline": None})


@pytest.mark.parametrize(("limit", "side"), [(1.9, "passed"), (-1.9, "failed")])
def test_the_banner_says_undecided_and_what_would_decide(ran: RealReport, limit: float, side: str) -> None:
    page = render(judged_again(ran.report, limit), ran.assets)
    assert f"? undecided, leans to {side}: 1 of 1 gate undecided; about 37 more blocks would decide" in page
    assert 'class="verdict warn"' in page and "gates passed" not in page


def test_without_gates_the_banner_says_that_nothing_was_judged(ran: RealReport) -> None:
    targets = [t.model_dump() | {"gates": []} for t in ran.report.targets]
    bare = Report.model_validate(ran.report.model_dump() | {"targets": targets, "verdict": None, "headline": None})
    page = render(bare, ran.assets)
    assert "no gates: nothing was judged" in page and "gates passed" not in page and "✓ passed" not in page


def test_predicted_numbers_carry_the_word(page: str, ran: RealReport) -> None:
    """Every place that shows an end of the predicted interval has the word shortly before it."""
    # Times of single layers are measured ones, which may happen to be the same.
    text = re.sub(r"<style.*?</style>|<section id=\"layers\"[^>]*>.*?</section>|data:image[^\"]*", "", page, flags=re.S)
    interval = next(t.interval for t in ran.report.targets if t.name == JETSON)
    assert interval is not None
    for number in (significant(interval.low_ms), significant(interval.high_ms)):
        places = [m.start() for m in re.finditer(rf"(?<![\d.]){re.escape(number)} ms", text)]
        assert places, number
        for place in places:
            assert "predicted" in text[max(0, place - 60) : place], text[place - 80 : place + 20]
    assert 'class="word"' in text


def test_predicted_step_latency_carries_the_word(ran: RealReport) -> None:
    """Both latencies of a step are of one clock; where it was not measured here, that of the device that it was pruned for."""
    prune = next(s for s in ran.report.stages if s.name == "prune")
    assert prune.before["provenance"] == prune.after["provenance"] == "measured"
    alone = prune.model_copy(update={"after": {**prune.after, "provenance": "predicted"}})
    row = next(r for r in view.table(ran.report.model_copy(update={"stages": [alone]})) if r.role == "step")
    assert row.cells["p50"].startswith("predicted ")


class Asked(dict[str, object]):
    """A mapping that remembers what it was asked for."""

    seen: set[str] = set()  # noqa: RUF012

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        self.seen.add(key)
        return super().get(key, default)


def test_a_report_reads_no_figure_of_a_step_that_no_stage_writes(ran: RealReport) -> None:
    Asked.seen.clear()
    for stage in ran.report.stages:
        copy = stage.model_copy(update={"after": Asked(stage.after)})
        if view.has_figures(copy):
            view._stage_row(copy, ran.report)
    written = {key for stage in ran.report.stages for key in (*stage.before, *stage.after)}
    assert Asked.seen and Asked.seen <= written, Asked.seen - written


def test_text_from_outside_is_escaped(ran: RealReport) -> None:
    hostile = ran.report.model_copy(update={"name": "<script>alert(1)</script>", "notes": ['"><img src=x>']})
    page = render(hostile, ran.assets)
    assert page.count("<script") == 1 and "<script>alert" not in page
    assert "<img src=x" not in page


def test_bare_report_renders(ran: RealReport) -> None:
    bare = ran.report.model_copy(update={"targets": [], "baselines": [], "stages": [], "environment": None})
    assert "No target was measured" in render(bare)


def test_speedup_only_on_the_same_device(ran: RealReport) -> None:
    report = ran.report
    by_name = {t.name: t for t in report.targets}
    gate = next(g for g in by_name[INT8].gates if g.constraint == "min_speedup")
    assert gate.value is not None and view.speedup(report, by_name[INT8]) == gate.value
    assert view.speedup(report, by_name[JETSON]) is None
    assert view.speedup(report, by_name[F32]) is not None
    assert view.speedup(report, by_name[F32].model_copy(update={"device": "raspberry-pi-5"})) is None


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
    wanted = (images.TEACHER_RIGHT, images.STUDENT_RIGHT, images.NEITHER_RIGHT, images.UNJUDGED, (140, 140, 140))
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
    assert (figure("f1", 0.81234), figure("psnr", 31.0), label("miou")) == ("0.812", "31.0 dB", "mean IoU")


def test_ticks() -> None:
    assert svg.nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.log_ticks(0.9, 60) == [1, 2, 5, 10, 20, 50]


def test_outlines_lie_on_the_edges_of_boxes() -> None:
    grey = np.full((12, 16, 3), 90, np.uint8)
    boxes = np.array([[2, 3, 7, 9, 0], [10, 5, 30, 30, 1]], np.float32)  # the second reaches over the edge
    made = outlined(grey, boxes, ["#ff0000", "#0000ff"])
    red, blue = ((made == tone).all(2) for tone in ([255, 0, 0], [0, 0, 255]))
    assert red[3, 2:7].all() and red[8, 2:7].all() and red[3:9, 2].all() and red[3:9, 6].all() and red.sum() == 18
    assert blue[5, 10:].all() and blue[5:, 10].all() and blue[11, 10:].all() and (grey == 90).all()


def test_edges_of_turned_boxes_are_drawn_as_they_lie() -> None:
    grey = np.full((20, 20, 3), 90, np.uint8)
    # 12 long and 4 wide, its right end lifted by 45 degrees.
    made = outlined(grey, np.array([[4, 8, 16, 12, 0, np.pi / 4]]), ["#ff0000"])
    red = (made == [255, 0, 0]).all(2)
    y, x = np.nonzero(red)
    along, across = ((x - 9.5) - (y - 9.5)) / np.sqrt(2), ((x - 9.5) + (y - 9.5)) / np.sqrt(2)
    assert red.sum() >= 20 and np.abs(along).max() < 7.5 and np.abs(across).max() < 3
    assert (np.minimum(np.abs(np.abs(along) - 5.5), np.abs(np.abs(across) - 1.5)) < 1).all()


def test_a_page_shows_objects_with_their_counts(ran: RealReport) -> None:
    report, assets = ran.report, ran.assets
    picture = np.full((16, 16, 3), 120, np.uint8)
    boxes = {"labels": np.array([[1, 1, 5, 5, 0]], np.float32), "student": np.zeros((0, 5), np.float32)}
    page = render(report, dataclasses.replace(assets, tiles=(), boxes=[BoxAsset("tile <1>", picture, boxes)]))
    assert "objects: labels 1, student 0" in page and "tile &lt;1&gt;" in page and "Outlines are objects" in page
    assert "pixels where teacher and student differ" not in page
