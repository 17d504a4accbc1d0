"""Long runs: percentiles with bounds, MLPerf's estimate, missed periods, the record's way into a report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from rsedge.cache.run_folder import RunFolder
from rsedge.cli.soak import lines
from rsedge.data.errors import RequestError
from rsedge.devices.measure import soak
from rsedge.devices.measure.order_statistics import binomial_quantile, bounded, early_stopping
from rsedge.devices.measure.soak import Runs, Soak, f32_beside, paced, quality, slices
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.stages.soaks import soak_of
from tests.runtimes import tiny_models as tiny


def test_quantiles_of_the_binomial_are_scipys() -> None:
    for n in (1, 6, 64, 2048, 60_000):
        for p in (0.001, 0.1, 0.5, 0.9, 0.999):
            for share in (0.01, 0.025, 0.975, 0.99):
                assert binomial_quantile(n, p, share) == int(binom.ppf(share, n, p)), (n, p, share)


def test_mlperf_estimate_is_that_of_loadgens_published_logs() -> None:
    """Of 2,048 queries its log says: 172 discarded, at least 64 needed; for the 99th percentile 662."""
    ordered = list(range(2048))
    found = early_stopping(ordered, 0.9)
    assert (found.value, found.discarded, found.needed) == (2048 - 173, 172, 64)
    assert early_stopping(ordered, 0.99).needed == 662
    assert early_stopping(ordered[:63]).value is None and early_stopping(ordered[:64]).value == 63


@pytest.mark.parametrize(("n", "p"), [(60, 0.9), (400, 0.99), (30, 0.5)])
def test_bounds_hold_the_true_percentile(n: int, p: float) -> None:
    rng, truth, held = np.random.default_rng(0), -math.log(1 - p), 0
    for _ in range(400):
        found = bounded(np.sort(rng.exponential(size=n)), p)
        assert found.low is not None and found.high is not None
        held += found.low <= truth <= found.high
    assert held / 400 > 0.93


def test_too_few_runs_have_no_upper_bound() -> None:
    assert bounded([1.0] * 3687, 0.999).high is None and bounded([1.0] * 3688, 0.999).high == 1.0
    with pytest.raises(ValueError, match="at least one"):
        bounded([], 0.5)


class Clock:
    """A clock that only sleeping and the runs move."""

    def __init__(self, takes: Iterator[float]) -> None:
        self.now, self.takes = 0.0, takes

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> None:
        self.now += next(self.takes)


@pytest.mark.parametrize(
    ("takes", "n", "late", "skipped"),
    [([0.25] * 10, 10, 0, 0), ([0.25, 1.5, 0.25] + [0.25] * 10, 10, 1, 0), ([0.25, 3.25] + [0.25] * 10, 8, 1, 2)],
)
def test_missed_periods(takes: list[float], n: int, late: int, skipped: int) -> None:
    clock = Clock(iter(takes))
    found = paced(clock.run, 10.0, 1.0, clock=lambda: clock.now, sleep=clock.sleep)
    assert (len(found.took_ms), found.late, found.skipped) == (n, late, skipped)
    assert not found.ended_early


def test_back_to_back_until_it_is_asked_to_end() -> None:
    clock = Clock(iter([0.5] * 100))
    found = paced(clock.run, 50.0, clock=lambda: clock.now, sleep=clock.sleep, ended=lambda: clock.now >= 3)
    assert found.ended_early and list(found.took_ms) == [500.0] * 6 and found.seconds == 3.0


def test_slices_keep_the_worst_run() -> None:
    took = np.ones(1000)
    took[617] = 9.0
    found = slices(np.arange(1000.0), took, most=10)
    assert len(found) == 10 and sum(one.n for one in found) == 1000
    assert [one.worst_ms for one in found].index(9.0) == 6 and {one.p50_ms for one in found} == {1.0}


def test_the_first_signal_only_asks() -> None:
    """In a process of its own, which may end by it: whoever ends a command often sends two at once."""
    program = (
        "import signal\nfrom rsedge.stopping import finishing\n"
        "with finishing() as ended:\n    assert not ended()\n    signal.raise_signal(signal.SIGTERM)\n"
        "    signal.raise_signal(signal.SIGINT)\n    assert ended()\nprint('went on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr


def test_soak(cli: Callable, bundle: Callable, tmp_path: Path) -> None:
    """Text, JSON, page, and the record's way into the report of the very bundle, and of no other."""
    run = RunFolder(tmp_path / "run")
    folder = bundle()
    run.bundles.mkdir(parents=True)
    (run.bundles / "openvino-cpu-f32").symlink_to(folder)
    kept, page = run.soak / "openvino-cpu-f32.json", tmp_path / "soak.html"
    code, text, errors = cli(
        "soak", folder, "--seconds", 0.3, "--period-ms", 10, "--threads", 1, "--output", kept, "--html", page
    )
    assert code == 0, errors
    record = Soak.model_validate(json.loads(kept.read_text()))
    assert text.rstrip() == "\n".join(lines(record))
    assert "missed" in text and "single-stream" in text and "no bounds: takes 3,688 runs" in text
    assert record.periods == 30 and record.same_outputs and record.memory.start > record.memory.before_loading
    text = page.read_text()
    assert "<svg" in text and "http://" not in text and "https://" not in text and text.count("<script") == 1
    assert soak_of(run, "openvino-cpu-f32") == record and soak_of(run, "openvino-cpu-int8") is None
    kept.write_text(record.model_copy(update={"bundle_sha256": "0" * 64}).model_dump_json())
    assert soak_of(run, "openvino-cpu-f32") is None
    kept.write_text("{}")
    with pytest.raises(RequestError, match=r"openvino-cpu-f32\.json"):
        soak_of(run, "openvino-cpu-f32")
    code, text, _ = cli("soak", folder, "--seconds", 0.2, "--period-ms", 300, "--json")
    assert code == 2 and "shorter" in json.loads(text)["error"]


def test_quality_is_beside_the_f32_bundle_of_the_same_recipe(tmp_path: Path) -> None:
    for precision, kappa in (("int8", 0.796), ("f32", 0.8)):
        folder = tiny.make_bundle(tmp_path / f"openvino-cpu-{precision}", tiny.spec(16), f"openvino-cpu-{precision}")
        tiny.edit_manifest(folder, metrics={"kappa": kappa}, recipe_sha256="a" * 64)
    with Bundle.open(tmp_path / "openvino-cpu-int8") as ours:
        beside = f32_beside(ours)
        assert beside == tmp_path / "openvino-cpu-f32"
        with Bundle.open(beside) as theirs:
            found = quality(ours, theirs)
            assert f32_beside(theirs) is None and quality(theirs, ours) is None
        assert found is not None and found.kept and found.share == pytest.approx(0.995)
        tiny.edit_manifest(beside, recipe_sha256="b" * 64)
        with Bundle.open(beside) as theirs:
            assert quality(ours, theirs) is None


def test_what_is_kept_of_the_runs_does_not_look_like_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that grows by nothing but the list of runs has not grown."""
    runs = Runs()
    monkeypatch.setattr(soak, "resident_bytes", lambda: 100_000_000 + runs.bytes)
    memory = soak._Resident(runs)
    for second in range(20_000):
        runs.began_s.append(float(second))
        runs.took_ms.append(1.0)
        memory.tick(float(second))
    found = memory.record(0)
    assert runs.bytes > 300_000 and found.growth == 0 and found.most == found.start == 100_000_000
