"""Token merging: attention among fewer tokens, those that are most alike standing for each other.

One place of every 2 x 2 is a destination; of all others, the share that is most like one (by the cosine) is merged into
it, as the mean of all that are merged there, before attention, and gets what that says after (arXiv:2303.17604, section
4). Destinations are always the first of their cell, not drawn as there: what is made is decided by the seed alone.
"""

from collections.abc import Sequence
from typing import Self, final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MOST", "Merging"]

MOST = 0.75  # the share of tokens that are no destinations


@final
class Merging:
    """Which tokens of each sample stand together."""

    def __init__(self, groups: Tensor, count: int) -> None:
        """groups: (B, N) the group of each token, 0 to B x count - 1; those of a sample follow the one's before."""
        self._groups, self._count = groups, count

    @classmethod
    def of(cls, x: Tensor, size: Sequence[int], share: float) -> Self:
        """x (B, H W, C) on a grid of size (H, W); share: of all tokens, how many are merged into others, up to MOST."""
        first = _first(size, x.device)
        to, others = first.nonzero()[:, 0], (~first).nonzero()[:, 0]
        units = F.normalize(x, dim=-1)
        likeness, nearest = (units[:, others] @ units[:, to].mT).max(-1)  # (B, H W - cells)
        chosen = likeness.argsort(dim=-1, descending=True, stable=True)[:, : int(share * x.shape[1])]
        alone = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device).scatter(1, others[chosen], False)
        numbers = (alone.flatten().cumsum(0) - 1).reshape(alone.shape)
        stands_for = torch.arange(x.shape[1], device=x.device).repeat(len(x), 1)
        stands_for.scatter_(1, others[chosen], to[nearest.gather(1, chosen)])
        return cls(numbers.gather(1, stands_for), x.shape[1] - chosen.shape[1])

    def merged(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, count, C): the mean of each group."""
        groups = self._groups.flatten()
        ends = torch.bincount(groups, minlength=len(x) * self._count).cumsum(0)
        begins = F.pad(ends[:-1], (1, 0))
        means = F.embedding_bag(groups.argsort(stable=True), x.flatten(0, 1), begins, mode="mean")
        return means.reshape(len(x), self._count, -1)

    def parted(self, x: Tensor) -> Tensor:
        """(B, count, C) -> (B, N, C): to every token what its group has."""
        return x.flatten(0, 1)[self._groups]


def _first(size: Sequence[int], device: torch.device) -> Tensor:
    """(H W,) True at the first place of every 2 x 2."""
    rows, columns = (torch.arange(length, device=device) % 2 == 0 for length in size)
    return (rows[:, None] & columns).flatten()
