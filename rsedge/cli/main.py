"""The command line. Commands import what they need when they run, so that ``rsedge --help`` starts fast."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli import archive as cli_archive
from rsedge.cli import bench as cli_bench
from rsedge.cli import budget as cli_budget
from rsedge.cli import build as cli_build
from rsedge.cli import complete
from rsedge.cli import deploy as cli_deploy
from rsedge.cli import devices as cli_devices
from rsedge.cli import frames as cli_frames
from rsedge.cli import head as cli_head
from rsedge.cli import latency as cli_latency
from rsedge.cli import pack as cli_pack
from rsedge.cli import search as cli_search
from rsedge.cli import serve as cli_serve
from rsedge.cli import soak as cli_soak
from rsedge.cli import sources as cli_sources
from rsedge.cli import students as cli_students
from rsedge.cli import teachers as cli_teachers
from rsedge.cli import trust as cli_trust
from rsedge.cli import watch as cli_watch
from rsedge.cli.card import card
from rsedge.cli.common import unwrapped
from rsedge.cli.compare import compare
from rsedge.cli.evaluate import evaluate
from rsedge.cli.heartbeat import heartbeat
from rsedge.cli.infer import infer
from rsedge.cli.inspect import inspect
from rsedge.cli.report import report
from rsedge.cli.runs import runs
from rsedge.cli.schema import schema
from rsedge.cli.verify import verify
from rsedge.data.errors import MissingCapability, RequestError, RsedgeError, missing_extra
from rsedge.data.files import no_room
from rsedge.data.printable import printable
from rsedge.data.temporary import collect_leftovers
from rsedge.stopping import Stop, stoppable
from rsedge.streams import open_streams
from rsedge.version import __version__

# Base of usage errors and its base: typer brings its own click in some versions and imports click in others.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

GOES_ON = "run the same command again to go on where it stopped"
STARTS_OVER = "the same command starts over; files that were there are whole"
INTERRUPTED_CODE = 130
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
            errno.EBUSY)  # fmt: skip
"""What a file system says no with, whoever asks: never our mistake alone."""

# Optional modules and the extra that brings them; None: boards alone do without.
EXTRAS: dict[str, str | None] = {
    "torch": "compress", "torchvision": "compress", "timm": "compress", "segmentation_models_pytorch": "compress",
    "torch_pruning": "compress", "nncf": "compress", "onnx": "compress", "onnxscript": "compress", "scipy": "compress",
    "safetensors": "compress", "onnxruntime": "onnxruntime", "ai_edge_litert": "litert", "litert_torch": "litert-convert",
    "ai_edge_quantizer": "litert-convert", "openvino": "openvino", "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx", "jinja2": "report", "markupsafe": "report", "torchgeo": "geo",
    "openvino_tokenizers": "captions", "asyncssh": "remote", "pyarrow": "tables", "zarr": "zarr", "av": "video",
    "ukis_csmask": "quickstart",
    "spyndex": "quickstart", "fastapi": "serve", "starlette": "serve", "uvicorn": "serve", "prometheus_client": "serve",
    "optuna": "scale", "sqlalchemy": "scale", "lightning": "scale",
    "rasterio": None, "affine": None,
}  # fmt: skip

EPILOG = """
[bold]A first run[/bold] (needs no data of your own, a few minutes on two cores):

    rsedge run quickstart --run-dir runs/quickstart

[bold]What flies[/bold] (no torch on board):

    rsedge infer runs/quickstart/bundles/openvino-cpu-int8 scene.tif --output mask.tif

