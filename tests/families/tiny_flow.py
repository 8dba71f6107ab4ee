"""Small Stable Diffusion 3 and FLUX.1: the same folder here and in diffusers' pipelines, and pictures of both."""

import gzip
from dataclasses import replace
from importlib.resources import files

import diffusers
import torch
from test_sd import SIZE, lively, quiet, tokenizer, tower
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from triptych.families import cards, flux1, sd3
from triptych.model import decode, generate, prepared
from triptych.text import spiece
from triptych.text.t5_tokens import SENTINELS
from triptych.types import Artifact, Request

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
        )
    )


def sd3_parts(**more):
    heads = {"attention_head_dim": 16, "num_attention_heads": 2, "caption_projection_dim": 32, **more}
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32, in_channels=16, num_layers=3, joint_attention_dim=WIDTH, pooled_projection_dim=16 + 32,
        out_channels=16, pos_embed_max_size=24, **heads,
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
WIDE = {"attention_head_dim": 64, "num_attention_heads": 1, "caption_projection_dim": 64}
OTHERS = {
    "sd3.5-wide": (lambda: sd3_parts(**NORMED, **WIDE), diffusers.StableDiffusion3Pipeline),
    "flux1-fill": (lambda: flux_parts(channels=384), diffusers.FluxFillPipeline),
    "flux1-kontext": (flux_parts, diffusers.FluxKontextPipeline),
}
LOADERS = {"sd3": sd3.load, "flux1": flux1.load}


def opened(name, folder):
    card = cards()["sd3.5-large" if name == "sd3.5-wide" else name]
    card = replace(card, settings={**card.settings, "source": str(folder)})
    return LOADERS[card.family](card, "cpu", "float32")


def saved(name, folder, changed=lambda pipe: pipe):
    """The pipeline of a card, changed, saved in the folder, and the model that is loaded from there."""
    torch.manual_seed(0)
    parts, kind = {**KINDS, **OTHERS}[name]
    with quiet():
        pipe = changed(kind(**parts()))
        pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, opened(name, folder)


def of(kind, pipe, **parts):
    """Another pipeline of the same parts."""
    wanted = kind.__init__.__annotations__
    return kind(**{name: part for name, part in pipe.components.items() if name in wanted}, **parts)


def without_deviation(pipe):
    """The codec's posterior becomes a point: diffusers draws what is kept after all other noise."""
    channels = pipe.vae.config.latent_channels
    with torch.no_grad():
        pipe.vae.encoder.conv_out.weight[channels:].zero_()
        pipe.vae.encoder.conv_out.bias[channels:].fill_(-30)
    return pipe


DIFFUSERS = {"profile": "diffusers", "t5_tokens": 77}


FILE = Artifact("image/png", b"")  # stands for what is given as samples


def ours(model, prompt="a red fox", **fields):
    return pictures(model, prompt, **fields)[0]


def pictures(model, prompt="a red fox", hints=None, **fields):
    """(B, H, W, 3) in [0, 1]; hints: (1, 3, H, W) in [0, 1] by their inputs."""
    samples = {name: fields.pop(name) for name in ("init", "mask") if name in fields}
    given = dict.fromkeys((*samples, *(hints or {})), FILE)
    said = {"seed": 7, "height": SIZE, "width": SIZE, "steps": 6, "options": DIFFUSERS, "inputs": given} | fields
    resolved = model.card.resolve(Request(model.card.name, prompt, **said))
    model = prepared(model, resolved, hints or {})
    *_, last = generate(model, resolved, **samples)
    return ((decode(model, last.x_t).clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()


def theirs(pipe, prompt="a red fox", **fields):
    generator = torch.Generator("cpu").manual_seed(7)
    asked = {"height": SIZE, "width": SIZE, "num_inference_steps": 6, "max_sequence_length": 77} | fields
    pipe.set_progress_bar_config(disable=True)
    with quiet():
        return pipe(prompt=prompt, generator=generator, output_type="np", **asked).images[0]
