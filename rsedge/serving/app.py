"""The HTTP side of a bundle: what it answers, in what form, and how it says no. Nothing here computes."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rsedge.data.arrays import read_arrays
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError, RsedgeError
from rsedge.data.files import no_room
from rsedge.data.scenes.kinds import kind_of
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.blending import best_class
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Array, Arrays
from rsedge.serving.engine import Engine, NotServing, QueueFull
from rsedge.serving.guard import Guard
from rsedge.serving.jobs import Job, Jobs, State
from rsedge.serving.metrics import Metrics
from rsedge.version import __version__

NPZ = "application/x-npz"
RAW = "application/octet-stream"
NPZ_SLACK = 1 << 20
"""Bytes that an npz may be larger than the array in it, packed and unpacked."""
UPLOAD = ".upload.tif"
"""A name that no output has."""
PATIENCE_S = 60.0
"""For the next part of a body: who sends nothing for so long gives back the place that is held for it."""
CODES: tuple[tuple[type[RsedgeError], int], ...] = (
    (IntegrityError, 500), (MissingCapability, 507), (RequestError, 400),
)  # fmt: skip
DESCRIPTION = """\
One bundle, loaded once. **Tiles** are raw digital numbers in the bundle's band contract and are answered at once, also while
a scene runs. **Scenes** are GeoTIFFs, uploaded or below the service's root folder; each becomes a job to ask for. A full queue
answers 503 with `Retry-After`. Errors are `{"error": "..."}`.
"""


@dataclass(frozen=True)
class Settings:
    """How the service is run.

    Attributes:
        token: what who asks must know; None: the loopback alone.
        root: folder below which scenes may be named by their path; None: uploads alone.
        upload_bytes: the largest scene that is taken.
    """

    token: str | None = None
    root: Path | None = None
    upload_bytes: int = 2 << 30


class Error(BaseModel):
    """What went wrong, and what to do."""

    error: str = Field(examples=["scene.tif: 3 bands without names; give bands=..."])


class Health(BaseModel):
    """Whether answers are worth something: the golden vector as it was last seen."""

    state: Literal["ok", "failed"]
    reason: str | None = Field(None, description="why nothing is answered")
    bundle: str = Field(examples=["cloud-mask"])
    bundle_sha256: str = Field(description="of manifest.json")
    target: str = Field(examples=["openvino-cpu-int8"])
    signature: str = Field(examples=["trusted"])
    version: str = Field(examples=["0.1.0"])
    golden: dict[str, Any] = Field(description="tests so far, largest difference and drift, and their limits")
    golden_age_s: float = Field(description="seconds since the golden vector was last given")
    waiting: dict[str, int] = Field(examples=[{"tiles": 0, "scenes": 1}])


class JobState(BaseModel):
    """One scene's way through."""

    id: str = Field(examples=["6f1c0c5e9a3b4d0b8a7e2f1d4c5b6a79"])
    state: State
    scene: str
    created: str = Field(description="UTC, ISO 8601")
    tiles_done: int
    tiles: int | None
    seconds: float | None
    error: str | None = None
    exit_code: int | None = None
    result: str | None = Field(None, description="where the file can be had", examples=["/jobs/6f1c/result"])
    record: dict[str, Any] | None = Field(None, description="what was written and found")


