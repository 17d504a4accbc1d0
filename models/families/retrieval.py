"""RANGE and RANGE+: a place's embedding looked up in a database of image embeddings, beside its SatCLIP embedding.

Source: Dhakal et al. (2025), "RANGE: retrieval augmented neural fields for multi-resolution geo-embeddings". The database is
a constant, so the lookup is two matrix products; for a device it is far too large and is distilled (``compress.embedding``).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.data.arrays import read_arrays
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family, satclip
from rsedge.models.families.satclip import LocationEncoder
from rsedge.models.features import Features, Shape, inside, vectors

ARRAYS = {"locs": 2, "satclip_embeddings": 256, "image_embeddings": 1024}
"""Arrays of the published database and their widths; locs are degrees, longitude first."""


class Retrieval(nn.Module):
    """Degrees longitude, latitude (N, 2) -> (N, image width + 256): image embedding found, then the place's own (unit length).

    Args:
        encoder: arguments of :class:`rsedge.models.families.satclip.LocationEncoder`.
        entries: places in the database.
        images: width of its image embeddings.
        temperature: of the softmax over likeness in SatCLIP's space.
        place_temperature: of the softmax over likeness on the sphere; None for RANGE, which does not look there.
        share: of the lookup in SatCLIP's space in RANGE+; the rest is the lookup on the sphere.
    """

    def __init__(
        self,
        encoder: Arch,
        entries: int,
        images: int = 1024,
        temperature: float = 15.0,
        place_temperature: float | None = None,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        self.encoder = LocationEncoder(**encoder)
        width = self.encoder.nnet.last_layer.weight.shape[0]
        self.keys, self.places, self.images = (
            nn.Parameter(torch.zeros(entries, n), requires_grad=False) for n in (width, 3, images)
        )
        self.temperature, self.place_temperature, self.share = temperature, place_temperature, share

    def forward(self, degrees: Tensor) -> Tensor:
        own = F.normalize(self.encoder(degrees), dim=1)
        found = torch.softmax(own @ self.keys.T * self.temperature, dim=1) @ self.images
        if self.place_temperature is not None:
            near = torch.softmax(on_sphere(degrees) @ self.places.T * self.place_temperature, dim=1) @ self.images
            found = self.share * found + (1 - self.share) * near
        return torch.cat([found, own], dim=1)


def on_sphere(degrees: Tensor) -> Tensor:
    """Degrees longitude, latitude (N, 2) -> unit vectors (N, 3)."""
    longitude, latitude = degrees[:, 0] * (math.pi / 180), degrees[:, 1] * (math.pi / 180)
    flat = torch.cos(latitude)
    return torch.stack([flat * torch.cos(longitude), flat * torch.sin(longitude), torch.sin(latitude)], dim=1)


def read_database(path: str | Path) -> dict[str, Tensor]:
    """The published ``.npz`` as ``keys`` (M, 256, unit length), ``places`` (M, 3) and ``images`` (M, 1024), float32.

    Raises:
        RequestError: no such file, an array is missing, of another width, another length or not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: no such RANGE database")
    arrays = read_arrays(path, ARRAYS)
    for name, width in ARRAYS.items():
        shape = arrays[name].shape
        if shape != (len(arrays["locs"]), width) or arrays[name].dtype.kind != "f":
            raise RequestError(f"{path}: {name} must be numbers (places, {width}), not {arrays[name].dtype} {shape}")
    locs, keys, images = (torch.from_numpy(arrays[name].astype(np.float32)) for name in ARRAYS)
    return {"keys": F.normalize(keys, dim=1), "places": on_sphere(locs), "images": images}


def pack(encoder: dict[str, Tensor], database: str | Path, path: str | Path) -> None:
    """Writes a SatCLIP encoder (``nnet.*``) and a database as the one ``.safetensors`` file that the RANGE rows load.

    Args:
        encoder: weights as their authors published them: of a teacher ``satclip-l40-exact``, since what ``satclip-l40`` folds into
            its first layer is folded when the RANGE row loads.
    """
    from safetensors.torch import save_file

    content = {f"encoder.{name}": value.float().contiguous() for name, value in encoder.items()}
    with atomic_path(Path(path)) as temporary:
        save_file(content | read_database(database), temporary)


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """Databases of several sizes were published."""
    found: dict[str, Any] = {}
    if "keys" in shapes and "images" in shapes:
        found = {"entries": shapes["keys"][0], "images": shapes["images"][1]}
    return arch | found


def loaded(net: nn.Module) -> None:
    """As of SatCLIP."""
    assert isinstance(net, Retrieval)
    satclip.loaded(net.encoder)


def features(net: nn.Module, shape: Shape) -> Features:
    """The place's own embedding and the layers of its encoder."""
    assert isinstance(net, Retrieval)
    own = inside("encoder", satclip.features(net.encoder, shape))
    return (*own, *vectors(("encoder", net.keys.shape[1])))


FAMILY = Family(Retrieval, fit, features=features, loaded=loaded)
