"""Objects in scenes, as boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.detect import detect_scene, evaluate_boxes, infer_boxes
from rsedge.runtimes.inference.object_files import check_output
from rsedge.runtimes.inference.scene_run import SceneRun, text_of
from rsedge.runtimes.inference.tiles import Scene
from rsedge.runtimes.inference.works.arrays import Array
from rsedge.runtimes.inference.works.base import Call, Evaluation, Labels, Reader, SceneInference, score_text


class ObjectInference(SceneInference):
    """Boxes (n, 6) float32 of x0, y0, x1, y1 (pixels), score and class number, of turned ones (n, 7) with the angle last; written
    as :mod:`rsedge.runtimes.inference.object_files` says."""

    def check(self, call: Call, reader: Reader, output: Path) -> None:
        check_output(output, reader)

    def write_scene(self, call: Call, session: SelfTested, reader: Reader, output: Path) -> dict[str, Any]:
        manifest, settings = call.bundle.manifest, box_settings(call.bundle, call.options.score)
        about = {"bundle": manifest.name, "target": manifest.target.name, "scene": reader.path.name,
                 **settings.model_dump()}  # fmt: skip
        return infer_boxes(
            session, reader, output, manifest.classes, settings, about, call.options.overlap, call.progress
        )

    def answer(self, call: Call, session: SelfTested, scene: Scene, run: SceneRun) -> Array:
        settings = box_settings(call.bundle, call.options.score)
        return detect_scene(session, scene, settings, call.options.overlap, call.progress, run)

    def several(self, answers: Sequence[Array]) -> list[Array]:
        """Of each input as many as it has."""
        return list(answers)

    def text(self, record: dict[str, Any]) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in record["objects"].items())
        speed = f"{record['seconds']:.1f} s on {record['device']} ({record['target']})"
        return f"{record['output']}: {counts}\n{speed}\n{text_of(record['run'])}"


class ObjectEvaluation(Evaluation):
    """Average precision, against a file of boxes."""

    def compare(self, call: Call, session: SelfTested, reader: Reader, labels: Labels) -> dict[str, Any]:
        classes, settings = call.bundle.manifest.classes, box_settings(call.bundle, None)
        record = evaluate_boxes(session, reader, labels.path, classes, settings, call.options.overlap, call.progress)
        for warning in record["label_warnings"]:
            call.warn(warning)
        return record

    def text(self, record: dict[str, Any]) -> str:
        lines = [
            f"AP50 {score_text(record['ap50'])}, AP50-95 {score_text(record['ap50_95'])}, {record['objects']:,} objects; at a "
            f"score of {record['score']:g}: precision {score_text(record['precision'])}, recall {score_text(record['recall'])}, "
            f"F1 {score_text(record['f1'])}"
        ]
        by_class = record["ap50_by_class"].items() if len(record["classes"]) > 1 else ()
        lines += [f"  {name}: AP50 {'-' if value is None else f'{value:.4f}'}" for name, value in by_class]
        return "\n".join(lines)


def box_settings(bundle: Bundle, score: float | None) -> BoxSettings:
    """The bundle's, with another certainty where one is given.

    Raises:
        RequestError: a certainty outside 0 to 1.
    """
    settings = bundle.manifest.boxes
    assert settings is not None
    if score is None:
        return settings
    if not 0 < score <= 1:
        raise RequestError(f"--score {score}: must lie above 0 and be at most 1")
    return settings.model_copy(update={"score": score})
