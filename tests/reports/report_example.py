"""A plausible report with made-up numbers, for tests of the page only."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rsedge.data.band_values import BandValues
from rsedge.data.metrics import confusion_matrix, summary
from rsedge.devices.measure import LatencyMs
from rsedge.reports.assets import ReportAssets, TileAsset
from rsedge.reports.schema import (
    BaselineRecord,
    DataRecord,
    Gate,
    Interval,
    Report,
    SceneRecord,
    SplitBlock,
    SplitRecord,
    StageRecord,
    TargetRecord,
    TeacherRecord,
)

CLASSES = ["background", "clouds", "cloud shadows", "water", "snow"]
STUDENT = "openvino-cpu-int8"


def _field(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), scale)
    return (field - field.min()) / np.ptp(field)


def _scene(seed: int, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ground, cloud, water = _field(rng, size, 14), _field(rng, size, 20), _field(rng, size, 30)
    label = np.zeros((size, size), dtype=np.uint8)
    label[water > 0.72] = 3
    label[np.roll(cloud > 0.6, (14, 10), axis=(0, 1))] = 2
    label[cloud > 0.6] = 1
    colours = np.array([[96, 104, 70], [232, 236, 240], [38, 42, 46], [28, 52, 84], [240, 246, 250]], dtype=float)
    rgb = colours[label] * (0.75 + 0.5 * ground[..., None]) + rng.normal(0, 4, (size, size, 1))
    return rgb.clip(0, 255).astype(np.uint8), label


def _disturbed(label: np.ndarray, seed: int, shift: float) -> np.ndarray:
    field = _field(np.random.default_rng(seed), label.shape[0], 3)
    moved = np.roll(label, (2, -1), axis=(0, 1))
    return np.where(field > shift, moved, label).astype(np.uint8)


def _metrics(label: np.ndarray, predicted: np.ndarray) -> dict:
    found = summary(confusion_matrix(label, predicted, len(CLASSES)), CLASSES)
    return found | {"kappa_interval": [found["kappa"] - 0.021, found["kappa"] + 0.018]}


def example() -> tuple[Report, ReportAssets]:
    """The report and its assets, the same each time."""
    tiles, maps = [], []
    for i, name in enumerate(("S2 validation block 12", "S2 validation block 31", "Landsat 8, unlabelled")):
        rgb, label = _scene(i)
        teacher, student = _disturbed(label, 10 + i, 0.45), _disturbed(label, 20 + i, 0.4)
        tiles.append(TileAsset(name, rgb, teacher, student, label if i < 2 else None, "thin cloud edges" if i else ""))
        maps.append((label, teacher, student))
    label, teacher, student = (np.concatenate([m[k] for m in maps[:2]]) for k in range(3))
    teacher_metrics, student_metrics = _metrics(label, teacher), _metrics(label, student)
    report = Report(
        name="cloud-mask",
        created="2026-11-23T10:12:44+00:00",
        rsedge_version="0.1.0",
        classes=CLASSES,
        teacher=TeacherRecord(
            name="ukis-csmask-l1c-6band",
            params=17_500_000,
            macs=5_650_000_000,
            size_bytes=70_300_000,
            latency_ms=LatencyMs(p50=231, p90=246, p99=290, mean=234),
            metrics=teacher_metrics,
            source="https://github.com/dlr-eoc/ukis-csmask",
            licence="Apache-2.0",
        ),
        stages=_stages(teacher_metrics["kappa"]),
        targets=_targets(student_metrics),
        baselines=_baselines(teacher_metrics),
        environment={
            "machine": "AMD EPYC, 2 cores, avx2",
            "threads": 2,
            "load average at start": 1.84,
            "software": {"python": "3.11.7", "torch": "2.15.0", "openvino": "2026.4.1", "nncf": "3.4.0"},
            "seeds": {"distill": 0, "data": 0},
            "git": "64c7afb",
        },
        data=_data(),
        seconds=2412,
        notes=["Numbers of this page are made up; it exists to try the layout."],
    )
    return report, ReportAssets(tiles, _samples(), _history(), STUDENT)


def _baselines(metrics: dict) -> list[BaselineRecord]:
    common = {"runtime": "openvino", "device": "cpu", "metrics": metrics}
    return [
        BaselineRecord(
            name="teacher-openvino-f32",
            precision="f32",
            provenance="measured",
            agreement=1.0,
            size_bytes=70_100_000,
            latency_ms=LatencyMs(p50=214, p90=229, p99=261, mean=217),
            throughput_per_s=4.7,
            peak_rss_bytes=612_000_000,
            **common,
        ),
        BaselineRecord(
            name="teacher-openvino-bf16",
            precision="bf16",
            provenance="unavailable",
            reason="this CPU has no bfloat16 arithmetic",
            **(common | {"metrics": {}}),
        ),
        BaselineRecord(
            name="teacher-openvino-int8",
            precision="int8",
            provenance="measured",
            agreement=0.981,
            size_bytes=18_400_000,
            latency_ms=LatencyMs(p50=88, p90=97, p99=121, mean=90),
            throughput_per_s=11.4,
            peak_rss_bytes=402_000_000,
            **common,
        ),
    ]


def _targets(metrics: dict) -> list[TargetRecord]:
    lower = metrics | {"kappa": metrics["kappa"] - 0.004}
    return [
        TargetRecord(
            name="openvino-cpu-int8",
            runtime="openvino",
            device="cpu",
            precision="int8",
            provenance="measured",
            latency_ms=LatencyMs(p50=12.4, p90=13.6, p99=17.9, mean=12.8),
            throughput_per_s=84.2,
            size_bytes=1_480_000,
            peak_rss_bytes=171_000_000,
            metrics=lower,
            agreement=0.968,
            params=980_000,
            macs=380_000_000,
            parity={"max_abs": 0.0000021, "agreement": 1.0, "against": "torch f32"},
            gates=[
                Gate(name="kappa.max_drop", passed=True, value=0.006, limit=0.01),
                Gate(name="agreement.min", passed=True, value=0.968, limit=0.95),
                Gate(
                    name="latency.min_speedup", passed=True, value=17.3, limit=15.0, note="against teacher-openvino-f32"
                ),
                Gate(name="size.max", passed=True, value=1_480_000, limit=5_000_000),
            ],
            bundle="bundles/openvino-cpu-int8",
        ),
        TargetRecord(
            name="openvino-cpu-f32",
            runtime="openvino",
            device="cpu",
            precision="f32",
            provenance="measured",
            latency_ms=LatencyMs(p50=21.8, p90=23.9, p99=31.2, mean=22.4),
            throughput_per_s=47.1,
            size_bytes=3_990_000,
            peak_rss_bytes=188_000_000,
            metrics=metrics,
            agreement=0.972,
            params=980_000,
            macs=380_000_000,
            gates=[
                Gate(name="kappa.max_drop", passed=True, value=0.002, limit=0.01),
                Gate(
                    name="latency.min_speedup", passed=False, value=9.8, limit=15.0, note="against teacher-openvino-f32"
                ),
            ],
            bundle="bundles/openvino-cpu-f32",
        ),
        TargetRecord(
            name="tensorrt-jetson-orin-nano-8gb-fp16",
            runtime="tensorrt",
            device="jetson-orin-nano-8gb",
            precision="fp16",
            provenance="predicted",
            size_bytes=2_010_000,
            metrics=metrics,
            agreement=0.972,
            interval=Interval(
                low_ms=1.13,
                mid_ms=1.7,
                high_ms=2.55,
                basis="predicted, roofline v1; x/÷ 1.5 (leave one family out: 10-70 %)",
            ),
            gates=[Gate(name="kappa.max_drop", passed=True, value=0.002, limit=0.01)],
            reason="compiled for SM86 by tensorrt-rtx; the engine is built on the device",
            bundle="bundles/tensorrt-jetson-orin-nano-8gb-fp16",
        ),
        TargetRecord(
            name="openvino-myriad-x-fp16",
            runtime="openvino",
            device="myriad-x",
            precision="fp16",
            provenance="unavailable",
            reason="no OpenVINO 2022.3.2 environment was found to make its IR",
        ),
    ]


def _stages(kappa: float) -> list[StageRecord]:
    return [
        StageRecord(name="teacher", outcome="applied", seconds=61, after={"cached_views": 8192, "views_per_s": 3.9}),
        StageRecord(
            name="distill",
            outcome="applied",
            seconds=1425,
            after={
                "params": 1_620_000,
                "macs": 610_000_000,
                "size_bytes": 6_480_000,
                "latency_ms": 31.4,
                "kappa": kappa - 0.001,
                "agreement": 0.974,
            },
        ),
        StageRecord(
            name="prune",
            outcome="applied",
            seconds=512,
            reason="latency fell by 31 % at 0.001 kappa",
            before={"params": 1_620_000, "macs": 610_000_000, "latency_ms": 31.4, "kappa": kappa - 0.001},
            after={
                "params": 980_000,
                "macs": 380_000_000,
                "size_bytes": 3_930_000,
                "latency_ms": 21.8,
                "kappa": kappa - 0.002,
                "agreement": 0.972,
            },
            details=[
                {"step": 1, "macs": 520_000_000, "latency_ms": 27.9, "agreement": 0.971, "outcome": "kept"},
                {"step": 2, "macs": 440_000_000, "latency_ms": 24.1, "agreement": 0.972, "outcome": "kept"},
                {"step": 3, "macs": 380_000_000, "latency_ms": 21.8, "agreement": 0.972, "outcome": "kept"},
                {
                    "step": 4,
                    "macs": 330_000_000,
                    "latency_ms": 21.7,
                    "agreement": 0.969,
                    "outcome": "rolled back: no gain",
                },
            ],
        ),
        StageRecord(
            name="quantize",
            outcome="applied",
            seconds=148,
            reason="best of 4 trials under the accuracy gate",
            before={"size_bytes": 3_930_000, "latency_ms": 21.8, "kappa": kappa - 0.002},
            after={
                "params": 980_000,
                "size_bytes": 1_480_000,
                "latency_ms": 12.4,
                "kappa": kappa - 0.006,
                "agreement": 0.968,
            },
            details=[
                {"trial": "mixed, no smoothing", "kappa": kappa - 0.011, "agreement": 0.961, "latency_ms": 12.4},
                {"trial": "mixed, bias correction", "kappa": kappa - 0.006, "agreement": 0.968, "latency_ms": 12.4},
                {"trial": "performance", "kappa": kappa - 0.019, "agreement": 0.948, "latency_ms": 12.1},
                {"trial": "mixed, SmoothQuant", "kappa": kappa - 0.007, "agreement": 0.966, "latency_ms": 12.9},
            ],
        ),
        StageRecord(
            name="qat",
            outcome="rejected",
            seconds=201,
            reason="no gain: kappa 0.0003 under plain quantization",
            before={"kappa": kappa - 0.006, "agreement": 0.968},
            after={
                "params": 980_000,
                "size_bytes": 1_480_000,
                "latency_ms": 12.4,
                "kappa": kappa - 0.0063,
                "agreement": 0.967,
            },
        ),
        StageRecord(name="export", outcome="applied", seconds=24, after={"artefacts": 3}),
        StageRecord(name="verify", outcome="applied", seconds=41),
    ]


def _data() -> DataRecord:
    rng = np.random.default_rng(3)
    blocks = []
    for row in range(0, 512, 64):
        for col in range(0, 640, 64):
            split = ["train", "calibration", "validation"][int(rng.choice(3, p=(0.6, 0.15, 0.25)))]
            blocks.append(SplitBlock(scene="S2A L1C 31UFS", split=split, row=row, col=col, height=64, width=64))
    landsat = [
        SplitBlock(scene="Landsat 8 LC08", split="train", row=r, col=c, height=64, width=64)
        for r in range(0, 384, 64)
        for c in range(0, 384, 64)
    ]
    bands = ["blue", "green", "red", "nir", "swir16", "swir22"]
    return DataRecord(
        manifest_sha256="9f2c" * 16,
        splits={
            "train": SplitRecord(tiles=1204, scenes=["S2A L1C 31UFS", "Landsat 8 LC08"], pixels=78_905_344),
            "calibration": SplitRecord(tiles=96, scenes=["S2A L1C 31UFS"], pixels=6_291_456),
            "validation": SplitRecord(tiles=128, scenes=["S2A L1C 31UFS"], labelled=True, pixels=8_388_608),
        },
        scenes={
            "S2A L1C 31UFS": SceneRecord(height=512, width=640, gsd_m=10, bands=bands),
            "Landsat 8 LC08": SceneRecord(height=384, width=384, gsd_m=30, bands=bands),
        },
        blocks=blocks + landsat,
        bands=[
            BandValues(name=b, count=9_000_000, minimum=0.01, maximum=1.2, saturated=0.0125, clipped=0.0, outside=None)
            for b in bands
        ],
    )


def _samples() -> dict[str, list[float]]:
    rng = np.random.default_rng(5)

    def draw(p50: float, n: int) -> list[float]:
        return list(p50 * (0.96 + rng.gamma(1.4, 0.035, n) + (rng.random(n) < 0.02) * rng.random(n) * 0.4))

    return {
        "teacher-openvino-f32": draw(214, 60),
        "teacher-openvino-int8": draw(88, 120),
        "openvino-cpu-f32": draw(21.8, 300),
        "openvino-cpu-int8": draw(12.4, 400),
    }


def _history() -> dict[str, list[dict[str, float]]]:
    rng = np.random.default_rng(7)
    decay = [
        {
            "epoch": e,
            "loss": 0.9 * np.exp(-e / 7) + 0.08 + rng.normal(0, 0.006),
            "agreement": 0.974 - 0.4 * np.exp(-e / 5) + rng.normal(0, 0.003),
            "kappa": 0.79 - 0.5 * np.exp(-e / 6) + rng.normal(0, 0.004),
        }
        for e in range(40)
    ]
    recover = [
        {
            "epoch": e,
            "loss": 0.2 * np.exp(-e / 3) + 0.09,
            "agreement": 0.972 - 0.05 * np.exp(-e / 3),
            "kappa": 0.789 - 0.04 * np.exp(-e / 3),
        }
        for e in range(14)
    ]
    return {"distill": decay, "prune recovery": recover}
