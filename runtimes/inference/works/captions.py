"""Captions of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.runtimes.inference.pictures import caption, infer_caption
from rsedge.runtimes.inference.works.arrays import Array
from rsedge.runtimes.inference.works.base import Call, Inference


class CaptionInference(Inference):
    """A text; its models, tower and language, are opened for each picture."""

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        return infer_caption(
            call.bundle, source, output, call.options.prompt, call.threads, call.device, call.self_test
        )

    def read(self, call: Call, source: Path) -> Any:
        found = caption(call.bundle, source, call.options.prompt, call.threads, call.device, call.self_test)
        return found["caption"]

    def array(self, call: Call, values: Array) -> Any:
        raise RequestError(f"{call.bundle.path}: captions are of pictures; give a file")

    def text(self, record: dict[str, Any]) -> str:
        return f"{record['caption']}\n{record['output']}: {record['seconds']:.1f} s on {record['device']}"
