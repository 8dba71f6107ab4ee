"""The transformer of Stable Diffusion 3 beside diffusers', at tiny width and with the same random weights."""

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from test_ldm import off, randomized

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, flow_target
from triptych.engine.guidance import ClassifierFree
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.layers import rms_normed
from triptych.engine.nets.mmdit import MMDiT, Shape, positions
from triptych.engine.path import Straight
from triptych.errors import InvalidField
from triptych.weights.layouts import gathered
from triptych.weights.layouts.mmdit import diffusers

TEXT, POOLED, SIDE = 40, 24, 12
TINY = Shape(depth=4, width=64, heads=2, side=SIDE, context=TEXT, vector=POOLED)
SHAPES = {
    "sd3-medium": TINY,
    "sd3.5-large": replace(TINY, depth=3, width=96, heads=3, normed=True),
    "sd3.5-medium": replace(TINY, normed=True, dual=2, side=2 * SIDE),
}


def configuration(shape):
    """The words of diffusers for a shape."""
    return {
        "num_layers": shape.depth,
        "attention_head_dim": shape.width // shape.heads,
        "num_attention_heads": shape.heads,
        "joint_attention_dim": shape.context,
        "caption_projection_dim": shape.width,
        "pooled_projection_dim": shape.vector,
        "pos_embed_max_size": shape.side,
        "dual_attention_layers": tuple(range(shape.dual)),
        "qk_norm": "rms_norm" if shape.normed else None,
    }


def alike(ours, theirs):
    """Ours with their weights; every tensor of both is used, and once."""
    state, read = theirs.state_dict(), []
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(gathered(diffusers(shapes), shapes, lambda name: read.append(name) or state[name]))
    assert sorted(read) == sorted(state)
    return ours.eval()


def pair(shape):
    theirs = randomized(SD3Transformer2DModel(**configuration(shape)))
    return alike(MMDiT(shape), theirs), theirs


