"""Step caching: exact where it is full, counted, and nothing is carried over to where it does not belong."""

from dataclasses import replace

import pytest
import torch
from test_controlnet import hinted, small
from test_ldm import SHAPES, TINY, asked, randomized

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, noise_target
from triptych.engine.guidance import ClassifierFree, Interval, Keep, one_by_one
from triptych.engine.nets.controlnet import Control, Controlled
from triptych.engine.nets.fast import Fast, whole
from triptych.engine.nets.ldm import LatentUNet
from triptych.engine.path import Discrete, scaled_linear_betas
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import SPACINGS

STEPS = 8
PATH = Discrete(scaled_linear_betas())


class Counted:
    """A network of which every part is its input plus what the prompt says; counts how often its parts are asked."""

    def __init__(self):
        self.deep, self.all = 0, 0

    def around(self, inner, x, timestep, cond):
        self.all += 1

        def deep():
            self.deep += 1
            return 0.3 * torch.tanh(x) + cond.vector[:, :, None] + timestep[:, None, None] / 2000

        return 0.2 * x + inner(deep)

    def __call__(self, x, timestep, cond):
        return self.around(lambda deep: deep(), x, timestep, cond)


def said(value, batch=1):
    return Conditioning(vector=torch.full((batch, 2), float(value)))


def walk(network, sampler="euler", cond=None, batch=1, guide=lambda denoiser: denoiser, steps=STEPS):
    """Where a walk ends."""
    denoiser = NetworkDenoiser(network, PATH, noise_target, lambda t: 1000 * t - 1)
    start = torch.randn(batch, 2, 5, generator=torch.Generator().manual_seed(1))
    times = SPACINGS["trailing"](PATH, steps, 10)
    noise = torch.Generator().manual_seed(2)
    fresh = lambda x: torch.randn(x.shape, generator=noise)  # noqa: E731
    *_, last = SAMPLERS[sampler](guide(denoiser), start, times, cond or said(0.1, batch), fresh)
    return last.x_t


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_is_the_network_itself(sampler):
    network = Counted()
    assert torch.equal(walk(Fast(network.around, 1), sampler), walk(network, sampler))


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
@torch.no_grad()
def test_full_steps_are_exact_and_the_others_are_near(name):
    network = randomized(LatentUNet(SHAPES[name]))
    x, _, cond, _ = asked(SHAPES[name])
    fast = Fast(network.around, 3)
    for step, time in enumerate((900.0, 850.0, 800.0, 750.0, 700.0)):
        timestep = torch.full((len(x),), time)
        assert torch.equal(fast(x, timestep, cond), network(x, timestep, cond)) == (step in (0, 1, 3))


@pytest.mark.parametrize(("every", "full"), [(1, 8), (2, 5), (3, 4), (4, 3), (8, 2)])
def test_deep_parts_are_counted(every, full):
    network = Counted()
    walk(Fast(network.around, every))
    assert (network.deep, network.all) == (full, STEPS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_methods_that_call_twice_a_step_save_as_much(sampler):
    exact, network = Counted(), Counted()
    expected, found = walk(exact, sampler), walk(Fast(network.around, 3), sampler)
    assert network.all == exact.all
    assert network.deep <= exact.all / 2 + 1
    assert torch.dist(found, expected) < 0.1 * expected.norm()


def test_between_full_steps_a_line_is_followed():
    def network(x, timestep, cond):
        return timestep[:, None, None] * torch.ones_like(x)

    fast, x, cond = Fast(whole(network), 4), torch.zeros(1, 1, 1), Conditioning()
    for time in (900.0, 800.0, 700.0, 600.0, 500.0, 400.0):
        assert fast(x, torch.tensor([time]), cond).item() == pytest.approx(time)


@pytest.mark.parametrize("batch", [1, 3])
def test_together_and_one_by_one_are_the_same(batch):
    def guided(**how):
        network = Counted()
        denoiser = lambda plain: ClassifierFree(plain, 3.0, said(-0.2, batch), **how)  # noqa: E731
        return walk(Fast(network.around, 3), batch=batch, guide=denoiser), network

    (together, first), (apart, second) = guided(), guided(evaluate=one_by_one)
    torch.testing.assert_close(together, apart)
    assert (first.deep, second.deep) == (4, 8)


def test_what_is_told_later_begins_anew():
    network = Counted()
    changed = replace(said(0.1), later=((0.5, said(-0.1)),))
    found = walk(Fast(network.around, 8), cond=changed)
    assert network.deep == 4
    exact = walk(network, cond=changed)
    assert torch.dist(found, exact) < torch.dist(walk(network), exact)


def test_outside_of_an_interval_the_same_steps_are_saved():
    network = Counted()
    guide = lambda plain: Interval(ClassifierFree(plain, 3.0, said(-0.2)), plain, 0.5, 1.0)  # noqa: E731
    walk(Fast(network.around, 8), guide=guide)
    assert network.deep == 4


def test_nothing_is_left_for_the_next_walk():
    network, cond = Counted(), said(0.1)
    fast = Fast(network.around, 3)
    walk(fast, cond=said(0.4))
    for told in (cond, cond):  # another prompt, and the same object once more
        assert torch.equal(walk(fast, cond=told), walk(Fast(network.around, 3), cond=cond))
    assert len(fast._courses) <= 4


def test_a_batch_is_its_members():
    start = torch.randn(3, 2, 5)
    together, batch = Fast(Counted().around, 3), said(0.1, 3)
    apart = [(Fast(Counted().around, 3), said(0.1)) for _ in start]
    for time in (900.0, 700.0, 500.0):
        found = together(start, torch.full((3,), time), batch)
        own = [one(x[None], torch.tensor([time]), cond) for x, (one, cond) in zip(start, apart, strict=True)]
        torch.testing.assert_close(found, torch.cat(own))


def test_what_is_kept_stays():
    known, mask = torch.ones(1, 2, 5), torch.tensor([1.0, 1, 0, 0, 0])
    network = Counted()
    found = walk(Fast(network.around, 3), guide=lambda plain: Keep(plain, known, mask))
    torch.testing.assert_close(found[..., 2:], known[..., 2:])
    assert network.deep == 4


@torch.no_grad()
def test_controlnets_are_asked_for_the_outermost_place_alone():
    network, net = randomized(LatentUNet(TINY)), small()
    calls = []
    net.middle_block.register_forward_hook(lambda *_: calls.append(1))
    x, _, cond, _ = asked(TINY)
    controlled = Controlled(network, [Control(net, hinted(), 0.7), Control(net, hinted(), 0.2, stop=0.15)])
    fast = Fast(controlled.around, 3)
    plain = Fast(network.around, 3)
    for step, time in enumerate((900.0, 800.0, 700.0, 600.0)):
        timestep, before = torch.full((len(x),), time), len(calls)
        found = fast(x, timestep, cond)
        working = 2 if time == 900 else 1
        assert len(calls) - before == (0 if step == 2 else working)
        assert not torch.equal(found, plain(x, timestep, cond))
        assert torch.equal(found, controlled(x, timestep, cond)) == (step != 2)
