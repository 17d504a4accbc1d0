"""Pictures through a bundle that captions: a picture in, a text out."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import write_bytes
from rsedge.data.scenes.images import read_rgb
from rsedge.runtimes.bundle.manifest import MAX_LETTERS
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.runtimes.bundle.self_test import self_tested
from rsedge.runtimes.inference.captions import Speaker, describe
from rsedge.runtimes.inference.golden_answer import answer_test

SUFFIXES = (".txt", ".json")


def infer_caption(
    bundle: Bundle,
    picture: Path,
    output: Path,
    prompt: str | None,
    threads: int | None,
    device: str | None,
    every: int = 1,
) -> dict[str, Any]:
    """Writes what the bundle says of a picture: the text alone (``.txt``), or with what it was asked (``.json``).

    Raises:
        RequestError: another suffix, or as :func:`caption`.
        MissingCapability: the bundle holds the vision tower alone.
    """
    if output.suffix not in SUFFIXES:
        raise RequestError(f"{output}: a caption is written as {' or '.join(SUFFIXES)}")
    found = caption(bundle, picture, prompt, threads, device, every)
    text = found["caption"] if output.suffix == ".txt" else json.dumps(found, ensure_ascii=False, indent=2)
    write_bytes(output, (text + "\n").encode())
    return {"output": str(output), **found}


def caption(
    bundle: Bundle, picture: Path, prompt: str | None, threads: int | None, device: str | None, every: int = 1
) -> dict[str, Any]:
    """What the bundle says of a picture (``caption``), with what it was asked and by what.

    Any 8-bit picture is taken; its middle square is resampled to the model's size. Tower and language model are tested at the
    start and, where ``every`` is not 0, behind the caption.

    Raises:
        RequestError: no readable 8-bit picture, or a prompt with an image token in it.
        MissingCapability: the bundle holds the vision tower alone.
    """
    manifest, record = bundle.manifest, bundle.manifest.language
    if record is None:
        raise MissingCapability(
            f"{bundle.path}: holds the vision tower alone; its image tokens go to a language model elsewhere. A bundle for "
            "openvino-cpu-... holds both"
        )
    if prompt is not None and "<image>" in prompt:
        raise RequestError("--prompt: <image> is put in by itself; leave it out")
    if prompt is not None and len(prompt) > MAX_LETTERS:
        raise RequestError(f"--prompt: has {len(prompt)} letters; ask with {MAX_LETTERS} at most")
    dn = read_rgb(picture, manifest.input_spec.tile)[None]
    with (
        self_tested(bundle.session(threads, device), bundle, min(every, 1)) as tower,
        contextlib.closing(Speaker.of(bundle, record, threads)) as speaker,
    ):
        if (test := answer_test(speaker, bundle)) is not None:
            test.check_start()
        began = time.perf_counter()
        answer = describe(tower, speaker, dn, prompt)
        seconds = time.perf_counter() - began
        if test is not None and every:
            test.check_again()
        asked = record.prompt if prompt is None else prompt
        found = {"caption": answer.text, "prompt": asked, "picture": str(picture), "tokens": len(answer.tokens)}
        about = {"seconds": round(seconds, 3), "target": manifest.target.name, "device": tower.device,
                 "bundle": str(bundle.path), "self_test": tower.record(), "answer_test": None if test is None else test.record(),
             **bundle.signature.record()}  # fmt: skip
    return found | about
