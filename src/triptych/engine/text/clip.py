"""CLIP's text tower (arXiv:2103.00020, section 2.4): a causal transformer whose end-of-text token sums up the text.

One class for the towers that latent diffusion listens to: OpenAI's ViT-L/14 and OpenCLIP's ViT-H/14 and ViT-bigG/14
(arXiv:2212.07143). Tensors are named as transformers names them, below `text_model`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["END", "TOWERS", "WORDS", "ClipText", "Encoded"]

WORDS: Final = 49408  # of CLIP's table; ids beyond it are rows of the extra table
END: Final = 49407  # the id of the end-of-text token


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x): the approximation that OpenAI trained with (arXiv:1606.08415, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({"quick_gelu": quick_gelu, "gelu": F.gelu})

TOWERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "vit-l": MappingProxyType({"width": 768, "layers": 12, "heads": 12, "activation": "quick_gelu"}),
        "vit-h": MappingProxyType({"width": 1024, "layers": 24, "heads": 16, "activation": "gelu", "projected": 1024}),
        "vit-bigg": MappingProxyType(
            {"width": 1280, "layers": 32, "heads": 20, "activation": "gelu", "projected": 1280}
        ),
    }
)
"""What `ClipText` takes for each of the published towers, as files of latent diffusion hold them."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What a tower says of ids (B, L)."""

    hidden: Tensor  # (B, L, D) after the layer that was asked for; the final norm is the caller's choice
    pooled: Tensor  # (B, D'), the whole tower at the first end-of-text token, projected where there is a projection


class Embeddings(nn.Module):
    """Ids to vectors by a table, and where they stand added."""

    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, width)
        self.position_embedding = nn.Embedding(length, width)

    def forward(self, ids: Tensor, extra: Tensor | None) -> Tensor:
        """ids (B, L) -> (B, L, width); an id beyond the table is a row of extra (N, width)."""
        table = self.token_embedding
        tokens: Tensor = table(ids.clamp(max=table.num_embeddings - 1))
        if extra is not None:
            rows = (ids - table.num_embeddings).clamp(min=0)
            tokens = torch.where((ids >= table.num_embeddings)[..., None], extra.to(tokens)[rows], tokens)
        return tokens + self.position_embedding.weight[: ids.shape[1]]


class Attention(nn.Module):
    """Every token attends to itself and to those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width), the same back."""
        projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (rearrange(y, "b l (h d) -> b h l d", h=self.heads) for y in projected)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(rearrange(mixed, "b h l d -> b l (h d)"))
        return out


class FeedForward(nn.Module):
    """Four times as wide, and back."""

    def __init__(self, width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.activation = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), activation

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width), the same back."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class Layer(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a skip (arXiv:2002.04745)."""

    def __init__(self, width: int, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(width, heads), FeedForward(width, activation)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, width), the same back."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Encoder(nn.Module):
    """The layers, under the name that they have in files."""

    def __init__(self, layers: int, width: int, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, activation) for _ in range(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, L, width) and what it is after each layer."""
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states


@final
class ClipText(nn.Module):
    """Ids of at most `length` tokens to hidden states and one pooled vector."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        activation: str,
        projected: int | None = None,
        words: int = WORDS,
        length: int = 77,
    ) -> None:
        """activation: a name of ACTIVATIONS; projected: how wide the pooled vector is made, None to leave it as is."""
        super().__init__()
        self.embeddings = Embeddings(words, length, width)
        self.encoder = Encoder(layers, width, heads, ACTIVATIONS[activation])
        self.final_layer_norm = nn.LayerNorm(width)
        self.text_projection = nn.Identity() if projected is None else nn.Linear(width, projected, bias=False)

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.encoder.layers)

    @property
    def width(self) -> int:
        """D of the hidden states."""
        return self.final_layer_norm.normalized_shape[0]

    def forward(self, ids: Tensor, skip: int = 1, extra: Tensor | None = None) -> Encoded:
        """ids (B, L) of the table, with an end-of-text token each, or beyond the table: rows of extra (N, D).

        skip: which layer the hidden states are of, counted from the end: 1 is the last, depth + 1 the embeddings.
        """
        states = self.encoder(self.embeddings(ids, extra))
        last = (ids == END).int().argmax(dim=1)
        summed = states[-1][torch.arange(len(ids), device=ids.device), last]
        return Encoded(states[-skip], self.text_projection(self.final_layer_norm(summed)))
