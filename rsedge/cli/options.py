"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder or .zip.")]


ScenePath = Annotated[Path, typer.Argument(metavar="SCENE", help="GeoTIFF.")]


Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="PUB",
        help="Public key (PEM) that must have signed the bundle, over those of `rsedge trust`.",
    ),
]


Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores when not given.")]


Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="Another device of the bundle's runtime, e.g. CPU; for checks.")
]


HintOption = Annotated[
    str | None,
    typer.Option(
        "--hint",
        metavar="latency|throughput",
        help="OpenVINO: one tile at a time, or many in flight; when not given, what suits the work.",
    ),
]


SelfTest = Annotated[
    int,
    typer.Option(
        "--self-test",
        metavar="N",
        min=0,
        help="Run the golden vector at the start, after every N tiles and at the end; 0: at the start only.",
    ),
]


Overlap = Annotated[
    int | None,
    typer.Option(help="Pixels by which tiles overlap; an eighth of a tile when not given. More: smoother, slower."),
]


AlignTiles = Annotated[
    bool,
    typer.Option(
        "--align-tiles",
        help="Begin tiles on a grid of the map, not of the scene: a tile away from its edges, the answer does not depend on where "
        "the scene was cut. A few more tiles.",
    ),
]


Bands = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="Names of all bands in the file's order, '-' for one to leave out; for files that do not name theirs.",
    ),
]


Scale = Annotated[
    float | None, typer.Option(help="physical = value * scale + offset, e.g. 0.0001; over the file's own tags.")
]


Offset = Annotated[float | None, typer.Option(help="See --scale.")]


Sensor = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Whose band numbers the file's names are, e.g. sentinel-2; over its own tags."),
]


Nodata = Annotated[
    float | None, typer.Option(metavar="V", help="A file value of missing pixels, beside those that the file declares.")
]


NanNodata = Annotated[bool, typer.Option("--nan-nodata", help="Treat NaN and infinity as missing pixels.")]


AnyGsd = Annotated[bool, typer.Option("--any-gsd", help="Run at a pixel size that the model was not made for.")]


After = Annotated[
    list[Path] | None,
    typer.Option(metavar="SCENE", help="The same place at a later date, for models that compare dates; once per date."),
]


Heads = Annotated[
    str | None,
    typer.Option(
        metavar="A.head,B.head",
        help="Heads of an encoder (`rsedge head`): what each gives is written beside the vectors, or instead of a map.",
    ),
]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