def asked(batch=2, seed=1, size=(8, 12)):
    """(x, timestep, our conditioning, their arguments) drawn."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*lengths):
        return torch.randn(batch, *lengths, generator=generator)

    x, tokens, vector = drawn(16, *size), drawn(7, TEXT), drawn(POOLED)
    timestep = torch.tensor([999.0, 3.5])[:batch]
    theirs = {"encoder_hidden_states": tokens, "pooled_projections": vector, "timestep": timestep}
    return x, timestep, Conditioning(tokens, vector=vector), theirs


def spread(ours, theirs):
    """The root mean square of the difference, relative to that of the values."""
    return float((ours.float() - theirs).norm() / theirs.norm())


SIZES = [(8, 12), (24, 24), (2, 2), (24, 6)]


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_the_same_numbers_as_diffusers(name):
    ours, theirs = pair(SHAPES[name])
    for size in SIZES:
        x, timestep, cond, words = asked(size=size)
        assert off(ours(x, timestep, cond), theirs(x, **words).sample) < 1e-5


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_half_precision_is_as_near_as_theirs(name):
    ours, theirs = pair(SHAPES[name])
    ours, theirs = ours.to(torch.bfloat16), theirs.to(torch.bfloat16)  # what is lost in weights is lost to both
    x, timestep, cond, words = asked(size=(24, 24))
    halves = {name: value if name == "timestep" else value.to(torch.bfloat16) for name, value in words.items()}
    rounded = theirs(x.to(torch.bfloat16), **halves).sample.float()
    expected = theirs.float()(x, **words).sample
    found = ours(x, timestep, cond)
    assert found.dtype == torch.bfloat16
    assert spread(found, expected) < 1e-2
    assert spread(found, expected) < 1.1 * spread(rounded, expected)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_those_of_diffusers(name):
    ours, theirs = pair(SHAPES[name])
    x, timestep, cond, words = asked()
    ours(x, timestep, cond).square().mean().backward()
    theirs(x, **words).sample.square().mean().backward()
    gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    weights = dict(ours.named_parameters())
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    expected = gathered(diffusers(shapes), shapes, lambda name: gradients[name])
    found = torch.cat([weight.grad.flatten() for weight in weights.values()])
    assert off(found, torch.cat([expected[name].flatten() for name in weights])) < 1e-5


def test_positions_are_those_of_diffusers():
    theirs = get_2d_sincos_pos_embed(64, 192, base_size=64, output_type="pt")
    assert torch.allclose(positions(192, 64)[0], theirs.float(), atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_root_mean_squares_are_those_of_torch(dtype):
    parts = torch.randn(2, 5, 3 * 64, generator=torch.Generator().manual_seed(0)).to(dtype).chunk(3, dim=-1)
    weight = torch.linspace(-1, 2, 64).to(dtype)
    expected = torch.nn.functional.rms_norm(parts[1], (64,), weight, 1e-6)
    with torch.no_grad():
        found = rms_normed(parts[1], weight)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)
    assert torch.equal(rms_normed(parts[1], weight), expected)


def test_a_copy_of_a_network_keeps_nothing_of_the_first():
    network = randomized(MMDiT(TINY))
    x, timestep, cond, _ = asked()
    with torch.no_grad():
        before = network(x, timestep, cond)
        other = copy.deepcopy(network)
        network.context_embedder.weight.zero_()
        assert torch.equal(other(x, timestep, cond), before)
        other.context_embedder.weight.zero_()
        assert torch.equal(other(x, timestep, cond), network(x, timestep, cond))


@pytest.mark.parametrize("size", [(8, 11), (26, 8), (8, 26)])
@torch.inference_mode()
def test_sizes_that_cannot_be(size):
    x, timestep, cond, _ = asked(size=size)
    with pytest.raises(InvalidField, match="even numbers up to 24"):
        MMDiT(TINY)(x, timestep, cond)


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_a_batch_is_its_parts(name):
    network = randomized(MMDiT(SHAPES[name]))
    x, timestep, cond, _ = asked()
    parts = [
        network(x[i : i + 1], timestep[i : i + 1], Conditioning(cond.tokens[i : i + 1], vector=cond.vector[i : i + 1]))
        for i in range(2)
    ]
    assert off(network(x, timestep, cond), torch.cat(parts)) < 1e-5


@torch.inference_mode()
def test_masked_tokens_are_not_heard():
    network = randomized(MMDiT(TINY))
    x, timestep, cond, _ = asked()
    mask = torch.arange(7).expand(2, 7) < 4
    shorter = network(x, timestep, Conditioning(cond.tokens[:, :4], vector=cond.vector))
    assert off(network(x, timestep, replace(cond, mask=mask)), shorter) < 1e-5


@torch.inference_mode()
def test_the_deep_part_is_what_all_blocks_but_the_first_add():
    ours, theirs = pair(SHAPES["sd3.5-medium"])
    x, timestep, cond, words = asked()
    parts = []

    def seen(deep):
        parts.append(deep())
        return parts[0]

    assert off(ours.around(seen, x, timestep, cond), theirs(x, **words).sample) < 1e-5
    assert parts[0].shape == (2, 24, 64)
    shallow = ours.around(lambda deep: torch.zeros(2, 24, 64), x, timestep, cond)
    assert off(shallow, theirs(x, **words, skip_layers=[1, 2, 3]).sample) < 1e-5


@torch.inference_mode()
def test_at_skipped_steps_one_block_alone_is_computed():
    network = randomized(MMDiT(TINY))
    x, _, cond, _ = asked()
    calls = []
    for block in network.joint_blocks:
        block.register_forward_hook(lambda *_: calls.append(1))
    fast, seen = Fast(network.around, 3), []
    for timestep in (900.0, 800.0, 700.0, 600.0):
        calls.clear()
        fast(x, torch.full((2,), timestep), cond)
        seen.append(len(calls))
    assert seen == [4, 4, 1, 4]


def counted(network):
    """Lists that grow by one whenever tokens, or vectors, are embedded."""
    tokens, vectors = [], []
    network.context_embedder.register_forward_hook(lambda *_: tokens.append(1))
    network.y_embedder.register_forward_hook(lambda *_: vectors.append(1))
    return tokens, vectors


def test_a_conditioning_is_embedded_once():
    network = randomized(MMDiT(TINY))
    tokens, vectors = counted(network)
    x, timestep, cond, _ = asked()
    with torch.inference_mode():
        first = network(x, timestep, cond)
        assert torch.equal(network(x, timestep, replace(cond)), first)
    assert (len(tokens), len(vectors)) == (1, 1)
    with torch.no_grad():
        network(x, timestep, replace(cond, tokens=cond.tokens.clone()))
    assert (len(tokens), len(vectors)) == (2, 1)
    assert off(network(x, timestep, cond).detach(), first) < 1e-5  # with gradients nothing is kept
    assert (len(tokens), len(vectors)) == (3, 2)


def test_a_conditioning_is_embedded_once_for_a_guided_walk():
    network = randomized(MMDiT(TINY))
    tokens, vectors = counted(network)
    x, _, cond, _ = asked()
    uncond = Conditioning(torch.zeros_like(cond.tokens), vector=torch.zeros_like(cond.vector))
    guided = ClassifierFree(NetworkDenoiser(network, Straight(), flow_target), 3.0, uncond)
    with torch.inference_mode():
        for t in (0.9, 0.6, 0.3):
            guided(x, torch.full((2, 1, 1, 1), t), cond)
    assert (len(tokens), len(vectors)) == (1, 1)


@torch.no_grad()
def test_what_is_kept_dies_with_its_tokens():
    network = randomized(MMDiT(TINY))
    x, timestep, cond, _ = asked()
    made = []
    network.context_embedder.register_forward_hook(lambda *told: made.append(weakref.ref(told[2])))
    network(x, timestep, cond)
    assert made[0]() is not None
    del cond, _
    gc.collect()
    assert made[0]() is None


@pytest.mark.parametrize("change", ["in place", "loaded", "dtype", "told"])
@torch.no_grad()
def test_what_is_kept_follows_weights_and_tokens(change):
    network = randomized(MMDiT(TINY))
    x, timestep, cond, _ = asked()
    before = network(x, timestep, cond)
    if change == "in place":
        network.context_embedder.weight.mul_(-1)
        network.y_embedder.mlp[2].bias.add_(1)
    elif change == "loaded":
        network.load_state_dict(randomized(MMDiT(TINY), seed=5).state_dict(), assign=True)
    elif change == "dtype":
        network.double()
    else:
        cond.tokens.neg_()
        cond.vector.neg_()
    after = network(x, timestep, cond)
    assert not torch.equal(after, before)
    assert torch.equal(after, network(x, timestep, Conditioning(cond.tokens.clone(), vector=cond.vector.clone())))
