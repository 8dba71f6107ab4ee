"""Every network at its full width against its reference, in float32: how far apart they are, as a share of the largest.

    python bench/full_width.py [sd15 sdxl refiner controlnet vae flux sd3] [--json FILE]

Random weights, drawn anew from each tensor's name, so that the two need not be in memory together: the largest takes
11 GiB, once for each engine, one after the other.
"""

import argparse
import gc
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from against_diffusers import SD15, SDXL, VAE
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from triptych.engine.codecs import kl
from triptych.engine.codecs.kl import KL
from triptych.engine.conditioning import Conditioning
from triptych.engine.nets import ldm
from triptych.engine.nets.controlnet import ControlNet
from triptych.engine.nets.flux import DEV, Flux
from triptych.engine.nets.ldm import LatentUNet, Shape
from triptych.engine.nets.mmdit import SD3_MEDIUM, MMDiT
from triptych.weights.layouts import flux as fluxes
from triptych.weights.layouts import gathered
from triptych.weights.layouts import mmdit as mmdits
from triptych.weights.layouts import unet as unets
from triptych.weights.layouts import vae as vaes

SIDE = 16  # latents
REFINER = {
    "cross_attention_dim": 1280,
    "attention_head_dim": (6, 12, 24, 24),
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2560,
}
UNETS: dict[str, tuple[Shape, dict[str, Any]]] = {
    "sd15": (ldm.SD15, SD15),
    "sdxl": (ldm.SDXL, SDXL),
    "refiner": (ldm.REFINER, REFINER),
}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight of this name: of a size that lets signals through."""
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    spread = (1 / torch.Size(shape[1:]).numel()) ** 0.5
    return torch.empty(shape).normal_(0, spread, generator=generator)


def filled(module: nn.Module) -> nn.Module:
    """A module of the reference on the meta device, with these weights."""
    state = {name: drawn(name, tuple(value.shape)) for name, value in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def like(module: nn.Module, layout: Callable[..., Any], theirs: dict[str, tuple[int, ...]]) -> nn.Module:
    """Ours on the meta device, with the same; theirs: the reference's shapes by name."""
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(gathered(layout(shapes), shapes, lambda name: drawn(name, theirs[name])), assign=True)
    return module.eval().requires_grad_(False)


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def said(shape: Shape, config: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Conditioning, dict[str, Any]]:
    """x, timestep, tokens, and the same as either engine is told them."""
    torch.manual_seed(0)
    x, t, tokens = torch.randn(2, 4, SIDE, SIDE), torch.tensor([500.0, 3.0]), torch.randn(2, 77, shape.context)
    if shape.vector is None:
        return x, t, tokens, Conditioning(tokens=tokens), {}
    numbers = 6 if shape is ldm.SDXL else 5
    pooled, ids = torch.randn(2, shape.vector - 256 * numbers), torch.rand(2, numbers) * 1024
    from triptych.engine.nets.layers import sines

    vector = torch.cat([pooled, sines(ids.flatten()).reshape(2, -1)], dim=1)
    told = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
    return x, t, tokens, Conditioning(tokens=tokens, vector=vector), told


@torch.inference_mode()
def unet(kind: str) -> float:
    shape, config = UNETS[kind]
    x, t, tokens, cond, told = said(shape, config)
    with torch.device("meta"):
        theirs, ours = UNet2DConditionModel(**config), LatentUNet(shape)
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    wanted = filled(theirs)(x, t, encoder_hidden_states=tokens, **told).sample
    del theirs
    gc.collect()
    return apart(like(ours, unets.diffusers, shapes)(x, t, cond), wanted)


@torch.inference_mode()
def controlnet() -> float:
    x, t, tokens, cond, _ = said(ldm.SD15, SD15)
    hint = torch.rand(2, 3, 8 * SIDE, 8 * SIDE)
    with torch.device("meta"):
        theirs, ours = ControlNetModel(**SD15), ControlNet(ldm.SD15)
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    down, middle = filled(theirs)(x, t, encoder_hidden_states=tokens, controlnet_cond=hint, return_dict=False)
    del theirs
    net = like(ours, unets.diffusers, shapes)
    found = net(x, t, cond, net.embed(hint))
    return max(apart(mine, other) for mine, other in zip(found, [*down, middle], strict=True))


@torch.inference_mode()
def vae() -> float:
    torch.manual_seed(0)
    z, x = torch.randn(1, 4, SIDE, SIDE), torch.rand(1, 3, 8 * SIDE, 8 * SIDE) * 2 - 1
    with torch.device("meta"):
        theirs, ours = AutoencoderKL(**VAE), KL(kl.SD15)
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    theirs, ours = filled(theirs), like(ours, vaes.layout(shapes), shapes)
    decoded = apart(ours.decode(z), theirs.decode(z / kl.SD15.scale).sample)
    encoded = apart(ours.encode(x), theirs.encode(x).latent_dist.mean * kl.SD15.scale)
    return max(decoded, encoded)


@torch.inference_mode()
def flux() -> float:
    """Two double and four single blocks, which is what fits beside others in memory."""
    torch.manual_seed(0)
    x, tokens, vector = torch.randn(2, 16, SIDE, SIDE), torch.randn(2, 77, 4096), torch.randn(2, 768)
    t, guidance = torch.tensor([500.0, 3.0]), torch.tensor([3.5, 1.0])
    cond = Conditioning(tokens=tokens, vector=vector, scalars={"guidance": guidance})
    with torch.device("meta"):
        theirs = FluxTransformer2DModel(num_layers=2, num_single_layers=4, guidance_embeds=True)
        ours = Flux(replace(DEV, doubles=2, singles=4))
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    places = FluxPipeline._prepare_latent_image_ids(2, SIDE // 2, SIDE // 2, torch.device("cpu"), torch.float32)
    wanted = filled(theirs)(
        FluxPipeline._pack_latents(x, 2, 16, SIDE, SIDE), tokens, vector, t / 1000, places, torch.zeros(77, 3), guidance
    ).sample
    del theirs
    gc.collect()
    found = like(ours, fluxes.diffusers, shapes)(x, t, cond)
    return apart(found, FluxPipeline._unpack_latents(wanted, 8 * SIDE, 8 * SIDE, 8))


@torch.inference_mode()
def sd3() -> float:
    """Stable Diffusion 3 medium, whole: 8.4 GB for each engine."""
    torch.manual_seed(0)
    x, tokens, vector = torch.randn(2, 16, SIDE, SIDE), torch.randn(2, 154, 4096), torch.randn(2, 2048)
    t = torch.tensor([500.0, 3.0])
    with torch.device("meta"):
        ours = MMDiT(SD3_MEDIUM)
        theirs = SD3Transformer2DModel(
            num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
        )
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    wanted = filled(theirs)(x, tokens, vector, t).sample
    del theirs
    gc.collect()
    return apart(like(ours, mmdits.diffusers, shapes)(x, t, Conditioning(tokens=tokens, vector=vector)), wanted)


NAMED = {"controlnet": controlnet, "vae": vae, "flux": flux, "sd3": sd3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[*UNETS, *NAMED])
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    found = {}
    for what in told.what:
        found[what] = unet(what) if what in UNETS else NAMED[what]()
        print(f"{what:12} {found[what]:.2e}", flush=True)
        gc.collect()
    if told.json:
        told.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