class SceneOptions(BaseModel):
    """What the scene's numbers are, where it does not say; as `rsedge infer` takes it."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(None, description="of a scene below the service's root; without it the body is the scene")
    name: str = Field(
        "scene", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="of the output, without suffix"
    )
    bands: str | None = Field(
        None, description="names of all bands in the file's order, with commas", examples=["blue,green,red"]
    )
    sensor: str | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    nan_nodata: bool = False
    any_gsd: bool = False
    overlap: int | None = Field(None, ge=0)
    align_tiles: bool = False
    score: float | None = Field(None, ge=0, le=1)

    def options(self) -> dict[str, Any]:
        """Those that were given, as :meth:`rsedge.flight.Bundle.predict` takes them."""
        found = self.model_dump(exclude={"path", "name"}, exclude_defaults=True)
        if self.bands is not None:
            found["bands"] = tuple(name.strip() for name in self.bands.split(","))
        return found


def create_app(engine: Engine, jobs: Jobs, metrics: Metrics, settings: Settings) -> FastAPI:
    """The application; the engine is begun and ended by who made it."""
    manifest = engine.bundle.manifest
    app = FastAPI(
        title=f"rsedge: {manifest.name}", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None,
        responses={code: {"model": Error} for code in (400, 401, 403, 404, 413, 503)},
    )  # fmt: skip
    _errors(app)
    app.add_middleware(Guard, token=settings.token, counted=lambda e, c: metrics.requests.labels(e, str(c)).inc())

    @app.get("/health", summary="Whether the golden vector is given", responses={503: {"model": Health}})
    def health(response: Response) -> Health:
        response.status_code = 200 if engine.failure is None else 503
        return _health(engine)

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=Response)
    def counts() -> Response:
        return Response(metrics.text(engine), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post(
        "/tile", summary="One tile of digital numbers", response_class=Response, openapi_extra=_tile_docs(manifest)
    )
    async def tile(
        request: Request,
        give: Annotated[
            Literal["classes", "logits"] | None,
            Query(description="classes of class maps are the usual answer, else logits"),
        ] = None,
    ) -> Response:
        dn, npz = await _tile_of(request, engine)
        wanted = give or ("classes" if manifest.task == "segmentation" else "logits")
        if wanted == "classes" and manifest.task != "segmentation":
            raise RequestError(f"give=classes is for class maps, and this bundle does {manifest.task}; give=logits")
        outputs = await asyncio.wrap_future(engine.tile(dn))
        return _answer(outputs, wanted, npz)

    @app.post("/scene", status_code=202, summary="One scene, as a job", openapi_extra=SCENE_DOCS)
    async def scene(request: Request, response: Response, options: Annotated[SceneOptions, Query()]) -> JobState:
        with engine.place() as put, jobs.new_folder() as (name, folder):
            if options.path is None:
                source = folder / UPLOAD
                await _received(request, source, settings.upload_bytes)
            else:
                source = below_root(settings.root, options.path)
            job = Job(name, folder, source, options.name, options.options())
            put(job)
            jobs.add(job)
        response.headers["location"] = f"/jobs/{name}"
        return _state(job)

    @app.get("/jobs", summary="All jobs that are kept, the newest last")
    def listed() -> list[JobState]:
        return [_state(job) for job in jobs.all()]

    @app.get("/jobs/{name}", summary="One job")
    def one(name: str) -> JobState:
        return _state(_job(jobs, name))

    @app.delete("/jobs/{name}", summary="Cancel a job; it ends at its next tile")
    def cancelled(name: str) -> JobState:
        job = _job(jobs, name)
        engine.cancel(job)
        return _state(job)

    @app.get("/jobs/{name}/result", summary="The file that was written", response_class=FileResponse)
    def result(name: str) -> FileResponse:
        job = _job(jobs, name)
        if job.output is None or not job.output.is_file():
            raise HTTPException(
                404, f"job {name} is {job.state}; it has no result{f': {job.error}' if job.error else ''}"
            )
        return FileResponse(job.output, filename=job.output.name)

    return app


def below_root(root: Path | None, path: str) -> Path:
    """A file below the root, links followed first; so are the files that it names lie there too.

    Raises:
        RequestError: there is no root, the path leads out of it, or there is no such file.
    """
    if root is None:
        raise RequestError("path: this service has no root folder; upload the scene, or start it with --root FOLDER")
    try:
        found = (root / path).resolve(strict=True)
        files = [found, *(file.resolve() for file in kind_of(found).files(found))]
    except (OSError, RuntimeError, ValueError) as error:
        raise RequestError(f"path: there is no file '{path}' below the service's root") from error
    if any(root.resolve() not in file.parents for file in files) or not found.is_file():
        raise RequestError(f"path: there is no file '{path}' below the service's root")
    return found


async def _tile_of(request: Request, engine: Engine) -> tuple[Array, bool]:
    """The tile [1, C, T, T] and whether it came as npz."""
    spec = engine.bundle.spec
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    need = int(np.prod(spec.shape)) * dtype.itemsize
    kind = request.headers.get("content-type", RAW).partition(";")[0].strip().lower()
    body = await _body(request, need + (NPZ_SLACK if kind == NPZ else 0))
    if kind == NPZ:
        dn = _array_of(body, need + NPZ_SLACK)
        dn = dn[None] if dn.ndim == len(spec.shape) else dn
        if dn.shape != (1, *spec.shape) or not np.can_cast(dn.dtype, spec.dtype, "safe"):
            raise RequestError(
                f"the body: 'dn' is {dn.dtype} {list(dn.shape)}, and a tile is {spec.dtype} {list(spec.shape)}"
            )
        return dn.astype(spec.dtype, copy=False), True
    if kind != RAW:
        raise HTTPException(
            415, f"content-type '{kind}': send {RAW} (raw {spec.dtype}, little-endian) or {NPZ} (array 'dn')"
        )
    if len(body) != need:
        raise RequestError(
            f"the body has {len(body)} bytes; a tile is {list(spec.shape)} of {spec.dtype}, little-endian: {need} bytes, in bands "
            f"{', '.join(spec.band_names)}"
        )
    return np.frombuffer(body, dtype).reshape(1, *spec.shape).astype(spec.dtype), False


def _array_of(body: bytes, most: int) -> Array:
    """``dn`` of an npz that holds at most so many bytes, unpacked.

    Raises:
        RequestError: no npz, a damaged one, or a larger one.
    """
    try:
        return read_arrays(Path("the body"), (INPUT,), body, most)[INPUT]
    except IntegrityError as error:  # of what was sent, not of ours
        raise RequestError(str(error)) from error


async def _parts(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes; 408 where nothing comes for :data:`PATIENCE_S`."""
    stream = aiter(request.stream())
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), PATIENCE_S)
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise HTTPException(400, "the body ended early") from error
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise HTTPException(408, f"nothing of the body came for {PATIENCE_S:g} seconds; send it again") from error


