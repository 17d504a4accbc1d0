"""``rsedge teachers --check``: what a checkpoint is, what its network gives, and whether that is what the authors' code gave."""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rsedge.cli.band_lines import bands
from rsedge.cli.common import print_json, progress_bar
from rsedge.data.errors import GateFailed, RequestError, missing_extra
from rsedge.data.printable import printable
from rsedge.models.confirmed import printed_whole

if TYPE_CHECKING:
    from rsedge.models.checking import Checked
    from rsedge.models.comparing import Held
    from rsedge.models.confirmed import Outcome
    from rsedge.models.fixed_outputs import Array, Figures
    from rsedge.models.parts import Part

Given = dict[str, "tuple[Part, dict[str, Array]]"]
"""Parts with their outputs."""
SHOWN = 6
"""Names in one line."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked for beside the check itself."""

    reference: Path | None = None
    write_reference: Path | None = None
    result: Path | None = None
    by: str | None = None

    def check(self, file: Path) -> None:
        """Refuses what cannot be, before any work.

        Raises:
            RequestError: a result without a reference or without who made it; a target that is read, or named twice.
        """
        taken = {"the checkpoint": file, "--reference": self.reference}
        for option, target in (("--write-reference", self.write_reference), ("--result", self.result)):
            other = next((what for what, path in taken.items() if target and path and _one(target, path)), "")
            if other:
                raise RequestError(f"{option} {target} is {other}, which it would replace; name another file")
            taken[option] = target
        if self.result and not self.reference:
            raise RequestError(
                "--result keeps the outcome of a comparison; give --reference OUT.npz too (docs/checking.md)"
            )
        if self.result and not (self.by and self.by.strip()):
            raise RequestError('--result needs --by "who; which code", e.g. --by "Our laboratory; SatMAE @ e31c11f"')
        if self.by and not self.result:
            raise RequestError("--by goes into the file of --result; give that too")
        if self.by and not printed_whole(self.by):
            raise RequestError("--by stands in a table; give one line without '|' and control characters")


def _one(first: Path, second: Path) -> bool:
    """Whether two paths are of one file."""
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


def check(name: str | None, file: Path, wanted: Wanted, as_json: bool) -> None:
    """The command.

    Raises:
        RequestError: the file is no teacher's, or not that of ``name``; GateFailed: it gives something else than the reference.
    """
    if util.find_spec("torch") is None:
        raise missing_extra("torch", "compress", f"checking {file}")
    from rsedge.data.files import check_place, write_json
    from rsedge.models.checking import check_file
    from rsedge.models.fixed_outputs import against, parts_of, read_reference

    wanted.check(file)
    for target in filter(None, (wanted.write_reference, wanted.result)):
        check_place(target)
    reference = read_reference(wanted.reference) if wanted.reference else None
    with progress_bar(f"reading {file.name}", as_json):
        found = check_file(file, name)
    given = _run(parts_of(found.teacher), as_json)
    held = []
    if reference is not None:
        with progress_bar(f"comparing with {reference.path.name}", as_json):
            held = against(found.teacher, reference)
    if wanted.write_reference:
        _write_reference(wanted.write_reference, given)
    if wanted.result:
        write_json(wanted.result, _outcome(found, held, wanted).model_dump(mode="json"))
    differing = [one.name for one in held if not (one.agrees or one.missing)]
    if as_json:
        print_json(_record(found, _figures(given), held))
        raise typer.Exit(GateFailed.exit_code if differing else 0)
    typer.echo("\n".join(map(printable, _lines(found, _figures(given), held, wanted))))
    if differing:
        raise GateFailed(f"{file}: differs from {wanted.reference} in {', '.join(differing)}")


def _run(parts: dict[str, Part], as_json: bool) -> Given:
    from rsedge.models.fixed_outputs import outputs_of

    given = {}
    with progress_bar("running it on fixed inputs", as_json) as step:
        for done, (label, part) in enumerate(parts.items(), 1):
            given[label] = (part, outputs_of(part))
            step(done, len(parts))
    return given


def _figures(given: Given) -> list[Figures]:
    from rsedge.models.fixed_outputs import figures

    return [
        figures(name if len(given) == 1 else f"{label}: {name}", array)
        for label, (_, outputs) in given.items()
        for name, array in outputs.items()
    ]


def _write_reference(target: Path, given: Given) -> None:
    """One file; of several parts one each, their names before the ending."""
    import numpy as np

    from rsedge.data.files import write_bytes
    from rsedge.models.fixed_outputs import reference_arrays

    for label, (part, outputs) in given.items():
        place = target if len(given) == 1 else target.with_name(f"{target.stem}-{label}{target.suffix}")
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **reference_arrays(part, outputs))
        write_bytes(place, content.getvalue())


