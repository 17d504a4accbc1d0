"""What a stretch of work took of a machine's energy, from sensors that change meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from rsedge.devices.onboard import metering
from rsedge.devices.onboard.metering import metered
from tests.devices import fake_sysfs


def test_a_counter_that_grows_meanwhile(tmp_path: Path) -> None:
    counter = fake_sysfs.intel(tmp_path) / "sys/class/powercap/intel-rapl:0/energy_uj"
    with metered(tmp_path) as since:
        counter.write_text(str(1_000_000 + 7_500_000))
        time.sleep(0.05)
        found = since()
    assert found["energy"]["joules"] == pytest.approx(7.5, rel=0.05)
    assert found["energy"]["covers"].startswith("RAPL") and found["throttled"] == []


def test_processor_seconds_are_those_of_the_same_stretch(tmp_path: Path) -> None:
    """Of all threads of this process, and of nothing before or after."""
    fake_sysfs.jetson(tmp_path)
    _work(0.05)
    with metered(tmp_path) as since:
        before = time.process_time()
        threads = [threading.Thread(target=_work, args=(0.05,)) for _ in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        time.sleep(0.1)
        worked = time.process_time() - before
        found = since()
    assert worked >= 0.1 and worked - 0.001 <= found["energy"]["processor_s"] <= worked + 0.05


def _work(seconds: float) -> None:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


def test_rails_are_read_meanwhile_and_throttling_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "EVERY_S", 0.01)
    root = fake_sysfs.jetson(tmp_path)
    with metered(root) as since:
        fake_sysfs.write(root, {"sys/class/hwmon/hwmon1/curr1_input": 3000, "sys/class/hwmon/hwmon2/oc3_event_cnt": 5})
        time.sleep(0.3)
        found = since()
    assert 12 < found["energy"]["watts"] < 15.2  # 15.12 W but for the first reading, 5.04 W
    assert found["throttled"] == ["oc3_event_cnt grew by 3"] and found["throttle_counts"] == {"oc3_event_cnt": 3}


def test_where_nothing_can_be_read_it_says_nothing_and_threads_end(tmp_path: Path) -> None:
    with metered(tmp_path) as since:
        assert since() == {"energy": None, "throttled": [], "throttle_counts": {}}
    assert not [t for t in threading.enumerate() if t.name == "rsedge-meter"]
    with pytest.raises(RuntimeError), metered(tmp_path):
        raise RuntimeError
    assert not [t for t in threading.enumerate() if t.name == "rsedge-meter"]