[bold]Exit codes[/bold]: 0 fine; 2 the request is wrong; 3 a gate failed; 4 this machine lacks something;
5 some of it failed and is listed, the rest is done; 130, 143, 129 interrupted by Ctrl-C, SIGTERM, SIGHUP, with everything
cleared up.
"""

app = typer.Typer(
    name="rsedge",
    help="From a large remote-sensing model to checked bundles for small computers.",
    epilog=EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rsedge {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(RequestError.exit_code)


@app.command("run")
def run_command(
    recipe: Annotated[
        str,
        typer.Argument(
            autocompletion=complete.recipes, help="A recipe file, or the name of a ready recipe such as quickstart."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override one field, e.g. --set steps.distill.lr=1e-3."),
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where to work; runs/<recipe name> when not given.")] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", autocompletion=complete.stages, help="Redo this stage and what depends on it."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            autocompletion=complete.stages,
            help="Stop after this stage; run again without it to go on.",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train the student by so many processes of this machine; torchrun's and srun's are found without it.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Ask for decided gates: an undecided one ends with exit code 3.")
    ] = False,
    track: Annotated[
        str | None,
        typer.Option(metavar="mlflow|tensorboard", help="Log the run there too, as `track:` in the recipe does."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Try everything on a few inputs in a temporary folder; estimate time, memory and disk."
        ),
    ] = False,
    allow_import: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="A folder that $import may read beside the recipe's own and the ready recipes'."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a teacher into checked bundles: distill, prune, quantize, export, verify, report.

    Run the same command again to go on after an interruption; finished stages are reused while nothing changed.

    Examples:

        rsedge run quickstart

        rsedge run recipes/cloud-mask.yaml --set seed=1 --run-dir runs/seed1

        rsedge run recipes/cloud-mask.yaml --force quantize

        rsedge run recipes/cloud-mask.yaml --until distill

        rsedge run recipes/cloud-mask.yaml --strict

        rsedge run recipes/cloud-mask.yaml --track mlflow

        rsedge run recipes/cloud-mask.yaml --dry-run

        rsedge run recipes/cloud-mask.yaml --processes 2

        torchrun --nproc-per-node 2 --no-python rsedge run recipes/cloud-mask.yaml
    """
    from rsedge.recipe.reading import load_recipe

    options = [*(["strict=true"] if strict else []), *([] if track is None else [f"track={track}"])]
    loaded = load_recipe(recipe, [*(settings or []), *options], allow_import or [])
    from rsedge.pipeline.run import run_recipe
    from rsedge.pipeline.together import company_of, follow

    folder = run_dir or Path("runs") / loaded.name
    company = company_of(loaded, processes)
    if dry_run:
        if company.count > 1:
            raise RequestError(
                "--dry-run tries everything in one process; leave --processes out, and do not start several"
            )
        from rsedge.pipeline import dry_run as trial

        found = trial.dry_run(loaded, folder, quiet=as_json)
        typer.echo(found.model_dump_json() if as_json else found.text())
        return
    if company.follows:
        follow(company, loaded.device)
        return
    summary = run_recipe(loaded, folder, force=force or [], quiet=as_json, until=until, company=company)
    if as_json:
        typer.echo(json.dumps(summary.as_dict()))
        raise typer.Exit(summary.exit_code)
    summary.raise_for_gates()


app.command("teachers")(cli_teachers.teachers_command)
app.command("students")(cli_students.students_command)
app.command("sources")(cli_sources.sources_command)


@app.command("init")
def init_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe file to write.")] = Path("recipe.yaml"),
    name: Annotated[
        str | None, typer.Option(help="Name of the recipe and its run folder; the file's when not given.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete.teachers,
            help="A name that `rsedge teachers` lists, LOADER:NAME such as smp:unet/resnet34, an ONNX file or a checkpoint.",
        ),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(metavar="FILE", help="The teacher's weights.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            autocompletion=cli_sources.source_names,
            help="A folder of GeoTIFFs with their labels, files, or names that `rsedge sources` lists, with commas between.",
        ),
    ] = None,
    bands: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Bands in the model's order, for models of other libraries.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Names of its outputs, for models of other libraries.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(autocompletion=complete.students, help="A student architecture (`rsedge students`).")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(autocompletion=complete.targets, help="Target names, with commas between.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take defaults for what is not given.")] = False,
    as_json: Json = False,
) -> None:
    """Ask at most seven questions about a model and data, check each answer, and write a commented recipe.

    Examples:

        rsedge init

        rsedge init --teacher model.onnx --data scenes/ --classes clear,cloud --output mine.yaml

        rsedge init --yes --teacher ukis-csmask-4b-l2a --targets openvino-cpu-int8 --output mine.yaml
    """
    from rsedge.cli.init import Answers, ask, write_recipe

    given = Answers(name, teacher, checkpoint, data, bands, classes, student, targets)
    path = write_recipe(output, ask(given, interactive=not (yes or as_json), name=output.stem))
    if as_json:
        typer.echo(json.dumps({"recipe": str(path)}))
    else:
        typer.echo(f"wrote {path}\nnext: rsedge run {path} --dry-run")


for name, command in (
    ("infer", infer),
    ("evaluate", evaluate),
    ("verify", verify),
    ("inspect", inspect),
    ("compare", compare),
    ("card", card),
    ("runs", runs),
    ("report", report),
    ("schema", schema),
):
    app.command(name, help=unwrapped(command.__doc__ or ""))(command)
cli_head.register(app)
cli_build.register(app)
cli_trust.register(app)
cli_bench.register(app)
cli_latency.register(app)
cli_soak.register(app)
cli_serve.register(app)
cli_watch.register(app)
cli_archive.register(app)
cli_search.register(app)
cli_frames.register(app)
cli_deploy.register(app)
cli_pack.register(app)
cli_devices.register(app)
cli_budget.register(app)


