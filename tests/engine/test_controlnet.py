"""ControlNet and the controlled U-Net beside those of diffusers, at tiny width; what scales and shares do."""

from dataclasses import replace

import pytest
import torch
from diffusers import ControlNetModel
from test_ldm import SHAPES, TINY, alike, asked, configuration, off, pair, randomized

from triptych.engine.nets.controlnet import Control, Controlled, ControlNet
from triptych.engine.nets.ldm import LatentUNet


def hinted(batch=2, seed=3):
    return torch.rand(batch, 3, 64, 128, generator=torch.Generator().manual_seed(seed))


def controls(shape):
    theirs = randomized(ControlNetModel(**configuration(shape)), seed=2)
    return alike(ControlNet(shape), theirs), theirs


def small(seed=2):
    return randomized(ControlNet(TINY), seed)


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
@torch.inference_mode()
def test_the_same_numbers_as_diffusers(name):
    shape = SHAPES[name]
    (ours, theirs), (control, their_control) = pair(shape), controls(shape)
    x, timestep, cond, words = asked(shape)
    hint = hinted()
    downs, bottom = their_control(x, timestep, **words, controlnet_cond=hint, conditioning_scale=0.7, return_dict=False)
    expected = theirs(
        x, timestep, **words, down_block_additional_residuals=downs, mid_block_additional_residual=bottom
    ).sample
    assert off(theirs(x, timestep, **words).sample, expected) > 0.1
    controlled = Controlled(ours, [Control(control, hint, scale=0.7)])
    assert off(controlled(x, timestep, cond), expected) < 1e-5
    halved = controlled.to(torch.bfloat16, memory_format=torch.channels_last)
    fresh = Controlled(halved.network, [Control(control, hint, scale=0.7)])
    assert off(fresh(x, timestep, cond), expected) < 3e-2


@torch.inference_mode()
def test_beside_an_inpainting_network_the_hint_sees_x_t_alone():
    network, control = randomized(LatentUNet(SHAPES["inpainting"])), small()
    x, timestep, cond, _ = asked(SHAPES["inpainting"])
    controlled = Controlled(network, [Control(control, hinted())])
    changes = control(x, timestep, cond, control.embed(hinted()))
    assert torch.equal(controlled(x, timestep, cond), network(x, timestep, cond, changes))


@torch.inference_mode()
def test_an_untrained_controlnet_changes_nothing():
    network = randomized(LatentUNet(TINY))
    x, timestep, cond, _ = asked(TINY)
    controlled = Controlled(network, [Control(ControlNet(TINY), hinted())])
    assert torch.equal(controlled(x, timestep, cond), network(x, timestep, cond))


@torch.inference_mode()
def test_several_add_up():
    network, control = randomized(LatentUNet(TINY)), small()
    x, timestep, cond, _ = asked(TINY)
    halves = Controlled(network, [Control(control, hinted(), 0.25), Control(control, hinted(), 0.75)])
    whole = Controlled(network, [Control(control, hinted())])
    assert off(halves(x, timestep, cond), whole(x, timestep, cond)) < 1e-5


@pytest.mark.parametrize(("timestep", "works"), [(950.0, False), (700.0, True), (450.0, True), (300.0, False)])
@torch.inference_mode()
def test_works_in_its_share_of_the_walk(timestep, works):
    network = randomized(LatentUNet(TINY))
    x, _, cond, _ = asked(TINY)
    controlled = Controlled(network, [Control(small(), hinted(), start=0.2, stop=0.6)])
    times = torch.full((2,), timestep)
    assert torch.equal(controlled(x, times, cond), network(x, times, cond)) != works


@torch.inference_mode()
def test_the_hint_is_embedded_once_for_all_steps_and_conditionings():
    network, control = randomized(LatentUNet(TINY)), small()
    calls = []
    control.input_hint_block.register_forward_hook(lambda *_: calls.append(1))
    x, timestep, cond, _ = asked(TINY)
    controlled = Controlled(network, [Control(control, hinted(1))])
    expected = Controlled(network, [Control(small(), hinted(1).expand(2, -1, -1, -1))])
    assert off(controlled(x, timestep, cond), expected(x, timestep, cond)) < 1e-5
    controlled(x, timestep - 2, cond)
    assert len(calls) == 1


@torch.inference_mode()
def test_the_middle_may_be_a_residual_block_alone():
    shape = replace(TINY, depths=(0, 0, 0, 0), middle=0)
    theirs = ControlNetModel(
        **{**configuration(shape), "transformer_layers_per_block": 1}, mid_block_type="UNetMidBlock2D"
    )
    control = alike(ControlNet(shape), randomized(theirs))
    x, timestep, cond, words = asked(shape)
    downs, bottom = theirs(x, timestep, **words, controlnet_cond=hinted(), return_dict=False)
    ours = control(x, timestep, cond, control.embed(hinted()))
    assert max(off(a, b) for a, b in zip(ours, [*downs, bottom], strict=True)) < 1e-5