async def _body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in _parts(request):
        size += len(part)
        if size > most:
            raise HTTPException(413, f"the body is larger than {most:,} bytes, which is more than one tile")
        parts.append(part)
    return b"".join(parts)


async def _received(request: Request, place: Path, most: int) -> None:
    """Writes the body into a file, as it comes."""
    size = 0
    try:
        with place.open("wb") as file:
            async for part in _parts(request):
                size += len(part)
                if size > most:
                    raise HTTPException(
                        413, f"the scene is larger than {most:,} bytes; --upload-mb of the service sets that"
                    )
                await run_in_threadpool(file.write, part)
    except OSError as error:
        raise no_room(place, error) or error from error
    if size == 0:
        raise RequestError("the body is empty: send a GeoTIFF, or path=... of one below the service's root")


def _answer(outputs: Arrays, wanted: str, npz: bool) -> Response:
    """Class numbers [T, T] uint8 (255 = nodata), or logits [K, ...] float32 and, in an npz, ``valid``."""
    logits, valid = outputs[LOGITS][0], outputs[VALID][0]
    found: Mapping[str, Array] = {LOGITS: logits, VALID: valid}
    if wanted == "classes":
        classes = best_class(logits)
        classes[valid == 0] = NODATA_CLASS
        found = {"classes": classes}
    first = next(iter(found.values()))
    headers = {"x-array": f"{next(iter(found))} {first.dtype} {'x'.join(map(str, first.shape))}"}
    if not npz:
        little = np.ascontiguousarray(first, dtype=first.dtype.newbyteorder("<"))
        return Response(little.tobytes(), media_type=RAW, headers=headers)
    buffer = io.BytesIO()
    np.savez(buffer, **found)  # type: ignore[arg-type]
    return Response(buffer.getvalue(), media_type=NPZ, headers=headers)


def _health(engine: Engine) -> Health:
    bundle = engine.bundle
    return Health(
        state="ok" if engine.failure is None else "failed", reason=engine.failure, bundle=bundle.manifest.name,
        bundle_sha256=bundle.opened.manifest_sha256, target=bundle.target, signature=bundle.opened.signature.trust,
        version=__version__, golden=bundle.session.record(), golden_age_s=round(time.monotonic() - engine.proved, 3),
        waiting=engine.waiting,
    )  # fmt: skip


def _job(jobs: Jobs, name: str) -> Job:
    job = jobs.get(name)
    if job is None:
        raise HTTPException(404, f"there is no job '{name}'; finished ones are kept for a while only")
    return job


def _state(job: Job) -> JobState:
    place = None if job.output is None else f"/jobs/{job.id}/result"
    return JobState(
        id=job.id, state=job.state, scene=job.source.name, created=job.created, tiles_done=job.tiles_done, tiles=job.tiles,
        seconds=job.seconds, error=job.error, exit_code=job.exit_code, result=place, record=job.record,
    )  # fmt: skip


def _errors(app: FastAPI) -> None:
    """Every error is ``{"error": ...}``; what was none of the asker's doing goes to the log, not to the asker."""

    def answer(message: str, code: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": message}, status_code=code, headers=dict(headers or {}))

    @app.exception_handler(RsedgeError)
    def ours(_: Request, error: RsedgeError) -> JSONResponse:
        return answer(str(error), next((code for kind, code in CODES if isinstance(error, kind)), 500))

    @app.exception_handler(QueueFull)
    def full(_: Request, error: QueueFull) -> JSONResponse:
        return answer(str(error), 503, {"retry-after": str(error.retry_after_s)})

    @app.exception_handler(NotServing)
    def ending(_: Request, error: NotServing) -> JSONResponse:
        return answer(str(error), 503, {"retry-after": "5"})

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        return answer(str(error.detail), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        parts = [f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in error.errors()]
        return answer("; ".join(parts), 400)

    @app.exception_handler(Exception)
    def bug(_: Request, error: Exception) -> JSONResponse:
        return answer(f"internal error: {type(error).__name__}; see the service's log", 500)


def _tile_docs(manifest: Any) -> dict[str, Any]:
    spec = manifest.input_spec
    shape = "x".join(map(str, spec.shape))
    form = f"{spec.dtype} {shape}, little-endian, bands {', '.join(spec.band_names)}"
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                RAW: {**binary, "example": f"(raw {form})"},
                NPZ: {**binary, "example": f"(npz with 'dn': {form})"},
            },
        },
        "responses": {
            "200": {
                "description": "The same form as was sent; X-Array says name, type and shape.",
                "content": {RAW: binary, NPZ: binary},
            }
        },
    }


SCENE_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "description": "The scene itself, where `path` names none.",
        "content": {"image/tiff": {"schema": {"type": "string", "format": "binary"}, "example": "(a GeoTIFF)"}},
    }
}