def main() -> None:
    """Runs the command line; every error meant for the user becomes one message and an exit code."""
    open_streams()
    sys.exit(run_app(sys.argv[1:], first=_collect))


def _collect() -> None:
    with contextlib.suppress(OSError):  # where none can be written, nothing was left either
        collect_leftovers(tempfile.gettempdir())


def run_app(arguments: list[str], first: Callable[[], None] | None = None) -> int:
    """Runs one command, ``first`` before it, and returns its exit code; signals end it as :mod:`rsedge.stopping` says."""
    as_json = "--json" in arguments
    with stoppable() as stop:
        try:
            if first is not None:
                first()
            with heartbeat(arguments):
                code = _run(arguments)
        except BaseException as error:
            # Compiled code may turn the interruption into an error of its own.
            if stop or isinstance(error, KeyboardInterrupt | typer.Abort):
                return _interrupted(arguments, stop, as_json)
            if (status := _report(error, as_json)) is None:
                raise
            return status
        # Some versions of typer turn an interruption into this code.
        return _interrupted(arguments, stop, as_json) if code == INTERRUPTED_CODE else code


def _run(arguments: list[str]) -> int:
    code = app(arguments, standalone_mode=False)
    return code if isinstance(code, int) else 0


def _interrupted(arguments: list[str], stop: Stop, as_json: bool) -> int:
    remote = any(a.partition("=")[0] == "--on" for a in arguments)
    goes_on = remote or (arguments[:1] == ["run"] and "--dry-run" not in arguments)
    goes_on = goes_on or arguments[:1] == ["search"] or any(a.partition("=")[0] == "--output-dir" for a in arguments)
    goes_on = goes_on or (arguments[:1] == ["infer"] and _scene_is_kept(arguments))
    by = f" by {stop.signal.name}" if stop.signal and stop.signal != signal.SIGINT else ""
    code = stop.exit_code if stop else INTERRUPTED_CODE
    return _fail(f"interrupted{by}; {GOES_ON if goes_on else STARTS_OVER}", code, as_json)


def _scene_is_kept(arguments: list[str]) -> bool:
    """Whether some of a large scene is finished, and kept beside the output."""
    from rsedge.runtimes.inference.journal import rows_left

    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if name in ("--output", "-o"):
            return rows_left(Path(value)) > 0
        if name.startswith(("--output=", "-o")):
            return rows_left(Path(name.removeprefix("--output=").removeprefix("-o"))) > 0
    return False


def _report(error: BaseException, as_json: bool) -> int | None:
    """The exit code of an error whose message is printed; None for those that are not meant for the user."""
    match error:
        case RsedgeError():
            return _fail(str(error), error.exit_code, as_json)
        case ModuleNotFoundError() if (module := (error.name or "").partition(".")[0]) in EXTRAS:
            lacking = missing_extra(module, EXTRAS[module], "this command")
            return _fail(str(lacking), lacking.exit_code, as_json)
        case ModuleNotFoundError() if (error.name or "").startswith("rsedge."):
            lack = f"this is a pack for flight, which does not hold {error.name}; use a whole installation for that command"
            return _fail(lack, MissingCapability.exit_code, as_json)
        case MemoryError():
            lack = (
                "this needs more memory than there is; look whether a file is far too large, or use a machine with more"
            )
            return _fail(lack, MissingCapability.exit_code, as_json)
        case BrokenPipeError():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case OSError() if error.errno == errno.EIO:
            what = error.filename or "output"
            return _fail(
                f"{what}: {error.strerror}; the disk or the terminal is gone", MissingCapability.exit_code, as_json
            )
        case OSError() if full := no_room(error.filename or "the disk", error):
            return _fail(str(full), full.exit_code, as_json)
        case FileNotFoundError() if not _stands_somewhere():
            return _fail("the folder that you stand in is gone; cd to another one", RequestError.exit_code, as_json)
        case OSError() if error.errno in REFUSALS and error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", RequestError.exit_code, as_json)
        case _ClickError():
            return _usage(error, as_json)
    return None


def _stands_somewhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _usage(error: Any, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    if not as_json and isinstance(error, _UsageError) and context is not None:
        typer.echo(context.get_usage(), err=True)
    return _fail(error.format_message(), error.exit_code, as_json)


def _fail(message: str, code: int, as_json: bool) -> int:
    """Says what is wrong as far as it can be said: stdout may be a full disk, and after SIGHUP the terminal may be gone."""
    if as_json:
        with contextlib.suppress(OSError):
            typer.echo(json.dumps({"error": message, "exit_code": code}))
    from rich.console import Console
    from rich.text import Text

    with contextlib.suppress(OSError):
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(Text.assemble(("error: ", "bold red"), printable(message)))
    return code
