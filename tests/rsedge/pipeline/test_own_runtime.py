"""Runtimes of somebody else's package, as docs/own-runtimes.md has them: a whole recipe delivers signed bundles, which answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.documented_package import install
from tests.real_run import short_run

RECIPE = """\
name: places
threads: 1
teacher: {name: geoclip-location}
data:
  samples: {source: geoclip-gallery, limit: 400}
  calibration: {tiles: 16}
  augment: {jitter_deg: [1.0]}
student: {name: place-mlp}
steps:
  - distill: {steps: 2, views: 64, batch: 32, validate_every: 2}
  - quantize: {max_trials: 1, max_probes: 0, max_tunings: 0, float_precision: f32, max_drop: 1.0}
targets: [toy-cpu-f32, toy-cpu-int8, mirror-cpu-f32]
gates:
  - {metric: cosine, min: -1.0}
  - {metric: memory, max: 4.0e+9, target: mirror-cpu-f32}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with entry points, as pip leaves one."""
    return install("own-runtimes.md", tmp_path_factory.mktemp("package"))


def rsedge(package: Path, work: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    python = [sys.executable, *(short_run() if words[0] == "run" else ("-m", "rsedge.cli"))]
    return subprocess.run([*python, *words], cwd=work, env=environment, capture_output=True, text=True, timeout=600)


def test_a_recipe_delivers_signed_bundles_for_runtimes_of_a_package(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("geoclip")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    done = rsedge(installed, tmp_path, "run", "recipe.yaml", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run/report.json").read_text())
    rows = {t["name"]: t for t in report["targets"]}
    assert {t["provenance"] for t in rows.values()} == {"measured"}
    assert rows["toy-cpu-int8"]["size_bytes"] < 0.5 * rows["toy-cpu-f32"]["size_bytes"]
    np.savez(tmp_path / "places.npz", dn=np.array([[47.5, 19.0], [0.0, 0.0]], np.float32))
    answers = []
    for name in rows:
        bundle = f"run/bundles/{name}"
        checked = rsedge(installed, tmp_path, "verify", bundle, "--key", "run/keys/signing.pub")
        assert checked.returncode == 0 and "signed by run/keys" in checked.stdout, checked.stdout + checked.stderr
        done = rsedge(installed, tmp_path, "infer", bundle, "places.npz", "-o", f"{name}.npz")
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / f"{name}.npz") as out:
            answers.append(out["outputs"])
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-5)
    assert np.abs(answers[0] - answers[1]).max() > 0
    done = rsedge(installed, tmp_path, "bench", "run/bundles/mirror-cpu-f32", "--seconds", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["latency_ms"]["p50"] > 0
    # Without the package, bundle and recipe say which runtime is missing.
    for words in (("verify", "run/bundles/toy-cpu-f32"), ("run", "recipe.yaml", "--dry-run")):
        done = rsedge(tmp_path, tmp_path, *words)
        assert done.returncode == 2 and "'toy" in done.stderr and "Traceback" not in done.stderr, done.stderr
