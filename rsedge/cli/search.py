"""``rsedge search``: which points of a space around a recipe are worth having."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import complete
from rsedge.cli.common import print_json, unwrapped
from rsedge.cli.heed import given_options
from rsedge.cli.options import Json
from rsedge.cli.tables import add, show, table
from rsedge.data.errors import PartlyDone, RequestError
from rsedge.data.printable import printable

if TYPE_CHECKING:
    from rsedge.search.space import Space
    from rsedge.search.study import Search

PAGE_EVERY_S = 5.0
Record = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("search", help=unwrapped(search.__doc__ or ""))(search)


def search(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(autocompletion=complete.recipes, help="A recipe file, or the name of a ready recipe.")],
    space: Annotated[Path | None, typer.Option(metavar="FILE", help="What is varied; else derived from the recipe.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field.")] = None,
    search_dir: Annotated[
        Path | None, typer.Option("--search-dir", metavar="DIR", help="Where to work; searches/<recipe name> when not given.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="How many there shall be in all, those of earlier commands among them.")] = 20,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no trial after so many; what is begun is finished.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes. Set the recipe's threads to their share of the cores.")] = 1,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the trials: a database of Optuna, or journal:FILE; else SQLite in DIR.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be searched, and begin nothing.")] = False,
    choose: Annotated[int | None, typer.Option(min=0, metavar="N", help="Write the recipe of trial N to --output.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Of --choose; a new file.")] = None,
    sbatch: Annotated[bool, typer.Option("--sbatch", help="Print a Slurm script for --workers jobs, and begin nothing.")] = False,
    allow_import: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="A folder that $import may read too.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Search around a recipe: student, widths, losses, pruning, precision, against latency, size, energy and accuracy on selection.

    A space names fields of the recipe, as --set does, each with its values: "variables: {steps.distill.lr: [1e-3, 2e-3]}".
    docs/search.md has all of it; --plan shows the one derived from the recipe. A trial is a run of the recipe's stages up to the
    model files, in DIR; stages that trials have in common are made once. Cheap answers come first: a student that breaks a gate by
    prediction is not trained, and one that is behind with few steps is left. A trial that fails is listed, the others go on; then
    the exit code is 5.

    The same command goes on after any interruption: what was finished stays, what was under way is gone on with. DIR/search.html
    shows all trials, and keeps up while the search goes on.

    The test set is looked at once, for what you choose: --choose writes a plain recipe, which rsedge run judges.

    Examples:

        rsedge search quickstart --plan

        rsedge search recipe.yaml --space space.yaml --trials 30 --workers 2 --set threads=1

        rsedge search recipe.yaml --choose 7 --output chosen.yaml

        rsedge search recipe.yaml --storage postgresql://me@host/optuna --minutes 600
    """
    import optuna as optuna  # its absence is told before anything is read

    from rsedge.recipe.reading import load_recipe
    from rsedge.recipe.schema import Recipe

    loaded = load_recipe(recipe, settings or [], allow_import or [])
    if not isinstance(loaded, Recipe):
        raise RequestError(f"{recipe}: a recipe of several parts cannot be searched yet; give one of one network")
    folder = search_dir or Path("searches") / loaded.name
    if (choose is None) != (output is None):
        raise RequestError("--choose and --output go together: --choose N --output chosen.yaml")
    if choose is not None and output is not None:
        _choose(folder, storage, choose, output, as_json)
        return
    from rsedge.search.reading import read_space

    found = read_space(space, loaded)
    if plan:
        _plan(found, folder, storage, trials, as_json)
    elif sbatch:
        _sbatch(context, recipe, workers, folder, storage)
    else:
        _search(found, folder, storage, trials, minutes, workers, as_json)


def _choose(folder: Path, storage: str | None, number: int, output: Path, as_json: bool) -> None:
    from rsedge.data.files import write_bytes
    from rsedge.runtimes.inference.outputs import check_outputs
    from rsedge.search.study import open_search
    from rsedge.search.telling import chosen, chosen_text

    check_outputs([output], replace=False)
    found = open_search(folder, storage)
    row, recipe = chosen(found, number)
    write_bytes(output, chosen_text(found, row, recipe).encode(), replace=False)
    place = folder / row.folder / "full"
    if as_json:
        print_json({"recipe": str(output), "trial": number, "run_dir": str(place), "holds": row.holds})
        return
    if not row.holds:
        typer.echo("warning: not all of its gates hold on selection", err=True)
    typer.echo(
        f"wrote {output}\njudge it on the test set, with the stages that it has: rsedge run {output} --run-dir {place}"
    )


def _plan(space: Space, folder: Path, storage: str | None, trials: int, as_json: bool) -> None:
    from rsedge.search.figures import objectives_of
    from rsedge.search.front import higher
    from rsedge.search.storage import default_url, shown
    from rsedge.search.trial import rung_steps

    objectives = {name: "higher" if higher(name) else "lower" for name in objectives_of(space)}
    steps, whole = rung_steps(space.recipe, space.file.rungs.shares), space.recipe.distill.steps
    about = {
        "recipe": space.recipe.name, "search_dir": str(folder), "storage": shown(storage or default_url(folder)),
        "space": space.where,
        "variables": {name: variable.words for name, variable in space.variables.items()}, "points": space.size, "trials": trials,
        "targets": list(space.targets), "objectives": objectives, "rungs": steps, "steps": whole, "file": space.text(),
    }  # fmt: skip
    if as_json:
        print_json(about)
        return
    points = "not countable" if space.size is None else f"{space.size:,} points"
    typer.echo(f"{space.recipe.name} -> {folder}, trials in {about['storage']}")
    typer.echo(f"varied, by {space.where} ({points}, {trials} trials):")
    for name, variable in space.variables.items():
        typer.echo(f"  {name}: {variable.words}")
    typer.echo(
        f"judged on selection, for {', '.join(space.targets)}: "
        + ", ".join(f"{n} ({way} is better)" for n, way in objectives.items())
    )
    rungs = (
        f"first {', '.join(map(str, steps))} of {whole} distillation steps, where {space.file.rungs.keep:.0%} go on"
        if steps
        else "none"
    )
    typer.echo(f"rungs: {rungs}\n\nas a file for --space:\n\n{space.text()}", nl=False)


