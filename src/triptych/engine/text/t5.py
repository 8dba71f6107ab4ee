"""T5's encoder (arXiv:1910.10683, section 2.1): tokens attend by what they say and by how far apart they are.

One class for the original (feed-forward layers with ReLU), version 1.1 and Flan (gated GELU, arXiv:2002.05202,
arXiv:2210.11416) and UMT5 (distances weighed anew in every layer, arXiv:2304.09151). Tensors are named as transformers'
T5EncoderModel names them. What layers add up to is float32 whatever their weights are.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "TOWERS", "T5Text", "buckets"]

BUCKETS: Final = 32  # of distances, half of them for what comes before
FAR: Final = 128  # tokens apart, from where on all distances are one
EPSILON: Final = 1e-6

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"relu": F.relu, "gelu": partial(F.gelu, approximate="tanh")}
)

TOWERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "t5-base": MappingProxyType({"width": 768, "layers": 12, "heads": 12, "hidden": 3072, "activation": "relu"}),
        "t5-xxl": MappingProxyType(
            {"width": 4096, "layers": 24, "heads": 64, "hidden": 10240, "activation": "gelu", "gated": True}
        ),
        "umt5-xxl": MappingProxyType(
            {
                "width": 4096,
                "layers": 24,
                "heads": 64,
                "hidden": 10240,
                "activation": "gelu",
                "gated": True,
                "every_layer": True,
                "words": 256384,
            }
        ),
    }
)
"""What `T5Text` takes for each of the published towers; t5-xxl is version 1.1, and Flan of the same size."""


def buckets(length: int) -> Tensor:
    """(L, L) int64: which of the 32 buckets the way from a token (row) to another (column) falls into.

    Eight near distances have one each, the eight after them grow as their logarithm; so once more for what comes later.
    """
    near = BUCKETS // 4
    apart = torch.arange(length, device="cpu")  # where the logarithm of a number is the same on every machine
    growing = torch.log(apart.float().clamp(min=1) / near) / math.log(FAR / near) * near
    by_distance = torch.where(apart < near, apart, (near + growing.long()).clamp(max=2 * near - 1))
    way = apart - apart[:, None]
    return by_distance[way.abs()] + (way > 0) * (BUCKETS // 2)


class Norm(nn.Module):
    """Divided by the root of the mean square, and scaled (arXiv:1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width), the same back in the dtype of the weight."""
        normed = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + EPSILON)
        return normed.to(self.weight.dtype) * self.weight


class Attention(nn.Module):
    """Softmax of products that are not scaled and of what distances add to them."""

    def __init__(self, width: int, heads: int, inner: int, distances: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, width, bias=False)
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads) if distances else None

    def bias(self, length: int, mask: Tensor | None) -> Tensor | None:
        """(1 or B, heads, L, L) what is added to scores; None where another layer tells. mask (B, L)."""
        if self.relative_attention_bias is None:
            return None
        table = self.relative_attention_bias.weight
        added = rearrange(table[buckets(length).to(table.device)], "q k h -> 1 h q k")
        if mask is not None:
            added = added.masked_fill(~mask[:, None, None, :], torch.finfo(added.dtype).min)
        return added

    def forward(self, x: Tensor, bias: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, L, width), bias as above of the layer before -> (B, L, width) float32, and the bias that was added."""
        own = self.bias(x.shape[1], mask)
        added = bias if own is None else own
        assert added is not None, "the first layer weighs distances"
        q, k, v = (rearrange(layer(x), "b l (h d) -> b h l d", h=self.heads) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=added.to(q.dtype), scale=1.0)
        return unbounded(self.o, rearrange(mixed, "b h l d -> b l (h d)"), x.dtype), added


class FeedForward(nn.Module):
    """Wider, and back."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.wi, self.wo = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width) -> (B, L, width) float32."""
        return unbounded(self.wo, self.activation(self.wi(x)), x.dtype)


