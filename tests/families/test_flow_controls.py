"""ControlNets beside Stable Diffusion 3 and FLUX.1, out of the same folders and files as in diffusers' pipelines."""

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_sd import SIZE, gradient, lively, psnr, quiet
from tiny_flow import DIFFUSERS, WIDE, WIDTH, of, ours, saved, theirs, without_deviation

from triptych.errors import InvalidField, WeightsError

HINT = gradient() / 2 + 0.5
OTHER = HINT.flip(2)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    return saved("sd3-medium", tmp_path_factory.mktemp("sd3"), without_deviation)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Heads as wide as the published ones."""
    return saved("sd3.5-wide", tmp_path_factory.mktemp("large"), without_deviation)


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return saved("flux1-dev", tmp_path_factory.mktemp("flux"), without_deviation)


@pytest.fixture(scope="module")
def schnell(tmp_path_factory):
    return saved("flux1-schnell", tmp_path_factory.mktemp("schnell"), without_deviation)


def kept(kind, seed, folder, **sizes):
    """A ControlNet that says something, and the folder where it lies."""
    torch.manual_seed(seed)
    with quiet():
        net = lively(kind(**sizes))
        net.save_pretrained(folder)
    return net, str(folder)


SEEING = {
    "sample_size": 32, "in_channels": 16, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": WIDTH, "caption_projection_dim": 32, "pooled_projection_dim": 48, "out_channels": 16,
    "pos_embed_max_size": 24,
}  # fmt: skip
BLIND = {**WIDE, "joint_attention_dim": None, "pos_embed_type": None, "use_pos_embed": False}


def of_instantx(folder, seed=2, **more):
    return kept(diffusers.SD3ControlNetModel, seed, folder, **{**SEEING, **more})


def of_stability(folder):
    sizes = {**SEEING, **BLIND, "force_zeros_for_pooled_projection": False}
    return kept(diffusers.SD3ControlNetModel, 3, folder, **sizes)


def flux_control(folder, seed=4, **more):
    sizes = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True, **more}
    return kept(
        diffusers.FluxControlNetModel, seed, folder, in_channels=64, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6), **sizes,
    )  # fmt: skip


def by_sd3(pipe, net, **asked):
    told = {"control_image": gradient(), "guidance_scale": 5.0, **asked}
    return theirs(of(diffusers.StableDiffusion3ControlNetPipeline, pipe, controlnet=net), **told)


def by_flux(pipe, net, **asked):
    """The noise is told: with a codec that is sure of itself diffusers draws for the hint nevertheless."""
    noise = torch.randn(1, 16, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(7))
    packed = diffusers.FluxPipeline._pack_latents(noise, 1, 16, SIZE // 8, SIZE // 8)
    told = {"control_image": gradient(), "guidance_scale": 3.5, "latents": packed, **asked}
    return theirs(of(diffusers.FluxControlNetPipeline, pipe, controlnet=net), **told)


def controlled(model, scale=None, hints=None, **options):
    guidance = scale or (5.0 if model.card.family == "sd3" else 3.5)
    hints = {"control": HINT} if hints is None else hints
    return ours(model, guidance_scale=guidance, options={**DIFFUSERS, **options}, hints=hints)


def test_stable_diffusion_3_that_sees_tokens(sd3, tmp_path):
    pipe, model = sd3
    net, folder = of_instantx(tmp_path)
    picture = controlled(model, control_net=folder, control_scale=0.7)
    assert psnr(picture, by_sd3(pipe, net, controlnet_conditioning_scale=0.7)) > 60
    assert psnr(picture, controlled(model, hints={})) < 40


def test_stable_diffusion_3_that_sees_none(large, tmp_path):
    pipe, model = large
    net, folder = of_stability(tmp_path / "net")
    picture = controlled(model, control_net=folder, control_scale=0.7)
    assert psnr(picture, by_sd3(pipe, net, controlnet_conditioning_scale=0.7)) > 60
    assert psnr(picture, controlled(model, hints={})) < 40
    save_file(named_by_stability(net.state_dict()), tmp_path / "net.safetensors")
    alone = controlled(model, control_net=str(tmp_path / "net.safetensors"), control_scale=0.7)
    np.testing.assert_array_equal(alone, picture)


def named_by_stability(state):
    """diffusers' names to those of the published files: queries, keys and values are one."""
    renamed = {"attn.to_out.0": "attn.proj", "ff.net.0.proj": "mlp.fc1", "ff.net.2": "mlp.fc2"}
    renamed |= {"norm1.linear": "adaLN_modulation.1"}
    found = {name: value for name, value in state.items() if not name.startswith(("transformer_blocks", "pos_embed."))}
    for number in range(2):
        block = f"transformer_blocks.{number}."
        for kind in ("weight", "bias"):
            thirds = [state[f"{block}attn.to_{part}.{kind}"] for part in "qkv"]
            found[f"{block}attn.qkv.{kind}"] = torch.cat(thirds)
            found |= {f"{block}{new}.{kind}": state[f"{block}{old}.{kind}"] for old, new in renamed.items()}
    return found


