"""The networks of Stable Diffusion out of files: what they are, and where their tensors lie."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import Tensor

from triptych.engine.codecs import kl
from triptych.engine.codecs.kl import Setting
from triptych.engine.denoiser import TARGETS, Target
from triptych.engine.nets import ldm
from triptych.engine.nets.ldm import Shape
from triptych.engine.path import Discrete, cosine_betas, linear_betas, scaled_linear_betas, zero_terminal_snr
from triptych.engine.text.clip import END, TOWERS
from triptych.weights.files import Bundle, Tensors
from triptych.weights.layouts import Layout, Source, clip, unet, vae
from triptych.weights.recognise import training
from triptych.weights.schedulers import Betas, meaning

__all__ = [
    "KINDS",
    "Kind",
    "Listening",
    "codec_of",
    "controlled",
    "measured",
    "tower_of",
    "trained",
    "unet_of",
]


@final
@dataclass(frozen=True, slots=True)
class Listening:
    """A text tower, and how the model listens to it."""

    folder: str  # of diffusers' layout
    prefix: str  # of single files
    layout: Callable[[str, Iterable[str]], Mapping[str, Source]]  # of single files
    tower: Mapping[str, Any]  # what `ClipText` takes
    normed: bool = True
    pad: int = END
    pooled: bool = False


CLIP_L = Listening("text_encoder", "cond_stage_model.transformer.", clip.transformers, TOWERS["vit-l"])
XL_L = Listening(
    "text_encoder", "conditioner.embedders.0.transformer.", clip.transformers, TOWERS["vit-l"], normed=False
)
XL_G = Listening(
    "text_encoder_2",
    "conditioner.embedders.1.model.",
    clip.openclip,
    TOWERS["vit-bigg"],
    normed=False,
    pad=0,
    pooled=True,
)


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """What the networks of a kind of model are.

    numbers: how many describe the size: height and width of the original and where it was cropped, then height and
    width of the target, or for the refiner one score of beauty.
    """

    shape: Shape
    codec: Setting
    towers: tuple[Listening, ...]
    numbers: int = 0
    silent: bool = False  # whether an empty negative prompt is told as zeros, as it was in training


SDXL: Final = Kind(ldm.SDXL, kl.SDXL, (XL_L, XL_G), numbers=6, silent=True)
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "sd15": Kind(ldm.SD15, kl.SD15, (CLIP_L,)),
        "sd15-inpainting": Kind(replace(ldm.SD15, in_channels=9), kl.SD15, (CLIP_L,)),
        "sdxl": SDXL,
        "sdxl-turbo": SDXL,
        "sdxl-inpainting": replace(SDXL, shape=replace(ldm.SDXL, in_channels=9)),
        "sdxl-refiner": Kind(
            ldm.REFINER, kl.SDXL, (replace(XL_G, prefix="conditioner.embedders.0.model."),), numbers=5
        ),
    }
)


def measured(kind: Kind, bundle: Bundle) -> Kind:
    """The kind, with the numbers that a folder says of itself."""
    said = bundle.configs
    shape = shape_of(said["unet"], kind.shape) if said.get("unet") else kind.shape
    codec = setting_of(said["vae"], kind.codec) if said.get("vae") else kind.codec
    towers = tuple(
        replace(one, tower=tower_in(said[one.folder])) if said.get(one.folder) else one for one in kind.towers
    )
    return replace(kind, shape=shape, codec=codec, towers=towers)


def shape_of(config: Mapping[str, Any], like: Shape) -> Shape:
    """What diffusers' config.json of a U-Net says; what it leaves out is as in `like`."""
    types = config.get("down_block_types", ["CrossAttnDownBlock2D" if depth else "" for depth in like.depths])
    widths = config.get("block_out_channels", [like.width * n for n in like.multiples])
    depths = config.get("transformer_layers_per_block", 1)
    depths = [depths] * len(types) if isinstance(depths, int) else list(depths)
    heads = config.get("attention_head_dim", like.heads)  # which is what diffusers calls their number
    return Shape(
        context=config.get("cross_attention_dim", like.context),
        depths=[depth if "CrossAttn" in name else 0 for name, depth in zip(types, depths, strict=True)],
        middle=depths[-1],
        in_channels=config.get("in_channels", like.in_channels),
        width=widths[0],
        multiples=[width // widths[0] for width in widths],
        blocks=config.get("layers_per_block", like.blocks),
        heads=heads if isinstance(heads, int) else None,
        vector=config.get("projection_class_embeddings_input_dim", like.vector),
    )


def setting_of(config: Mapping[str, Any], like: Setting) -> Setting:
    """What diffusers' config.json of an autoencoder says; what it leaves out is as in `like`."""
    return replace(
        like,
        channels=config.get("latent_channels", like.channels),
        scale=config.get("scaling_factor", like.scale),
        widths=tuple(config.get("block_out_channels", like.widths)),
        blocks=config.get("layers_per_block", like.blocks),
        groups=config.get("norm_num_groups", like.groups),
    )


def tower_in(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What transformers' config.json of a text tower says."""
    projected = {"projected": config["projection_dim"]} if "Projection" in config["architectures"][0] else {}
    return {
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "activation": config["hidden_act"],
        **projected,
    }


def unet_of(bundle: Bundle, blocks: int) -> tuple[Tensors, Layout]:
    if "unet" in bundle.sets:
        return bundle.sets["unet"], partial(unet.diffusers, blocks=blocks)
    return bundle.sets[""].under("model.diffusion_model."), partial(unet.prefixed, prefix="")


def codec_of(bundle: Bundle) -> tuple[Tensors, Layout]:
    if "vae" in bundle.sets:
        found = bundle.sets["vae"]
    else:
        lone = bundle.sets[""]
        within = [part for prefix in vae.PREFIXES if (part := lone.under(prefix)).places]
        found = within[0]  # the last prefix is none at all
    return found, vae.layout(found.names())


def tower_of(bundle: Bundle, one: Listening) -> tuple[Tensors, Layout]:
    found = bundle.sets[one.folder] if one.folder in bundle.sets else bundle.sets[""].under(one.prefix)
    sources = (clip.transformers if one.folder in bundle.sets else one.layout)("", found.names())
    return found, lambda _: sources


def trained(bundle: Bundle) -> tuple[Discrete, Target]:
    """The table of noise that the network was trained on, and what it was trained to give."""
    prediction, zero_snr = training(bundle)
    said = bundle.configs.get("scheduler")
    betas = _table(meaning(said).betas) if said else scaled_linear_betas()
    return Discrete(zero_terminal_snr(betas) if zero_snr else betas), TARGETS[prediction]


def _table(betas: Betas) -> Tensor:
    """(entries,) betas, float64."""
    if betas.listed:
        return torch.tensor(betas.listed, dtype=torch.float64)
    if betas.schedule == "squaredcos_cap_v2":
        return cosine_betas(betas.entries)
    spaced = linear_betas if betas.schedule == "linear" else scaled_linear_betas
    return spaced(betas.start, betas.end, betas.entries)


def controlled(tensors: Tensors, blocks: int) -> tuple[Tensors, Layout]:
    """A ControlNet's tensors and their layout: of diffusers, or of its authors with or without their prefix."""
    if "controlnet_cond_embedding.conv_in.weight" in tensors.places:
        return tensors, partial(unet.diffusers, blocks=blocks)
    own = tensors.under("control_model.") if "control_model.zero_convs.0.0.weight" in tensors.places else tensors
    return own, partial(unet.prefixed, prefix="")
