"""How high what words ask for may sound: the odds of every note of seven octaves, and where their partials lie.

A network that learns which of twelve neighbours a letter means has to learn it on every row of frequencies; told where
what is likely lies, it only has to choose. As `triptych.engine.pulse` does for when, this does for how high.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.nets.attention import pooled

__all__ = ["LOWEST", "NOTES", "SEMITONES", "Pitch", "partials"]

LOWEST, NOTES = 24, 84  # as MIDI numbers semitones: 69 is 440 Hz
SEMITONES = 12  # of an octave
PARTIALS: Final = 8  # of each note, the nth with 1/n of the strength of the first


def partials(middles: Tensor, widths: Tensor) -> Tensor:
    """Where the partials of each note lie: (NOTES, bands), 1 where a band's middle is that of a first partial, falling
    to 0 one and a half bands away.

    middles, widths: (bands,) of bands of frequencies, in Hz.
    """
    numbers = torch.arange(1, PARTIALS + 1)
    hertz = 440 * torch.exp2((torch.arange(LOWEST, LOWEST + NOTES) - 69) / SEMITONES)
    apart = (middles - (hertz[:, None] * numbers)[..., None]).abs() / (1.5 * widths)
    return ((1 - apart).clamp(min=0) / numbers[:, None]).sum(1)


class Pitch(nn.Module):
    """Words to the odds of notes: those of its place in the octave, which a key tells, times those of how high it is,
    which an instrument tells. So either is learned whatever the other."""

    def __init__(self, width: int, heads: int = 3, hidden: int = 64) -> None:
        """width: of the tokens."""
        super().__init__()
        self.scores, self.said = nn.Linear(width, heads), nn.Linear(heads * width, hidden)
        self.layers = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, SEMITONES + NOTES)
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens (B, L, width), mask (B, L) True where they are real -> (B, NOTES) the logarithm of the odds that each
        of the notes from LOWEST on is there."""
        out = self.layers(self.said(pooled(self.scores, tokens, mask))).float()
        places, heights = out.split([SEMITONES, NOTES], dim=1)
        odds: Tensor = heights + places.repeat(1, NOTES // SEMITONES)  # LOWEST is a c, the first place
        return odds

    def lie(self, tokens: Tensor, mask: Tensor, where: Tensor) -> Tensor:
        """(B, bands) how much of what is likely lies in each band; where: what `partials` gives."""
        return F.sigmoid(self.forward(tokens, mask)) @ where.to(tokens.device)
