"""A vision-language model's files in its authors' layout: what of them is the front, what the language model.

Three layouts are read, as far as the language model is a plain Llama, Mistral or Qwen2 and the tower one of :mod:`.families.vlm`:

- a folder that ``save_pretrained`` of transformers' LLaVA wrote (``language_model.*`` or ``model.language_model.*``);
- a folder of the LLaVA code base: the language model's names with ``model.mm_projector.*`` among them, with or without its tower;
- a language model alone, with a PEFT adapter folder that brings the projector in ``non_lora_trainables.bin``.

Adapters are merged before anything else, so that what is compressed and exported knows no adapters. Files are safetensors, or torch
files read with ``weights_only``; nothing in the folders is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.json_text import read_object
from rsedge.models.checkpoint import load_strict, read_tensors
from rsedge.models.families.vlm import VisionLanguageFront, trim
from rsedge.models.teachers import Teacher, fill_row
from rsedge.models.vlm.experts import dense_of, experts
from rsedge.models.vlm.lora import merge_lora
from rsedge.models.weight_folders import weight_files
from rsedge.models.zoo import TeacherRow

_LANGUAGE = re.compile(
    r"(?:language_model\.model|model\.language_model|model)\.(?P<inner>(?:layers\.|embed_tokens\.|norm\.).+)$"
)
_HEAD = re.compile(r"(?:language_model\.)?lm_head\.")
_TOWER_ALONE = re.compile(r"(?:vision_model\.)?(?P<inner>(?:embeddings|encoder|pre_layrnorm|post_layernorm|head)\..+)$")
TOWER = "model.vision_tower.vision_tower.vision_model."
"""Where a tower that comes in a folder of its own is put: the LLaVA code base's place."""
BESIDE = "non_lora_trainables.bin"
_KINDS = {
    "llama": "llama", "llava": "llama", "llava_llama": "llama", "mistral": "mistral", "llava_mistral": "mistral",
    "qwen2": "qwen2", "llava_qwen": "qwen2", "llava_qwen2": "qwen2",
}  # fmt: skip
"""``model_type`` of a configuration -> transformers' language model; LLaVA's own types keep its fields at their top."""


