"""Stable Diffusion 3 and FLUX.1 end to end: the same folder and seed here and in diffusers' pipelines."""

import gzip
from dataclasses import replace
from importlib.resources import files

import diffusers
import numpy as np
import pytest
import torch
from test_sd import SIZE, lively, psnr, quiet, tokenizer, tower
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from triptych.families import cards, flux1, sd3
from triptych.model import decode, generate, prepared
from triptych.text import spiece
from triptych.text.t5_tokens import SENTINELS
from triptych.types import Request

WIDTH = 48  # of T5's words


def t5():
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 32128}
    return lively(T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **sizes)))


def t5_tokenizer():
    """T5's own, as the package ships it."""
    pieces = spiece.parsed(gzip.decompress(files("triptych.text").joinpath("t5.model.gz").read_bytes()), "T5")
    words = [(piece.text, piece.score) for piece in pieces.items] + [(token, 0.0) for token in SENTINELS]
    return T5Tokenizer(vocab=words, _spm_precompiled_charsmap=pieces.charsmap)


def vae(scale, shift):
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return lively(
        diffusers.AutoencoderKL(
            block_out_channels=(8, 16, 16, 16),
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=8,
            **levels,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=scale,
            shift_factor=shift,
        )  # fmt: skip
    )


def sd3_parts(**more):
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32, in_channels=16, num_layers=3, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, caption_projection_dim=32, pooled_projection_dim=16 + 32, out_channels=16,
        pos_embed_max_size=24, **more,
    )  # fmt: skip
    return {
        "transformer": lively(transformer),
        "vae": vae(1.5305, 0.0609),
        "text_encoder": lively(tower(16, CLIPTextModelWithProjection, projection_dim=16)),
        "text_encoder_2": lively(tower(32, CLIPTextModelWithProjection, projection_dim=32, hidden_act="gelu")),
        "text_encoder_3": t5(),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer("!"),
        "tokenizer_3": t5_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def flux_parts(guided=True, channels=64, **scheduler):
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=channels, out_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=16, guidance_embeds=guided,
        axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    grows = {"shift": 3.0, "use_dynamic_shifting": True} if guided else {"shift": 1.0, "use_dynamic_shifting": False}
    return {
        "transformer": lively(transformer),
        "vae": vae(0.3611, 0.1159),
        "text_encoder": lively(tower(16)),
        "text_encoder_2": t5(),
        "tokenizer": tokenizer(),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**{**grows, **scheduler}),
    }


NORMED = {"qk_norm": "rms_norm"}
KINDS = {
    "sd3-medium": (sd3_parts, diffusers.StableDiffusion3Pipeline),
    "sd3.5-medium": (lambda: sd3_parts(**NORMED, dual_attention_layers=(0, 1)), diffusers.StableDiffusion3Pipeline),
    "sd3.5-large": (lambda: sd3_parts(**NORMED), diffusers.StableDiffusion3Pipeline),
    "flux1-dev": (flux_parts, diffusers.FluxPipeline),
    "flux1-schnell": (lambda: flux_parts(guided=False), diffusers.FluxPipeline),
}
LOADERS = {"sd3": sd3.load, "flux1": flux1.load}


def opened(name, folder):
    card = cards()[name]
    card = replace(card, settings={**card.settings, "source": str(folder)})
    return LOADERS[card.family](card, "cpu", "float32")


@pytest.fixture(scope="module", params=list(KINDS))
def both(request, tmp_path_factory):
    """The name of a card, its pipeline, and the model that is loaded from the same folder."""
    torch.manual_seed(0)
    parts, kind = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with quiet():
        pipe = kind(**parts())
        pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return request.param, pipe, opened(request.param, folder)


DIFFUSERS = {"profile": "diffusers", "t5_tokens": 77}


def ours(model, prompt="a red fox", **fields):
    samples = {name: fields.pop(name) for name in ("init", "mask") if name in fields}
    hints = fields.pop("hints", {})
    said = {"seed": 7, "height": SIZE, "width": SIZE, "steps": 6, "options": DIFFUSERS} | fields
    resolved = model.card.resolve(Request(model.card.name, prompt, **said))
    model = prepared(model, resolved, hints)
    *_, last = generate(model, resolved, **samples)
    return ((decode(model, last.x_t)[0].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()


def theirs(pipe, prompt="a red fox", **fields):
    generator = torch.Generator("cpu").manual_seed(7)
    asked = {"height": SIZE, "width": SIZE, "num_inference_steps": 6, "max_sequence_length": 77} | fields
    with quiet():
        return pipe(prompt, generator=generator, output_type="np", **asked).images[0]


@pytest.mark.parametrize("size", [(64, 64), (64, 112)])
def test_text_to_picture(both, size):
    name, pipe, model = both
    height, width = size
    scale = 1.0 if name == "flux1-schnell" else 3.5
    picture = ours(model, guidance_scale=scale, height=height, width=width)
    other = theirs(pipe, guidance_scale=scale, height=height, width=width)
    assert other.std() > 0.02
    assert psnr(picture, other) > 40


def test_a_negative_prompt(both):
    name, pipe, model = both
    if name.startswith("sd3"):
        picture = ours(model, negative_prompt="a blue dog", guidance_scale=5.0)
        other = theirs(pipe, negative_prompt="a blue dog", guidance_scale=5.0)
    else:
        scale = 3.5 if name == "flux1-dev" else 1.0
        picture = ours(
            model, negative_prompt="a blue dog", guidance_scale=scale, options={**DIFFUSERS, "true_guidance": 3.0}
        )
        other = theirs(pipe, negative_prompt="a blue dog", guidance_scale=scale, true_cfg_scale=3.0)
    assert psnr(picture, other) > 40
    assert psnr(ours(model, guidance_scale=1.0), picture) < 40
