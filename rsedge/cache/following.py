"""Stages as a process goes through them that does not make them: another one does, and tells of each that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsedge.cache.stage import Found, StageContext, StageResult, Stages, finished
from rsedge.data.errors import MissingCapability
from rsedge.data.temporary import TemporaryFolder

BEGUN, DONE, END = "begun", "done", "end"
Word = tuple[str, str]
"""Of the process that makes the stages: what happened, and to which stage."""


class NoMoreStages(Exception):
    """Nothing is left to be done together."""


@dataclass
class FollowedStages(Stages):
    """As :class:`Stages`, of a run folder that another process works in; what that one begins, this one does its part of.

    Attributes:
        hear: waits for the next word.
        part: its part of a stage, in a folder that is thrown away.
    """

    hear: Callable[[], Word] = lambda: (END, "")
    part: Callable[[str, StageContext], None] = lambda name, context: None

    def stage(
        self,
        record: type[Found],
        body: Callable[[StageContext], Found],
        settings: Mapping[str, Any],
        code: Sequence[str],
        after: Sequence[str] = (),
        inputs: Mapping[str, str] | None = None,
    ) -> StageResult[Found]:
        """Waits for the stage, and does its part of it where it is begun.

        Raises:
            NoMoreStages: the other process says so.
            MissingCapability: the stage is not here as that process has it.
        """
        name = record.stage
        key = self.key(name, settings, code, after, inputs)
        while (word := self.hear())[0] != DONE:
            if word[0] == END:
                raise NoMoreStages
            with TemporaryFolder() as scratch:
                self.part(name, StageContext(name, scratch, scratch))
        folder = self.run.stages / name
        result = finished(record, folder, key)
        if word[1] != name or result is None:
            raise MissingCapability(
                f"{folder}: stage '{word[1]}' is not here as the process that leads made it; all processes of a group need one run "
                "folder, the same data, the same code and the same versions of tools"
            )
        self.results[name] = result
        self.on_end(result)
        return result
