"""Trees of sensor files as Linux shows them on a Jetson and on an Intel machine, after the kernel's documents."""

from __future__ import annotations

from pathlib import Path


def write(root: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{value}\n")


def jetson(root: Path) -> Path:
    """Orin Nano, JetPack 6: cpufreq, devfreq of the GPU, INA3221 under hwmon, over-current counters, a fan."""
    write(
        root,
        {
            "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 1510400,
            "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": 729600,
            "sys/class/devfreq/17000000.gpu/cur_freq": 624750000,
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 48500,
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone1/temp": 47250,
            "sys/class/hwmon/hwmon1/name": "ina3221",
            "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
            "sys/class/hwmon/hwmon1/in1_input": 5040,
            "sys/class/hwmon/hwmon1/curr1_input": 1000,
            "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
            "sys/class/hwmon/hwmon1/in2_input": 5032,
            "sys/class/hwmon/hwmon1/curr2_input": 250,
            "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
            "sys/class/hwmon/hwmon2/name": "soctherm_oc",
            "sys/class/hwmon/hwmon2/oc3_event_cnt": 2,
            "sys/class/thermal/cooling_device0/type": "pwm-fan",
            "sys/class/thermal/cooling_device0/cur_state": 3,
            "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0",
            "sys/class/thermal/cooling_device1/cur_state": 0,
        },
    )
    return root


def jetson4(root: Path) -> Path:
    """Nano, JetPack 4: the power monitor under iio, in milliwatts."""
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(
        root,
        {
            f"{folder}/rail_name_0": "POM_5V_IN",
            f"{folder}/in_power0_input": 2532,
            f"{folder}/rail_name_1": "POM_5V_GPU",
            f"{folder}/in_power1_input": 120,
        },
    )
    return root


def intel(root: Path, psys: bool = False) -> Path:
    """Two packages with memory domains (a core domain below is part of its package), throttling counters."""
    rapl = "sys/class/powercap"
    write(
        root,
        {
            f"{rapl}/intel-rapl:0/name": "package-0",
            f"{rapl}/intel-rapl:0/energy_uj": 1_000_000,
            f"{rapl}/intel-rapl:0/max_energy_range_uj": 262_143_328_850,
            f"{rapl}/intel-rapl:0:0/name": "core",
            f"{rapl}/intel-rapl:0:0/energy_uj": 400_000,
            f"{rapl}/intel-rapl:0:1/name": "dram",
            f"{rapl}/intel-rapl:0:1/energy_uj": 200_000,
            f"{rapl}/intel-rapl:0:1/max_energy_range_uj": 65_712_999_613,
            "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 3200000,
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": 7,
            "sys/class/hwmon/hwmon0/name": "coretemp",
            "sys/class/hwmon/hwmon0/temp1_label": "Package id 0",
            "sys/class/hwmon/hwmon0/temp1_input": 61000,
        },
    )
    if psys:
        write(root, {f"{rapl}/intel-rapl:1/name": "psys", f"{rapl}/intel-rapl:1/energy_uj": 5_000_000})
    return root
