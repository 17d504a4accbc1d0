"""Masks of what prompts on scenes point at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.data.objects import address_of
from rsedge.runtimes.bundle.whole import OpenWhole, open_whole
from rsedge.runtimes.inference.masks import infer_masks, masks_of
from rsedge.runtimes.inference.prompts import Prompt, read_prompts
from rsedge.runtimes.inference.works.arrays import Array
from rsedge.runtimes.inference.works.base import Call, Inference, Reader, open_scene
from rsedge.runtimes.inference.works.wholes import made_by


class MaskInference(Inference):
    """One mask a prompt; written as polygons (.geojson) or as a map (.tif)."""

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        with open_scene(call, source) as reader:
            prompts = _prompts(call, source, reader)
            with _opened(call) as whole:
                about = {"bundle": call.bundle.manifest.name, "target": call.bundle.target.name, "scene": source.name}
                record = infer_masks(whole, reader, prompts, output, about, call.progress, call.style)
                return record | {"scene": address_of(source), "units": reader.units.source} | made_by(call, whole)

    def read(self, call: Call, source: Path) -> Any:
        """One boolean map (H, W) of the scene a prompt, in the order of the file."""
        import numpy as np

        with open_scene(call, source) as reader:
            prompts = _prompts(call, source, reader)
            found = np.zeros((len(prompts), reader.height, reader.width), bool)
            with _opened(call) as whole:
                for mask in masks_of(whole, reader, prompts, call.progress):
                    place = prompts.index(mask.prompt)
                    height, width = mask.seen.shape
                    found[place, mask.row : mask.row + height, mask.col : mask.col + width] = mask.seen
                whole.prove()
        return found

    def array(self, call: Call, values: Array) -> Any:
        raise RequestError(
            f"{call.bundle.path}: masks are of prompts on scenes; give a scene with prompts, or samples (.npz)"
        )

    def text(self, record: dict[str, Any]) -> str:
        rows = [f"  {p['prompt']}: {p['pixels']:,} pixels" + _quality(p["quality"]) for p in record["prompts"][:20]]
        more = len(record["prompts"]) - 20
        rows += [f"  and {more} more"] if more > 0 else []
        return "\n".join([f"{record['output']}: {len(record['prompts'])} masks", *rows,
                          f"{record['seconds']:.1f} s on {record['device']} ({record['target']})"])  # fmt: skip


def _opened(call: Call) -> OpenWhole:
    return open_whole(call.bundle, call.threads, call.device, call.self_test)


def _quality(value: float | None) -> str:
    return "" if value is None else f", quality {value:.3f}"


def _prompts(call: Call, source: Path, reader: Reader) -> list[Prompt]:
    """
    Raises:
        RequestError: none are given.
    """
    if call.options.prompts is None:
        raise RequestError(
            f"{source}: {call.bundle.path} makes masks of what prompts point at; give them with --prompts (.geojson or .csv), or "
            "samples (.npz)"
        )
    return read_prompts(call.options.prompts, reader)
