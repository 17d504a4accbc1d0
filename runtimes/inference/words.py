"""Text to token numbers and back, with the OpenVINO files of a tokenizer, in a process of its own.

The library that reads these files and the texts has ended its process before, on files that were damaged. Here it ends a child's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import RequestError, missing_extra
from rsedge.runtimes.bundle.language_files import DETOKENIZER, TOKENIZER
from rsedge.runtimes.checked import CheckedModel, model_parts
from rsedge.runtimes.child import Child, ChildEnded, Contents
from rsedge.runtimes.inference.language import COPY, Models, Part
from rsedge.runtimes.openvino.core import shared_core

OPEN_S, ANSWER_S = 120, 20
_MOST_TOKENS = 4
"""Per byte of a text: tokenizers that know every byte give one for each, and a few around it."""


class Words:
    """A tokenizer and its inverse.

    Raises:
        RequestError: the files are no tokenizer, or end the process that reads them.
        MissingCapability: the library is not installed.
    """

    def __init__(self, models: Models) -> None:
        found = [models(name) for name in (TOKENIZER, DETOKENIZER)]
        self._paths = [str(model) for model in found]
        contents = [part for model in found for part in model_parts(model)]
        self._child = Child(f"{__name__}:answer")
        self._asked(OPEN_S, self._paths[0], {"open": self._paths}, *contents)

    def encode(self, text: str) -> list[int]:
        """Token numbers, with those that the tokenizer puts before or behind a text.

        Raises:
            RequestError: the tokenizer fails on the text.
        """
        return [int(i) for i in self._asked(ANSWER_S, self._paths[0], {"encode": text})]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token numbers; special tokens are left out.

        Raises:
            RequestError: the detokenizer fails on them.
        """
        return str(self._asked(ANSWER_S, self._paths[1], {"decode": list(tokens)})) if tokens else ""

    def close(self) -> None:
        """Ends the process."""
        self._child.close()

    def _asked(self, seconds: int, path: str, question: dict[str, Any], *contents: bytes) -> Any:
        try:
            return self._child.ask(seconds, question, *contents)
        except ChildEnded as error:
            raise RequestError(f"{path}: the process that reads it {error}; {COPY}") from error


def answer(question: dict[str, Any], contents: Contents) -> Any:
    """The child's side: ``open`` (paths, whose graphs and weights follow), ``encode`` (a text), ``decode`` (token numbers).

    Raises:
        RequestError, MissingCapability: as :class:`Words`.
    """
    ((what, given),) = question.items()
    if what == "open":
        _open([_model(Path(path), contents) for path in given])
        return None
    return _encoded(given) if what == "encode" else _decoded(given)


def _model(path: Path, contents: Contents) -> CheckedModel:
    parts = {path: contents(), path.with_suffix(".bin"): contents()}
    return CheckedModel(path, parts.__getitem__)


_parts: dict[str, Part] = {}
"""Of the child: what is open."""


def _open(models: Sequence[CheckedModel]) -> None:
    try:
        import openvino_tokenizers
    except ImportError as error:
        raise missing_extra("openvino_tokenizers", "captions", "reading and writing text") from error
    core = shared_core()
    core.add_extension(str(openvino_tokenizers._ext_path))
    tokenizer, detokenizer = models
    _parts[TOKENIZER] = Part(core, tokenizer, {}, "string", "input_ids", "i64")
    _parts[DETOKENIZER] = Part(core, detokenizer, {}, "i64", "string_output", "string")


def _encoded(text: str) -> list[int]:
    part = _parts[TOKENIZER]
    found = part.run([text])
    if found.ndim != 2 or len(found) != 1:
        raise RequestError(f"{part.path}: cannot read a text of {len(text)} letters; ask in fewer")
    if found.size > _MOST_TOKENS * (len(text.encode()) + 1):
        raise RequestError(f"{part.path}: gives {found.size} tokens for a text of {len(text)} letters; {COPY}")
    return [int(i) for i in found[0]]


def _decoded(tokens: Sequence[int]) -> str:
    found = _parts[DETOKENIZER].run(np.array([list(tokens)], dtype=np.int64))
    return str(found[0]) if len(found) else ""
