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
from triptych.engine.path import Discrete
from triptych.engine.text.clip import ClipText
from triptych.families import cards, place
from triptych.families.guests import Guests, staged_codec
from triptych.families.sd_changes import Changes, Second, sources, walking
from triptych.families.sd_prompts import PromptEncoder
from triptych.families.sd_weights import KINDS, codec_of, measured, tower_of, trained, unet_of
from triptych.model import Model
from triptych.types import Card
from triptych.weights.files import open_bundle
from triptych.weights.loading import Component
from triptych.weights.offload import Rooms

__all__ = ["load", "sources"]


def load(card: Card, device: str, dtype: str) -> Model:
    """The model whose weights lie where the card's settings say. Raises WeightsError, WeightsMismatch."""
    return _assembled(card, device, dtype, Rooms(), "").model


def _assembled(card: Card, device: str, dtype: str, rooms: Rooms, prefix: str) -> Second:
    """A model whose components are in these rooms, under names with this prefix."""
    bundle = open_bundle(place(card.settings["source"]))
    kind = measured(KINDS[card.settings["kind"]], bundle)
    precision: torch.dtype = getattr(torch, dtype)
    towers = {
        one.folder: Component(lambda one=one: ClipText(**one.tower), *tower_of(bundle, one), device, precision)  # type: ignore[misc]  # each its own
        for one in kind.towers
    }
    network = Component(lambda: LatentUNet(kind.shape), *unet_of(bundle, kind.shape.blocks), device, precision)
    codec = Component(lambda: KL(kind.codec), *codec_of(bundle), device, safe_dtype(precision))
    for name, tower in towers.items():
        rooms.add(prefix + name, tower)
    rooms.add(f"{prefix}unet", network)
    rooms.add(f"{prefix}vae", codec)
    path, target = trained(bundle)
    coder = staged_codec(codec.module, rooms, f"{prefix}vae", codec.dtype)

    def refiner(source: str) -> Second:
        of = cards()["sdxl-refiner"]
        of = replace(of, settings={**of.settings, "source": source})
        return _assembled(of, device, dtype, rooms, "refiner ")

    def another(source: str) -> Component[KL]:
        bundle = open_bundle(place(source))
        return Component(lambda: KL(kind.codec), *codec_of(bundle), device, safe_dtype(precision))

    names = [prefix + name for name in towers]
    guests = Guests(rooms, device, partial(walking, dtype=precision))
    changes = Changes(network, kind.shape, towers, coder, guests, refiner, another)
    model = Model(
        card,
        PromptEncoder(kind, [one.module for one in towers.values()], coder, device, rooms, names),
        NetworkDenoiser(guests.network(network.module, [f"{prefix}unet"]), path, target, partial(entry, path)),
        coder,
        init="seen" if kind.shape.in_channels > 4 else "start",
        moments=coder.moments,
        prepare=changes,
        plan=changes.plan,
        warnings=tuple(card.settings.get("differs", ())),
    )
    return Second(model, network.module, prefix, [*names, f"{prefix}unet", f"{prefix}vae"])


def entry(path: Discrete, t: Tensor) -> Tensor:
    """The network's clock: entries of the training table, counted from 0."""
    return path.entries * t - 1