def test_two_beside_stable_diffusion_3(sd3, tmp_path):
    pipe, model = sd3
    one, first = of_instantx(tmp_path / "one")
    two, second = of_instantx(tmp_path / "two", seed=5)
    nets = diffusers.SD3MultiControlNetModel([one, two])
    asked = {"control_image": [2 * HINT - 1, 2 * OTHER - 1], "controlnet_conditioning_scale": [0.7, 0.4]}
    options = {"control_net": first, "control_scale": 0.7, "control_2_net": second, "control_2_scale": 0.4}
    picture = controlled(model, hints={"control": HINT, "control_2": OTHER}, **options)
    assert psnr(picture, by_sd3(pipe, nets, **asked)) > 60


# Of six steps those from the third on, those up to the third: diffusers asks whether a step ends in time, we whether
# it begins. Equal steps of FLUX.1 [dev] are shifted, so that more of the noise is there than of the walk.
SHARES = [
    ({"start": 2 / 6}, {"start": 2 / 6}),
    ({"stop": 0.4}, {"end": 0.5}),
    ({"start": 0.1, "stop": 0.4}, {"start": 0.1, "end": 0.5}),
]


@pytest.mark.parametrize(("share", "same"), SHARES)
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_share_of_the_walk(request, tmp_path, name, share, same):
    pipe, model = request.getfixturevalue(name)
    net, folder = of_instantx(tmp_path) if name == "sd3" else flux_control(tmp_path)
    asked = {f"control_guidance_{end}": value for end, value in same.items()}
    picture = controlled(model, control_net=folder, **{f"control_{end}": value for end, value in share.items()})
    assert psnr(picture, (by_sd3 if name == "sd3" else by_flux)(pipe, net, **asked)) > 60
    assert psnr(picture, controlled(model, control_net=folder)) < 60


def lone(net, path):
    """The network in a file without a configuration."""
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return str(path)


def test_a_file_of_diffusers_names_needs_no_configuration(large, flux, tmp_path):
    for name, model, (net, folder) in [
        ("tokens", large[1], of_instantx(tmp_path / "tokens", **WIDE)),
        ("none", large[1], of_stability(tmp_path / "none")),
        ("union", flux[1], flux_control(tmp_path / "union", num_mode=3)),
    ]:
        kind = {"control_kind": 1} if name == "union" else {}
        picture, alone = (
            controlled(model, control_net=one, **kind) for one in (folder, lone(net, tmp_path / f"{name}.safetensors"))
        )
        np.testing.assert_array_equal(picture, alone)


@pytest.mark.parametrize("layers", [(1, 1), (2, 0), (1, 2)])
def test_flux(flux, tmp_path, layers):
    pipe, model = flux
    net, folder = flux_control(tmp_path, num_layers=layers[0], num_single_layers=layers[1])
    picture = controlled(model, control_net=folder, control_scale=0.7)
    assert psnr(picture, by_flux(pipe, net, controlnet_conditioning_scale=0.7)) > 60
    assert psnr(picture, controlled(model, hints={})) < 40


@pytest.mark.parametrize("guided", [True, False])
def test_a_network_that_is_told_of_guidance_or_not_beside_one_that_is_not(schnell, tmp_path, guided):
    pipe, model = schnell
    net, folder = flux_control(tmp_path, guidance_embeds=guided)
    picture = controlled(model, scale=1.0, control_net=folder)
    assert psnr(picture, by_flux(pipe, net, guidance_scale=1.0)) > 60


@pytest.mark.parametrize("kind", [0, 2])
def test_a_union_is_told_the_kind(flux, tmp_path, kind):
    pipe, model = flux
    net, folder = flux_control(tmp_path, num_mode=3)
    picture = controlled(model, control_net=folder, control_kind=kind)
    assert psnr(picture, by_flux(pipe, net, control_mode=kind)) > 60
    assert psnr(picture, controlled(model, control_net=folder, control_kind=1)) < 60
    for wrong in ({}, {"control_kind": 3}):
        with pytest.raises(InvalidField, match="0 to 2"):
            controlled(model, control_net=folder, **wrong)


def test_one_kind_needs_no_word(flux, tmp_path):
    _, folder = flux_control(tmp_path)
    with pytest.raises(InvalidField, match="one kind of hints"):
        controlled(flux[1], control_net=folder, control_kind=0)


