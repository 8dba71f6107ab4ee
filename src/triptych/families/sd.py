"""Stable Diffusion 1.5 (arXiv:2112.10752) and XL (arXiv:2307.01952), and the thousands of models made from them.

Weights lie in one file, in a folder as diffusers has them, or on the hub; none of them is read twice or copied whole.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from triptych.engine.codecs.kl import KL, safe_dtype
from triptych.engine.denoiser import NetworkDenoiser
from triptych.engine.nets.ldm import LatentUNet
from triptych.families import cards, place
from triptych.families.sd_changes import Changes
from triptych.families.sd_prompts import PromptEncoder
from triptych.families.sd_weights import KINDS, codec_of, filled, measured, tower_of, trained, unet_of
from triptych.model import Model
from triptych.types import Card
from triptych.weights.files import Bundle, open_bundle

__all__ = ["load"]


def load(card: Card, device: str, dtype: str) -> Model:
    """The model whose weights lie where the card's settings say. Raises WeightsError, WeightsMismatch."""
    bundle = open_bundle(place(card.settings["source"]))
    kind = measured(KINDS[card.settings["kind"]], bundle)
    precision: torch.dtype = getattr(torch, dtype)
    network = filled(lambda: LatentUNet(kind.shape), *unet_of(bundle, kind.shape.blocks), device, precision)

    def coded(bundle: Bundle) -> KL:
        return filled(lambda: KL(kind.codec), *codec_of(bundle), device, safe_dtype(precision))

    codec = coded(bundle)
    towers = {one.folder: tower_of(bundle, one, device, precision) for one in kind.towers}
    return Model(
        card,
        PromptEncoder(kind, tuple(towers.values()), codec),
        NetworkDenoiser(network, *trained(bundle), entry),
        codec,
        init="seen" if kind.shape.in_channels > 4 else "start",
        moments=codec.moments,
        prepare=Changes(
            network,
            kind.shape,
            towers,
            partial(_refiner, device=device, dtype=dtype),
            lambda source: coded(open_bundle(place(source))),
        ),
    )


def _refiner(source: str, device: str, dtype: str) -> Model:
    card = cards()["sdxl-refiner"]
    return load(replace(card, settings={**card.settings, "source": source}), device, dtype)


def entry(t: Tensor) -> Tensor:
    """The network's clock: entries of the training table, 0 to 999."""
    return 1000 * t - 1
