"""The real run that reports are tested on, once per test run."""

from __future__ import annotations

import pytest

from tests.reports.real_run import RealRun, real_run


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    for wheel in ("ukis_csmask", "spyndex", "nncf"):
        pytest.importorskip(wheel)
    return real_run(tmp_path_factory.mktemp("small"))
