"""How much memory the networks of Stable Diffusion take beside their weights when they are at work.

Measured on a CPU in bfloat16, the peak of the process over its weights: SD 1.5 and SDXL at 256 and 512 pixels, one
picture and two; the codec at 512 and 768 pixels. float32 takes twice as much.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from triptych.engine.codecs.tiles import Strips
from triptych.engine.denoiser import Network
from triptych.weights.offload import Posterior, Rooms, StagedCodec, StagedNetwork

__all__ = ["decoding", "staged_codec", "staged_network", "walking"]

LATENT: Final = 8 * 8  # pixels


def walking(pixels: int, dtype: torch.dtype) -> int:
    """Bytes of a step on so many pixels, all pictures of the batch together."""
    return (256 * 2**20 + 450 * pixels) * dtype.itemsize // 2


def decoding(pixels: int, dtype: torch.dtype) -> int:
    """Bytes of decoding or encoding so many pixels as a whole."""
    return (128 * 2**20 + 1800 * pixels) * dtype.itemsize // 2


def staged_network(network: Network, rooms: Rooms, names: Sequence[str], dtype: torch.dtype) -> StagedNetwork:
    """The network, whose components of these names come when it is called."""

    def work(x: Tensor) -> int:
        return walking(len(x) * math.prod(x.shape[2:]) * LATENT, dtype)

    return StagedNetwork(network, rooms, names, work)


def staged_codec(codec: Posterior, rooms: Rooms, name: str, dtype: torch.dtype) -> StagedCodec:
    """The codec, whose component of this name comes when it is used; in strips it takes half the memory."""
    share = 2 if isinstance(codec, Strips) else 1
    return StagedCodec(codec, dtype, rooms, name, lambda pixels: decoding(pixels, dtype) // share)
