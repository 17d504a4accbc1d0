"""``rsedge report``: Markdown, JSON and PDF of a run; the schema that ships is that of the record, and records fit it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsedge.cli.main import app, run_app
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.recipe.json_schema import json_schema
from rsedge.reports import markdown, pdf, schema
from rsedge.reports.html import write_html
from rsedge.reports.schema import DataRecord, Origin, Report, SceneRecord, SplitRecord, TargetRecord, TeacherRecord
from tests.real_run import RealReport

SHIPPED = Path(schema.__file__).with_name("report.schema.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a small record and its page."""
    report = Report(
        name="pipes | and <tags>", classes=["clear"], teacher=TeacherRecord(name="t", params=9, size_bytes=10**6),
        targets=[TargetRecord(name="a", runtime="openvino", device="cpu", precision="f32", provenance="unavailable",
                              reason="no profile")],
        data=DataRecord(
            manifest_sha256="0" * 64, splits={"test": SplitRecord(tiles=3)},
            scenes={"s": SceneRecord(height=9, width=8, bounds=(11.0, 47.5, 11.5, 48.0), taken="2024-05-01T10:00:00Z")},
        ),
        origin=Origin(recipe="name: x\n", recipe_sha256="1" * 64, seed=7, commit="abc", bundles={"a": "2" * 64}, key="3" * 64),
    )  # fmt: skip
    schema.save_report(report, tmp_path / "report.json")
    write_html(report, tmp_path / "report.html")
    return tmp_path


def test_markdown_says_what_the_page_says_and_nothing_in_it_is_markup(run: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run)])
    assert done.exit_code == 0 and done.output.startswith(r"# pipes \| and \<tags\>")
    page = (run / "report.html").read_text()
    for text in (
        "no profile",
        "47.5000 to 48.0000° N, 11.0000 to 11.5000° E",
        "2024-05-01T10:00:00Z",
        "1" * 64,
        "2" * 64,
        "3" * 64,
        "abc",
    ):
        assert text in page and text in done.output, text
    assert "name: x" in page and "name: x" in done.output
    written = run / "out.md"
    assert CliRunner().invoke(app, ["report", str(run), "--markdown", str(written)]).exit_code == 0
    assert written.read_text() == done.output == markdown.render_markdown(schema.report_of(run))
    again = CliRunner().invoke(app, ["report", str(run), "--markdown", str(written)])
    assert isinstance(again.exception, RequestError) and "exists already" in str(again.exception)


def test_json_is_the_record(run: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run), "--json"])
    assert json.loads(done.output) == json.loads((run / "report.json").read_text())


def test_without_a_browser_it_says_what_is_missing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pdf.VARIABLE, "no-such-browser")
    with pytest.raises(MissingCapability, match="no-such-browser is no program"):
        pdf.write_pdf(run / "report.html", run / "out.pdf")
    monkeypatch.delenv(pdf.VARIABLE)
    monkeypatch.setenv("PATH", str(run))
    with pytest.raises(MissingCapability, match="apt-get install chromium"):
        pdf.find_browser()
    assert not (run / "out.pdf").exists()


def test_a_browser_that_prints_nothing_is_an_error_and_leaves_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = run / "browser"
    fake.write_text("#!/bin/sh\necho cannot draw >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv(pdf.VARIABLE, str(fake))
    with pytest.raises(MissingCapability, match=r"exit code 3\): cannot draw"):
        pdf.write_pdf(run / "report.html", run / "out.pdf")
    assert sorted(p.name for p in run.iterdir()) == ["browser", "report.html", "report.json"]


def test_a_pdf_goes_into_a_folder_that_is_not_there_yet(run: Path, tmp_path_factory: pytest.TempPathFactory,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    place = tmp_path_factory.mktemp("place")
    browser = place / "browser"
    browser.write_text('#!/bin/sh\nfor a; do case $a in --print-to-pdf=*) echo %PDF > "${a#*=}";; esac; done\n')
    browser.chmod(0o755)
    monkeypatch.setenv(pdf.VARIABLE, str(browser))
    assert run_app(["report", str(run), "--pdf", str(place / "new/deep/x.pdf")]) == 0
    assert (place / "new/deep/x.pdf").read_text() == "%PDF\n"
    assert [p.name for p in (place / "new/deep").iterdir()] == ["x.pdf"]
    browser.write_text("#!/bin/sh\nexit 3\n")
    assert run_app(["report", str(run), "--pdf", str(place / "other/x.pdf")]) == 4
    assert not (place / "other").exists()
    assert run_app(["report", str(run), "--pdf", str(browser / "x.pdf")]) == 2


def test_the_shipped_schema_is_that_of_the_record() -> None:
    """Written by ``rsedge schema report``."""
    assert json.loads(SHIPPED.read_text()) == json_schema("report")


def test_records_fit_the_schema(run: Path, ran: RealReport) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text()))
    for path in (run / "report.json", ran.folder / "report.json"):
        assert not [error.json_path for error in check.iter_errors(json.loads(path.read_text()))]
    broken = json.loads((run / "report.json").read_text()) | {"targets": [{"name": 3}]}
    assert list(check.iter_errors(broken))


NO_MOMENTS = ["yesterday", "", "2026-11-30", "2026-11-30T12:00:00", "2026-02-30T12:00:00Z", "2026-11-30T25:00:00Z",
              "2026-11-30 12:00:00Z", "2026-11-30T12:00:00+00:00 ", "12:00:00Z", "2026-11-30T12:00:00+0000"]  # fmt: skip


@pytest.mark.parametrize("written", NO_MOMENTS)
def test_a_report_of_no_moment_is_refused(run: Path, written: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the record, by the shipped schema for readers that check formats, and by every command that reads it."""
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("rfc3339_validator")
    broken = json.loads((run / "report.json").read_text()) | {"created": written}
    (run / "report.json").write_text(json.dumps(broken))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    check = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text()), format_checker=checker)
    assert [error.json_path for error in check.iter_errors(broken)] == ["$.created"]
    for command in (["report", str(run)], ["compare", str(run), str(run)]):
        assert run_app(command) == 2
        assert "created: " in (error := capsys.readouterr().err) and "no date and time" in error
    assert run_app(["runs", str(run), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert row["state"] == "damaged" and "created" in row["note"]


@pytest.mark.parametrize(
    "written", ["2026-11-30T12:00:00+00:00", "2026-11-30T12:00:00Z", "2026-11-30T12:00:00.25-08:00"]
)
def test_a_moment_stays_as_it_is_written(run: Path, written: str) -> None:
    record = json.loads((run / "report.json").read_text()) | {"created": written}
    (run / "report.json").write_text(json.dumps(record))
    assert schema.report_of(run).created == written and run_app(["runs", str(run)]) == 0


def test_a_run_leaves_all_three_files_with_its_origin(ran: RealReport) -> None:
    origin = ran.report.origin
    assert origin is not None and origin.recipe == (ran.folder / "recipe.resolved.yaml").read_text()
    assert (
        set(origin.bundles) == {t.name for t in ran.report.targets}
        and origin.key
        and set(origin.stages) >= {"data", "verify"}
    )
    assert (ran.folder / "report.md").read_text() == markdown.render_markdown(ran.report)
