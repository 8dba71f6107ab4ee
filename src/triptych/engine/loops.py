"""What moves by itself: sequences of latents kept small, recalled by what a text says.

A sequence is a few members that come and go: x(t) = sum_k turn_k(t) mode_k, its singular value decomposition, whose
first mode is near its mean. The modes of all sequences are kept in a basis that they share, so a memory of hundreds of
sequences is small; a network that is told one has only to draw it well (as with `triptych.engine.text.words`).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from triptych.engine.poses import LOOP

__all__ = ["Loops"]


class Loops(nn.Module):
    """A vector (B, width) to what it recalls at any moments, and how surely it moves so at all.

    Every slot has a learned key; one more key stands for what does not move by itself (arXiv:1503.08895). A loop lasts
    three seconds and begins again.
    """

    def __init__(
        self, width: int, grid: Sequence[int], *, slots: int, length: int, modes: int = 3, rank: int = 384
    ) -> None:
        """grid: (C, *S) of a member; length: members of a loop; modes: of each; rank: of the basis."""
        super().__init__()
        self.grid = tuple(grid)
        self.query, self.keys = nn.Linear(width, width), nn.Parameter(torch.randn(slots + 1, width) * 0.1)
        self.turns = nn.Buffer(torch.zeros(slots, modes, length))
        self.values = nn.Buffer(torch.zeros(slots, modes, rank))
        self.basis = nn.Buffer(torch.zeros(rank, math.prod(grid)))

    def scores(self, vector: Tensor) -> Tensor:
        """(B, slots + 1) the logarithm of how much of each is recalled, up to a constant; the last: of nothing."""
        scores: Tensor = self.query(vector) @ self.keys.T
        return scores

    def forward(self, vector: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
        """vector (B, width), seconds (B, T) -> (B, C, T, *S) if it surely moves so, and how sure that is (B,)."""
        recalled = self.scores(vector).float().softmax(-1)
        share = 1 - recalled[:, -1]
        recalled = recalled[:, :-1] / share[:, None].clamp(min=1e-3)
        turns = torch.einsum("bn,nkt->bnkt", recalled, self.turns.float())
        shown = torch.einsum("bnkt,nkr->btr", turns, self.values.float())
        members = _between(shown, seconds * (shown.shape[1] / LOOP)) @ self.basis.float()
        return members.reshape(*members.shape[:2], *self.grid).transpose(1, 2), share

    @torch.no_grad()
    def remember(self, loops: Sequence[Tensor]) -> None:
        """Keeps loops (C, length, *S), one a slot, as near as the modes and the basis allow."""
        split = [_split(loop, self.turns.shape[1]) for loop in loops]
        turns, modes = (torch.stack(parts) for parts in zip(*split, strict=True))
        flat, weights = modes.flatten(0, 1), turns.square().mean(-1).sqrt().flatten()[:, None]
        basis = torch.linalg.svd(flat * weights, full_matrices=False).Vh[: self.basis.shape[0]]
        self.turns.copy_(turns)
        self.basis.copy_(basis)
        self.values.copy_((flat @ basis.T).reshape(self.values.shape))


def _split(loop: Tensor, modes: int) -> tuple[Tensor, Tensor]:
    """(C, length, *S) to turns (modes, length) and modes (modes, C prod(S)), of like size."""
    left, size, right = torch.linalg.svd(loop.float().transpose(0, 1).flatten(1), full_matrices=False)
    half = size[:modes].sqrt()
    return (left[:, :modes] * half).T, half[:, None] * right[:modes]


def _between(x: Tensor, places: Tensor) -> Tensor:
    """x (B, N, D), a closed loop, at places (B, T) between its members: (B, T, D)."""
    before = places.floor()
    each, length = torch.arange(len(x), device=x.device)[:, None], x.shape[1]
    first, second = before.long() % length, (before.long() + 1) % length
    return torch.lerp(x[each, first], x[each, second], (places - before)[..., None].to(x.dtype))
