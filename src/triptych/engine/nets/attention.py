"""Attention: the one place where a kernel is called, and attention with queries that stay the same."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["attention", "pooled"]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Softmax attention (arXiv:1706.03762). q (B, L, D), k and v (B, M, D) -> (B, L, D).

    mask: (B, M), True where a key may be attended to.
    """
    if mask is None and _is_long(q, k):
        found = _long(q, k, v, heads)
        if bool(found.isfinite().all()):
            return found
    q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
    allowed = None if mask is None else mask[:, None, None, :]
    return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=allowed), "b h l d -> b l (h d)")


def pooled(scores: nn.Linear, tokens: Tensor, mask: Tensor) -> Tensor:
    """What tokens say to fixed queries, one a head: their mean by softmax of the scores that they get.

    scores: of each token, by head; tokens (B, L, D), mask (B, L) True where they are real -> (B, heads D).
    """
    shares = scores(tokens).masked_fill(~mask[..., None], -torch.inf).softmax(1)
    return torch.einsum("blh,bld->bhd", shares, tokens).flatten(1)


LONG = 512  # keys from which on the way below is the faster one
AT_ONCE = 2**21  # scores: 4 MiB in bfloat16, which stay in the cache
EVERY = 8  # of the keys, how many apart those are that tell about how large scores are


def _is_long(q: Tensor, k: Tensor) -> bool:
    """Whether torch's own kernel is slow: it makes bfloat16 products on CPUs one narrow head at a time."""
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[1] >= LONG and not torch.is_grad_enabled()


def _long(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The same in three passes over blocks of scores: products, powers of two, products.

    Softmax does not change when a number is taken from all scores of a query. Taken from them is the largest score of
    every eighth key, by one more column of q and k: so it happens before scores are rounded, and what weighs most is
    rounded least. The sum of powers is one more column of v. Where a score is larger than that by 127 or more, the
    result is not finite.
    """
    width = q.shape[2] // heads
    room = 8 - width % 8  # one column at least, and rows as products like them
    queries, keys, values = (_headed(x, heads, room) for x in (q * (math.log2(math.e) / math.sqrt(width)), k, v))
    keys[..., width] = values[..., width] = 1
    out = torch.empty_like(queries)
    step = max(1, AT_ONCE // keys.shape[1])
    scores = queries.new_empty(step, keys.shape[1])
    for query, key, value, result in zip(queries, keys, values, out, strict=True):
        query[:, width] = -torch.mm(query, key[::EVERY].T).amax(1)
        for rows, made in zip(query.split(step), result.split(step), strict=True):
            block = scores[: len(rows)]
            torch.mm(rows, key.T, out=block)
            torch.mm(block.exp2_(), value, out=made)
    return rearrange(out[..., :width] / out[..., width, None], "(b h) l d -> b l (h d)", h=heads)


def _headed(x: Tensor, heads: int, room: int) -> Tensor:
    """(B, L, H D) to (B H, L, D + room), nothing in the room."""
    return F.pad(rearrange(x, "b l (h d) -> (b h) l d", h=heads), (0, room))