def _outcome(found: Checked, held: list[Held], wanted: Wanted) -> Outcome:
    from rsedge.data.files import sha256_file
    from rsedge.models.confirmed import Compared, Outcome
    from rsedge.version import __version__

    arrays = {
        one.name: Compared(difference=one.difference if math.isfinite(one.difference) else None, allowed=one.allowed)
        for one in held
        if not one.missing
    }
    return Outcome(
        row=found.row.name, by=str(wanted.by).strip(), date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        rsedge=__version__, file=found.path.name, file_sha256=_hash(found.path),
        reference_sha256=sha256_file(wanted.reference or ""), drawn=found.drawn, arrays=arrays,
        not_compared=tuple(one.name for one in held if one.missing),
    )  # fmt: skip


def _hash(path: Path) -> str:
    """Of a file; of a folder over the hashes of its files."""
    from rsedge.data.files import sha256_file, sha256_of

    if path.is_file():
        return sha256_file(path)
    return sha256_of({str(one.relative_to(path)): sha256_file(one) for one in sorted(path.rglob("*")) if one.is_file()})


def _lines(found: Checked, outputs: list[Figures], held: list[Held], wanted: Wanted) -> list[str]:
    row = found.row
    lines = [
        f"{found.path}: {row.title} ({row.name})",
        f"fits: {', '.join(found.fits) or 'not recognised by its names'}",
    ]
    if len(found.fits) > 1:
        lines[-1] += (
            f" (shown as {row.name}; the file does not tell them apart, but their contracts differ: name the one it is)"
        )
    for label, names in (
        ("weights under", (found.entry.rstrip("/"),) if found.entry else ()), ("beside them", found.beside),
        ("lies in", (repr(found.root),) if found.root else ()), ("taken off names", found.prefixes),
    ):  # fmt: skip
        if names:
            lines.append(f"{label}: {_some(names)}")
    lines.append(f"used: {found.used:,} tensors, {found.values:,} values")
    lines += [f"left out, {why}: {len(names)} ({_some(names)})" for why, names in found.left_out.items()]
    for label, names in (("zero, because absent", found.zero), ("absent, not needed", found.absent)):
        if names:
            lines.append(f"{label}: {_some(names)}")
    lines += [f"the file says: {entry} = {value}" for entry, value in found.settings.items()]
    lines += [f"read off the file: {key} = {value}" for key, value in found.read_off.items()]
    if found.drawn:
        lines.append("weights: drawn by the written rule, not published ones (docs/checking.md)")
    lines.append(f"gives: {row.task}" + (f", classes {_some(row.classes)}" if row.classes else ""))
    lines += bands(row.input) if row.input else ["input: no bands"]
    lines += ["outputs on fixed inputs:", *(f"  {_words(one)}" for one in outputs)]
    if held:
        lines += [f"against {wanted.reference}:", *(f"  {_verdict(one)}" for one in held)]
    return lines


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _words(one: Figures) -> str:
    marks = " ".join(f"{value:+.3f}" for value in one.fingerprint)
    spread = f"mean {one.mean:.4g}, std {one.std:.4g}, largest {one.largest:.4g}"
    return f"{one.name} {one.shape}: {spread}, {'finite' if one.finite else 'NOT FINITE'}; fingerprint {marks}"


def _verdict(one: Held) -> str:
    if one.missing:
        return f"{one.name}: not compared, {one.why}"
    size = one.why or f"{one.difference:.1e} of the largest value, allowed {one.allowed:.1e}"
    return f"{one.name}: {'agrees' if one.agrees else 'DIFFERS'} ({size})"


def _record(found: Checked, outputs: list[Figures], held: list[Held]) -> dict[str, Any]:
    row = found.row
    return {
        "file": str(found.path), "row": row.name, "fits": found.fits, "entry": found.entry, "beside": found.beside,
        "root": found.root, "prefixes": found.prefixes, "used": found.used, "values": found.values, "left_out": found.left_out,
        "zero": found.zero, "absent": found.absent, "settings": found.settings, "read_off": found.read_off, "drawn": found.drawn,
        "task": row.task, "classes": row.classes, "input_spec": row.input.model_dump(mode="json") if row.input else None,
        "outputs": [dataclasses.asdict(one) for one in outputs],
        "compared": [dataclasses.asdict(one) | {"agrees": one.agrees} for one in held],
    }  # fmt: skip
