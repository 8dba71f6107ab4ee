"""ControlNets beside the transformer of Stable Diffusion 3, as diffusers runs them, at tiny width."""

from dataclasses import replace

import pytest
import torch
from diffusers import SD3ControlNetModel
from test_ldm import off, randomized
from test_mmdit import SHAPES, SIDE, TINY, alike, asked, configuration, pair

from triptych.engine.nets.controlnet import Control, Controlled
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.mmdit import MMDiT
from triptych.engine.nets.mmdit_control import Beside, ControlShape, ControlTransformer

LARGE = SHAPES["sd3.5-large"]
KINDS = {
    "instantx": (TINY, ControlShape(replace(TINY, depth=2))),
    "uneven": (replace(TINY, depth=5), ControlShape(replace(TINY, depth=3))),
    "deeper": (TINY, ControlShape(replace(TINY, depth=6))),
    "inpainting": (TINY, ControlShape(replace(TINY, depth=3), hint=17)),
    "told": (TINY, ControlShape(replace(TINY, depth=2), silent=False)),
    "sd3.5-medium": (SHAPES["sd3.5-medium"], ControlShape(replace(SHAPES["sd3.5-medium"], depth=2, dual=1))),
    "stability": (LARGE, ControlShape(replace(LARGE, depth=2, normed=False), joint=False, silent=False)),
}


def theirs_of(shape):
    more = {"extra_conditioning_channels": shape.hint - 16}
    if not shape.joint:
        more |= {"joint_attention_dim": None, "use_pos_embed": False, "pos_embed_type": None}
    return randomized(SD3ControlNetModel(**{**configuration(shape.trunk), **more}), seed=2)


def hinted(channels=16, batch=2, size=(8, 12), seed=3):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


def small(shape=KINDS["instantx"][1], seed=2):
    return randomized(ControlTransformer(shape), seed)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_same_numbers_as_diffusers(kind):
    shape, control_shape = KINDS[kind]
    (ours, theirs), their_control = pair(shape), theirs_of(control_shape)
    control = alike(ControlTransformer(control_shape), their_control)
    x, timestep, cond, words = asked()
    hint = hinted(control_shape.hint)
    told = dict(words)
    if control_shape.silent:
        told["pooled_projections"] = torch.zeros_like(told["pooled_projections"])
    if not control_shape.joint:
        told["encoder_hidden_states"] = None
        their_control.pos_embed = their_control._get_pos_embed_from_transformer(theirs)
    changes = their_control(x, controlnet_cond=hint, conditioning_scale=0.7, **told).controlnet_block_samples
    expected = theirs(x, **words, block_controlnet_hidden_states=changes).sample
    assert off(theirs(x, **words).sample, expected) > 0.1
    beside = Beside(control, ours)
    controlled = Controlled(ours, [Control(beside, hint, scale=0.7)])
    assert off(controlled(x, timestep, cond), expected) < 1e-5
    halved = controlled.to(torch.bfloat16)
    fresh = Controlled(halved.network, [Control(beside, hint, scale=0.7)])
    assert off(fresh(x, timestep, cond), expected) < 3e-2


@pytest.mark.parametrize("kind", ["instantx", "stability"])
@torch.inference_mode()
def test_an_untrained_controlnet_changes_nothing(kind):
    shape, control_shape = KINDS[kind]
    network = randomized(MMDiT(shape))
    x, timestep, cond, _ = asked()
    controlled = Controlled(network, [Control(Beside(ControlTransformer(control_shape), network), hinted())])
    assert torch.equal(controlled(x, timestep, cond), network(x, timestep, cond))


@torch.inference_mode()
def test_several_of_any_depth_add_up():
    network = randomized(MMDiT(TINY))
    x, timestep, cond, _ = asked()
    first, second = Beside(small(), network), Beside(small(KINDS["inpainting"][1], seed=4), network)
    controls = [(first, hinted()), (second, hinted(17))]
    changes = [net(x, timestep, cond, net.embed(hint)) for net, hint in controls]
    expected = network(x, timestep, cond, (0.5 * a + 2 * b for a, b in zip(*changes, strict=True)))
    both = [Control(net, hint, scale) for (net, hint), scale in zip(controls, (0.5, 2.0), strict=True)]
    assert off(Controlled(network, both)(x, timestep, cond), expected) < 1e-5


@torch.inference_mode()
def test_a_hint_is_embedded_once_for_all_steps_and_conditionings():
    network, control = randomized(MMDiT(TINY)), small()
    calls = []
    control.pos_embed_input.register_forward_hook(lambda *_: calls.append(1))
    x, timestep, cond, _ = asked()
    controlled = Controlled(network, [Control(Beside(control, network), hinted(batch=1))])
    expected = Controlled(network, [Control(Beside(small(), network), hinted(batch=1).expand(2, -1, -1, -1))])
    assert off(controlled(x, timestep, cond), expected(x, timestep, cond)) < 1e-5
    controlled(x, timestep - 2, cond)
    assert len(calls) == 1


@torch.inference_mode()
def test_at_skipped_steps_no_more_is_computed_than_is_needed():
    network, control = randomized(MMDiT(TINY)), small()
    calls = []
    for block in control.joint_blocks:
        block.register_forward_hook(lambda *_: calls.append(1))
    x, _, cond, _ = asked()
    fast, seen = Fast(Controlled(network, [Control(Beside(control, network), hinted())]).around, 3), []
    for timestep in (900.0, 800.0, 700.0):
        calls.clear()
        fast(x, torch.full((2,), timestep), cond)
        seen.append(len(calls))
    assert seen == [2, 2, 1]


def test_a_controlnet_beside_is_no_part_of_the_network_nor_the_network_of_it():
    network = MMDiT(TINY)
    names = {name for name, _ in Beside(small(), network).named_parameters()}
    assert names == {f"control.{name}" for name, _ in small().named_parameters()}
    assert network.pos_embed.shape[1] == SIDE**2
