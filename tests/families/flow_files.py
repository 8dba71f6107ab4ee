"""Small Stable Diffusion 3 and FLUX.1 in every layout of files, written by their published names."""

import shutil
from dataclasses import replace
from types import MappingProxyType

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_sd import lively, quiet, tokenizer, tower
from tiny_flow import t5_tokenizer, vae
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

from triptych.engine.codecs import kl
from triptych.engine.nets.flux import Flux
from triptych.engine.nets.mmdit import MMDiT
from triptych.families import flow, flux1, sd3
from triptych.families.flow_controls import flux_of
from triptych.weights import networks, recognise
from triptych.weights.files import open_bundle
from triptych.weights.layouts import flux as flux_names
from triptych.weights.layouts import mmdit as mmdit_names
from triptych.weights.layouts import vae as vae_names

WORDS, CLIP, BIG = 64, 16, 32  # how wide T5 is, and CLIP's towers
TOWER = {"layers": 3, "heads": 2}
T5 = {"width": WORDS, "layers": 2, "heads": 4, "head": 16, "hidden": 128, "activation": "gelu", "gated": True}
CODEC = {"widths": (8, 16, 16, 16), "blocks": 1, "groups": 8}
SIZES = {"sd3-medium": 64, "sd3.5-medium": 64, "sd3.5-large": 128}


def t5():
    sizes = {"d_model": WORDS, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 32128}
    return lively(T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **sizes)))


def sd3_parts(width=64, **more):
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32, in_channels=16, num_layers=3, attention_head_dim=64, num_attention_heads=width // 64,
        joint_attention_dim=WORDS, caption_projection_dim=width, pooled_projection_dim=CLIP + BIG, out_channels=16,
        pos_embed_max_size=24, **more,
    )  # fmt: skip
    return {
        "transformer": lively(transformer),
        "vae": vae(kl.SD3.scale, kl.SD3.shift),
        "text_encoder": lively(tower(CLIP, CLIPTextModelWithProjection, projection_dim=CLIP)),
        "text_encoder_2": lively(tower(BIG, CLIPTextModelWithProjection, projection_dim=BIG, hidden_act="gelu")),
        "text_encoder_3": t5(),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer("!"),
        "tokenizer_3": t5_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def flux_parts(guided=True, channels=64, heads=1):
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=channels, out_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=128,
        num_attention_heads=heads, joint_attention_dim=WORDS, pooled_projection_dim=CLIP, guidance_embeds=guided,
    )  # fmt: skip
    shift = {"shift": 3.0, "use_dynamic_shifting": True} if guided else {"shift": 1.0, "use_dynamic_shifting": False}
    return {
        "transformer": lively(transformer),
        "vae": vae(kl.FLUX.scale, kl.FLUX.shift),
        "text_encoder": lively(tower(CLIP)),
        "text_encoder_2": t5(),
        "tokenizer": tokenizer(),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**shift),
    }


NORMED = {"qk_norm": "rms_norm"}
KINDS = {
    "sd3-medium": (sd3_parts, diffusers.StableDiffusion3Pipeline),
    "sd3.5-medium": (lambda: sd3_parts(**NORMED, dual_attention_layers=(0, 1)), diffusers.StableDiffusion3Pipeline),
    "sd3.5-large": (lambda: sd3_parts(128, **NORMED), diffusers.StableDiffusion3Pipeline),
    "flux-dev": (flux_parts, diffusers.FluxPipeline),
    "flux-schnell": (lambda: flux_parts(guided=False), diffusers.FluxPipeline),
    "flux-fill": (lambda: flux_parts(channels=384), diffusers.FluxFillPipeline),
    "flux-kontext": (flux_parts, diffusers.FluxKontextPipeline),
}


def written(kind, folder):
    """The folder, as diffusers saves it."""
    torch.manual_seed(0)
    parts, pipeline = KINDS[kind]
    with quiet():
        pipeline(**parts()).save_pretrained(folder)
    return folder


def is_sd3(kind):
    return kind.startswith("sd3")


def held(folder):
    """Tensors of each part, by the names of files: transformer, vae, clip_l, clip_g, t5xxl."""
    bundle = open_bundle(folder)
    own = {name: {key: tensors.read(key).clone() for key in tensors.names()} for name, tensors in bundle.sets.items()}
    third = own.pop("text_encoder_3", None)
    second = own.pop("text_encoder_2")
    found = {"transformer": own["transformer"], "vae": own["vae"], "clip_l": own["text_encoder"]}
    return found | ({"clip_g": second, "t5xxl": third} if third else {"t5xxl": second})


