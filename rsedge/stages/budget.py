"""The mission budget of every target of a run, from what the run measured or predicted."""

from __future__ import annotations

from rsedge.cache.stage import Results
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.devices.mission.budget import Budget, mission_budget
from rsedge.devices.mission.description import load_mission
from rsedge.devices.mission.load import recorded, tile_cost, workload
from rsedge.devices.profiles.profile import load_profile
from rsedge.recipe.schema import Recipe
from rsedge.results import records
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import STUDENT_ONNX


def budgets(recipe: Recipe, ctx: RunContext, results: Results) -> tuple[list[Budget], list[str]]:
    """One budget per target, and a note for each target that has none, with the reason.

    Raises:
        RequestError: the mission file is wrong.
    """
    if recipe.mission is None:
        return [], []
    mission, inputs = load_mission(recipe.mission)
    onnx = STUDENT_ONNX.of(ctx.folders)
    measured = results.of(records.Verify).measurements
    found, notes = [], []
    for target in recipe.parsed_targets:
        record = None if target.name not in measured else recorded(measured[target.name].model_dump(mode="json"))
        work = workload(ctx.spec, target, onnx, record)
        try:
            cost = tile_cost(work, load_profile(target.device), mission.compute)
            found.append(mission_budget(mission, inputs, work, cost))
        except (RequestError, MissingCapability) as error:
            notes.append(f"No mission budget for {target.name}: {error}")
    return found, notes
