"""The transformer of FLUX.1 and its ControlNets beside those of diffusers, at tiny width with equal random weights."""

import copy
import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import FluxControlNetModel, FluxFillPipeline, FluxKontextPipeline, FluxTransformer2DModel
from test_ldm import off, randomized

from triptych.engine.conditioning import Conditioning, concatenate
from triptych.engine.nets.controlnet import Control, Controlled
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.flux import DEV, Flux, Shape, parted, patches, positions
from triptych.engine.nets.flux_control import FluxControl, OfKind
from triptych.weights.layouts import gathered
from triptych.weights.layouts.flux import diffusers

TINY = replace(DEV, doubles=2, singles=3, width=64, heads=2, axes=(4, 14, 14), context=24, vector=16)
SHAPES = {
    "dev": TINY,
    "schnell": replace(TINY, guided=False),
    "fill": replace(TINY, in_channels=384),
    "structure": replace(TINY, in_channels=128),
}
TIMES = torch.tensor([937.5, 3.0])


def configuration(shape: Shape):
    """The words of diffusers for a shape."""
    return {
        "in_channels": shape.in_channels,
        "num_layers": shape.doubles,
        "num_single_layers": shape.singles,
        "attention_head_dim": shape.width // shape.heads,
        "num_attention_heads": shape.heads,
        "joint_attention_dim": shape.context,
        "pooled_projection_dim": shape.vector,
        "guidance_embeds": shape.guided,
        "axes_dims_rope": tuple(shape.axes),
    }


def alike(ours, theirs):
    """Ours with their weights; every tensor of both is used, and once."""
    state, read = theirs.state_dict(), []
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(gathered(diffusers(shapes), shapes, lambda name: read.append(name) or state[name]))
    assert sorted(read) == sorted(state)
    return ours.eval()


def pair(shape):
    theirs = randomized(FluxTransformer2DModel(**configuration(shape), out_channels=shape.out_channels))
    return alike(Flux(shape), theirs), theirs