@dataclass(frozen=True)
class VlmFiles:
    """Where a vision-language model lies.

    Attributes:
        folder: the model's folder: ``config.json``, weights in one or more files, tokenizer.
        tower: folder or file of the vision tower, where the model's own files do not hold it.
        adapter: PEFT adapter folder to merge, with what was trained beside it.
        expert: granularity, for language models with an MLP per granularity (RSUniVLM).
    """

    folder: Path
    tower: Path | None = None
    adapter: Path | None = None
    expert: int | None = None

    def front(self, row: TeacherRow) -> Teacher:
        """Tower and projector, without the layers that are not read, in float32.

        Raises:
            RequestError: no folder or file there, or names that do not fit the row; names missing and left-over keys.
            IntegrityError: a damaged file.
        """
        state = self._state(lambda name: language_name(name) is None)
        teacher = fill_row(row, {name: tensor.float() for name, tensor in state.items()}, self.folder)
        assert isinstance(teacher.net, VisionLanguageFront)
        teacher.arch = trim(teacher.net, teacher.arch)
        return teacher

    def language(self, row: TeacherRow) -> Any:
        """The language model, a causal model of transformers in float32 and evaluation mode.

        Raises:
            MissingCapability: transformers is not installed.
            RequestError: another kind of language model, of another width than the front's tokens, or weights that do not fit.
        """
        kind, fields = self.language_config(row)
        hf = _transformers()
        known = {k: v for k, v in fields.items() if v is not None and k not in ("model_type", "dtype", "torch_dtype")}
        config = hf.AutoConfig.for_model(kind, **known)
        model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        state = self._language_state()
        if config.tie_word_embeddings:
            state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
        load_strict(model, {name: tensor.float() for name, tensor in state.items()}, self.folder)
        return model.eval().requires_grad_(False)

    def tokenizer(self, image_token: str) -> Any:
        """The folder's tokenizer, in which ``image_token`` is one token (added where it is none).

        Raises:
            MissingCapability: transformers is not installed.
            RequestError: no tokenizer in the folder.
        """
        try:
            found = _transformers().AutoTokenizer.from_pretrained(
                str(self.folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise RequestError(f"{self.folder}: no readable tokenizer ({str(error).splitlines()[0]})") from error
        if len(found.encode(image_token, add_special_tokens=False)) != 1:
            found.add_tokens([image_token], special_tokens=True)
        return found

    def ends(self, config: Any) -> list[int]:
        """Tokens that end a text, of ``generation_config.json`` or of the language model's configuration."""
        path = self.folder / "generation_config.json"
        stored = read_object(path).get("eos_token_id") if path.is_file() else None
        found = config.eos_token_id if stored is None else stored
        return list(found) if isinstance(found, list) else [] if found is None else [int(found)]

    def sha256(self) -> str:
        """Hash of every file in the folders, by its place."""
        places = [p for p in (self.folder, self.tower, self.adapter) if p is not None]
        files = [
            (n, f) for n, p in enumerate(places) for f in sorted(p.rglob("*") if p.is_dir() else [p]) if f.is_file()
        ]
        return sha256_of([[n, f.name, sha256_file(f)] for n, f in files])

    # -- weights ----------------------------------------------------------------------------------------------------------
    def _language_state(self) -> dict[str, Tensor]:
        raw = self._state(lambda name: language_name(name) is not None)
        named = {language_name(name): tensor for name, tensor in raw.items()}
        # Older files keep the rotation's frequencies, which follow from the configuration.
        state = {n: tensor for n, tensor in named.items() if n is not None and not n.endswith("rotary_emb.inv_freq")}
        if not state:
            raise RequestError(f"{self.folder}: its weights hold no language model (model.layers...)")
        numbers = experts(state)
        if numbers and self.expert is None:
            raise RequestError(
                f"{self.folder}: its language model has an MLP per granularity ({', '.join(map(str, numbers))}); name one with "
                "language.expert"
            )
        return state if self.expert is None else dense_of(state, self.expert)

    def _state(self, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
        """Weights under the names of the files that ``wanted`` takes, towers in their place, adapters merged."""
        state: dict[str, Tensor] = {}
        for file in weight_files(self.folder):
            state |= {name: tensor for name, tensor in read_tensors(file).items() if wanted(name)}
        if self.tower is not None:
            state |= {name: tensor for name, tensor in self._tower() if wanted(name)}
        if self.adapter is None:
            return state
        beside = self.adapter / BESIDE
        if beside.is_file():
            named = {_unwrapped(name): tensor for name, tensor in read_tensors(beside).items()}
            state |= {name: tensor for name, tensor in named.items() if wanted(name)}
        return merge_lora(state, self.adapter, wanted)

    def _tower(self) -> Iterator[tuple[str, Tensor]]:
        assert self.tower is not None
        files = weight_files(self.tower) if self.tower.is_dir() else [self.tower]
        found = False
        for file in files:
            for name, tensor in read_tensors(file).items():
                if place := _TOWER_ALONE.match(name):
                    found = True
                    yield TOWER + place["inner"], tensor
        if not found:
            raise RequestError(f"{self.tower}: holds no vision tower (vision_model.embeddings...)")

    def language_config(self, row: TeacherRow) -> tuple[str, dict[str, Any]]:
        """The kind of language model and its fields in ``config.json``.

        Raises:
            RequestError: another kind, or of another width than the front's tokens.
        """
        path = self.folder / "config.json"
        if not path.is_file():
            raise RequestError(f"{self.folder}: no config.json, so it is no folder of a language model")
        config = read_object(path)
        fields = config.get("text_config", config)
        if not isinstance(fields, dict):
            raise RequestError(f"{path}: text_config is no mapping of a language model's fields")
        kind = _KINDS.get(str(fields.get("model_type")))
        if kind is None:
            raise RequestError(
                f"{path}: its language model is '{fields.get('model_type')}'; those that are built here: "
                f"{', '.join(dict.fromkeys(_KINDS.values()))}"
            )
        width = row.arch["width"]
        if fields.get("hidden_size") != width:
            raise RequestError(
                f"{path}: the language model is {fields.get('hidden_size')} wide, {row.name}'s image tokens are {width}; this "
                "folder belongs to another model"
            )
        return kind, fields


def language_name(name: str) -> str | None:
    """A weight's name in transformers' causal model, None where it is none of the language model's."""
    if _HEAD.match(name):
        return name.removeprefix("language_model.")
    found = _LANGUAGE.match(name)
    return None if found is None else f"model.{found['inner']}"


def _unwrapped(name: str) -> str:
    """A name in ``non_lora_trainables.bin`` as the model has it: PEFT wraps the model twice."""
    return name.removeprefix("base_model.model.").removeprefix("base_model.")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingCapability("transformers is not installed; install rsedge[language]") from error
    return transformers
