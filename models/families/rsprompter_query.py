"""RSPrompter's query variant: Segment Anything whose prompts a decoder of queries makes, without boxes and without suppression.

Sources: Chen et al. 2024, "RSPrompter" (TGRS), query-based prompter; Cheng et al. 2022, "Mask2Former" (queries look where their
mask of the layer before is); Zhu et al. 2021, "Deformable DETR" (each token reads the places that it chooses, on all levels).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family, sam
from rsedge.models.families.rsprompter import Neck, grids, sine_line
from rsedge.models.families.sam import PATCH, SAM
from rsedge.models.features import Feature, Features, Shape, maps
from rsedge.models.layers.attention import attend, split
from rsedge.models.layers.mask_decoder import norm_channels
from rsedge.models.layers.masked_blocks import FAR
from rsedge.models.layers.patches import as_tokens
from rsedge.models.parts import Part

LEVELS = 3
"""Of the pyramid, the coarsest first: strides 64, 32 and 16; the finer two only refine the masks."""
GROUPS = 32


class QueryPrompter(SAM):
    """SAM and what makes its prompts: x (N, 3, image, image) -> mask logits (N, Q, 1, image/4, image/4), quality (N, Q, 1).

    Args:
        prompts: queries, each an instance or none.
        narrow: channels of each layer inside the aggregator, which reads every second layer from the first.
        classes: without "none", which comes last.
        inner: channels of the prompter; ``inner_heads``, ``points``: of its attentions; ``reads``, ``layers``: how many there are.
    """

    def __init__(
        self,
        image: int = 1024,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        whole: Sequence[int] = (2, 5, 8, 11),
        hidden: int = 256,
        prompts: int = 70,
        tokens: int = 5,
        narrow: int = 32,
        classes: int = 10,
        inner: int = 128,
        inner_heads: int = 8,
        points: int = 4,
        reads: int = 3,
        layers: int = 6,
    ) -> None:
        super().__init__(image, dim, depth, heads, whole, hidden, prompts, tokens)
        del self.no_mask_embed  # the masks of the prompter take its place
        self.classes = classes
        sides = grids(image)
        self.neck = Neck(dim, len(range(0, depth, 2)), narrow, hidden)
        self.pixel_decoder = PixelDecoder(hidden, inner, inner_heads, points, reads, sides[::-1][:LEVELS])
        self.transformer_decoder = QueryDecoder(inner, inner_heads, layers)
        self.query_embed, self.query_feat = nn.Embedding(prompts, inner), nn.Embedding(prompts, inner)
        self.level_embed = nn.Embedding(LEVELS, inner)
        self.mask_embed = stacked(inner, inner, inner, hidden)
        self.cls_embed = stacked(inner, inner, classes + 1)
        self.point_emb = stacked(inner, inner // 2, inner // 2, 2 * tokens * hidden)
        self.sam_mask_embed = MaskEmbed(hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        embedding, features = self.embed(x)
        _, prompts, coarse = self.queried(features)
        return self.decode_masked(embedding, prompts, coarse)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image -> embedding (N, hidden, g, g) and the inner layers' features (N, hidden, g, g)."""
        states = self.vision_encoder.states(x)
        return self.vision_encoder.embedding(states[-1]), self.neck.feature_aggregator(states[::2])

    def queried(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features -> scores (N, Q, classes + 1), prompts (N, Q, tokens, hidden), coarse masks (N, Q, 4g, 4g), logits."""
        finest, levels = self.pixel_decoder(self.neck.feature_spliter(features))
        memory = [as_tokens(level) + self.level_embed.weight[i] for i, level in enumerate(levels)]
        places = [square_code(level.shape[-1], level.shape[1]).to(level) for level in levels]
        decoder, embed = self.transformer_decoder, self.query_embed.weight
        query = self.query_feat.weight.expand(len(features), -1, -1)
        coarse = self._masks(query, finest)
        for i, layer in enumerate(decoder.layers):
            at = i % LEVELS
            seen = (
                F.interpolate(coarse, size=levels[at].shape[-2:], mode="bilinear", align_corners=False).flatten(2) >= 0
            )
            # A query whose mask is empty looks everywhere.
            bias = torch.where(seen | ~seen.any(-1, keepdim=True), 0.0, FAR)[:, None]
            query = layer(query, embed, memory[at], places[at], bias)
            coarse = self._masks(query, finest)
        query = decoder.post_norm(query)
        points = self.point_emb(query).unflatten(-1, (self.shape[2], -1))
        return self.cls_embed(query).softmax(-1), points[..., ::2].sin() + points[..., 1::2], coarse

    def _masks(self, query: Tensor, finest: Tensor) -> Tensor:
        """What each query's mask looks like so far: (N, Q, 4g, 4g)."""
        kernels = self.mask_embed(self.transformer_decoder.post_norm(query))
        return (kernels @ finest.flatten(2)).unflatten(-1, finest.shape[-2:])  # type: ignore[no-untyped-call, no-any-return]

    def decode_masked(self, embedding: Tensor, prompts: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Image embedding (N, hidden, g, g), prompts and coarse masks -> mask logits and quality."""
        n, count = prompts.shape[:2]
        image = embedding[:, None] + self.sam_mask_embed(coarse.flatten(0, 1)[:, None]).unflatten(0, (n, count))
        masks, quality = self.mask_decoder(image.flatten(0, 1), self.positions(), prompts.flatten(0, 1)[:, None])
        return masks.reshape(n, count, *masks.shape[2:]), quality.reshape(n, count, 1)


def stacked(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for width, out in pairwise(widths):
        layers += [nn.Linear(width, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def square_code(grid: int, width: int) -> Tensor:
    """Sines and cosines of the rows, then of the columns, of a square grid: (grid^2, width)."""
    line = sine_line(grid, width // 2)
    rows, columns = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
    return torch.cat((rows, columns), -1).flatten(0, 1)


class MaskEmbed(nn.Module):
    """Masks (B, 1, 4g, 4g) -> (B, hidden, g, g); names are those of transformers' SAM."""

    def __init__(self, hidden: int, few: int = 16) -> None:
        super().__init__()
        self.conv1, self.layer_norm1 = nn.Conv2d(1, few // 4, 2, 2), nn.LayerNorm(few // 4, eps=1e-6)
        self.conv2, self.layer_norm2 = nn.Conv2d(few // 4, few, 2, 2), nn.LayerNorm(few, eps=1e-6)
        self.conv3 = nn.Conv2d(few, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(norm_channels(self.conv1(x), self.layer_norm1))
        return self.conv3(F.gelu(norm_channels(self.conv2(x), self.layer_norm2)))  # type: ignore[no-any-return]


class GroupedConv(nn.Module):
    """A convolution, then a norm over groups of channels."""

    def __init__(self, width: int, out: int, size: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, size, padding=size // 2, bias=bias)
        self.gn = nn.GroupNorm(GROUPS, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.gn(self.conv(x))  # type: ignore[no-any-return]


class PixelDecoder(nn.Module):
    """Pyramid, the finest first -> a map for masks (N, hidden, 4g, 4g) and the coarsest levels (N, inner, ., .), coarse first."""

    def __init__(self, hidden: int, inner: int, heads: int, points: int, reads: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.input_convs = nn.ModuleList(GroupedConv(hidden, inner, 1, bias=True) for _ in sides)
        self.level_encoding = nn.Embedding(LEVELS, inner)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Reading(inner, heads, points, sides) for _ in range(reads))}
        )
        self.lateral_convs = nn.ModuleList(GroupedConv(hidden, inner, 1, bias=False) for _ in range(2))
        self.output_convs = nn.ModuleList(GroupedConv(inner, inner, 3, bias=False) for _ in range(2))
        self.mask_feature = nn.Conv2d(inner, hidden, 1)
        self.sides = tuple(sides)

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        coarse = [conv(x) for conv, x in zip(self.input_convs, reversed(pyramid), strict=False)]
        inner = self.level_encoding.weight.shape[1]
        code = [
            square_code(side, inner).to(coarse[0]) + self.level_encoding.weight[i] for i, side in enumerate(self.sides)
        ]
        tokens, places = torch.cat([as_tokens(x) for x in coarse], 1), torch.cat(code)
        for layer in self.encoder["layers"]:  # type: ignore[attr-defined]
            tokens = layer(tokens, places)
        levels = [
            t.transpose(1, 2).unflatten(2, (side, side))
            for t, side in zip(tokens.split([s * s for s in self.sides], 1), self.sides, strict=True)
        ]
        x = levels[-1]
        for i in (1, 0):
            finer, lateral, output = pyramid[i], self.lateral_convs[i], self.output_convs[i]
            x = lateral(finer) + F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = F.relu(output(x))
        return self.mask_feature(x), levels


class Reading(nn.Module):
    """Tokens of all levels (N, L, dim), each reading the places that it chooses on every level; then an MLP."""

    def __init__(self, dim: int, heads: int, points: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.self_attn = ChosenPlaces(dim, heads, points, sides)
        self.ffn, self.norms = feed_forward(dim), nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        x = self.norms[0](x + self.self_attn(x, x + places))
        return self.norms[1](x + self.ffn["layers"](x))  # type: ignore[no-any-return]


def feed_forward(dim: int) -> nn.ModuleDict:
    """An MLP under mmcv's names."""
    first = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU())
    return nn.ModuleDict({"layers": nn.Sequential(first, nn.Linear(4 * dim, dim))})


class ChosenPlaces(nn.Module):
    """Deformable attention over squares of ``sides`` places, side by side as tokens."""

    middles: Tensor

    def __init__(self, dim: int, heads: int, points: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.points, self.sides = heads, points, tuple(sides)
        count = heads * len(sides) * points
        self.sampling_offsets, self.attention_weights = nn.Linear(dim, 2 * count), nn.Linear(dim, count)
        self.value_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.register_buffer("middles", torch.cat([middles_of(side) for side in sides]), persistent=False)

    def forward(self, x: Tensor, asking: Tensor) -> Tensor:
        n, length, dim = x.shape
        shape = (n, length, self.heads, len(self.sides), self.points)
        offsets = self.sampling_offsets(asking).reshape(*shape, 2)
        weights = self.attention_weights(asking).reshape(*shape[:3], -1).softmax(-1).reshape(shape)
        values = split(self.value_proj(x), self.heads).flatten(0, 1)
        found = []
        for i, (side, value) in enumerate(zip(self.sides, values.split([s * s for s in self.sides], 1), strict=True)):
            # Places from -1 to 1 over the map, as grid_sample takes them; offsets count places.
            at = 2 * (self.middles[:, None, None] + offsets[:, :, :, i] / side) - 1
            square = value.transpose(1, 2).unflatten(2, (side, side))
            read = F.grid_sample(square, at.transpose(1, 2).flatten(0, 1), align_corners=False)
            share = weights[:, :, :, i].transpose(1, 2).flatten(0, 1)[:, None]
            found.append((read * share).sum(-1))
        summed = torch.stack(found).sum(0).reshape(n, dim, length)
        return self.output_proj(summed.transpose(1, 2))  # type: ignore[no-any-return]


def middles_of(side: int) -> Tensor:
    """Middles of a square's places as shares of its edge, x and y: (side^2, 2)."""
    steps = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)


class QueryDecoder(nn.Module):
    """Layers, and the norm ahead of whatever reads a query; names are the authors'."""

    def __init__(self, dim: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(QueryLayer(dim, heads) for _ in range(layers))
        self.post_norm = nn.LayerNorm(dim)


class QueryLayer(nn.Module):
    """Queries (N, Q, dim) look at a level where their masks are, then at one another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross_attn, self.self_attn = (nn.ModuleDict({"attn": Attention(dim, heads)}) for _ in range(2))
        self.ffn, self.norms = feed_forward(dim), nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, embed: Tensor, level: Tensor, places: Tensor, bias: Tensor) -> Tensor:
        x = self.norms[0](x + self.cross_attn["attn"](x + embed, level + places, level, bias))
        x = self.norms[1](x + self.self_attn["attn"](x + embed, x + embed, x))
        return self.norms[2](x + self.ffn["layers"](x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention under the names of torch's ``MultiheadAttention``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight, self.in_proj_bias = (
            nn.Parameter(torch.zeros(3 * dim, dim)),
            nn.Parameter(torch.zeros(3 * dim)),
        )
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (split(F.linear(t, w, b), self.heads) for t, w, b in zip((q, k, v), weights, biases, strict=True))
        return self.out_proj(attend(q, k, v, bias))  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    """Image -> embedding, features."""

    def __init__(self, net: QueryPrompter) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.embed(image)


class _Prompter(nn.Module):
    """Features -> scores, prompts, coarse masks."""

    def __init__(self, net: QueryPrompter) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.net.queried(features)


class _Decoder(nn.Module):
    """Embedding, prompts, coarse masks -> mask logits, quality."""

    def __init__(self, net: QueryPrompter) -> None:
        super().__init__()
        self.net = net

    def forward(self, embedding: Tensor, prompts: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.decode_masked(embedding, prompts, coarse)


def parts(net: nn.Module) -> dict[str, Part]:
    """What runs one after the other; queries are judged at the end (:mod:`rsedge.runtimes.wholes.instances`)."""
    assert isinstance(net, QueryPrompter)
    grid, hidden, queries = net.image // PATCH, net.hidden, net.shape[1]
    square = torch.randn(1, hidden, grid, grid)
    decoder = {
        "embedding": square,
        "prompts": torch.randn(net.shape),
        "coarse": torch.randn(1, queries, 4 * grid, 4 * grid),
    }
    return {
        "encoder": Part(_Encoder(net), {"image": torch.randn(1, 3, net.image, net.image)}, ("embedding", "features")),
        "prompter": Part(_Prompter(net), {"features": square}, ("scores", "prompts", "coarse")),
        "decoder": Part(_Decoder(net), decoder, ("masks", "quality")),
    }


def build(**arch: object) -> nn.Module:
    return QueryPrompter(**arch)  # type: ignore[arg-type]


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """Image size, queries, classes and prompt tokens of the checkpoint."""
    found = sam.fit(arch, shapes)
    if "cls_embed.2.weight" in shapes:
        found = {**found, "classes": shapes["cls_embed.2.weight"][0] - 1}
    if "query_feat.weight" in shapes:
        found = {**found, "prompts": shapes["query_feat.weight"][0]}
    if "point_emb.4.weight" in shapes and "mask_embed.4.weight" in shapes:
        tokens = shapes["point_emb.4.weight"][0] // (2 * shapes["mask_embed.4.weight"][0])
        found = {**found, "tokens": tokens}
    return found


def features(net: nn.Module, shape: Shape) -> Features:
    """The encoder's layers, whose maps have their channels last, the aggregated map and the pyramid."""
    assert isinstance(net, QueryPrompter)
    layers = [f"vision_encoder.layers.{i}" for i in range(len(net.vision_encoder.layers))]
    dim, hidden = net.vision_encoder.pos_embed.shape[-1], net.hidden
    levels = [(f"neck.feature_spliter.fpn_convs.{i}", 4 << i, hidden) for i in range(4)]
    return (
        *(Feature(name, dim, "NHWC", PATCH) for name in layers),
        *maps(("neck.feature_aggregator", PATCH, hidden), *levels),
    )


FAMILY = Family(build, fit, parts=parts, features=features)
