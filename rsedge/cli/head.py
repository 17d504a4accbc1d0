"""``rsedge head``: a small file that turns an encoder's vectors into answers; one encoder in orbit serves many of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rsedge.cli.common import band_names, print_json, progress_bar, unwrapped
from rsedge.cli.options import BundlePath, Device, Json, Key, Threads
from rsedge.data.errors import RequestError


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("head", help=unwrapped(head.__doc__ or ""))(head)


def head(
    bundle: BundlePath,
    samples: Annotated[
        str, typer.Argument(metavar="SAMPLES", help="Labelled samples: a name of `rsedge sources`, or a .npz, .csv or .parquet.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="NAME.head", help="File to write; NAME names the head.")],
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Names of the outputs in the labels' order; the samples' own when not given."),
    ] = None,
    regression: Annotated[bool, typer.Option("--regression", help="Labels are values, not classes.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Options of the samples, as `data.samples.options` of a recipe."),
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Fill gaps of series from the times before and after.")] = False,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Private key that signs the head, e.g. keys/signing.pem of the run; else it is unsigned."),
    ] = None,
    threads: Threads = None,
    device: Device = None,
    key: Key = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fit a head on what an encoder's bundle itself gives for labelled samples.

    The bundle stays as it is: its own executable, rounding included, gives the vectors, and the head is linear, with its penalty
    chosen on groups of samples left out. What it reaches is judged on groups that it had not seen, with 95 % intervals. The file
    is a few kilobytes, belongs to this very bundle, and can be sent up alone: `rsedge infer BUNDLE SCENE --output vectors.tif
    --heads NAME.head`.

    Examples:

        rsedge head encoder.zip crops.npz --classes other,crop --output crops.head --sign keys/signing.pem

        rsedge head encoder.zip worldcereal-crop --fill --output crops.head
    """
    from rsedge.data.documents import parse_value
    from rsedge.data.sets.sample_sources import load_samples
    from rsedge.export.signing import load_key
    from rsedge.flight import load
    from rsedge.heads import fitted_head, write_head
    from rsedge.runtimes.bundle.head import SUFFIX
    from rsedge.runtimes.inference.outputs import check_outputs

    if output.suffix != SUFFIX:
        raise RequestError(f"--output {output}: a head's file ends in {SUFFIX}: {output.with_suffix(SUFFIX)}")
    check_outputs([output], [bundle, key, sign])
    signing = None if sign is None else load_key(sign)
    options: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise RequestError(f"--set {setting}: write FIELD=VALUE, e.g. --set label=crop")
        options[name] = parse_value(text)
    found = load_samples(samples, fill="time" if fill else "none", **options)
    with (
        load(bundle, key, threads=threads, device=device) as opened,
        progress_bar("encoding", quiet=as_json) as progress,
    ):
        record = fitted_head(
            opened,
            found,
            output.stem,
            band_names(classes) or (),
            "regression" if regression else "classification",
            progress,
        )
    write_head(record, output, signing)
    about = record.model_dump(mode="json", exclude={"weight", "bias"})
    if as_json:
        print_json({"output": str(output), "bytes": output.stat().st_size, "signed": sign is not None, **about})
        return
    typer.echo(
        f"{output}: {len(record.classes)} outputs ({', '.join(record.classes)}) from {record.features} numbers of "
        f"'{record.encoder}', fitted on {record.count} samples; "
        f"{output.stat().st_size / 1e3:.1f} kB, {'signed' if sign else 'UNSIGNED'}"
    )
    for metric, figure in record.figures.items():
        typer.echo(f"  {metric} on groups it had not seen: {_figure(figure)}")


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "not defined"
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")
