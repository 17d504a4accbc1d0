"""The report of the real run, once per test run."""

from __future__ import annotations

import pytest

from tests.real_run import Finished, RealReport, reported


@pytest.fixture(scope="session")
def ran(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> RealReport:
    return reported(finished, tmp_path_factory.mktemp("reported"))