def asked(shape, size=(6, 10), batch=2, seed=1):
    """(x, our conditioning) drawn."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*lengths):
        return torch.randn(batch, *lengths, generator=generator)

    x, tokens, vector, more = (
        drawn(16, *size),
        drawn(7, shape.context),
        drawn(shape.vector),
        shape.in_channels // 4 - 16,
    )
    concat = drawn(more, *size) if more else None
    scalars = {"guidance": torch.tensor([3.5, 1.0])[:batch]} if shape.guided else {}
    return x, Conditioning(tokens, vector=vector, concat=concat, scalars=scalars)


def packed(x):
    return FluxKontextPipeline._pack_latents(x, *x.shape)


def ids(x, number=0):
    found = FluxKontextPipeline._prepare_latent_image_ids(1, x.shape[2] // 2, x.shape[3] // 2, None, torch.float32)
    found[:, 0] = number
    return found


def words(shape, timestep, cond):
    return {
        "encoder_hidden_states": cond.tokens,
        "pooled_projections": cond.vector,
        "timestep": timestep / 1000,
        "guidance": cond.scalars["guidance"] if shape.guided else None,
        "txt_ids": torch.zeros(cond.tokens.shape[1], 3),
    }


def reference(theirs, shape, x, timestep, cond, **more):
    """What diffusers' transformer says, by the steps of its pipelines."""
    tokens = packed(x) if cond.concat is None else torch.cat([packed(x), packed(cond.concat)], dim=2)
    places = [ids(x)] + [ids(one, number) for number, one in enumerate(cond.references, 1)]
    tokens = torch.cat([tokens, *map(packed, cond.references)], dim=1)
    out = theirs(tokens, **words(shape, timestep, cond), img_ids=torch.cat(places), return_dict=False, **more)[0]
    own = out[:, : x.shape[2] * x.shape[3] // 4]
    return FluxKontextPipeline._unpack_latents(own, 8 * x.shape[2], 8 * x.shape[3], 8)


def strayed(ours, theirs):
    """The root mean square of differences, relative to that of values."""
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_the_same_numbers_as_diffusers(name):
    shape = SHAPES[name]
    ours, theirs = pair(shape)
    x, cond = asked(shape)
    expected = reference(theirs, shape, x, TIMES, cond)
    found = ours(x, TIMES, cond)
    assert found.shape == x.shape
    assert off(found, expected) < 1e-5
    halved = ours.to(torch.bfloat16)(x, TIMES, cond)
    assert halved.dtype == torch.bfloat16
    assert strayed(halved, expected) < 1e-2


@torch.inference_mode()
def test_half_precision_strays_no_further_than_that_of_diffusers():
    ours, theirs = pair(TINY)
    x, cond = asked(TINY, size=(16, 24))
    x, times = x.bfloat16(), torch.tensor([500.0, 250.0])  # all of which bfloat16 holds as they are
    told = {"tokens": cond.tokens.bfloat16(), "vector": cond.vector.bfloat16()}
    halves = replace(cond, **told, scalars={"guidance": torch.tensor([2.0, 1.0])})
    whole = replace(halves, tokens=told["tokens"].float(), vector=told["vector"].float())
    expected = reference(theirs, TINY, x.float(), times, whole)
    theirs_strays = strayed(reference(theirs.bfloat16(), TINY, x, times, halves), expected)
    assert strayed(ours.bfloat16()(x, times, halves), expected) < 1.05 * theirs_strays


@pytest.mark.parametrize("size", [(2, 2), (4, 12), (14, 6)])
@torch.inference_mode()
def test_the_same_numbers_at_any_size(size):
    ours, theirs = pair(TINY)
    x, cond = asked(TINY, size, batch=1)
    assert off(ours(x, TIMES[:1], cond), reference(theirs, TINY, x, TIMES[:1], cond)) < 1e-5


@pytest.mark.parametrize("sizes", [[(4, 8)], [(10, 4), (6, 6)]])
@torch.inference_mode()
def test_references_are_seen_beside(sizes):
    ours, theirs = pair(TINY)
    x, cond = asked(TINY)
    beside = tuple(asked(TINY, size, seed=number)[0] for number, size in enumerate(sizes, 7))
    referring = replace(cond, references=beside)
    expected = reference(theirs, TINY, x, TIMES, referring)
    assert off(ours(x, TIMES, referring), expected) < 1e-5
    assert off(ours(x, TIMES, cond), expected) > 1e-3


def test_masks_are_parted_as_for_fill():
    mask, kept = (torch.rand(2, 1, 48, 80) < 0.5).float(), torch.randn(2, 16, 6, 10)
    pipeline = SimpleNamespace(
        vae_scale_factor=8,
        vae=SimpleNamespace(config=SimpleNamespace(shift_factor=0.0, scaling_factor=1.0)),
        _pack_latents=FluxFillPipeline._pack_latents,
    )
    told = FluxFillPipeline.prepare_mask_latents(
        pipeline, mask, kept, 2, 16, 1, 48, 80, torch.float32, torch.device("cpu"), None
    )
    assert torch.equal(patches(torch.cat([kept, parted(mask)], dim=1)), torch.cat([told[1], told[0]], dim=2))


@torch.inference_mode()
def test_a_batch_is_its_parts():
    network = randomized(Flux(TINY))
    x, cond = asked(TINY)
    parts = [
        network(
            x[i : i + 1],
            TIMES[i : i + 1],
            Conditioning(
                cond.tokens[i : i + 1],
                vector=cond.vector[i : i + 1],
                scalars={"guidance": cond.scalars["guidance"][i : i + 1]},
            ),
        )
        for i in range(2)
    ]
    assert off(network(x, TIMES, cond), torch.cat(parts)) < 1e-5


@torch.inference_mode()
def test_masked_tokens_are_not_heard():
    network = randomized(Flux(TINY))
    x, cond = asked(TINY)
    mask = torch.arange(7).expand(2, 7) < 4
    shorter = network(x, TIMES, replace(cond, tokens=cond.tokens[:, :4]))
    assert off(network(x, TIMES, replace(cond, mask=mask)), shorter) < 1e-5


def test_gradients_are_those_of_diffusers():
    ours, theirs = pair(TINY)
    x, cond = asked(TINY)
    ours(x, TIMES, cond).square().mean().backward()
    reference(theirs, TINY, x, TIMES, cond).square().mean().backward()
    parameters = dict(ours.named_parameters())
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    expected = gathered(diffusers(shapes), shapes, gradients.__getitem__)
    assert off(
        torch.cat([parameter.grad.flatten() for parameter in parameters.values()]),
        torch.cat([expected[name].flatten() for name in parameters]),
    ) < 1e-5  # fmt: skip


@torch.no_grad()
def test_products_of_turned_tokens_depend_on_distances_alone():
    by = positions(((8, 8),), (4, 14, 14), torch.device("cpu"))
    turned = torch.view_as_real(torch.view_as_complex(torch.randn(1, 16, 2)) * by).flatten(1)
    q, k = turned.unflatten(0, (4, 4)), turned.unflatten(0, (4, 4))
    assert off((q[1, 2] * k[0, 0]).sum(), (q[3, 3] * k[2, 1]).sum()) < 1e-5


EMBEDDERS = ("txt_in", "vector_in.in_layer", "guidance_in.in_layer")


def counted(network):
    """How often each of what hears the conditioning has run."""
    calls = dict.fromkeys(EMBEDDERS, 0)
    for name in calls:
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    return calls


def test_the_conditioning_is_heard_once():
    network = randomized(Flux(TINY))
    calls = counted(network)
    x, cond = asked(TINY)
    with torch.inference_mode():
        first = network(x, TIMES, cond)
        assert torch.equal(network(x, TIMES, replace(cond)), first)
        assert set(calls.values()) == {1}
        network(x, TIMES, replace(cond, scalars={"guidance": cond.scalars["guidance"] + 1}))
    assert calls == {"txt_in": 1, "vector_in.in_layer": 1, "guidance_in.in_layer": 2}
    network(x, TIMES, cond)  # with gradients nothing is kept
    assert calls == {"txt_in": 2, "vector_in.in_layer": 2, "guidance_in.in_layer": 3}


@torch.no_grad()
def test_what_is_kept_dies_with_its_tokens():
    network = randomized(Flux(TINY))
    x, cond = asked(TINY)
    both = concatenate(cond, cond)
    network(torch.cat([x, x]), torch.cat([TIMES, TIMES]), both)
    text = weakref.ref(network._heard._texts._kept[both.tokens][2])
    del both
    gc.collect()
    assert text() is None


@pytest.mark.parametrize("change", ["in place", "loaded", "dtype", "copied"])
@torch.no_grad()
def test_what_is_kept_follows_the_weights(change):
    network = randomized(Flux(TINY))
    x, cond = asked(TINY)
    before = network(x, TIMES, cond)
    if change == "in place":
        for name in EMBEDDERS:
            network.get_submodule(name).weight.mul_(-1)
    elif change == "loaded":
        network.load_state_dict(randomized(Flux(TINY), seed=5).state_dict(), assign=True)
    elif change == "dtype":
        network.double()
    else:
        network = copy.deepcopy(network)
        network.txt_in.weight.mul_(-1)
    told, vector, guidance = cond.tokens.clone(), cond.vector.clone(), cond.scalars["guidance"].clone()
    fresh = Conditioning(told, vector=vector, scalars={"guidance": guidance})
    found = network(x, TIMES, cond)
    assert torch.equal(found, network(x, TIMES, fresh))
    assert change == "dtype" or off(found, before) > 1e-3


@torch.no_grad()
def test_full_steps_are_exact_and_the_others_are_near():
    network = randomized(Flux(TINY))
    x, cond = asked(TINY)
    fast, deep = Fast(network.around, 3), []
    network.double_blocks[1].register_forward_hook(lambda *_: deep.append(1))
    for step, time in enumerate((900.0, 899.9, 899.8, 899.7, 899.6)):
        timestep = torch.full((2,), time)
        deep.clear()
        guessed = fast(x, timestep, cond)
        assert len(deep) == (step in (0, 1, 3))
        expected = network(x, timestep, cond)
        assert torch.equal(guessed, expected) == (step in (0, 1, 3))
        assert off(guessed, expected) < 0.01


@torch.no_grad()
def test_blocks_may_come_one_by_one():
    network = randomized(Flux(TINY))
    x, cond = asked(TINY)
    expected, weights = network(x, TIMES, cond), {}
    blocks = [*network.double_blocks, *network.single_blocks]

    def come(block, _):
        for name, value in weights[block].items():
            block.get_parameter(name).data = value

    def leave(block, *_):
        for parameter in block.parameters():
            parameter.data = torch.empty(0)

    for block in blocks:
        weights[block] = {name: parameter.data for name, parameter in block.named_parameters()}
        leave(block)
        block.register_forward_pre_hook(come)
        block.register_forward_hook(leave)
    assert torch.equal(network(x, TIMES, cond), expected)


@torch.no_grad()
def test_large_channels_stay_finite_in_float16():
    halved = randomized(Flux(TINY)).half()
    for block in halved.single_blocks:  # of which the second would be infinite
        block.linear2.bias.fill_(60_000.0)
        block.modulation.lin.bias.fill_(2.0)
    x, cond = asked(TINY)
    assert halved(x, TIMES, cond).isfinite().all()


# ControlNets.

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed. is deprecated:FutureWarning")


def control_pair(shape, beside, kinds=None, stem=False):
    """shape: of the ControlNet."""
    more = {"num_mode": kinds} if kinds else {}
    more |= {"conditioning_embedding_channels": 16, "patch_size": 2} if stem else {}
    theirs = randomized(FluxControlNetModel(**configuration(shape), **more), seed=2)
    return alike(FluxControl(shape, beside, kinds=kinds, stem=3 if stem else None), theirs), theirs


def beside(theirs, shape, x, cond, hint, **more):
    """What diffusers' ControlNet says, as its pipeline takes it."""
    doubles, singles = theirs(
        packed(x), hint, **words(shape, TIMES, cond), img_ids=ids(x), return_dict=False, **more
    )  # fmt: skip
    return {"controlnet_block_samples": doubles, "controlnet_single_block_samples": singles}


NETWORK = replace(TINY, doubles=5, singles=7)


@pytest.mark.parametrize(("doubles", "singles"), [(2, 3), (3, 0), (1, 1), (5, 7), (4, 4)])
@pytest.mark.parametrize("guided", [True, False])
@torch.inference_mode()
def test_control_by_latents(doubles, singles, guided):
    shape = replace(TINY, doubles=doubles, singles=singles, guided=guided)
    (ours, theirs), (control, their_control) = pair(NETWORK), control_pair(shape, NETWORK)
    x, cond = asked(NETWORK)
    hint = asked(NETWORK, seed=9)[0]
    changes = beside(their_control, shape, x, cond, packed(hint), conditioning_scale=0.7)
    expected = reference(theirs, NETWORK, x, TIMES, cond, **changes)
    controlled = Controlled(ours, [Control(control, hint, scale=0.7)])
    assert off(ours(x, TIMES, cond), expected) > 1e-2
    assert off(controlled(x, TIMES, cond), expected) < 1e-5


@torch.inference_mode()
def test_control_of_a_kind():
    shape = replace(TINY, doubles=2, singles=2)
    (ours, theirs), (control, their_control) = pair(NETWORK), control_pair(shape, NETWORK, kinds=4)
    x, cond = asked(NETWORK)
    hint = asked(NETWORK, seed=9)[0]
    found = []
    for kind in (0, 3):
        mode = torch.full((2, 1), kind)
        changes = beside(their_control, shape, x, cond, packed(hint), controlnet_mode=mode)
        expected = reference(theirs, NETWORK, x, TIMES, cond, **changes)
        found.append(Controlled(ours, [Control(OfKind(control, kind), hint)])(x, TIMES, cond))
        assert off(found[-1], expected) < 1e-5
    assert off(*found) > 1e-3
    with pytest.raises(AssertionError, match="kind"):
        next(control(x, TIMES, cond, control.embed(hint)))


@pytest.mark.parametrize("doubles", [2, 3])
@torch.inference_mode()
def test_control_by_samples(doubles):
    shape = replace(TINY, doubles=doubles, singles=0)
    (ours, theirs), (control, their_control) = pair(NETWORK), control_pair(shape, NETWORK, stem=True)
    x, cond = asked(NETWORK)
    hint = 2 * torch.rand(2, 3, 48, 80) - 1
    changes = beside(their_control, shape, x, cond, hint)
    expected = reference(theirs, NETWORK, x, TIMES, cond, **changes, controlnet_blocks_repeat=True)
    controlled = Controlled(ours, [Control(control, hint)])
    assert off(controlled(x, TIMES, cond), expected) < 1e-5


@torch.inference_mode()
def test_several_controls_add_up_whatever_blocks_they_have():
    ours = randomized(Flux(NETWORK))
    x, cond = asked(NETWORK)
    shapes = [replace(TINY, doubles=2, singles=0), replace(TINY, doubles=1, singles=2)]
    controls = [randomized(FluxControl(shape, NETWORK), seed) for seed, shape in enumerate(shapes)]
    hint = asked(NETWORK, seed=9)[0]
    changes = [list(control(x, TIMES, cond, control.embed(hint))) for control in controls]
    assert [len(one) for one in changes] == [5, 12]
    summed = [a + b for a, b in zip(*changes, strict=False)] + changes[1][5:]
    controlled = Controlled(ours, [Control(control, hint) for control in controls])
    assert off(controlled(x, TIMES, cond), ours(x, TIMES, cond, summed)) < 1e-5


@torch.inference_mode()
def test_control_changes_x_and_not_its_references():
    shape = replace(TINY, doubles=1, singles=1)
    (ours, theirs), (control, their_control) = pair(NETWORK), control_pair(shape, NETWORK)
    x, cond = asked(NETWORK)
    hint, seen = asked(NETWORK, seed=9)[0], asked(NETWORK, (4, 4), seed=10)[0]
    changes = beside(their_control, shape, x, cond, packed(hint))
    padded = {name: [torch.nn.functional.pad(one, (0, 0, 0, 4)) for one in made] for name, made in changes.items()}
    referring = replace(cond, references=(seen,))
    expected = reference(theirs, NETWORK, x, TIMES, referring, **padded)
    assert off(Controlled(ours, [Control(control, hint)])(x, TIMES, referring), expected) < 1e-5


@torch.no_grad()
def test_an_untrained_controlnet_changes_nothing_and_a_cached_walk_asks_for_its_first_block_alone():
    network, control = randomized(Flux(NETWORK)), FluxControl(replace(TINY, doubles=2, singles=2), NETWORK)
    x, cond = asked(NETWORK)
    controlled, asked_for = Controlled(network, [Control(control, asked(NETWORK, seed=9)[0])]), []
    assert torch.equal(controlled(x, TIMES, cond), network(x, TIMES, cond))
    for index, block in enumerate([*control.double_blocks, *control.single_blocks]):
        block.register_forward_hook(lambda *_, index=index: asked_for.append(index))
    fast = Fast(controlled.around, 3)
    for time in (900.0, 890.0, 880.0):
        asked_for.clear()
        fast(x, torch.full((2,), time), cond)
    assert asked_for == [0]
