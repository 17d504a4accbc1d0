"""Greedy text from exported parts: image tokens, token embedding, language model with its cache. OpenVINO and numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError, missing_extra

EMBEDDER, LANGUAGE = "openvino_text_embeddings_model.xml", "openvino_language_model.xml"
TOKENS, NEW, MASK, PLACES, BEAMS = "input", "inputs_embeds", "attention_mask", "position_ids", "beam_idx"
LOGITS_OUT = "logits"
"""Files and tensors as OpenVINO GenAI names them."""

Floats = npt.NDArray[np.float32]


class LanguageSession:
    """The two files that :func:`rsedge.export.language.export_language` writes, on OpenVINO's CPU at f32."""

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        try:
            import openvino as ov
        except ImportError as error:
            raise missing_extra("openvino", "openvino", "text generation") from error
        folder = Path(folder)
        for name in (EMBEDDER, LANGUAGE):
            if not (folder / name).is_file():
                raise RequestError(f"{folder}: no {name}; rsedge.export.language writes it")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        core = ov.Core()
        self._embedder = core.compile_model(str(folder / EMBEDDER), "CPU", settings)
        self._language = core.compile_model(str(folder / LANGUAGE), "CPU", settings)

    def embed(self, tokens: Sequence[int]) -> Floats:
        """Embeddings (1, n, width) of token numbers."""
        return np.asarray(self._embedder(np.array([list(tokens)], dtype=np.int64))[0], dtype=np.float32)

    def greedy(
        self,
        prompt: Sequence[int],
        image: Floats,
        image_token: int,
        length: int,
        end: int | None = None,
    ) -> list[int]:
        """The most probable next tokens, one by one.

        Args:
            prompt: token numbers, in which ``image_token`` stands once for every image token.
            image: image tokens (1, T, width) of the vision part.
            length: tokens to give at most.
            end: token that ends the text; it is the last one given.

        Raises:
            RequestError: the prompt has another number of places for image tokens than the image has.
        """
        ids = np.asarray(prompt)
        places = np.flatnonzero(ids == image_token)
        if len(places) != image.shape[1]:
            raise RequestError(f"the prompt has {len(places)} image tokens ({image_token}), the image {image.shape[1]}")
        # The place-holder may lie outside the vocabulary, so it is not looked up.
        new = self.embed(np.where(ids == image_token, 0, ids).tolist())
        new[0, places] = image[0]
        request = self._language.create_infer_request()
        given: list[int] = []
        past = 0
        while len(given) < length:
            given.append(int(self._step(request, new, past)[0, -1].argmax()))
            past += new.shape[1]
            if given[-1] == end:
                break
            new = self.embed([given[-1]])
        return given

    def _step(self, request: Any, new: Floats, past: int) -> Floats:
        """Logits (1, n, vocabulary) of n new tokens that see all before them and each other causally."""
        count = new.shape[1]
        given = {
            NEW: new, MASK: np.ones((1, past + count), np.int64), PLACES: np.arange(past, past + count)[None],
            BEAMS: np.zeros(1, np.int32),
        }  # fmt: skip
        request.infer(given)
        return np.asarray(request.get_tensor(LOGITS_OUT).data)
