"""How often something recurs: a rate foretold from words, and waves that tell a network when the next time is.

A number in a text is one token among others, and a network that places events has to count; told by waves that are at
their crest whenever the time has come, it has not. The waves are those of sines for positions (arXiv:1706.03762), at
the rate itself, twice and four times.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn

from triptych.engine.nets.attention import pooled

__all__ = ["WAVES", "Pulse", "waves"]

MULTIPLES: Final = (1, 2, 4)
WAVES: Final = 2 * len(MULTIPLES)


def waves(rate: Tensor, seconds: Tensor) -> Tensor:
    """rate (B,) times a second, 0 where nothing recurs, seconds (T,) -> (B, WAVES, T); cosines are 1 at every time."""
    turns = 2 * math.pi * rate[:, None] * seconds
    found = torch.stack([part for n in MULTIPLES for part in ((n * turns).cos(), (n * turns).sin())], dim=1)
    return found * (rate > 0)[:, None, None]


class Pulse(nn.Module):
    """Words to a rate: attention with fixed queries, then two layers; and whether there is one at all."""

    def __init__(self, width: int, heads: int = 4, hidden: int = 192) -> None:
        """width: of the tokens."""
        super().__init__()
        self.scores, self.said = nn.Linear(width, heads), nn.Linear(heads * width, hidden)
        self.layers = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2))

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, L, width), mask (B, L) True where they are real -> (B,) log2 of times a second, and (B,) the
        logarithm of the odds that anything recurs."""
        out = self.layers(self.said(pooled(self.scores, tokens, mask))).float()
        return out[:, 0], out[:, 1]

    def rate(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B,) times a second, 0 where nothing recurs."""
        rate, odds = self.forward(tokens, mask)
        return torch.exp2(rate) * (odds > 0)
