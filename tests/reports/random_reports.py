"""Random reports that do not contradict themselves, for properties of pages."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from rsedge.data.metrics.evidence import Evidence
from rsedge.data.metrics.statistics import Estimate
from rsedge.data.metrics.verdict import Gate
from rsedge.devices.measure.load import Load
from rsedge.devices.measure.protocol import LatencyMs, Measurement, Speedup
from rsedge.reports.schema import (
    BaselineRecord,
    DataRecord,
    Interval,
    LayerDamage,
    LayerWidth,
    Report,
    SplitRecord,
    StageRecord,
    TargetRecord,
    TeacherRecord,
)

BASE = "teacher-openvino-f32"
SCORES, MS = st.floats(0.01, 0.999), st.floats(0.05, 9000)
FLOORS = ("min", "min_speedup")


@st.composite
def latencies(draw: Any) -> LatencyMs:
    p50 = draw(MS)
    p90 = p50 * draw(st.floats(1, 3))
    return LatencyMs(p50=p50, p90=p90, p99=p90 * draw(st.floats(1, 3)))


@st.composite
def measurements(draw: Any, latency: LatencyMs) -> Measurement:
    load = Load(steal=draw(st.floats(0, 1)), others=draw(st.floats(0, 1)), load_average=1.0)
    return Measurement(
        device="cpu", runtime="openvino", runtime_version="1", precision="f32", threads=1, warmup=1, n=40, latency_ms=latency,
        throughput_per_s=1000 / latency.p50, throughput_method="stream", peak_rss_bytes=draw(st.integers(10**6, 10**9)),
        load_average=draw(st.floats(0, 8)), noisy=latency.p90 > 1.5 * latency.p50, drift=1.0, load=load,
    )  # fmt: skip


@st.composite
def gates(draw: Any, target: str, metric: str, constraint: str, value: float, over: str | None = None) -> Gate:
    places = draw(st.integers(0, 4))
    limit = round(value * draw(st.floats(0.5, 1.5)), places)
    holds = value >= limit if constraint in FLOORS else value <= limit
    sides = "passed" if holds else "failed"
    interval = None if metric == "size" else (value, value) if draw(st.booleans()) else None
    decided = metric == "size" or interval is not None
    return Gate.model_validate({
        "metric": metric, "constraint": constraint, "limit": limit, "over": over, "target": target, "value": value,
        "interval": interval, "n": None if metric == "size" else 16, "unit": None if metric == "size" else "blocks",
        "outcome": sides if decided else "undecided", "leans": None if decided else sides,
        "more_needed": None if decided else draw(st.none() | st.integers(1, 10**7)),
    })  # fmt: skip


@st.composite
def targets(draw: Any, name: str, teacher: float) -> TargetRecord:
    kappa, size, kind = (
        draw(SCORES),
        draw(st.integers(10**4, 10**8)),
        draw(st.sampled_from(["measured", "predicted", "unavailable"])),
    )
    evidence = Evidence(metric="kappa", unit="blocks", n=16, own=Estimate(value=kappa), teacher=teacher,
                        drop=Estimate(value=teacher - kappa))  # fmt: skip
    found: dict[str, Any] = {
        "name": name, "runtime": "openvino", "device": "cpu", "precision": "f32", "provenance": kind, "size_bytes": size,
        "metrics": {"kappa": kappa, "accuracy": draw(SCORES)}, "agreement": draw(SCORES), "evidence": {"kappa": evidence},
        "params": draw(st.integers(1, 10**8)), "macs": draw(st.integers(1, 10**10)),
    }  # fmt: skip
    held = [draw(gates(name, "kappa", "max_drop", teacher - kappa)), draw(gates(name, "kappa", "min", kappa)),
            draw(gates(name, "size", "max", float(size)))]  # fmt: skip
    if kind == "measured":
        latency = draw(latencies())
        ratio = draw(st.floats(0.1, 400))
        measured = draw(measurements(latency))
        found |= {"latency_ms": latency, "measurement": measured, "throughput_per_s": measured.throughput_per_s,
                  "peak_rss_bytes": measured.peak_rss_bytes,
                  "speedup": Speedup(value=ratio, low=0.9 * ratio, high=1.1 * ratio, turns=9, clock="processor time")}  # fmt: skip
        held += [
            draw(gates(name, "latency", "min_speedup", ratio, BASE)),
            draw(gates(name, "latency", "max", latency.p50)),
        ]
    elif kind == "predicted":
        mid = draw(MS)
        found["interval"] = Interval(low_ms=0.7 * mid, mid_ms=mid, high_ms=1.4 * mid, basis="predicted, test")
    else:
        found["reason"] = "no profile of it"
    return TargetRecord.model_validate(found | {"gates": draw(st.sampled_from([[], held]))})


@st.composite
def reports(draw: Any) -> Report:
    kappa, size, latency = draw(SCORES), draw(st.integers(10**6, 10**9)), draw(latencies())
    metrics = {"kappa": kappa, "accuracy": draw(SCORES)}
    base = BaselineRecord(
        name=BASE, runtime="openvino", device="cpu", precision="f32", provenance="measured", latency_ms=latency, size_bytes=size,
        metrics=metrics, agreement=1.0, measurement=draw(measurements(latency)),
    )  # fmt: skip
    found = [draw(targets(f"target-{i}", kappa)) for i in range(draw(st.integers(0, 3)))]
    steps = [
        StageRecord(
            name="distill",
            outcome="applied",
            widths=[LayerWidth(layer="conv", before=16, after=8)],
            damage=[LayerDamage(layer="conv", damage=0.5, in_float=True)],
            after={"kappa": t.metrics["kappa"], "agreement": t.agreement, "size_bytes": t.size_bytes},
        )
        for t in found[:1]
    ]
    splits = {
        "train": SplitRecord(tiles=draw(st.sampled_from([0, None])), pixels=999),
        "test": SplitRecord(tiles=32, pixels=9),
    }
    return Report(
        name="random", classes=["clear", "cloud"], targets=found, baselines=[base], stages=steps,
        teacher=TeacherRecord(name="teacher", params=10**7, size_bytes=size, latency_ms=latency, metrics=metrics),
        data=DataRecord(manifest_sha256="0" * 64, splits=splits),
    )  # fmt: skip