def test_flux_that_sees_samples(flux, tmp_path):
    pipe, model = flux
    stem = {"patch_size": 2, "conditioning_embedding_channels": 16}
    net, folder = flux_control(tmp_path / "net", num_single_layers=0, num_layers=2, **stem)
    picture = controlled(model, control_net=folder, control_scale=0.7)
    assert psnr(picture, by_flux(pipe, net, controlnet_conditioning_scale=0.7)) > 60
    assert psnr(picture, controlled(model, hints={})) < 40

    save_file(named_by_xlabs(net.state_dict()), tmp_path / "net.safetensors")
    alone = controlled(model, control_net=str(tmp_path / "net.safetensors"), control_scale=0.7)
    np.testing.assert_array_equal(alone, picture)


def named_by_xlabs(state):
    """diffusers' names to those of XLabs' files, as its own script for LoRA and its converters map them."""
    streams = {
        "img": ("norm1", ["to_q", "to_k", "to_v"], "to_out.0", "ff"),
        "txt": ("norm1_context", ["add_q_proj", "add_k_proj", "add_v_proj"], "to_add_out", "ff_context"),
    }
    norms = {"img": ("norm_q", "norm_k"), "txt": ("norm_added_q", "norm_added_k")}
    outside = {
        "x_embedder": "img_in", "context_embedder": "txt_in", "controlnet_x_embedder": "pos_embed_input",
        "input_hint_block.conv_in": "input_hint_block.0", "input_hint_block.conv_out": "input_hint_block.14",
        **{f"input_hint_block.blocks.{n}": f"input_hint_block.{2 * n + 2}" for n in range(6)},
        **{f"controlnet_blocks.{n}": f"controlnet_blocks.{n}" for n in range(2)},
    }  # fmt: skip
    embedders = {"timestep_embedder": "time_in", "text_embedder": "vector_in", "guidance_embedder": "guidance_in"}
    for old, new in embedders.items():
        outside |= {f"time_text_embed.{old}.linear_1": f"{new}.in_layer"}
        outside |= {f"time_text_embed.{old}.linear_2": f"{new}.out_layer"}
    found = {f"{new}.{kind}": state[f"{old}.{kind}"] for old, new in outside.items() for kind in ("weight", "bias")}
    for number in range(2):
        block, ours = f"transformer_blocks.{number}.", f"double_blocks.{number}."
        for stream, (norm, thirds, out, layers) in streams.items():
            for kind in ("weight", "bias"):
                qkv = torch.cat([state[f"{block}attn.{part}.{kind}"] for part in thirds])
                found |= {
                    f"{ours}{stream}_attn.qkv.{kind}": qkv,
                    f"{ours}{stream}_attn.proj.{kind}": state[f"{block}attn.{out}.{kind}"],
                    f"{ours}{stream}_mod.lin.{kind}": state[f"{block}{norm}.linear.{kind}"],
                    f"{ours}{stream}_mlp.0.{kind}": state[f"{block}{layers}.net.0.proj.{kind}"],
                    f"{ours}{stream}_mlp.2.{kind}": state[f"{block}{layers}.net.2.{kind}"],
                }
            for old, new in zip(norms[stream], ("query_norm", "key_norm"), strict=True):
                found[f"{ours}{stream}_attn.norm.{new}.scale"] = state[f"{block}attn.{old}.weight"]
    return found


def test_two_beside_flux(flux, tmp_path):
    pipe, model = flux
    one, first = flux_control(tmp_path / "one", num_mode=3)
    two, second = flux_control(tmp_path / "two", num_mode=3, seed=6)
    nets = diffusers.FluxMultiControlNetModel([one, two])
    asked = {
        "control_image": [2 * HINT - 1, 2 * OTHER - 1],
        "controlnet_conditioning_scale": [0.7, 0.4],
        "control_mode": [0, 2],
    }
    options = {"control_net": first, "control_scale": 0.7, "control_kind": 0}
    options |= {"control_2_net": second, "control_2_scale": 0.4, "control_2_kind": 2}
    picture = controlled(model, hints={"control": HINT, "control_2": OTHER}, **options)
    assert psnr(picture, by_flux(pipe, nets, **asked)) > 60


def test_hints_need_a_network(sd3, flux):
    for _, model in (sd3, flux):
        with pytest.raises(InvalidField, match="control_net"):
            controlled(model)


def test_hints_with_more_channels_than_pictures_have_are_refused(sd3, tmp_path):
    _, folder = of_instantx(tmp_path, extra_conditioning_channels=1)
    with pytest.raises(WeightsError, match="17 channels"):
        controlled(sd3[1], control_net=folder)


def test_the_next_request_has_no_hint(flux, tmp_path):
    _, model = flux
    before = controlled(model, hints={})
    _, folder = flux_control(tmp_path)
    with_it = controlled(model, control_net=folder)
    for quantize in ("int8", "none"):  # another network, and the same again
        controlled(model, control_net=folder, quantize=quantize)
    np.testing.assert_array_equal(controlled(model, control_net=folder), with_it)
    np.testing.assert_array_equal(controlled(model, hints={}), before)
