"""A run in MLflow: a server, or a store in a file of the run's folder."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from rsedge.data.files import make_folder, write_bytes
from rsedge.tracking.base import Figures, Log, Outcome

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A server that is not there is given up soon; the library's own way takes minutes. What is set stays."""
AT_ONCE = 200
HELD_S = 5.0
"""Figures are held back so long, or until there are so many: each batch is a request."""
PARAMETERS = 100
LONGEST = 500
_ODD = re.compile(r"[^\w\-. /]")
_ENDS: Mapping[Outcome, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowLog(Log):
    """A run of an experiment. Its number lies in ``folder`` until it is finished, so that the next command goes on with it."""

    failures = (MlflowException, OSError)

    def __init__(self, folder: Path, uri: str | None, experiment: str) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.folder, self.experiment = folder, experiment
        own = uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._uri, self._artifacts = (
            own or f"sqlite:///{folder.resolve()}/mlflow.db",
            None if own else folder / "artifacts",
        )
        self.where = f"MLflow at {self._uri}"
        self._held: list[Metric] = []
        self._written = time.monotonic()
        self._run = ""

    def begin(self, name: str, parameters: Mapping[str, str]) -> None:
        make_folder(self.folder)
        self._client = mlflow.MlflowClient(self._uri)
        self._run = self._interrupted() or self._new(name)
        write_bytes(self._mark, self._run.encode())
        rows = [Param(_name(key), value[:LONGEST]) for key, value in parameters.items()]
        known = self._client.get_run(self._run).data.params
        rows = [row for row in rows if row.key not in known]  # an interrupted run has them
        for first in range(0, len(rows), PARAMETERS):
            self._client.log_batch(self._run, params=rows[first : first + PARAMETERS])

    @property
    def _mark(self) -> Path:
        return self.folder / "mlflow-run"

    def _interrupted(self) -> str | None:
        """The run that this folder's last command began and did not finish, where the store still has it."""
        if not self._mark.is_file():
            return None
        number = self._mark.read_text(encoding="utf-8").strip()
        try:
            self._client.update_run(number, status="RUNNING")
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return number

    def _new(self, name: str) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        place = None if self._artifacts is None else self._artifacts.resolve().as_uri()
        number = (
            found.experiment_id if found else self._client.create_experiment(self.experiment, artifact_location=place)
        )
        return str(self._client.create_run(number, run_name=name).info.run_id)

    def figures(self, step: int, values: Figures) -> None:
        now = int(datetime.now(timezone.utc).timestamp() * 1000)
        self._held += [Metric(_name(name), value, now, step) for name, value in values.items()]
        if len(self._held) >= AT_ONCE or time.monotonic() - self._written > HELD_S:
            self._write()

    def _write(self) -> None:
        held, self._held, self._written = self._held, [], time.monotonic()
        if held:
            self._client.log_batch(self._run, metrics=held)

    def tell(self, texts: Mapping[str, str], files: Sequence[Path]) -> None:
        for name, text in texts.items():
            self._client.set_tag(self._run, _name(name), text)
        for path in files:
            self._client.log_artifact(self._run, str(path))

    def end(self, outcome: Outcome) -> None:
        self._write()
        self._client.set_terminated(self._run, _ENDS[outcome])
        if outcome == "finished":
            self._mark.unlink(missing_ok=True)


def _name(text: str) -> str:
    """A name that MLflow takes."""
    return _ODD.sub("_", text)[: LONGEST // 2]
