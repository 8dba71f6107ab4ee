"""Where something is at every moment: a course foretold from words, and latents laid down along it.

A network that is to move what it draws has to find out where everything goes, frame after frame, before it can learn
to draw it there. Told by a sketch that moves already (a spatial transformer, arXiv:1506.02025), it only has to draw.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.nets.attention import pooled

__all__ = ["POSE", "Course", "backwards", "laid", "still"]

POSE: Final = 6  # x, y, log2 of the scale, cosine and sine of the turn, alpha
LOOP = 3.0  # seconds after which a course begins again
HARMONICS = 24


def still(batch: int, length: int) -> Tensor:
    """(batch, length, POSE) of what stays where it is."""
    return torch.tensor([0.0, 0, 0, 1, 0, 1]).expand(batch, length, POSE)


def backwards(poses: Tensor) -> Tensor:
    """Poses (..., POSE) to the maps (..., 3, 3) from a place in the frame to the place in the picture that is there.

    x, y: of the centre, from the middle of the frame, as shares of it, to the right and down; turns are clockwise.
    """
    x, y, size, cosine, sine, _ = poses.unbind(-1)
    length = torch.hypot(cosine, sine).clamp(min=1e-3)
    scale = torch.exp2(size)
    c, s = cosine / length / scale, sine / length / scale
    dx, dy, none, one = 2 * x, 2 * y, torch.zeros_like(x), torch.ones_like(x)
    rows = [c, s, -(c * dx + s * dy), -s, c, s * dx - c * dy, none, none, one]
    return torch.stack(rows, dim=-1).reshape(*x.shape, 3, 3)


def laid(x: Tensor, maps: Tensor, alpha: Tensor | None = None) -> Tensor:
    """Pictures (B, C, H, W), for each moment found by maps (B, T, 3, 3), to (B, C, T, H, W).

    What lies beyond a picture is as its corners are on average, and so are its outermost places: latents know the edge
    of what they encode, and the edge does not move. alpha (B, T): how much of it is there; the rest is as its corners.
    """
    batch, length = maps.shape[:2]
    ground, inner = _ground(x), F.pad(x[..., 1:-1, 1:-1].float(), (1, 1, 1, 1))
    apart = inner - F.pad(ground.expand_as(x[..., 1:-1, 1:-1]), (1, 1, 1, 1))
    grid = F.affine_grid(maps[:, :, :2].flatten(0, 1).float(), [batch * length, 1, *x.shape[2:]], align_corners=False)
    found = F.grid_sample(apart.repeat_interleave(length, 0), grid, align_corners=False)
    found = found.reshape(batch, length, *x.shape[1:])
    if alpha is not None:
        found = found * alpha.clamp(0, 1)[..., None, None, None]
    moved: Tensor = (found + ground[:, None]).transpose(1, 2)
    return moved


def _ground(x: Tensor) -> Tensor:
    """(B, C, 1, 1) the mean of the four corners, one place in."""
    return x[..., 1 :: x.shape[-2] - 3, 1 :: x.shape[-1] - 3].float().mean((-2, -1), keepdim=True)


class Course(nn.Module):
    """Words to poses at any moment: what the words say, by attention with fixed queries, then layers on the time."""

    def __init__(self, width: int, heads: int = 4, hidden: int = 192) -> None:
        """width: of the tokens."""
        super().__init__()
        self.scores, self.said = nn.Linear(width, heads), nn.Linear(heads * width, hidden)
        self.time = nn.Linear(2 * HARMONICS, hidden)
        self.layers = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, POSE))

    def forward(self, tokens: Tensor, mask: Tensor, seconds: Tensor) -> Tensor:
        """tokens (B, L, width), mask (B, L) True where they are real, seconds (B, T) -> (B, T, POSE)."""
        said = self.said(pooled(self.scores, tokens, mask))
        turns = seconds[..., None] * (2 * math.pi / LOOP) * torch.arange(1, HARMONICS + 1, device=seconds.device)
        waves = torch.cat([turns.cos(), turns.sin()], dim=-1).to(said.dtype)
        gain = 1 + torch.tanh(said)[:, None]
        out: Tensor = self.layers(gain * self.time(waves) + said[:, None])
        return out.float()
