"""A vision-language model as a folder that OpenVINO GenAI's ``VLMPipeline`` opens.

Layout and tensor names follow OpenVINO GenAI 2026.4 (model preparation guide; LLaVA is one of its model types): three models, a
tokenizer and a detokenizer as OpenVINO files, and three JSON files that say how an image becomes pixels and where its tokens go.
GenAI resizes an image to the tower's edge by its shorter side and crops the middle; square images are only resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import write_json
from rsedge.data.temporary import TemporaryFolder
from rsedge.export.parts import export_part, save_ir
from rsedge.export.targets.language import AS_TRAINED, WeightSettings, export_language
from rsedge.export.targets.openvino import read_openvino
from rsedge.models.parts import Part
from rsedge.runtimes.bundle.language_files import DETOKENIZER, IMAGE_TOKEN, TOKENIZER
from rsedge.runtimes.session import INPUT, LOGITS

CONFIG, GENERATION, PREPROCESSOR = "config.json", "generation_config.json", "preprocessor_config.json"
VISION = "openvino_vision_embeddings_model.xml"
PIXELS, FEATURES = "pixel_values", "last_hidden_state"


def export_llava(
    front: Part,
    language: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    patch: int,
    mean: Sequence[float],
    std: Sequence[float],
    settings: WeightSettings = AS_TRAINED,
) -> Path:
    """Writes a LLaVA-like model (one tower, one token per patch, a causal language model) for GenAI; gives the folder.

    Args:
        front: the family's part: one input (1, 3, E, E), normalised, one output (1, T, width).
        language: as for :func:`rsedge.export.targets.language.export_language`.
        tokenizer: of ``transformers``, in which ``<image>`` is one token.
        patch: edge of a patch (pixels).
        mean, std: of the three bands, in 0..1.

    Raises:
        MissingCapability: ``openvino-tokenizers`` is not installed.
        RequestError: the front or the tokenizer does not fit, or something cannot be converted.
    """
    edge, folder = _edge(front), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    export_texts(language, tokenizer, folder, settings)
    _save_vision(front, folder)
    write_json(folder / CONFIG, llava_config(patch, edge))
    write_json(folder / PREPROCESSOR, _preprocessor(edge, mean, std))
    return folder


def export_texts(
    language: Any, tokenizer: Any, folder: Path, settings: WeightSettings, ends: Sequence[int] | None = None
) -> None:
    """The part of such a folder that no image enters: tokenizer, detokenizer, token embedding, language model.

    Args:
        ends: tokens that end a text; None takes those of the language model's configuration.

    Raises:
        MissingCapability: ``openvino-tokenizers`` is not installed.
        RequestError: the tokenizer has no image token, or the language model cannot be converted.
    """
    if len(tokenizer.encode(IMAGE_TOKEN, add_special_tokens=False)) != 1:
        raise RequestError(f"the tokenizer has no token '{IMAGE_TOKEN}'; add it as a special token")
    _save_tokenizer(tokenizer, folder)
    export_language(language, folder, settings, len(tokenizer))
    config: Any = language.config
    stops = config.eos_token_id if ends is None else list(ends)
    tokens = {"bos_token_id": config.bos_token_id, "eos_token_id": stops, "pad_token_id": config.pad_token_id}
    write_json(folder / GENERATION, {name: value for name, value in tokens.items() if value is not None})


def export_vision(tower: Any, spec: InputSpec, patch: int, folder: Path) -> None:
    """The tower's deployable graph (``dn`` -> tokens, any precision) as GenAI's vision model, with what says its input.

    GenAI is told to give pixels in 0..1; the graph goes back to digital numbers, exactly, and on as it is.

    Raises:
        RequestError: the contract is not one of 8-bit red, green, blue pictures.
    """
    import openvino as ov
    from openvino import opset13 as ops

    if spec.band_names != ("red", "green", "blue") or spec.dtype != "uint8" or spec.layout != "CHW":
        raise RequestError(f"GenAI gives red, green and blue pictures of 8 bits; the tower takes {spec.band_names}")
    model = tower.clone()
    pixels = ops.parameter([1, 3, spec.tile, spec.tile], np.float32, name=PIXELS)
    pixels.output(0).get_tensor().set_names({PIXELS})
    levels = ops.round(ops.multiply(pixels, np.float32(255)), "half_to_even")
    dn = ops.convert(ops.clamp(levels, 0.0, 255.0), "u8")
    old = model.input(INPUT)
    for reader in list(old.get_node().output(0).get_target_inputs()):
        reader.replace_source_output(dn.output(0))
    tokens = model.output(LOGITS).get_node().input_value(0)
    tokens.get_tensor().set_names({FEATURES})
    save_ir(ov.Model([ops.result(tokens)], [pixels], "vision"), folder / VISION)
    write_json(folder / CONFIG, llava_config(patch, spec.tile))
    write_json(folder / PREPROCESSOR, _preprocessor(spec.tile, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def llava_config(patch: int, edge: int) -> dict[str, Any]:
    """What GenAI reads of a LLaVA's ``config.json``."""
    return {"model_type": "llava", "vision_config": {"patch_size": patch, "image_size": edge}}


def _preprocessor(edge: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge},
        "image_mean": list(mean), "image_std": list(std),
    }  # fmt: skip


def _edge(front: Part) -> int:
    shapes = [tuple(t.shape) for t in front.inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or shapes[0][2] != shapes[0][3]:
        raise RequestError(f"the front takes {shapes}; GenAI gives one square image of three bands")
    return shapes[0][2]


def _save_vision(front: Part, folder: Path) -> None:
    """The front under GenAI's names, made by way of ONNX as every part."""
    (pixels,) = front.inputs.values()
    with TemporaryFolder(folder) as temporary:
        made = export_part(Part(front.net, {PIXELS: pixels}, (FEATURES,)), temporary / "vision.onnx")
        save_ir(read_openvino(made.path), folder / VISION)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    try:
        from openvino_tokenizers import convert_tokenizer
    except ImportError as error:
        raise MissingCapability("openvino-tokenizers is not installed; install rsedge[language]") from error
    models = convert_tokenizer(tokenizer, with_detokenizer=True)
    for model, name in zip(models, (TOKENIZER, DETOKENIZER), strict=True):
        save_ir(model, folder / name)
