"""What moves by itself: sequences of latents kept small, recalled by what a text says.

A sequence is a few pictures that come and go: x(t) = sum_k turn_k(t) picture_k, its singular value decomposition, the
first of them near its mean. The pictures of all sequences are kept in a basis that they share. So a memory of hundreds
of sequences is small, and a network that is told one has only to draw it well (as `triptych.engine.text.words`).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from triptych.engine.poses import LOOP

__all__ = ["Loops"]


class Loops(nn.Module):
    """A vector (B, width) to what it recalls at any moments, and how much of it moves so at all.

    Every slot has a learned key; one more key stands for what does not move by itself (arXiv:1503.08895). A loop lasts
    three seconds and begins again.
    """

    def __init__(
        self, width: int, grid: Sequence[int], *, slots: int, length: int, pictures: int = 4, rank: int = 384
    ) -> None:
        """grid: (C, *S) of a member; length: members of a loop; pictures: of each; rank: of the basis."""
        super().__init__()
        self.grid = tuple(grid)
        self.query, self.keys = nn.Linear(width, width), nn.Parameter(torch.randn(slots + 1, width) * 0.1)
        self.turns = nn.Buffer(torch.zeros(slots, pictures, length))
        self.values = nn.Buffer(torch.zeros(slots, pictures, rank))
        self.basis = nn.Buffer(torch.zeros(rank, math.prod(grid)))

    def scores(self, vector: Tensor) -> Tensor:
        """(B, slots + 1) the logarithm of how much of each is recalled, up to a constant; the last: of nothing."""
        scores: Tensor = self.query(vector) @ self.keys.T
        return scores

    def forward(self, vector: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
        """vector (B, width), seconds (B, T) -> (B, C, T, *S) of one that surely moves so, and how sure that is (B,)."""
        recalled = self.scores(vector).float().softmax(-1)
        share = 1 - recalled[:, -1]
        recalled = recalled[:, :-1] / share[:, None].clamp(min=1e-3)
        turns = torch.einsum("bn,nkt->bnkt", recalled, self.turns.float())
        shown = torch.einsum("bnkt,nkr->btr", turns, self.values.float())
        members = _between(shown, seconds * (shown.shape[1] / LOOP)) @ self.basis.float()
        return members.reshape(*members.shape[:2], *self.grid).transpose(1, 2), share

    @torch.no_grad()
    def remember(self, loops: Sequence[Tensor]) -> None:
        """Keeps loops (C, length, *S), one a slot, as near as the pictures and the basis allow."""
        pictures, turns = [], []
        for loop in loops:
            flat = loop.float().transpose(0, 1).flatten(1)
            left, size, right = torch.linalg.svd(flat, full_matrices=False)
            kept = self.turns.shape[1]
            turns.append((left[:, :kept] * size[:kept].sqrt()).T)
            pictures.append(size[:kept, None].sqrt() * right[:kept])
        whole = torch.stack(pictures).flatten(0, 1)
        weights = torch.stack(turns).square().mean(-1).sqrt().flatten()[:, None]
        basis = torch.linalg.svd(whole * weights, full_matrices=False).Vh[: self.basis.shape[0]]
        self.turns.copy_(torch.stack(turns))
        self.basis.copy_(basis)
        self.values.copy_((whole @ basis.T).reshape(self.values.shape))


def _between(x: Tensor, places: Tensor) -> Tensor:
    """x (B, N, D), a closed loop, at places (B, T) between its members: (B, T, D)."""
    before = places.floor()
    after = places - before
    each, length = torch.arange(len(x), device=x.device)[:, None], x.shape[1]
    first, second = before.long() % length, (before.long() + 1) % length
    return torch.lerp(x[each, first], x[each, second], after[..., None].to(x.dtype))
