"""transformers' image classifiers and segmenters, from a folder that ``save_pretrained`` wrote."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError

CONFIG = "config.json"
"""What a network is, beside its weights."""


class _Logits(nn.Module):
    """A transformers model that gives its logits, dense ones in the size of the image."""

    def __init__(self, model: nn.Module, dense: bool) -> None:
        super().__init__()
        self.model, self.dense = model, dense

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=x).logits
        if self.dense and logits.shape[2:] != x.shape[2:]:
            return nn.functional.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)
        return logits


def transformers_network(name: str, spec: InputSpec) -> nn.Module:
    import transformers as hf

    folder = Path(name)
    if not (folder / CONFIG).is_file():
        raise RequestError(f"{folder}: no {CONFIG}; transformers: takes a folder that save_pretrained wrote")
    config = hf.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    dense = any("Segmentation" in a for a in config.architectures or ())
    door = hf.AutoModelForSemanticSegmentation if dense else hf.AutoModelForImageClassification
    try:
        model = door.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder}: transformers cannot load it: {str(error).splitlines()[0]}") from error
    return _Logits(model, dense)
