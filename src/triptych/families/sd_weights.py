"""The networks of Stable Diffusion out of files: what they are, where their tensors lie, and loading them strictly."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from triptych.engine.codecs import kl
from triptych.engine.codecs.kl import Setting
from triptych.engine.denoiser import TARGETS, Target
from triptych.engine.nets import ldm
from triptych.engine.nets.ldm import Shape
from triptych.engine.path import Discrete, scaled_linear_betas, zero_terminal_snr
from triptych.engine.text.clip import END, TOWERS, ClipText
from triptych.errors import WeightsMismatch
from triptych.weights.files import Bundle, Tensors
from triptych.weights.layouts import Layout, Source, clip, gathered, unet, vae
from triptych.weights.recognise import training

__all__ = [
    "KINDS",
    "Kind",
    "Listening",
    "codec_of",
    "controlled",
    "filled",
    "measured",
    "tower_of",
    "trained",
    "unet_of",
]

M = TypeVar("M", bound=nn.Module)


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


def tower_of(bundle: Bundle, one: Listening, device: str, dtype: torch.dtype) -> ClipText:
    found = bundle.sets[one.folder] if one.folder in bundle.sets else bundle.sets[""].under(one.prefix)
    layout = clip.transformers if one.folder in bundle.sets else one.layout
    sources = layout("", found.names())
    return filled(lambda: ClipText(**one.tower), found, lambda _: sources, device, dtype)


def trained(bundle: Bundle) -> tuple[Discrete, Target]:
    """The table of noise that the network was trained on, and what it was trained to give."""
    prediction, zero_snr = training(bundle)
    betas = scaled_linear_betas()
    return Discrete(zero_terminal_snr(betas) if zero_snr else betas), TARGETS[prediction]


def filled(
    build: Callable[[], M],
    tensors: Tensors,
    layout: Callable[[Iterable[str]], Mapping[str, Source]],
    device: str,
    dtype: torch.dtype,
) -> M:
    """A module with the weights of a file, every one of which must have its place. Raises WeightsMismatch.

    They are views of the file until they are converted, one after the other; each lets go of the one before.
    """
    with torch.device("meta"), _Blank():
        module = build()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    sources = layout(shapes)
    used = {name for source in sources.values() for name in source.names}
    missing = [name for name in shapes if name not in sources or not set(sources[name].names) <= tensors.places.keys()]
    left = [name for name in tensors.names() if name not in used and not clip.IDLE.search(name)]
    if missing or left:
        raise WeightsMismatch(tensors.where, missing, left)
    before: list[str] = []

    def read(name: str) -> Tensor:
        if before:
            tensors.release(before.pop())
        before.append(name)
        return tensors.read(name)

    found = gathered(sources, shapes, read, partial(_converted, device=device, dtype=dtype))
    wrong = [name for name, value in found.items() if tuple(value.shape) != shapes[name]]
    if wrong:
        raise WeightsMismatch(tensors.where, [], [f"{name} {tuple(found[name].shape)}" for name in wrong])
    module.load_state_dict(found, assign=True)
    return module.eval().requires_grad_(False)


def _converted(tensor: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    """A weight as it will be used; kernels (O, I, H, W) have their channels last."""
    if not tensor.is_floating_point():
        return tensor.to(device)
    order = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device=device, dtype=dtype, memory_format=order)


@final
class _Blank(TorchFunctionMode):
    """Within it no first values are drawn: others are about to take their place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        told = kwargs or {}
        return told.get("tensor", *args[:1]) if func in DRAWING else func(*args, **told)


DRAWING = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


def controlled(tensors: Tensors, blocks: int) -> tuple[Tensors, Layout]:
    """A ControlNet's tensors and their layout: of diffusers, or of its authors with or without their prefix."""
    if "controlnet_cond_embedding.conv_in.weight" in tensors.places:
        return tensors, partial(unet.diffusers, blocks=blocks)
    own = tensors.under("control_model.") if "control_model.zero_convs.0.0.weight" in tensors.places else tensors
    return own, partial(unet.prefixed, prefix="")
