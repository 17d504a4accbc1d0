"""A bundle over HTTP: what it answers, how it says no, what it holds back, how it ends."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import rasterio
from starlette.testclient import TestClient

from rsedge.data.errors import RequestError
from rsedge.flight import Bundle, load
from rsedge.runtimes.bundle.self_test import SelfTestFailed
from rsedge.serving.app import Settings, create_app
from rsedge.serving.engine import Engine, NotServing
from rsedge.serving.guard import is_loopback
from rsedge.serving.jobs import Jobs
from rsedge.serving.metrics import Metrics
from rsedge.serving.server import check_host, token_of
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
TOKEN = "0123456789abcdef"
LOCAL = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tiny.make_bundle(tmp_path_factory.mktemp("served") / "bundle", SPEC)
    with load(folder, threads=1) as found:
        yield found


class Served:
    """A service without its socket."""

    def __init__(self, bundle: Bundle, folder: Path, upload_bytes: int = 1 << 20, **queues: int) -> None:
        self.folder, self.metrics = folder, Metrics()
        (folder / "jobs").mkdir()
        self.engine = Engine(bundle, self.metrics, **queues)
        self.jobs = Jobs(folder / "jobs", keep=2)
        self.upload_bytes = upload_bytes

    def client(self, token: str | None = None) -> TestClient:
        settings = Settings(token, self.folder, self.upload_bytes)
        app = create_app(self.engine, self.jobs, self.metrics, settings)
        return TestClient(app, base_url=LOCAL, raise_server_exceptions=False)

    def finished(self, client: TestClient, name: str) -> dict[str, Any]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found: dict[str, Any] = client.get(f"/jobs/{name}").json()
            if found["state"] not in ("queued", "running"):
                return found
            time.sleep(0.01)
        raise AssertionError(found)


@pytest.fixture
def served(loaded: Bundle, tmp_path: Path) -> Iterator[Served]:
    found = Served(loaded, tmp_path)
    with found.engine:
        yield found


def raster(place: Path) -> tuple[bytes, dict[str, str]]:
    """Pixels and tags but that of when it was made."""
    with rasterio.open(place) as file:
        tags = {name: value for name, value in file.tags().items() if name != "TIFFTAG_DATETIME"}
        return file.read().tobytes(), tags


def scene(place: Path, size: int = 70) -> Path:
    return tiny.write_scene(place, tiny.random_scene(SPEC, size, size + 10), tiny.NAMES)


def test_tiles_in_both_forms(served: Served) -> None:
    client, dn = served.client(), tiny.random_scene(SPEC, 32, 32)
    logits, valid = tiny.reference(SPEC, dn)
    classes = np.where(valid, logits.argmax(0), 255)
    raw = client.post("/tile", content=dn.tobytes())
    assert raw.status_code == 200 and raw.headers["x-array"] == "classes uint8 32x32"
    assert np.array_equal(np.frombuffer(raw.content, np.uint8).reshape(32, 32), classes)
    buffer = io.BytesIO()
    np.savez(buffer, dn=dn)
    answer = client.post("/tile?give=logits", content=buffer.getvalue(), headers={"content-type": "application/x-npz"})
    with np.load(io.BytesIO(answer.content)) as found:
        assert np.allclose(found["logits"], logits, atol=1e-3) and np.array_equal(found["valid"], valid)
    text = client.get("/metrics").text
    assert "rsedge_tiles_total 2.0" in text and 'rsedge_requests_total{code="200",endpoint="/tile"} 2.0' in text
    assert "rsedge_healthy 1.0" in text and "rsedge_tile_seconds_count 2.0" in text


def test_a_scene_is_what_infer_writes(served: Served, cli: Callable[..., Any], tmp_path: Path) -> None:
    place = scene(tmp_path / "scene.tif")
    assert cli("infer", served.engine.bundle.path, place, "-o", tmp_path / "right.tif", "--threads", 1)[0] == 0
    client = served.client()
    for answer in (
        client.post("/scene?path=scene.tif&name=a"),
        client.post("/scene?name=b", content=place.read_bytes()),
    ):
        assert answer.status_code == 202 and answer.headers["location"] == f"/jobs/{answer.json()['id']}"
        job = served.finished(client, answer.json()["id"])
        assert job["state"] == "done" and job["tiles_done"] == job["tiles"] > 0, job
        (tmp_path / "got.tif").write_bytes(client.get(job["result"]).content)
        assert raster(tmp_path / "got.tif") == raster(tmp_path / "right.tif")
        assert not list((served.folder / "jobs" / job["id"]).glob("upload*"))
    third = client.post("/scene?path=scene.tif").json()["id"]
    served.finished(client, third)
    assert [j["id"] for j in client.get("/jobs").json()][-1] == third and place.exists()
    client.post("/scene?path=scene.tif")  # so many are kept, with their files
    assert len(list((served.folder / "jobs").iterdir())) == 3 and client.get(f"/jobs/{job['id']}").status_code in (
        200,
        404,
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "words"),
    [
        ("POST", "/tile", b"123", 400, "8192 bytes, in bands blue, green, red, nir"),
        ("POST", "/tile", b"0" * 9000, 413, "more than one tile"),
        ("POST", "/tile?give=boxes", b"", 400, "give"),
        ("POST", "/scene", b"", 400, "the body is empty"),
        ("POST", "/scene", b"0" * (1 << 21), 413, "--upload-mb"),
        ("POST", "/scene?path=../secret.tif", b"", 400, "below the service's root"),
        ("POST", "/scene?path=link.tif", b"", 400, "below the service's root"),
        ("POST", "/scene?path=%00", b"", 400, "below the service's root"),
        ("POST", "/scene?name=../x", b"1", 400, "name"),
        ("POST", "/scene?bandz=x", b"1", 400, "bandz"),
        ("GET", "/jobs/none", b"", 404, "no job 'none'"),
        ("GET", "/nothing", b"", 404, "Not Found"),
        ("PUT", "/tile", b"", 405, "Not Allowed"),
    ],
)
def test_no_is_said_in_words(served: Served, method: str, path: str, body: bytes, code: int, words: str) -> None:
    (served.folder.parent / "secret.tif").write_bytes(b"x")
    (served.folder / "link.tif").symlink_to(served.folder.parent / "secret.tif")
    answer = served.client().request(method, path, content=body)
    assert answer.status_code == code and words in answer.json()["error"] and set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text and not list((served.folder / "jobs").rglob("*.tif"))


def test_what_is_no_scene_fails_as_a_job(served: Served) -> None:
    client = served.client()
    job = served.finished(client, client.post("/scene", content=b"no GeoTIFF").json()["id"])
    assert job["state"] == "failed" and job["exit_code"] == 2 and ".upload.tif" in job["error"]
    answer = client.get(f"/jobs/{job['id']}/result")
    assert answer.status_code == 404 and "failed" in answer.json()["error"]
    assert client.get("/health").status_code == 200


def test_full_queues_and_cancelling(loaded: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a scene runs, tiles are answered between its tiles; what finds no place is told when to come again."""
    found = Served(loaded, tmp_path, tiles=1, scenes=1)
    scene(tmp_path / "scene.tif", 300)
    client, hold = found.client(), threading.Event()
    monkeypatch.setattr(found.engine, "_between", hold.wait)
    with found.engine:
        first = client.post("/scene?path=scene.tif").json()["id"]
        while client.get(f"/jobs/{first}").json()["state"] == "queued":
            time.sleep(0.01)
        second = client.post("/scene?path=scene.tif").json()["id"]
        full = client.post("/scene?path=scene.tif")
        assert full.status_code == 503 and int(full.headers["retry-after"]) >= 1 and "full" in full.json()["error"]
        waiting = found.engine.tile(loaded.opened.golden()["dn"][:1])
        assert client.post("/tile", content=tiny.random_scene(SPEC, 32, 32).tobytes()).status_code == 503
        assert client.delete(f"/jobs/{second}").json()["state"] == "cancelled"
        monkeypatch.undo()
        hold.set()
        assert waiting.result(30)["logits"].shape == (1, 3, 32, 32)
        client.delete(f"/jobs/{first}")
        assert found.finished(client, first)["state"] in ("cancelled", "done")
        assert not list((tmp_path / "jobs").rglob(".rsedge-*"))
    with pytest.raises(NotServing):
        found.engine.tile(loaded.opened.golden()["dn"][:1])