def _sbatch(context: typer.Context, recipe: str, workers: int, folder: Path, storage: str | None) -> None:
    from rsedge.search.telling import sbatch

    words = [str(Path(recipe).absolute()) if Path(recipe).is_file() else recipe]
    for name in given_options(context):
        if name in ("space", "settings", "trials", "minutes", "allow_import"):
            value = context.params[name]
            flag = "--set" if name == "settings" else "--" + name.replace("_", "-")
            values = value if isinstance(value, list | tuple) else [value]
            words += [part for one in values for part in (flag, str(one.absolute() if isinstance(one, Path) else one))]
    typer.echo(sbatch(words, workers, folder, storage), nl=False)


def _search(
    space: Space, folder: Path, storage: str | None, trials: int, minutes: float | None, workers: int, as_json: bool
) -> None:
    from rsedge.reports.html import check_pages
    from rsedge.runtimes.cores import cpu_count
    from rsedge.search.figures import objectives_of
    from rsedge.search.study import begin_search
    from rsedge.search.telling import record_of, write_page
    from rsedge.search.worker import Job, run

    check_pages()
    found = begin_search(folder, space, objectives_of(space), storage)
    threads = space.recipe.threads or cpu_count()
    if workers > 1 and workers * threads > cpu_count():
        typer.echo(
            f"note: {workers} workers of {threads} threads share {cpu_count()} cores; "
            f"--set threads={max(1, cpu_count() // workers)} suits them better", err=True,
        )  # fmt: skip
    began = time.monotonic()
    job = Job(folder, storage, trials, None if minutes is None else began + 60 * minutes)
    written = 0.0
    with _teller(found, trials, workers, as_json) as tell:
        for record in run(found, job, workers):
            tell(record)
            if time.monotonic() - written > PAGE_EVERY_S:
                write_page(found, running=True)
                written = time.monotonic()
    page = write_page(found, running=False)
    record = record_of(found) | {"page": str(page), "wall_s": round(time.monotonic() - began, 3)}
    failed = [row for row in record["trials"] if row["state"] == "failed"]
    if failed and not record["counts"]["done"]:
        raise RequestError(f"no trial came to its end; the last failed: {failed[-1]['words']}; see {page}")
    record["exit_code"] = PartlyDone.exit_code if failed else 0
    if as_json:
        print_json(record)
    else:
        _say(found, page)
    if failed:
        raise typer.Exit(PartlyDone.exit_code)


@contextlib.contextmanager
def _teller(search: Search, trials: int, workers: int, quiet: bool) -> Iterator[Callable[[Record], None]]:
    """Tells how it goes: on a terminal a table that keeps up, elsewhere a line a trial; nothing on stdout."""
    began, over = time.monotonic(), 0

    def line(record: Record) -> str:
        nonlocal over
        over += record["status"] != "step"
        rows = search.rows()
        left = trials - sum(row.state in ("done", "stopped", "failed") for row in rows)
        pace = f", about {(time.monotonic() - began) / over * max(0, left):.0f} s left" if over else ""
        return f"{len(rows) - sum(row.state == 'waiting' for row in rows)} of {trials} trials begun, {workers} workers{pace}"

    if quiet or not sys.stderr.isatty():

        def tell(record: Record) -> None:
            if record["status"] != "step" and not quiet:
                typer.echo(
                    printable(f"trial {record['number']}: {record['status']}: {record['words']}; {line(record)}"),
                    err=True,
                )

        yield tell
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    under_way: dict[int, str] = {}
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:

        def tell_live(record: Record) -> None:
            under_way.pop(record["number"], None)
            if record["status"] == "step":
                under_way[record["number"]] = record["words"]
            at = [Text(f"  trial {number}: {words}") for number, words in under_way.items()]
            live.update(Group(_front(search), *at, Text(line(record))), refresh=True)

        yield tell_live


def _front(search: Search) -> Any:
    """The trials that no other beats, as a table."""
    from rsedge.search.front import front_of
    from rsedge.search.telling import cells, head

    rows = table(*head(search))
    for row in front_of(search.rows(), search.objectives):
        add(rows, *map(printable, cells(search, row)))
    return rows


def _say(search: Search, page: Path) -> None:
    from rsedge.search.telling import EXPLAINED, counts_text

    rows = search.rows()
    show(_front(search))
    typer.echo(f"\n{counts_text(rows)}. {EXPLAINED}")
    for row in rows:
        if row.state == "failed":
            typer.echo(printable(f"trial {row.number} failed: {row.words}"), err=True)
    typer.echo(f"page: {page}\nnext: rsedge search RECIPE --search-dir {search.folder} --choose N --output chosen.yaml")
