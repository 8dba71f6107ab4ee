"""A convolutional autoencoder of waves that keeps magnitudes and leaves phases out.

Ears hardly hear phases and a network can hardly guess them. Waves become the logarithm of a short-time Fourier
transform, on a scale that is linear at first and then joins ever more bins, octave by octave, as ears do; that is
encoded as a picture is (`triptych.engine.codecs.folded`), and the phases are found from what comes back
(`triptych.engine.codecs.phase`).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.codecs.folded import Folded
from triptych.engine.codecs.phase import magnitudes, waves

__all__ = ["Spectral"]

FLOOR = 3e-4  # the magnitude that counts as silence: 70 dB below a sine of amplitude 1
OCTAVES = 3  # of joined bins, by twos, fours and eights
MIDDLE, SPAN = -5.0, 3.0  # of the logarithm of magnitudes: about [-1, 1]


class Spectral(nn.Module):
    """Waves (B, 1, N) in [-1, 1] to latents (B, channels, N / (hop 2 fold)), N padded with silence to a multiple.

    The channels of a latent are those of every row of the picture, `each` a row. window, hop: of the transform, in
    samples; fold: (bands, frames) that are folded into channels, half of what a latent stands for; rounds: of finding
    phases; widths, blocks, finish: as `Folded` takes them.
    """

    def __init__(
        self,
        each: int = 16,
        *,
        window: int = 2048,
        hop: int = 512,
        fold: Sequence[int] = (8, 4),
        widths: Sequence[int] = (64, 96, 128, 96),
        blocks: Sequence[int] = (1, 2, 2, 2),
        finish: int = 8,
        rounds: int = 32,
    ) -> None:
        super().__init__()
        self.window, self.hop, self.rounds = window, hop, rounds
        self.picture = Folded(2, 1, each, fold, widths=widths, blocks=blocks, finish=finish)
        self.rows = self.bands // self.picture.scale_factor[0]

    @property
    def bands(self) -> int:
        """Rows of the picture."""
        return (2 + OCTAVES) * self._octave

    @property
    def _octave(self) -> int:
        """Bands of each octave of joined bins; twice as many bins below them stay as they are."""
        return self.window // 2 >> (OCTAVES + 1)

    def hertz(self, rate: float) -> tuple[Tensor, Tensor]:
        """The middle and the width of each band (bands,), in Hz; rate: samples a second."""
        joined = torch.tensor([1, 1, *(1 << n for n in range(1, OCTAVES + 1))]).repeat_interleave(self._octave)
        widths = joined * (rate / self.window)
        return widths.cumsum(0) - widths / 2 - rate / self.window / 2, widths

    @property
    def channels(self) -> int:
        return self.picture.channels * self.rows

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return (self.hop * self.picture.scale_factor[1],)

    def spectrum(self, x: Tensor) -> Tensor:
        """Waves (B, 1, N) to the logarithm of their magnitudes in bands (B, 1, bands, frames), about [-1, 1]."""
        missing = -x.shape[-1] % self.scale_factor[0]
        found = (magnitudes(F.pad(x.float(), (0, missing))[:, 0], self.window, self.hop) + FLOOR).log()
        parts = [found[:, : 2 * self._octave]]
        for octave in range(1, OCTAVES + 1):
            within = found[:, self._octave << octave : self._octave << (octave + 1)]
            parts.append(F.avg_pool2d(within, (1 << octave, 1)))
        return ((torch.cat(parts, dim=1) - MIDDLE) / SPAN)[:, None]

    def sounding(self, spectrum: Tensor) -> Tensor:
        """What `spectrum` gives, back to waves (B, 1, N)."""
        bands = spectrum[:, 0].float() * SPAN + MIDDLE
        low, *octaves = torch.split(bands, [2 * self._octave] + OCTAVES * [self._octave], dim=1)
        parts = [part.repeat_interleave(1 << octave, 1) for octave, part in enumerate(octaves, 1)]
        logs = F.pad(torch.cat([low, *parts], dim=1), (0, 0, 0, 1), value=MIDDLE - 2 * SPAN)
        return waves((logs.exp() - FLOOR).clamp(min=0), self.window, self.hop, self.rounds)[:, None]

    def encode(self, x: Tensor) -> Tensor:
        return self.picture.encode(self.spectrum(x)).flatten(1, 2)

    def restored(self, z: Tensor) -> Tensor:
        """Latents to the logarithm of magnitudes in bands (B, 1, bands, frames)."""
        return self.picture.decode(z.reshape(len(z), -1, self.rows, z.shape[2]))

    def decode(self, z: Tensor) -> Tensor:
        return self.sounding(self.restored(z))
