"""The notebook in docs/notebooks is executed: whole with the recipe it names, and every other cell on the tests' real run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.real_run import F32, INT8, JETSON, Finished

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")
pytest.importorskip("spyndex")

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/tutorial.ipynb"
RUN = "run"
DONE = """
from pathlib import Path
from rsedge.api import Run
from rsedge.pipeline.run import RunSummary
run = Run(RunSummary("tiny", Path({folder!r}), None, 0.0))
"""
"""In place of the cell that runs the recipe: a run that is done already."""


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def executed(book: Any, folder: Path) -> str:
    """What its cells print, after all of them went through in a kernel of its own."""
    client = nbclient.NotebookClient(
        book, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kernel works and keeps its history; pictures go into the notebook."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return tmp_path


def test_every_cell_but_the_run_goes_through_on_a_run_that_is_done(finished: Finished, folder: Path) -> None:
    book = notebook()
    (cell,) = [cell for cell in book.cells if RUN in cell.metadata.get("tags", ())]
    cell.source = DONE.format(folder=str(finished.run))
    told = executed(book, folder)
    assert "spyndex-sentinel2" in told and f"{INT8} (300, 300)" in told
    assert "agreement min 0: " in told and f"\n{F32}\n" in told
    (row,) = [line.split() for line in told.splitlines() if line.startswith(JETSON) and len(line.split()) > 1]
    assert row[1] == "predicted" and float(row[3]) < float(row[2]) < float(row[4])


@pytest.mark.slow
def test_the_whole_notebook(folder: Path) -> None:
    pytest.importorskip("ukis_csmask")
    told = executed(notebook(), folder)
    assert "runs/notebook/report.html" in told and INT8 in told
    assert (folder / "runs/notebook/report.json").is_file()


def test_it_is_kept_without_outputs() -> None:
    """Figures in documents come from files that a command wrote; these come from whoever executes it."""
    for cell in notebook().cells:
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)
