"""Tokens from exported parts: token embedding and language model with its cache. OpenVINO and numpy only.

Decoding is greedy: the same image and question give the same text, so that what was compressed can be held against what was not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError, missing_extra
from rsedge.runtimes.bundle.language_files import (
    BEAMS,
    EMBEDDER,
    LANGUAGE,
    LOGITS_OUT,
    MASK,
    NEW,
    PLACES,
    TOKENS,
)
from rsedge.runtimes.checked import Model
from rsedge.runtimes.openvino.core import check_types, compile_model, last_line, read_model, shared_core

COPY = "copy the bundle again, or have it made anew"

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
            raise RequestError(
                f"{folder}: no {name}; rsedge.export.targets.language and rsedge.export.targets.genai write it"
            )
        return Path(folder) / name

    return find


class LanguageSession:
    """The two files that :func:`rsedge.export.targets.language.export_language` writes, on OpenVINO's CPU at f32."""

    def __init__(self, models: Models, threads: int | None = None) -> None:
        try:
            core = shared_core()
        except ImportError as error:
            raise missing_extra("openvino", "openvino", "text generation") from error
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._embedder = Part(core, models(EMBEDDER), settings, {TOKENS: "i64"}, NEW, "f32")
        given = {NEW: "f32", MASK: "i64", PLACES: "i64", BEAMS: "i32"}
        self._language = Part(core, models(LANGUAGE), settings, given, LOGITS_OUT, "f32")

    def embed(self, tokens: Sequence[int]) -> Floats:
        """Embeddings (1, n, width) of token numbers."""
        found = self._embedder.run(np.array([list(tokens)], dtype=np.int64))
        if found.ndim != 3 or found.shape[:2] != (1, len(tokens)):
            raise RequestError(f"{self._embedder.path}: gives {found.shape} for {len(tokens)} tokens; {COPY}")
        return found

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
        request, new, past = self._language.request(), self._start(prompt, image, image_token), 0
        for _ in range(length):
            token = int(self._step(request, new, past)[0, -1].argmax())
            yield token
            if token in ends:
                return
            past += new.shape[1]
            new = self.embed([token])

    def scores(self, prompt: Sequence[int], image: Floats, image_token: int, tokens: Sequence[int]) -> Floats:
        """Scores (1 + n, vocabulary) of the next token: after the prompt, and after each of n given tokens, through the cache."""
        request, new, past, found = self._language.request(), self._start(prompt, image, image_token), 0, []
        for token in (*tokens, None):
            found.append(self._step(request, new, past)[0, -1].copy())
            if token is not None:
                past += new.shape[1]
                new = self.embed([token])
        return np.stack(found)

    def _start(self, prompt: Sequence[int], image: Floats, image_token: int) -> Floats:
        """The prompt's embeddings, with the image tokens at their places."""
        ids = np.asarray(prompt)
        places = np.flatnonzero(ids == image_token)
        if len(places) != image.shape[1]:
            raise RequestError(f"the prompt has {len(places)} image tokens ({image_token}), the image {image.shape[1]}")
        # The place-holder may lie outside the vocabulary, so it is not looked up.
        new = self.embed(np.where(ids == image_token, 0, ids).tolist())
        if new.shape[2] != image.shape[2]:
            raise RequestError(f"{self._embedder.path}: tokens are {new.shape[2]} wide, the image's {image.shape[2]}")
        new[0, places] = image[0]
        return new

    def _step(self, request: Any, new: Floats, past: int) -> Floats:
        """Logits (1, n, vocabulary) of n new tokens that see all before them and each other causally."""
        count = new.shape[1]
        given = {
            NEW: new, MASK: np.ones((1, past + count), np.int64), PLACES: np.arange(past, past + count)[None],
            BEAMS: np.zeros(1, np.int32),
        }  # fmt: skip
        found = self._language.run(given, request)
        if found.ndim != 3 or found.shape[:2] != (1, count) or not found.shape[2]:
            raise RequestError(f"{self._language.path}: gives {found.shape} for {count} tokens; {COPY}")
        return found


class Part:
    """One of the files, compiled. Whoever made it may have put anything there, so what it takes and gives is looked at.

    Args:
        inputs: types by name; or that of the only one, whatever its name.
        output: name of what is wanted of it, and its type.

    Raises:
        RequestError: it takes or gives something else; also where it fails as it runs.
    """

    def __init__(
        self, core: Any, model: Model, settings: dict[str, Any], inputs: dict[str, str] | str, output: str, kind: str
    ) -> None:
        self.path, self._output = str(model), output
        read = read_model(core, model)
        ports = [(set(p.get_names()), p.get_element_type().get_type_name()) for p in read.inputs]
        gives = [(set(p.get_names()), p.get_element_type().get_type_name()) for p in read.outputs]
        fits = (
            len(ports) == len(inputs) and all(any(n in names and k == t for names, t in ports) for n, k in inputs.items())
            if isinstance(inputs, dict)
            else [t for _, t in ports] == [inputs]
        )  # fmt: skip
        if not fits or not any(output in names and t == kind for names, t in gives):
            raise RequestError(f"{self.path}: is another model than its name says; {COPY}")
        if isinstance(inputs, dict):  # tokenizers take texts
            check_types(model, read)
        self._compiled = compile_model(core, read, model, "CPU", settings)
        self._own = self.request()

    def request(self) -> Any:
        """A state of its own, empty."""
        return self._compiled.create_infer_request()

    def run(self, given: Any, request: Any = None) -> npt.NDArray[Any]:
        """The output for one input, or for several by their names. With a ``request``, which goes on from the state that it holds,
        the output is its own memory, good until it runs again.
        """
        try:
            found = (request or self._own).infer(given, share_outputs=request is not None)[self._output]
        except (RuntimeError, UnicodeError) as error:  # what the library says need not be UTF-8
            raise RequestError(f"{self.path}: fails as it runs ({last_line(error)}); {COPY}") from error
        return np.asarray(found)