def test_a_missed_golden_vector_ends_all_answers(
    loaded: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Served(loaded, tmp_path)
    scene(tmp_path / "scene.tif")

    def damaged(*_: object) -> None:
        raise SelfTestFailed("self-test failed after 7 tiles: the memory is damaged")

    with found.engine:
        client, dn = found.client(), tiny.random_scene(SPEC, 32, 32).tobytes()
        monkeypatch.setattr(type(loaded.session), "__call__", damaged)
        assert client.post("/tile", content=dn).status_code == 500
        health = client.get("/health")
        assert health.status_code == 503 and health.json()["state"] == "failed" and "damaged" in health.json()["reason"]
        for answer in (client.post("/tile", content=dn), client.post("/scene?path=scene.tif")):
            assert answer.status_code == 503 and "self-test" in answer.json()["error"]
        assert "rsedge_healthy 0.0" in client.get("/metrics").text


def test_who_may_ask(served: Served) -> None:
    client = served.client(TOKEN)
    assert client.get("/health").status_code == 200
    for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": f"Basic {TOKEN}"}):
        answer = client.get("/jobs", headers=headers)
        assert answer.status_code == 401 and "Bearer" in answer.json()["error"]
    assert client.get("/jobs", headers={"authorization": f"Bearer {TOKEN}"}).json() == []
    local = served.client()
    assert local.get("/jobs").status_code == 200
    for headers in ({"host": "attacker.example"}, {"origin": "https://attacker.example"}):
        assert local.get("/jobs", headers=headers).status_code == 403


def test_other_hosts_need_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSEDGE_TOKEN", raising=False)
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "x.org")] == [True] * 3 + [
        False
    ] * 3
    check_host("127.0.0.1", None)
    check_host("0.0.0.0", TOKEN)
    with pytest.raises(RequestError, match="--token-file"):
        check_host("0.0.0.0", None)
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    with pytest.raises(RequestError, match="chmod 600"):
        token_of(file)
    file.chmod(0o600)
    assert token_of(file) == TOKEN and token_of(None) is None
    file.chmod(0o440)  # as systemd's credentials look, from 254 on
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert token_of(file) == TOKEN
    file.chmod(0o444)
    with pytest.raises(RequestError, match="chmod 600"):
        token_of(file)
    monkeypatch.setenv("RSEDGE_TOKEN", "short")
    with pytest.raises(RequestError, match="16 or more"):
        token_of(None)


