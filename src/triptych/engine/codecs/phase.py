"""Waves from magnitudes alone: phases are guessed in one pass, then made to agree with each other.

A short-time Fourier transform is n bins over time; see `triptych.engine.codecs.spectral` for what uses it.
"""

import math

import torch
from torch import Tensor

__all__ = ["magnitudes", "waves"]

MOMENTUM = 0.99  # of the fast Griffin-Lim algorithm, as its authors set it


def magnitudes(x: Tensor, window: int, hop: int) -> Tensor:
    """Waves (B, N), N a multiple of hop, to (B, window / 2 + 1, N / hop); a sine of amplitude 1 has about 1 there."""
    return _transform(x, window, hop)[..., :-1].abs() * (4 / window)


def waves(spectrum: Tensor, window: int, hop: int, rounds: int) -> Tensor:
    """What `magnitudes` gives, back to waves (B, N).

    The first guess lets every bin turn at the frequency of the peak that it belongs to (single pass spectrogram
    inversion: Beauregard, Harish and Wyse, DSP 2015); then as many rounds of the fast Griffin-Lim algorithm (Perraudin,
    Balazs and Søndergaard, WASPAA 2013).
    """
    whole = torch.cat([spectrum, spectrum[..., -1:]], dim=-1).float() * (window / 4)
    length = hop * spectrum.shape[-1]
    turned, before = torch.polar(torch.ones_like(whole), _turning(whole, window, hop)), torch.zeros_like(whole)
    for _ in range(rounds):
        found = _transform(_back(whole * turned, window, hop, length), window, hop)
        leap = found - before * (MOMENTUM / (1 + MOMENTUM))
        turned, before = leap / leap.abs().clamp(min=1e-12), found
    return _back(whole * turned, window, hop, length)


def _transform(x: Tensor, window: int, hop: int) -> Tensor:
    shape = torch.hann_window(window, device=x.device)
    return torch.stft(x.float(), window, hop, window=shape, pad_mode="constant", return_complex=True)


def _back(spectrum: Tensor, window: int, hop: int, length: int) -> Tensor:
    return torch.istft(spectrum, window, hop, window=torch.hann_window(window, device=spectrum.device), length=length)


def _turning(spectrum: Tensor, window: int, hop: int) -> Tensor:
    """(B, bins, T) magnitudes to phases: peaks turn at their frequency, the bins around them with them."""
    logs, bins = spectrum.clamp(min=1e-8).log(), spectrum.shape[1]
    number = torch.arange(bins, device=spectrum.device)
    below, at, above = logs[:, :-2], logs[:, 1:-1], logs[:, 2:]
    peak, between = torch.zeros_like(logs, dtype=torch.bool), torch.zeros_like(logs)
    peak[:, 1:-1] = (at >= below) & (at > above)
    # The top of the parabola through a peak and its neighbours lies this far from the peak's bin.
    between[:, 1:-1] = (0.5 * (below - above) / (below - 2 * at + above).clamp(max=-1e-9)).clamp(-0.5, 0.5)
    column = number[:, None].expand(bins, spectrum.shape[2]).expand_as(logs)
    left = torch.where(peak, column, -bins).cummax(1).values
    right = torch.where(peak, column, 2 * bins).flip(1).cummin(1).values.flip(1)
    nearest = torch.where(column - left <= right - column, left, right)
    nearest = torch.where((nearest < 0) | (nearest >= bins), column, nearest)
    step = (2 * math.pi * hop / window) * (nearest + between.gather(1, nearest))
    # The window's middle, not its start, is where all bins of a peak agree: neighbours differ by half a turn.
    apart = math.pi * ((column - nearest) % 2)
    phase, found = torch.zeros_like(logs[..., 0]), torch.empty_like(logs)
    for t in range(logs.shape[2]):
        phase = torch.remainder(phase.gather(1, nearest[..., t]) + step[..., t] + apart[..., t], 2 * math.pi)
        found[..., t] = phase
    return found
