"""Attention: the one place where a kernel is called."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["attention"]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Softmax attention (arXiv:1706.03762). q (B, L, D), k and v (B, M, D) -> (B, L, D).

    mask: (B, M), True where a key may be attended to.
    """
    q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
    allowed = None if mask is None else mask[:, None, None, :]
    return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=allowed), "b h l d -> b l (h d)")
