"""``rsedge frames``: a bundle on a video or a folder of pictures, a line of JSON a frame; needs no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli.common import hint_named, print_json, unwrapped
from rsedge.cli.options import BundlePath, Device, HintOption, Json, Key, Offset, Scale, SelfTest, Threads
from rsedge.data.errors import GateFailed, PartlyDone, RequestError


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("frames", help=unwrapped(frames.__doc__ or ""))(frames)


def frames(
    bundle: BundlePath,
    source: Annotated[
        Path, typer.Argument(metavar="VIDEO|FOLDER", help="A video, or a folder of pictures in their names' order.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.jsonl", help="A line of JSON a frame; stdout when not given."),
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="Of where frames were taken: a column 'frame' or 'file', and any others."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="FPS", help="Frames come at this rate, and some may be dropped; each in turn when not given."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write class maps as pictures (PNG with a palette, 255 = nodata)."),
    ] = None,
    score: Annotated[float | None, typer.Option(help="Detectors: certainty that an object needs.")] = None,
    scale: Scale = None,
    offset: Offset = None,
    threads: Threads = None,
    device: Device = None,
    hint: HintOption = None,
    self_test: SelfTest = 100,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Answer for every frame of a video (extra 'video') or of a folder of pictures, as it comes.

    Each frame gives one line: its number, time or file, its row of --poses, and shares of classes, objects in pixels, or a vector.
    Bundles take red, green and blue; --scale says what the bytes are where the model takes no bytes. A frame that fails is a line
    with its error, and the others go on (exit code 5); tiles of a frame that fail are its warnings (exit code 3). At --rate frames
    that are not taken by the time of the next are dropped and counted. The sum of all goes to stderr, with --json to stdout.

    Examples:

        rsedge frames bundle.zip flight.mp4 --scale 0.003922 --rate 25 --output flight.jsonl

        rsedge frames detector.zip pictures/ --poses gps.csv --output objects.jsonl
    """
    from rsedge.flight import load
    from rsedge.runtimes.inference.frame_answers import answers
    from rsedge.runtimes.inference.frames import check_places, frames_of, run_frames

    if rate is not None and not 0 < rate <= 10_000:
        raise RequestError(f"--rate {rate:g}: frames per second must lie above 0 and be at most 10000")
    if as_json and output is None:
        raise RequestError("--json prints the sum of all on stdout; give the frames a file with --output")
    check_places(source, output, masks, [bundle, poses, key])
    with load(bundle, key, threads=threads, device=device, hint=hint_named(hint), self_test=self_test) as loaded:
        answer = answers(loaded, source, scale, offset, score, masks)
        found: dict[str, Any]
        if output is None:
            found = run_frames(frames_of(source, poses), answer, sys.stdout, rate)
        else:
            with output.open("w", encoding="utf-8") as file:
                found = run_frames(frames_of(source, poses), answer, file, rate)
    if as_json:
        print_json(found)
    else:
        partly = f" ({found['partly']} in part)" if found["partly"] else ""
        lost = f"{found['dropped']} dropped, {found['failed']} failed"
        text = f"{found['frames']} frames{partly}, {lost}; {found['per_second']} a second"
        typer.echo(text, err=True)
    if found["failed"]:
        raise typer.Exit(PartlyDone.exit_code)
    if found["partly"]:
        raise typer.Exit(GateFailed.exit_code)