def original(folder, kind):
    """The same, each named as its authors do: one network's names alone, without prefixes."""
    bundle, parts = open_bundle(folder), held(folder)
    config, codec = bundle.configs["transformer"], replace(kl.SD3 if is_sd3(kind) else kl.FLUX, **CODEC)
    with torch.device("meta"):
        network = MMDiT(sd3.shape_of(config)) if is_sd3(kind) else Flux(flux_of(config))
        autoencoder = kl.KL(codec)
    sources = (mmdit_names if is_sd3(kind) else flux_names).diffusers(network.state_dict())
    parts["transformer"] = made(sources, parts["transformer"])
    parts["vae"] = made(vae_names.diffusers(autoencoder.state_dict()), parts["vae"])
    for name in parts.keys() & {"clip_l", "clip_g"}:
        plain = {key.removeprefix("text_model."): value for key, value in parts[name].items()}
        end = ("text_projection.weight",)
        parts[name] = {key if key in end else f"text_model.{key}": value for key, value in plain.items()}
    return parts


def made(sources, theirs):
    return {name: source.make(*(theirs[one] for one in source.names)).clone() for name, source in sources.items()}


PREFIXES = MappingProxyType(
    {
        "transformer": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "clip_l": "text_encoders.clip_l.transformer.",
        "clip_g": "text_encoders.clip_g.transformer.",
        "t5xxl": "text_encoders.t5xxl.transformer.",
    }
)


def joined(parts, names, **prefixes):
    """One file's tensors: parts of these names, each with the prefix that it has in files with everything."""
    told = {**PREFIXES, **prefixes}
    return {told[name] + key: value for name in names for key, value in parts[name].items()}


def saved(tensors, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def apart(folder, place):
    """diffusers' folder of the transformer alone."""
    shutil.copytree(folder / "transformer", place)
    return place


def signature(part, families, naming, **marks):
    shapes = {name.replace("__", "."): shape for name, shape in marks.items()}
    return networks.Signature(part, families, naming, MappingProxyType(shapes))


BOTH = ("sd3", "sd3.5", "flux")
SD3 = ("sd3", "sd3.5")
SMALL = (
    signature("transformer", ("sd3.5",), "original", joint_blocks__0__x_block__attn__ln_q__weight=(64,)),
    signature("transformer", ("sd3",), "original", joint_blocks__0__context_block__adaLN_modulation__1__bias=()),
    signature("transformer", ("sd3.5",), "diffusers", transformer_blocks__0__attn__norm_added_q__weight=(64,),
              pos_embed__proj__weight=(0, 16, 2, 2)),
    signature("transformer", ("sd3",), "diffusers", transformer_blocks__0__attn__add_q_proj__weight=(),
              pos_embed__proj__weight=(0, 16, 2, 2)),
    signature("transformer", ("flux",), "original", img_in__weight=(0, 0), single_blocks__0__linear1__weight=()),
    signature("transformer", ("flux",), "diffusers", single_transformer_blocks__0__proj_mlp__weight=()),
    signature("vae", BOTH, "original", decoder__mid__block_1__conv1__weight=(16, 16, 3, 3)),
    signature("vae", BOTH, "diffusers", decoder__mid_block__resnets__0__conv1__weight=(16, 16, 3, 3)),
    signature("text_encoder", BOTH, "transformers", text_model__embeddings__token_embedding__weight=(0, CLIP)),
    signature("text_encoder", BOTH, "transformers", embeddings__token_embedding__weight=(0, CLIP)),
    signature("text_encoder_2", SD3, "transformers", text_model__embeddings__token_embedding__weight=(0, BIG)),
    signature("text_encoder_2", SD3, "transformers", embeddings__token_embedding__weight=(0, BIG)),
    signature("t5", BOTH, "transformers", shared__weight=(32128, WORDS)),
    signature("t5", BOTH, "llama.cpp", token_embd__weight=(32128, WORDS)),
)  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """As if the published models were of these sizes."""
    known, signatures = networks._table()
    strange = {"transformer", "vae", "t5", "text_encoder", "text_encoder_2"}
    others = tuple(one for one in signatures if one.part not in strange)
    monkeypatch.setattr(networks, "_table", lambda: (known, (*SMALL, *others)))
    monkeypatch.setattr(recognise, "SIZES", {64: "medium", 128: "large"})
    towers = {"vit-l": {"width": CLIP, **TOWER, "activation": "quick_gelu"},
              "vit-bigg": {"width": BIG, **TOWER, "activation": "gelu"}}  # fmt: skip
    monkeypatch.setattr(flow, "CLIP_TOWERS", towers)
    monkeypatch.setattr(flow, "T5_TOWERS", {"t5-xxl": T5})
    for name in ("SD3", "FLUX"):
        monkeypatch.setattr(kl, name, replace(getattr(kl, name), **CODEC))
    assert flux1.kl is sd3.kl is kl


def theirs(folder):
    """What each part holds, as diffusers and transformers name it."""
    return {path.parent.name: load_file(path) for path in folder.glob("*/*.safetensors")}
