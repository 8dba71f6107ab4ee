"""Files of small changes in Stable Diffusion 3 and FLUX.1: the picture of diffusers' pipeline that has loaded them."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from test_sd import psnr, quiet
from tiny_flow import DIFFUSERS, ours, saved, theirs

from triptych.model import prepared
from triptych.types import Request

LAYERS = {  # of each part, what files change
    "transformer": {
        "sd3.5-medium": ["to_q", "to_k", "to_v", "add_q_proj", "to_out.0", "to_add_out", "ff.net.2", "norm1.linear"],
        "flux1-dev": ["to_q", "to_k", "to_v", "add_k_proj", "proj_mlp", "proj_out", "ff.net.0.proj", "norm.linear"],
    },
    "text_encoder": {
        "sd3.5-medium": ["q_proj", "v_proj", "fc1"],
        "flux1-dev": ["q_proj", "v_proj", "fc1"],
    },
    "text_encoder_2": {"sd3.5-medium": ["k_proj", "out_proj", "fc2"]},
}
SCALES = {"sd3.5-medium": 5.0, "flux1-dev": 3.5}


@pytest.fixture(scope="module", params=list(SCALES))
def both(request, tmp_path_factory):
    """The name of a card, its pipeline, and the model that is loaded from the same folder."""
    return request.param, *saved(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def file(both, tmp_path_factory):
    """What diffusers saves of random changes in every part, and beside it those of the transformer alone."""
    name, pipe, _ = both
    torch.manual_seed(3)
    layers, folder = {}, tmp_path_factory.mktemp("lora")
    for part, wanted in LAYERS.items():
        if name not in wanted:
            continue
        module = deepcopy(getattr(pipe, part))
        inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=wanted[name]), module)
        for key, value in module.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(value, std=0.15)
        layers[f"{part}_lora_layers"] = {k: v.clone() for k, v in get_peft_model_state_dict(module).items()}
    alone = {"transformer_lora_layers": layers["transformer_lora_layers"]}
    with quiet():
        type(pipe).save_lora_weights(folder, **layers)
        type(pipe).save_lora_weights(folder, **alone, weight_name="network.safetensors")
    return folder / "pytorch_lora_weights.safetensors"


def with_files(pipe, file, scale, towers, **asked):
    """The picture with the network's changes as diffusers loads them, and those of the towers added to their weights;
    transformers asks for another version of PEFT than diffusers."""
    state = load_file(file)
    before = {part: deepcopy(getattr(pipe, part).state_dict()) for part in ("text_encoder", "text_encoder_2")}
    for part in before:
        names = {key.partition(".lora_A")[0] for key in state if key.startswith(f"{part}.") and ".lora_A" in key}
        for name in names:
            weight = getattr(pipe, part).get_submodule(name.removeprefix(f"{part}.")).weight
            weight.data += towers * state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    with quiet():
        pipe.load_lora_weights(file.parent, weight_name="network.safetensors", adapter_name="a")
        pipe.set_adapters(["a"], [scale])
        picture = theirs(pipe, **asked)
        pipe.unload_lora_weights()
    for part, was in before.items():
        getattr(pipe, part).load_state_dict(was)
    return picture


@pytest.mark.parametrize("mode", ["merged", "live"])
def test_files_of_diffusers_in_every_part(both, file, mode):
    name, pipe, model = both
    scale = SCALES[name]
    before = ours(model, guidance_scale=scale)
    picture = ours(model, guidance_scale=scale, options={**DIFFUSERS, "loras": f"{file}:0.6", "lora_mode": mode})
    assert psnr(picture, with_files(pipe, file, 0.6, 0.6, guidance_scale=scale)) > 60
    assert psnr(picture, before) < 40
    np.testing.assert_array_equal(ours(model, guidance_scale=scale), before)  # and all is as it was


def test_without_the_towers(both, file):
    name, pipe, model = both
    scale = SCALES[name]
    options = {**DIFFUSERS, "loras": f"{file}:0.6:0"}
    whole, part = (ours(model, guidance_scale=scale, options={**DIFFUSERS, "loras": f"{file}:0.6{more}"})
                   for more in ("", ":0"))  # fmt: skip
    other = with_files(pipe, file, 0.6, 0.0, guidance_scale=scale)
    assert psnr(part, other) > 60
    assert psnr(part, whole) < 60
    np.testing.assert_array_equal(ours(model, guidance_scale=scale, options=options), part)


def test_a_tag_in_the_prompt_is_the_option(both, file):
    _, _, model = both
    options = {"t5_tokens": 77, "lora_folder": str(file.parent)}
    tagged = ours(model, "a red fox <lora:pytorch_lora_weights:0.6>", options=options, steps=2)
    asked = ours(model, "a red fox", options={**options, "loras": f"{file}:0.6"}, steps=2)
    assert psnr(tagged, asked) > 100
    assert psnr(tagged, ours(model, "a red fox", options=options, steps=2)) < 40


def test_with_little_memory_it_is_the_same_picture(both, file):
    """Blocks that come and go have no file merged: what is merged where there is room is the same but for rounding."""
    _, _, model = both
    for mode in ("live", "merged"):
        options = {**DIFFUSERS, "loras": f"{file}:0.6", "lora_mode": mode, "coding": "whole"}
        picture, tight = (ours(model, options={**options, **more}, steps=2) for more in ({}, {"memory": "1MB"}))
        assert psnr(picture, tight) > 100
        assert mode == "merged" or np.array_equal(picture, tight)


def fused(name, pipe):
    """Layers by the names that kohya's scripts give them, each with those of diffusers' whose rows it has."""
    if name == "flux1-dev":
        block, single = "transformer_blocks.1.", "single_transformer_blocks.0."
        return {
            "double_blocks_1_img_attn_qkv": [f"{block}attn.{part}" for part in ("to_q", "to_k", "to_v")],
            "double_blocks_1_txt_mlp_2": [f"{block}ff_context.net.2"],
            "single_blocks_0_linear1": [
                f"{single}{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
            ],
        }
    block = "transformer_blocks.1."
    return {
        "joint_blocks_1_x_block_attn_qkv": [f"{block}attn.{part}" for part in ("to_q", "to_k", "to_v")],
        "joint_blocks_1_context_block_mlp_fc2": [f"{block}ff_context.net.2"],
    }


def test_files_that_kohya_names(both, tmp_path):
    name, pipe, model = both
    torch.manual_seed(4)
    scale, state, changed = SCALES[name], {}, {}
    layers = {f"lora_unet_{key}": (pipe.transformer, names) for key, names in fused(name, pipe).items()}
    towers = {"lora_te1": pipe.text_encoder} | ({"lora_te2": pipe.text_encoder_2} if name != "flux1-dev" else {})
    for prefix, tower in towers.items():
        own = [n for n, _ in tower.named_modules() if n.endswith("layers.0.self_attn.q_proj")]
        layers[f"{prefix}_text_model_encoder_layers_0_self_attn_q_proj"] = (tower, own)
    for key, (module, names) in layers.items():
        weights = [module.get_submodule(one).weight for one in names]
        down, up = torch.randn(4, weights[0].shape[1]) / 3, torch.randn(sum(len(w) for w in weights), 4) / 3
        state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(2.0)}
        for weight, rows in zip(weights, (0.7 * (2 / 4) * up @ down).split([len(w) for w in weights]), strict=True):
            changed[weight] = rows
    path = tmp_path / "kohya.safetensors"
    save_file(state | {"stranger.lora_down.weight": torch.zeros(1, 1)}, path)
    options = {**DIFFUSERS, "loras": f"{path}:0.7"}
    request = model.card.resolve(Request(model.card.name, "a red fox", seed=7, height=64, width=64, options=options))
    assert any("stranger" in warning for warning in prepared(model, request, {}).warnings)
    picture = ours(model, guidance_scale=scale, options=options)
    before = {weight: weight.detach().clone() for weight in changed}
    with torch.no_grad():
        for weight, rows in changed.items():
            weight += rows
    other = theirs(pipe, guidance_scale=scale)
    with torch.no_grad():
        for weight, was in before.items():
            weight.copy_(was)
    assert psnr(picture, other) > 60
    assert psnr(picture, ours(model, guidance_scale=scale)) < 50


@pytest.mark.parametrize(("prefix", "mode"), [("lora_te3_", "merged"), ("lora_te3_", "live"), ("diffusers", "merged")])
def test_files_that_change_t5(both, tmp_path, prefix, mode):
    name, pipe, model = both
    part = "text_encoder_2" if name.startswith("flux") else "text_encoder_3"
    tower, generator = getattr(pipe, part), torch.Generator().manual_seed(5)
    before, state = deepcopy(tower.state_dict()), {}
    for path, module in tower.named_modules():
        if not isinstance(module, torch.nn.Linear) or not path.endswith(("SelfAttention.q", "SelfAttention.o", "wo")):
            continue
        high, wide = module.weight.shape
        up, down = (torch.randn(size, generator=generator) * 0.2 for size in ((high, 4), (4, wide)))
        module.weight.data += 0.7 * up @ down
        if prefix == "diffusers":
            state |= {f"{part}.{path}.lora_B.weight": up, f"{part}.{path}.lora_A.weight": down}
        else:
            stem = f"{prefix}{path.replace('.', '_')}"
            state |= {
                f"{stem}.lora_up.weight": up,
                f"{stem}.lora_down.weight": down,
                f"{stem}.alpha": torch.tensor(4.0),
            }
    save_file(state, tmp_path / "t5.safetensors")
    expected = theirs(pipe, guidance_scale=SCALES[name])
    tower.load_state_dict(before)
    options = {**DIFFUSERS, "loras": f"{tmp_path / 't5.safetensors'}:0.7", "lora_mode": mode}
    plain = ours(model, guidance_scale=SCALES[name])
    assert psnr(ours(model, guidance_scale=SCALES[name], options=options), expected) > 60
    assert psnr(plain, expected) < 50
    np.testing.assert_array_equal(ours(model, guidance_scale=SCALES[name]), plain)
