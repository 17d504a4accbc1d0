"""The documents make a site: every page is in it, every link leads somewhere, and nothing is fetched to read it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import rsedge
from rsedge.reports.glossary import GLOSSARY

DOCS = Path(__file__).parents[1] / "docs"


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert pages <= {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.html")}
    for page in sorted(pages):
        text = (tmp_path / f"{page}.html").read_text(encoding="utf-8")
        fetched = re.findall(
            r'<(?:script|img|iframe|link rel="(?:stylesheet|preload|preconnect)")[^>]+(?:src|href)="(?:https?:)?//',
            text,
        )
        assert not fetched, page


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    words = re.findall(r"^(.+)\n: ", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.M)
    assert len(words) > 30 and words == sorted(set(words), key=str.lower)


def test_a_term_of_the_report_means_the_same_in_the_documents() -> None:
    meanings = dict(re.findall(r"^(.+)\n: (.+)$", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.M))
    assert {term.name: term.meaning for term in GLOSSARY}.items() <= meanings.items()


def test_the_python_reference_has_all_of_the_promise() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    named = {name.rpartition(".")[2] for name in re.findall(r"^\.\. auto\w+:: (\S+)", text, re.M)}
    assert named == set(rsedge.__all__) - {"__version__"}