def test_the_api_describes_itself(served: Served) -> None:
    found = served.client().get("/openapi.json").json()
    assert set(found["paths"]) >= {
        "/health",
        "/metrics",
        "/tile",
        "/scene",
        "/jobs",
        "/jobs/{name}",
        "/jobs/{name}/result",
    }
    assert "uint16 4x32x32" in json.dumps(found["paths"]["/tile"]) and "examples" in json.dumps(found["components"])


def test_a_process_serves_and_drains(loaded: Bundle, tmp_path: Path) -> None:
    """A real one, on a free port: SIGTERM lets the scene under way end, and the process ends with 0."""
    scene(tmp_path / "scene.tif", 200)
    command = [sys.executable, "-m", "rsedge.cli", "serve", str(loaded.path), "--port", "0", "--root", str(tmp_path)]
    child = subprocess.Popen([*command, "--threads", "1", "--work", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    try:
        lines = []
        while not (address := re.search(r"http://\S+", lines[-1] if lines else "")):
            lines.append(child.stderr.readline())
            assert lines[-1], lines
        with httpx2.Client(base_url=address[0], timeout=60, trust_env=False) as client:
            assert client.get("/health").json()["golden"]["tests"] == 1
            job = client.post("/scene", params={"path": "scene.tif"}).json()
            assert client.post("/tile", content=tiny.random_scene(SPEC, 32, 32).tobytes()).status_code == 200
            child.send_signal(signal.SIGTERM)
        said = child.stderr.read()
        assert (
            child.wait(60) == 0
            and "ended" in said
            and "cancelled" not in said
            and job["state"] in ("queued", "running", "done")
        )
        assert not list(tmp_path.glob(".rsedge-*"))
    finally:
        child.kill()
        child.wait()


def test_what_is_refused_leaves_no_files_and_no_place_taken(served: Served, tmp_path: Path) -> None:
    client = served.client()
    for number in range(served.engine._most_scenes + 1):
        assert client.post("/scene" if number % 2 else "/scene?path=none.tif").status_code == 400
    assert client.post("/scene", content=b"x" * (served.upload_bytes + 1)).status_code == 413
    assert not list((tmp_path / "jobs").iterdir())
    assert client.get("/health").status_code == 200


def test_an_output_may_have_any_name_and_an_item_names_nothing_outside_the_root(served: Served, tmp_path: Path) -> None:
    client = served.client()
    body = scene(tmp_path / "s.tif").read_bytes()
    asked = client.post("/scene?name=upload", content=body).json()
    assert served.finished(client, asked["id"])["state"] == "done"
    outside = {"a": {"href": "../outside.tif", "type": "image/tiff"}}
    (tmp_path / "item.json").write_text(json.dumps({"type": "Feature", "id": "a", "assets": outside}))
    found = client.post("/scene?path=item.json")
    assert found.status_code == 400 and "below the service's root" in found.json()["error"]


def test_an_npz_unpacks_to_no_more_than_a_tile(served: Served) -> None:
    client, buffer = served.client(), io.BytesIO()
    np.savez_compressed(buffer, dn=np.zeros(20_000_000, np.uint8))
    for body in (buffer.getvalue(), b"PK\3\4 no zip"):
        found = client.post("/tile", content=body, headers={"content-type": "application/x-npz"})
        assert found.status_code == 400 and "the body" in found.json()["error"]
    assert client.get("/health", headers={"host": "["}).status_code == 403


def test_neither_who_goes_away_nor_what_fails_beside_ends_the_thread(loaded: Bundle, tmp_path: Path) -> None:
    def idle(_: Callable[[int, int], None]) -> float:
        raise RuntimeError("the folder is broken")

    served, dn = Served(loaded, tmp_path, idle=idle), np.ones((1, *SPEC.shape), np.uint16)
    logged: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", logged.append)
        with served.engine as engine:
            gone = [engine.tile(dn) for _ in range(8)]
            for one in gone:
                one.cancel()
            assert engine.tile(dn).result(20)["logits"].shape[1] == len(tiny.CLASSES)
    assert logged and 'rsedge_errors_total{kind="internal"} 1.0' in served.metrics.text(served.engine).decode()


def test_a_watched_scene_goes_no_further_once_a_tile_finds_the_model_damaged(loaded: Bundle, tmp_path: Path) -> None:
    steps, tile, ended = list[int](), threading.Event(), threading.Event()

    def idle(step: Callable[[int, int], None]) -> float:
        assert tile.wait(20)
        try:
            for number in range(3):
                step(number, 3)
                steps.append(number)
        finally:
            ended.set()
        return 60.0

    def damaged(inputs: object) -> object:
        raise SelfTestFailed("the golden vector is missed")

    served = Served(loaded, tmp_path, idle=idle)
    with pytest.MonkeyPatch.context() as patch, served.engine as engine:
        patch.setattr(type(loaded.session), "__call__", lambda self, inputs: damaged(inputs))
        answer = engine.tile(np.ones((1, *SPEC.shape), np.uint16))
        tile.set()
        with pytest.raises(SelfTestFailed):
            answer.result(20)
        assert ended.wait(20) and not steps and engine.failure is not None
