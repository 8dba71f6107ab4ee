"""Attention: the one place where a kernel is called, and attention with queries that stay the same."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["attention", "pooled"]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Softmax attention (arXiv:1706.03762). q (B, L, D), k and v (B, M, D) -> (B, L, D).

    mask: (B, M), True where a key may be attended to.
    """
    q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
    allowed = None if mask is None else mask[:, None, None, :]
    return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=allowed), "b h l d -> b l (h d)")


def pooled(scores: nn.Linear, tokens: Tensor, mask: Tensor) -> Tensor:
    """What tokens say to fixed queries, one a head: their mean by softmax of the scores that they get.

    scores: of each token, by head; tokens (B, L, D), mask (B, L) True where they are real -> (B, heads D).
    """
    shares = scores(tokens).masked_fill(~mask[..., None], -torch.inf).softmax(1)
    return torch.einsum("blh,bld->bhd", shares, tokens).flatten(1)
