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


def test_rails_are_read_meanwhile_and_throttling_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "EVERY_S", 0.01)
    root = fake_sysfs.jetson(tmp_path)
    with metered(root) as since:
        fake_sysfs.write(root, {"sys/class/hwmon/hwmon1/curr1_input": 3000, "sys/class/hwmon/hwmon2/oc3_event_cnt": 5})
        time.sleep(0.3)
        found = since()
    assert 12 < found["energy"]["watts"] < 15.2  # 15.12 W but for the first reading, 5.04 W
    assert found["throttled"] == ["oc3_event_cnt grew by 3"]


def test_where_nothing_can_be_read_it_says_nothing_and_threads_end(tmp_path: Path) -> None:
    with metered(tmp_path) as since:
        assert since() == {"energy": None, "throttled": []}
    assert not [t for t in threading.enumerate() if t.name == "rsedge-meter"]
    with pytest.raises(RuntimeError), metered(tmp_path):
        raise RuntimeError
    assert not [t for t in threading.enumerate() if t.name == "rsedge-meter"]
