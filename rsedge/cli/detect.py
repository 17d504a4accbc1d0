"""What ``rsedge infer`` and ``rsedge evaluate`` do with a detector's bundle; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rsedge.cli.common import score_text

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle
    from rsedge.runtimes.inference.scene import Progress, Scene
    from rsedge.runtimes.session import Session


def evaluate_objects(
    bundle: Bundle, session: Session, scene: Scene, labels: Path, overlap: int | None, progress: Progress
) -> dict[str, Any]:
    """Compares a scene's objects with a file of boxes; raises as :func:`rsedge.runtimes.inference.detect.evaluate_boxes`."""
    from rsedge.runtimes.inference.detect import evaluate_boxes
    from rsedge.runtimes.inference.predict import box_settings

    return evaluate_boxes(
        session, scene, labels, bundle.manifest.classes, box_settings(bundle, None), overlap, progress
    )


def told_objects(record: dict[str, Any]) -> str:
    """One line on what was found."""
    counts = ", ".join(f"{count:,} {name}" for name, count in record["objects"].items())
    return f"{record['output']}: {counts}\n{record['seconds']:.1f} s on {record['device']} ({record['target']})"


def print_box_evaluation(record: dict[str, Any]) -> None:
    """The figures in words."""
    typer.echo(
        f"AP50 {score_text(record['ap50'])}, AP50-95 {score_text(record['ap50_95'])}, {record['objects']:,} objects; at a "
        f"score of {record['score']:g}: precision {score_text(record['precision'])}, recall {score_text(record['recall'])}, "
        f"F1 {score_text(record['f1'])}"
    )
    if len(record["classes"]) > 1:
        for name, value in record["ap50_by_class"].items():
            typer.echo(f"  {name}: AP50 {'-' if value is None else f'{value:.4f}'}")
