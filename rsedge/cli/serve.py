"""``rsedge serve``: a bundle over HTTP; needs no torch, and the extra ``serve``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli.common import hint_named, unwrapped
from rsedge.cli.heed import refuse_unheeded
from rsedge.cli.options import BundlePath, Device, HintOption, Key, SelfTest, Threads
from rsedge.data.errors import RequestError


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("serve", help=unwrapped(serve.__doc__ or ""))(serve)


def serve(
    context: typer.Context,
    bundle: BundlePath,
    host: Annotated[str, typer.Option(help="Address to listen on; another than the loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds what who asks must know; else RSEDGE_TOKEN. Yours alone: chmod 600.")
    ] = None,
    root: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Scenes below it may be named by their path.")] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where uploads and results lie; a temporary folder when not given.")
    ] = None,
    tile_queue: Annotated[int, typer.Option(min=1, help="Tiles that may wait.")] = 32,
    scene_queue: Annotated[int, typer.Option(min=1, help="Scenes that may wait.")] = 8,
    upload_mb: Annotated[int, typer.Option(min=1, help="The largest scene that is taken (MB).")] = 2048,
    keep: Annotated[int, typer.Option(min=1, help="Jobs that have ended and whose results are kept.")] = 50,
    watch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also map scenes that come into this folder, as `rsedge watch` does.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", metavar="DIR", help="Where --watch writes.")] = None,
    drain: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long to go on with what waits at the end.")] = 30.0,
    threads: Threads = None,
    device: Device = None,
    hint: HintOption = None,
    self_test: SelfTest = 100,
    key: Key = None,
) -> None:  # fmt: skip
    """Serve a bundle over HTTP: tiles at once, scenes as jobs, health and Prometheus metrics. The model is loaded once.

    It listens on this machine alone unless it is given a token, which who asks sends as 'Authorization: Bearer TOKEN'. What does
    not fit into a queue is answered 503 with Retry-After. The golden vector runs at the start, after every N tiles and after each
    idle minute; once it is missed, /health says so and nothing more is answered.

    SIGTERM: takes nothing more, goes on with what waits for --drain seconds, and ends with exit code 0. Needs the extra 'serve'.

    POST /tile: raw bytes or npz of digital numbers. POST /scene: a GeoTIFF, or ?path= below --root. GET /jobs/ID, /jobs/ID/result;
    DELETE /jobs/ID. GET /health, /metrics, /openapi.json.

    Examples:

        rsedge serve bundle.zip --port 8080 --root /data/scenes

        curl --data-binary @scene.tif 'http://127.0.0.1:8080/scene?name=scene'

        rsedge serve bundle.zip --host 0.0.0.0 --token-file token.txt
    """
    from rsedge.data.temporary import TemporaryFolder
    from rsedge.flight import load
    from rsedge.serving.server import bound, check_host, token_of

    token = token_of(token_file)
    check_host(host, token)
    if (watch is None) != (output_dir is None):
        raise RequestError("--watch FOLDER and --output-dir DIR belong together; give both or none")
    for folder in (root, work, watch):
        if folder is not None and not folder.is_dir():
            raise RequestError(f"{folder}: there is no such folder; make it, or leave the option out")
    from rsedge.serving.app import Settings, create_app
    from rsedge.serving.engine import Engine
    from rsedge.serving.jobs import Jobs
    from rsedge.serving.metrics import Metrics
    from rsedge.serving.server import serve as run
    from rsedge.serving.watch import FolderWatch
    from rsedge.stopping import finishing

    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(contextlib.closing(bound(host, port)))
        loaded = stack.enter_context(
            load(bundle, key, threads=threads, device=device, hint=hint_named(hint), self_test=self_test)
        )
        refuse_unheeded(context, loaded.opened, device=device)
        jobs = Jobs(stack.enter_context(TemporaryFolder(work)), keep)
        metrics = Metrics()
        idle = None
        if watch is not None and output_dir is not None:
            idle = FolderWatch(
                loaded, watch, output_dir, on_scene=lambda r: metrics.watched.labels(r["status"]).inc()
            ).step
        engine = stack.enter_context(Engine(loaded, metrics, tile_queue, scene_queue, idle))
        app = create_app(engine, jobs, metrics, Settings(token, root, upload_mb * 1_000_000))
        ended = stack.enter_context(finishing())
        what = f"{loaded.manifest.name} ({loaded.target})"
        typer.echo(f"{loaded.opened.signature}\nserving {what} on http://{_address(sock)}", err=True)
        drained = run(app, sock, engine, ended, drain)
        typer.echo("ended" if drained else "ended; what still waited was cancelled", err=True)


def _address(sock: object) -> str:
    host, port, *_ = sock.getsockname()  # type: ignore[attr-defined]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