class GatedFeedForward(nn.Module):
    """Wider by one layer, each number times what another layer makes of them, and back."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.wi_0, self.wi_1 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width) -> (B, L, width) float32."""
        wide = torch.float32 if x.dtype == torch.float16 else x.dtype  # in which the product may be as large as it is
        return unbounded(self.wo, self.activation(self.wi_0(x)).to(wide) * self.wi_1(x), x.dtype)


def unbounded(layer: nn.Linear, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A layer without bias, of which XXL's give more than the 65504 of float16: x (..., C) -> (..., D) float32.

    There every row goes in at no more than 1, divided by a power of two that its result is multiplied by: exact, and
    the result is bounded by the sum of a row of the weights.
    """
    if dtype != torch.float16:
        out: Tensor = layer(x)
        return out.float()
    power = torch.frexp(x.float().abs().amax(-1, keepdim=True)).exponent
    scaled = torch.ldexp(x.float(), -power).to(dtype)
    return torch.ldexp(layer(scaled).float(), power)


class AttentionLayer(nn.Module):
    """Attention behind a norm and beside a skip."""

    def __init__(self, attention: Attention, width: int) -> None:
        super().__init__()
        self.SelfAttention, self.layer_norm = attention, Norm(width)

    def forward(self, x: Tensor, bias: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, L, width) float32, bias and mask as of `Attention` -> x and the bias that was added."""
        out, added = self.SelfAttention(self.layer_norm(x), bias, mask)
        return x + out, added


class FeedForwardLayer(nn.Module):
    """A feed-forward layer behind a norm and beside a skip."""

    def __init__(self, within: nn.Module, width: int) -> None:
        super().__init__()
        self.DenseReluDense, self.layer_norm = within, Norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width) float32, the same back."""
        out: Tensor = x + self.DenseReluDense(self.layer_norm(x))
        return out


class Block(nn.Module):
    """One layer of each kind."""

    def __init__(self, attending: AttentionLayer, feeding: FeedForwardLayer) -> None:
        super().__init__()
        self.layer = nn.ModuleList([attending, feeding])

    def forward(self, x: Tensor, bias: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, L, width) float32, bias of the block before, None for the first; both as they go to the next one."""
        attending, feeding = self.layer
        x, added = attending(x, bias, mask)
        return feeding(x), added


class Stack(nn.Module):
    """The blocks, under the name that they have in files; weights need to be there only while their block runs."""

    def __init__(self, blocks: list[Block], width: int) -> None:
        super().__init__()
        self.block, self.final_layer_norm = nn.ModuleList(blocks), Norm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, L, width) float32, mask (B, L) -> (B, L, width) in the dtype of the weights."""
        bias: Tensor | None = None
        for block in self.block:
            x, bias = block(x, bias, mask)
        out: Tensor = self.final_layer_norm(x)
        return out


@final
class T5Text(nn.Module):
    """Ids to hidden states."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        hidden: int,
        activation: str,
        gated: bool = False,
        every_layer: bool = False,
        words: int = 32128,
        head: int = 64,
    ) -> None:
        """hidden: how wide feed-forward layers are; activation: a name of ACTIVATIONS, with a gate or without one.

        every_layer: whether each layer weighs distances, or the first for all; head: the width of each head.
        """
        super().__init__()
        feed, act = GatedFeedForward if gated else FeedForward, ACTIVATIONS[activation]
        blocks = [
            Block(
                AttentionLayer(Attention(width, heads, heads * head, every_layer or number == 0), width),
                FeedForwardLayer(feed(width, hidden, act), width),
            )
            for number in range(layers)
        ]
        self.shared, self.encoder = nn.Embedding(words, width), Stack(blocks, width)

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.encoder.block)

    @property
    def width(self) -> int:
        """D of the hidden states."""
        return self.shared.embedding_dim

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """ids (B, L), mask (B, L) True where a token may be attended to, None for all -> (B, L, D)."""
        out: Tensor = self.encoder(self.shared(ids).float(), mask)
        return out
