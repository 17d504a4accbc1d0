"""What the service counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from rsedge.serving.engine import Engine
from rsedge.serving.jobs import Job

TILE_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SCENE_S = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600)


class Metrics:
    """A registry of its own, so that two services in one process do not mix."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        ProcessCollector(registry=r)
        self.requests = Counter(
            "rsedge_requests", "HTTP requests by endpoint and code.", ["endpoint", "code"], registry=r
        )
        self.errors = Counter("rsedge_errors", "What went wrong: self-test, scene, internal.", ["kind"], registry=r)
        self.tiles = Counter(
            "rsedge_tiles", "Tiles that went through the model, those of scenes among them.", registry=r
        )
        self.scenes = Counter("rsedge_scenes", "Scenes that ended, by state.", ["state"], registry=r)
        self.waited = Histogram("rsedge_tile_wait_seconds", "What a tile waited.", buckets=TILE_S, registry=r)
        self.tile_seconds = Histogram(
            "rsedge_tile_seconds", "What one tile took in the model.", buckets=TILE_S, registry=r
        )
        self.scene_seconds = Histogram("rsedge_scene_seconds", "What one scene took.", buckets=SCENE_S, registry=r)
        self.queue = Gauge("rsedge_queue_length", "What waits, by kind.", ["kind"], registry=r)
        self.healthy = Gauge("rsedge_healthy", "1 as long as the golden vector is given.", registry=r)
        self.watched = Counter(
            "rsedge_watched", "Scenes of the watched folder, by what became of them.", ["status"], registry=r
        )
        for kind in ("self-test", "scene", "internal"):
            self.errors.labels(kind)

    def tile(self, waited_s: float, seconds: float) -> None:
        self.tiles.inc()
        self.waited.observe(waited_s)
        self.tile_seconds.observe(seconds)

    def scene(self, job: Job) -> None:
        self.scenes.labels(job.state).inc()
        self.tiles.inc(job.tiles_done)
        if job.state == "done" and job.seconds is not None:
            self.scene_seconds.observe(job.seconds)

    def failed(self, kind: str) -> None:
        self.errors.labels(kind).inc()

    def text(self, engine: Engine) -> bytes:
        """Everything now, in Prometheus' text format."""
        for kind, count in engine.waiting.items():
            self.queue.labels(kind).set(count)
        self.healthy.set(engine.failure is None)
        return generate_latest(self.registry)
