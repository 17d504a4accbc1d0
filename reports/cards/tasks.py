"""What a bundle does, in the words of those who read cards: a row per task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskWords:
    """Names of one task.

    Attributes:
        pipeline: Hugging Face's ``pipeline_tag``; None where it has no fitting one.
        mlm: names of STAC's machine-learning-model extension.
        axes: of the output, batch axis first.
    """

    pipeline: str | None
    mlm: tuple[str, ...]
    axes: tuple[str, ...]


TASKS = {
    "segmentation": TaskWords("image-segmentation", ("semantic-segmentation",), ("batch", "class", "height", "width")),
    "classification": TaskWords("image-classification", ("classification",), ("batch", "class")),
    "embedding": TaskWords("image-feature-extraction", ("similarity-search",), ("batch", "feature")),
    "regression": TaskWords(None, ("regression",), ("batch", "value")),
    "detection": TaskWords("object-detection", ("object-detection",), ("batch", "candidate", "box-and-scores")),
    "instances": TaskWords("image-segmentation", ("instance-segmentation",), ()),
    "generation": TaskWords("unconditional-image-generation", ("generative",), ()),
    "captioning": TaskWords("image-to-text", ("image-captioning",), ("batch", "token", "feature")),
    "features": TaskWords("image-feature-extraction", (), ("batch", "feature", "row", "column")),
    "super-resolution": TaskWords("image-to-image", ("super-resolution",), ("batch", "channel", "height", "width")),
}
"""By the manifest's ``task``."""
OTHER = TaskWords(None, (), ())
"""Of a task that no row names."""


def words_of(task: str) -> TaskWords:
    return TASKS.get(task, OTHER)
