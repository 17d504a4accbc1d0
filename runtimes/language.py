"""Text from exported parts: tokenizer, token embedding, language model with its cache. OpenVINO and numpy only.

Decoding is greedy: the same image and question give the same text, so that what was compressed can be held against what was not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError, missing_extra
from rsedge.runtimes.checked import Model
from rsedge.runtimes.openvino_core import compile_model, read_model, shared_core

EMBEDDER, LANGUAGE = "openvino_text_embeddings_model.xml", "openvino_language_model.xml"
TOKENIZER, DETOKENIZER = "openvino_tokenizer.xml", "openvino_detokenizer.xml"
TOKENS, NEW, MASK, PLACES, BEAMS = "input", "inputs_embeds", "attention_mask", "position_ids", "beam_idx"
LOGITS_OUT = "logits"
"""Files and tensors as OpenVINO GenAI names them."""
IMAGE_TOKEN = "<image>"
"""What a LLaVA's prompt has once for every image token."""

Floats = npt.NDArray[np.float32]


Models = Callable[[str], Model]
"""Gives a file of the language model's folder by its name."""


def models_in(folder: str | Path) -> Models:
    """The files of a folder of one's own.

    Raises:
        RequestError: (when one is asked for) it is not there.
    """

    def find(name: str) -> Path:
        if not (Path(folder) / name).is_file():
            raise RequestError(f"{folder}: no {name}; rsedge.export.language and rsedge.export.genai write it")
        return Path(folder) / name

    return find


class LanguageSession:
    """The two files that :func:`rsedge.export.language.export_language` writes, on OpenVINO's CPU at f32."""

    def __init__(self, models: Models, threads: int | None = None) -> None:
        try:
            core = shared_core()
        except ImportError as error:
            raise missing_extra("openvino", "openvino", "text generation") from error
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._embedder, self._language = (_compiled(core, models(n), settings) for n in (EMBEDDER, LANGUAGE))

    def embed(self, tokens: Sequence[int]) -> Floats:
        """Embeddings (1, n, width) of token numbers."""
        return np.asarray(self._embedder(np.array([list(tokens)], dtype=np.int64))[0], dtype=np.float32)

    def greedy(
        self, prompt: Sequence[int], image: Floats, image_token: int, length: int, ends: Collection[int] = ()
    ) -> list[int]:
        """All tokens of :meth:`stream`."""
        return list(self.stream(prompt, image, image_token, length, ends))

    def stream(
        self, prompt: Sequence[int], image: Floats, image_token: int, length: int, ends: Collection[int] = ()
    ) -> Iterator[int]:
        """The most probable next tokens, one by one, each as soon as it is known.

        Args:
            prompt: token numbers, in which ``image_token`` stands once for every image token.
            image: image tokens (1, T, width) of the vision part.
            length: tokens to give at most.
            ends: tokens that end the text; the one met is the last one given.

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
        past = 0
        for _ in range(length):
            token = int(self._step(request, new, past)[0, -1].argmax())
            yield token
            if token in ends:
                return
            past += new.shape[1]
            new = self.embed([token])

    def _step(self, request: Any, new: Floats, past: int) -> Floats:
        """Logits (1, n, vocabulary) of n new tokens that see all before them and each other causally."""
        count = new.shape[1]
        given = {
            NEW: new, MASK: np.ones((1, past + count), np.int64), PLACES: np.arange(past, past + count)[None],
            BEAMS: np.zeros(1, np.int32),
        }  # fmt: skip
        request.infer(given)
        return np.asarray(request.get_tensor(LOGITS_OUT).data)


class Words:
    """Text to token numbers and back, with the OpenVINO files of a tokenizer."""

    def __init__(self, models: Models) -> None:
        try:
            import openvino_tokenizers
        except ImportError as error:
            raise missing_extra("openvino_tokenizers", "captions", "reading and writing text") from error
        core = shared_core()
        core.add_extension(str(openvino_tokenizers._ext_path))
        self._tokenizer, self._detokenizer = (_compiled(core, models(n), {}) for n in (TOKENIZER, DETOKENIZER))

    def encode(self, text: str) -> list[int]:
        """Token numbers, with those that the tokenizer puts before or behind a text."""
        return [int(i) for i in self._tokenizer([text])["input_ids"][0]]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token numbers; special tokens are left out."""
        if not tokens:
            return ""
        return str(self._detokenizer(np.array([list(tokens)], dtype=np.int64))["string_output"][0])


def _compiled(core: Any, model: Model, settings: dict[str, Any]) -> Any:
    return compile_model(core, read_model(core, model), model, "CPU", settings)
