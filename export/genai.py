"""A vision-language model as a folder that OpenVINO GenAI's ``VLMPipeline`` opens.

Layout and tensor names follow OpenVINO GenAI 2026.4 (model preparation guide; LLaVA is one of its model types): three models, a
tokenizer and a detokenizer as OpenVINO files, and three JSON files that say how an image becomes pixels and where its tokens go.
GenAI resizes an image to the tower's edge by its shorter side and crops the middle; square images are only resized.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import write_json
from rsedge.export.language import export_language
from rsedge.export.openvino import read_openvino
from rsedge.export.parts import export_part, save_ir
from rsedge.models.parts import Part

VISION = "openvino_vision_embeddings_model.xml"
TOKENIZER, DETOKENIZER = "openvino_tokenizer.xml", "openvino_detokenizer.xml"
PIXELS, FEATURES = "pixel_values", "last_hidden_state"
IMAGE_TOKEN = "<image>"
"""What GenAI puts into a LLaVA prompt once for every image token."""


def export_llava(
    front: Part,
    language: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    patch: int,
    mean: Sequence[float],
    std: Sequence[float],
    int4: bool = False,
    group_size: int = 128,
) -> Path:
    """Writes a LLaVA-like model (one tower, one token per patch, a causal language model) for GenAI; gives the folder.

    Args:
        front: the family's part: one input (1, 3, E, E), normalised, one output (1, T, width).
        language: as for :func:`rsedge.export.language.export_language`.
        tokenizer: of ``transformers``, in which ``<image>`` is one token.
        patch: edge of a patch (pixels).
        mean, std: of the three bands, in 0..1.

    Raises:
        MissingCapability: ``openvino-tokenizers`` is not installed.
        RequestError: the front or the tokenizer does not fit, or something cannot be converted.
    """
    edge = _edge(front)
    if len(tokenizer.encode(IMAGE_TOKEN, add_special_tokens=False)) != 1:
        raise RequestError(f"the tokenizer has no token '{IMAGE_TOKEN}'; add it as a special token")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _save_tokenizer(tokenizer, folder)
    _save_vision(front, folder)
    export_language(language, folder, int4, group_size)
    config: Any = language.config
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    pixels = {
        "size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge},
        "image_mean": list(mean), "image_std": list(std),
    }  # fmt: skip
    write_json(
        folder / "config.json", {"model_type": "llava", "vision_config": {"patch_size": patch, "image_size": edge}}
    )
    write_json(folder / "generation_config.json", ends | {"pad_token_id": config.pad_token_id})
    write_json(folder / "preprocessor_config.json", pixels)
    return folder


def _edge(front: Part) -> int:
    shapes = [tuple(t.shape) for t in front.inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or shapes[0][2] != shapes[0][3]:
        raise RequestError(f"the front takes {shapes}; GenAI gives one square image of three bands")
    return shapes[0][2]


def _save_vision(front: Part, folder: Path) -> None:
    """The front under GenAI's names, made by way of ONNX as every part."""
    (pixels,) = front.inputs.values()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".vision.") as temporary:
        made = export_part(Part(front.net, {PIXELS: pixels}, (FEATURES,)), Path(temporary) / "vision.onnx")
        save_ir(read_openvino(made.path), folder / VISION)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    try:
        from openvino_tokenizers import convert_tokenizer
    except ImportError as error:
        raise MissingCapability("openvino-tokenizers is not installed; install rsedge[language]") from error
    models = convert_tokenizer(tokenizer, with_detokenizer=True)
    for model, name in zip(models, (TOKENIZER, DETOKENIZER), strict=True):
        save_ir(model, folder / name)
