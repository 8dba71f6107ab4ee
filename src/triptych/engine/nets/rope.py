"""Rotary positions (arXiv:2104.09864) along any number of axes, each of which has channels of its own.

At place p the pair i of an axis' D channels is turned by p / theta^(2i/D): as one complex number each, pairs are
multiplied by exp(i p / theta^(2i/D)). Products of queries and keys so depend on how far apart their places are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["grid", "turn", "turns"]


def grid(number: int, *lengths: int) -> Tensor:
    """Places (L, 1 + A) float64 of a grid of A axes, the last of which runs fastest: its number, then along each."""
    axes = [torch.arange(length, dtype=torch.float64, device="cpu") for length in lengths]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    return torch.cat([torch.full_like(places[:, :1], number), places], dim=1)


def turns(places: Tensor, channels: Sequence[int], theta: float = 10_000.0) -> Tensor:
    """places (L, A), channels of each of the A axes -> (L, D / 2) complex64: what the D / 2 pairs are multiplied by."""
    angles = [
        place[:, None] * theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
        for place, width in zip(places.unbind(1), channels, strict=True)
    ]
    angle = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def turn(out: Tensor, x: Tensor, by: Tensor) -> None:
    """Writes x (B, L, H, D) float32 to `out` of its shape, its last tokens turned; by (L', D / 2) complex, L' <= L.

    What comes before them is where all places are zero.
    """
    still = x.shape[1] - len(by)
    out[:, :still] = x[:, :still]
    pairs = torch.view_as_complex(torch.unflatten(x[:, still:], -1, (-1, 2)))
    out[:, still:] = torch.view_as_real(pairs * by[:, None]).flatten(-2)
