"""The latent U-Net beside diffusers' UNet2DConditionModel, at tiny width and with the same random weights."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel

from triptych.engine.conditioning import Conditioning, concatenate
from triptych.engine.denoiser import NetworkDenoiser, noise_target
from triptych.engine.guidance import ClassifierFree
from triptych.engine.nets.ldm import SD15, SDXL, LatentUNet
from triptych.engine.path import Straight
from triptych.weights.layouts import gathered
from triptych.weights.layouts.unet import diffusers

TEXT, POOLED, IDS = 24, 16, 6
TINY = replace(SD15, context=TEXT, width=32, heads=8)
TINY_XL = replace(SDXL, context=TEXT, width=32, depths=(0, 2, 3), middle=3, vector=POOLED + 8 * IDS)
SHAPES = {
    "sd15": TINY,
    "sdxl": TINY_XL,
    "refiner": replace(TINY_XL, depths=(0, 1, 1, 0), middle=1, multiples=(1, 2, 4, 4)),
    "inpainting": replace(TINY, in_channels=9),
    "inpainting-xl": replace(TINY_XL, in_channels=9),
    "linear": replace(TINY, heads=None, depths=(0, 1, 1, 0)),
}


def configuration(shape):
    """The words of diffusers for a shape; its attention_head_dim is a number of heads."""
    widths = [shape.width * multiple for multiple in shape.multiples]
    vector = {} if shape.vector is None else {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": shape.vector,
    }  # fmt: skip
    return {
        "in_channels": shape.in_channels,
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in shape.depths],
        "transformer_layers_per_block": [depth or shape.middle for depth in shape.depths[:-1]] + [shape.middle],
        "cross_attention_dim": shape.context,
        "attention_head_dim": [shape.heads or max(1, width // 64) for width in widths],
        "use_linear_projection": shape.heads is None,
        **vector,
    }


def up(shape):
    return {"up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(shape.depths)]}


def randomized(module, seed=0):
    """Every weight drawn, none at zero, so that activations stay near unit variance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1 * drawn)
            if weight.ndim == 1 and name.endswith("weight"):
                weight.add_(1)
    return module.eval()


def alike(ours, theirs):
    """Ours with their weights; every tensor of both is used, and once."""
    state, read = theirs.state_dict(), []
    sources = diffusers(ours.state_dict())
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(gathered(sources, shapes, lambda name: read.append(name) or state[name]))
    assert sorted(read) == sorted(state)
    return ours.eval()


