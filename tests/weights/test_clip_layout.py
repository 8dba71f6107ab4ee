"""Layouts of CLIP's text towers: files of every kind give the tower that they were made of, by names alone."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from triptych.engine.text.clip import ClipText
from triptych.weights.layouts import gathered
from triptych.weights.layouts.clip import IDLE, LAYOUTS

SIZES = {"width": 16, "layers": 2, "heads": 2, "words": 50}
PREFIXES = {
    "transformers": "",
    "sd1": "cond_stage_model.transformer.",
    "sdxl-l": "conditioner.embedders.0.transformer.",
    "openclip": "",
    "sd2": "cond_stage_model.model.",
    "sdxl-bigg": "conditioner.embedders.1.model.",
    "sdxl-refiner": "conditioner.embedders.0.model.",
}


def tower(projected=None):
    torch.manual_seed(0)
    return ClipText(**SIZES, activation="gelu", projected=projected)


def as_openclip(state, prefix):
    """The tensors of a tower as OpenCLIP's TextTransformer holds them, its causal mask and temperature included."""
    said = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": torch.ones(()),
        "attn_mask": torch.zeros(77, 77),
    }
    for n in range(SIZES["layers"]):
        ours, theirs = f"encoder.layers.{n}.", f"transformer.resblocks.{n}."
        for kind in ("weight", "bias"):
            rows = [state[f"{ours}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            said[f"{theirs}attn.in_proj_{kind}"] = torch.cat(rows)
            said[f"{theirs}attn.out_proj.{kind}"] = state[f"{ours}self_attn.out_proj.{kind}"]
            said[f"{theirs}ln_1.{kind}"] = state[f"{ours}layer_norm1.{kind}"]
            said[f"{theirs}ln_2.{kind}"] = state[f"{ours}layer_norm2.{kind}"]
            said[f"{theirs}mlp.c_fc.{kind}"] = state[f"{ours}mlp.fc1.{kind}"]
            said[f"{theirs}mlp.c_proj.{kind}"] = state[f"{ours}mlp.fc2.{kind}"]
    return {prefix + name: value for name, value in said.items()}


def as_single_file(state, prefix):
    """The tensors of a tower as the single files of Stable Diffusion hold CLIP ViT-L."""
    said = {f"{prefix}text_model.{name}": value for name, value in state.items()}
    return said | {f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}


OTHERS = {
    "model.diffusion_model.out.0.weight": torch.zeros(1),
    "first_stage_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(1),
    "conditioner.embedders.10.model.ln_final.weight": torch.zeros(1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_each_kind_gives_back_its_tower(layout):
    openclip = layout in ("openclip", "sd2", "sdxl-bigg", "sdxl-refiner")
    state = tower(16 if openclip else None).state_dict()
    file = (as_openclip if openclip else as_single_file)(state, PREFIXES[layout])
    sources = LAYOUTS[layout](file | OTHERS if PREFIXES[layout] else file)
    assert sources.keys() == state.keys()
    found = gathered(sources, {name: tuple(value.shape) for name, value in state.items()}, file.__getitem__)
    for name, value in state.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    used = {name for source in sources.values() for name in source.names}
    assert all(IDLE.search(name) for name in file.keys() - used)


@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
def test_folders_of_transformers_with_and_without_the_prefix(kind, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPTextConfig(vocab_size=50, projection_dim=12, bos_token_id=0, eos_token_id=1, **sizes)
    kind(config).save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    wanted = tower(12 if kind is CLIPTextModelWithProjection else None).state_dict().keys()
    prefixed = {name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}" for name in file}
    assert LAYOUTS["transformers"](file).keys() == wanted
    assert LAYOUTS["transformers"](prefixed).keys() == wanted
