"""Who was right where, as maps: a cloud-optimised GeoTIFF per target on the grid of the scene that judges, beside the report.

The verify stage works out the cases of every judged pixel (:func:`keep_cases`); the report writes them where the scene's file says
that it lies on a map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rsedge.cache.run_folder import RunFolder
from rsedge.cache.stage import Results
from rsedge.data.errors import RequestError
from rsedge.reports.images import CASES
from rsedge.results.records import Verify
from rsedge.runtimes.inference.raster_out import check_grid, new_raster
from rsedge.runtimes.inference.raster_parts import CLASS_BAND, Layer
from rsedge.runtimes.inference.style import Style
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import cases_of
from rsedge.tasks.base import HeldOut, JudgedGrid, Prediction
from rsedge.version import __version__

NAMES, COLOURS = (tuple(column) for column in zip(*CASES, strict=True))


def keep_cases(folder: Path, target: str, ctx: RunContext, test: HeldOut, student: Prediction) -> None:
    """Writes the cases of one target into the judging stage's folder, where the test set lies on a file's grid."""
    found = ctx.task.cases(test, ctx.teacher_on(test), student)
    if found is not None:
        np.savez_compressed(folder / cases_of(target).name, allow_pickle=False, cases=found)


def write_maps(run: RunFolder, ctx: RunContext, results: Results) -> dict[str, str]:
    """Writes ``disagreement/TARGET.tif`` in the run's folder, and removes those of an earlier run.

    Returns:
        their paths in the run's folder by target; none where the scene that judges has no file, or one without a place.
    """
    grid = _known(ctx.task.judged_grid(), run.disagreement, ctx)
    targets = [] if grid is None else ctx.recipe.targets
    for old in run.disagreement.glob("*.tif"):
        if old.stem not in targets:
            old.unlink()
    if grid is not None:
        run.disagreement.mkdir(exist_ok=True)
        for target in targets:
            _write(run.disagreement / f"{target}.tif", grid, target, results)
    return {target: f"{run.disagreement.name}/{target}.tif" for target in targets}


def _known(grid: JudgedGrid | None, folder: Path, ctx: RunContext) -> JudgedGrid | None:
    """The grid, if GDAL knows its system too: what reads other kinds of scenes may know more of them."""
    if grid is not None:
        try:
            check_grid(grid, folder / "map.tif")
        except RequestError as error:
            ctx.reporter.note(f"no map of where teacher and student differ: {error}")
            return None
    return grid


def _write(path: Path, grid: JudgedGrid, target: str, results: Results) -> None:
    with np.load(results[Verify.stage].path(cases_of(target).name), allow_pickle=False) as z:
        found = z["cases"]
    tags = {"TIFFTAG_SOFTWARE": f"rsedge {__version__}", "rsedge_target": target}
    layer = Layer([CLASS_BAND], "uint8", NAMES, style=Style(tags, cog=True, colours=COLOURS))
    with new_raster(path, grid, layer) as rows:
        rows.add(found[None])