def asked(shape, batch=2, seed=1, size=(8, 16)):
    """(x, timestep, our conditioning, their arguments) drawn."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*lengths):
        return torch.randn(batch, *lengths, generator=generator)

    x, tokens, pooled = drawn(4, *size), drawn(7, TEXT), drawn(POOLED)
    ids = torch.randint(0, 1024, (batch, IDS), generator=generator)
    angles = ids[..., None] * torch.exp(-torch.arange(4) / 4 * torch.tensor(10_000.0).log())
    waves = torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1)
    vector = None if shape.vector is None else torch.cat([pooled, waves], dim=1)
    concat = drawn(shape.in_channels - 4, *size) if shape.in_channels > 4 else None
    theirs = {"encoder_hidden_states": tokens, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
    return x, torch.tensor([999.0, 3.0])[:batch], Conditioning(tokens, vector=vector, concat=concat), theirs


def pair(shape):
    theirs = randomized(UNet2DConditionModel(**configuration(shape), **up(shape), sample_size=16))
    return alike(LatentUNet(shape), theirs), theirs


def off(ours, theirs):
    """The largest difference relative to the largest value."""
    return float((ours.float() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_the_same_numbers_as_diffusers(name):
    ours, theirs = pair(SHAPES[name])
    x, timestep, cond, words = asked(SHAPES[name])
    stacked = x if cond.concat is None else torch.cat([x, cond.concat], dim=1)
    expected = theirs(stacked, timestep, **words).sample
    assert off(ours(x, timestep, cond), expected) < 1e-5
    halved = ours.to(torch.bfloat16, memory_format=torch.channels_last)(x, timestep, cond)
    assert halved.dtype == torch.bfloat16
    assert off(halved, expected) < 3e-2


@torch.inference_mode()
def test_the_same_numbers_at_odd_sizes():
    ours, theirs = pair(TINY)
    x, timestep, cond, words = asked(TINY, size=(9, 15))
    assert off(ours(x, timestep, cond), theirs(x, timestep, **words).sample) < 1e-5


@torch.inference_mode()
def test_a_batch_is_its_parts():
    network = randomized(LatentUNet(TINY_XL))
    x, timestep, cond, _ = asked(TINY_XL)
    parts = [
        network(x[i : i + 1], timestep[i : i + 1], Conditioning(cond.tokens[i : i + 1], vector=cond.vector[i : i + 1]))
        for i in range(2)
    ]
    assert off(network(x, timestep, cond), torch.cat(parts)) < 1e-5


@torch.inference_mode()
def test_masked_tokens_are_not_heard():
    network = randomized(LatentUNet(TINY))
    x, timestep, cond, _ = asked(TINY)
    mask = torch.arange(7).expand(2, 7) < 4
    shorter = network(x, timestep, Conditioning(cond.tokens[:, :4]))
    assert off(network(x, timestep, replace(cond, mask=mask)), shorter) < 1e-5


def test_gradients_are_those_of_diffusers():
    ours, theirs = pair(TINY_XL)
    x, timestep, cond, words = asked(TINY_XL)
    ours(x, timestep, cond).square().mean().backward()
    theirs(x, timestep, **words).sample.square().mean().backward()
    names = diffusers(dict(ours.named_parameters()))
    gradients = [ours.get_parameter(name).grad.flatten() for name in names]
    expected = [theirs.get_parameter(source.names[0]).grad.flatten() for source in names.values()]
    assert off(torch.cat(gradients), torch.cat(expected)) < 1e-5


BLOCKS = 16  # transformers of SD15, each of one block


def counted(network):
    """A list that grows by one whenever keys are computed from tokens, in any block."""
    calls = []
    for name, layer in network.named_modules():
        if name.endswith("attn2.to_k"):
            layer.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_keys_are_computed_once_for_a_conditioning():
    network = randomized(LatentUNet(TINY))
    calls = counted(network)
    x, timestep, cond, _ = asked(TINY)
    with torch.inference_mode():
        first = network(x, timestep, cond)
        assert torch.equal(network(x, timestep, replace(cond, vector=None)), first)
    assert len(calls) == BLOCKS
    with torch.no_grad():
        network(x, timestep, Conditioning(cond.tokens.clone()))
    assert len(calls) == 2 * BLOCKS
    network(x, timestep, cond)  # with gradients nothing is kept
    assert len(calls) == 3 * BLOCKS


def test_keys_are_computed_once_for_a_guided_walk():
    network = randomized(LatentUNet(TINY))
    calls = counted(network)
    x, _, cond, _ = asked(TINY)
    uncond = Conditioning(torch.zeros_like(cond.tokens))
    guided = ClassifierFree(NetworkDenoiser(network, Straight(), noise_target), 3.0, uncond)
    with torch.inference_mode():
        for t in (0.9, 0.6, 0.3):
            guided(x, torch.full((2, 1, 1, 1), t), cond)
    assert len(calls) == BLOCKS


@torch.no_grad()
def test_kept_keys_die_with_their_tokens():
    network = randomized(LatentUNet(TINY))
    x, timestep, cond, _ = asked(TINY)
    both = concatenate(cond, cond)
    network(torch.cat([x, x]), torch.cat([timestep, timestep]), both)
    block = network.middle_block[1].transformer_blocks[0]
    keys = weakref.ref(block._kept[both.tokens][1][0])
    del both
    gc.collect()
    assert keys() is None
    assert not block._kept


@pytest.mark.parametrize("change", ["in place", "loaded", "dtype"])
@torch.no_grad()
def test_kept_keys_follow_the_weights(change):
    network = randomized(LatentUNet(TINY))
    x, timestep, cond, _ = asked(TINY)
    network(x, timestep, cond)
    if change == "in place":
        network.middle_block[1].transformer_blocks[0].attn2.to_k.weight.mul_(-1)
    elif change == "loaded":
        network.load_state_dict(randomized(LatentUNet(TINY), seed=5).state_dict(), assign=True)
    else:
        network.double()
    fresh = Conditioning(cond.tokens.clone())
    assert torch.equal(network(x, timestep, cond), network(x, timestep, fresh))
