"""The noise of a walk: generators, seeds and what its first noise is mixed of, by the web UI's published rules."""

from itertools import pairwise

import pytest
import torch

from triptych.drawing import Alone, Drawing, Together, along, begin
from triptych.engine.brownian import Brownian
from triptych.engine.frame import Frame
from triptych.engine.noise import cpu, gpu
from triptych.engine.path import Discrete, scaled_linear_betas
from triptych.engine.spacing import SPACINGS

SHAPE = (4, 6, 8)


def test_generators_of_the_web_ui_go_on_or_begin_anew():
    """ImageRNG: one generator a seed, after the first noise another of seed + eta_noise_seed_delta if there is one."""
    drawn = Alone(Drawing([3, 4]), "gpu")
    first, later = gpu(4), gpu(4 + 31337)
    assert torch.equal(drawn.start(SHAPE)[1], first(SHAPE))
    assert torch.equal(drawn.draw(SHAPE)[1], first(SHAPE))
    drawn = Alone(Drawing([3, 4], delta=31337), "gpu")
    assert torch.equal(drawn.start(SHAPE)[1], gpu(4)(SHAPE))
    assert torch.equal(drawn.draw(SHAPE)[1], later(SHAPE))
    assert torch.equal(drawn(torch.zeros(2, *SHAPE))[1], later(SHAPE))


def test_generators_of_comfyui_are_the_cpus_and_then_the_cards():
    """sample.py: torch.manual_seed(seed), the batch at once; sampling.py: another on x.device, of seed + 1 on a CPU."""
    whole = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(7))
    for source, later in ((None, gpu(7 + 2**40)), ("gpu", gpu(7 + 2**40)), ("cpu", cpu(8 + 2**40))):
        drawn = Together(Drawing([7, 8], source, 2**40))
        assert torch.equal(drawn.start(SHAPE), whole)
        assert torch.equal(drawn.draw(SHAPE), later((2, *SHAPE)))
        assert torch.equal(drawn(torch.zeros(2, *SHAPE)), later((2, *SHAPE)))


@pytest.mark.parametrize(("asked", "source"), [(None, cpu), ("cpu", cpu), ("gpu", gpu)])
def test_motions_of_comfyui_are_the_cpus_unless_asked_for(asked, source):
    motion = Together(Drawing([7, 8], asked, 2**40)).motion(0.03, 14.0, SHAPE)
    assert torch.equal(motion(9.0, 1.0), Brownian(7 + 2**40, 0.03, 14.0, (2, *SHAPE), source)(9.0, 1.0))


def test_solvers_are_given_one_motion_down_the_walk():
    path = Discrete(scaled_linear_betas())
    times = SPACINGS["karras"](path, 5, 1)
    levels = Frame(path).clock(times).float().tolist()
    noise = along(Alone(Drawing([3]), "gpu"), path, times, SHAPE)
    motion = Brownian(3, levels[-2], levels[0], SHAPE, gpu)
    for start, end in pairwise(levels[:-1]):
        assert torch.equal(noise(torch.zeros(1, *SHAPE))[0], motion(start, end))


def mixed(low, high, share):
    """rng.py's slerp: norms along the rows, and what it does where they are alike left out."""
    omega = ((low / low.norm(dim=1, keepdim=True)) * (high / high.norm(dim=1, keepdim=True))).sum(1).acos()
    so = torch.sin(omega)
    return (torch.sin((1 - share) * omega) / so)[:, None] * low + (torch.sin(share * omega) / so)[:, None] * high


def test_a_second_seed_turns_the_first_noise():
    asked = Drawing([3, 4], variation=(99, 0.3))
    drawn = Alone(asked, "gpu")
    expected = torch.stack([mixed(gpu(seed)(SHAPE), gpu(99)(SHAPE), 0.3) for seed in (3, 4)])
    torch.testing.assert_close(begin(asked, drawn, SHAPE), expected)
    goes_on = gpu(3)
    goes_on(SHAPE)
    assert torch.equal(drawn.draw(SHAPE)[0], goes_on(SHAPE))


@pytest.mark.parametrize("size", [(6, 8), (4, 4), (10, 12), (3, 8), (9, 5), (7, 3)])
def test_noise_of_another_size_lies_in_the_middle(size):
    """ImageRNG.first: where it is laid is told by // alone, which rounds down."""
    asked = Drawing([3], variation=(99, 0.4), size=size)
    inner = mixed(gpu(3)((4, *size)), gpu(99)((4, *size)), 0.4)
    outer = gpu(3)(SHAPE)
    if size == SHAPE[1:]:
        outer = inner
    else:
        dx, dy = (SHAPE[2] - size[1]) // 2, (SHAPE[1] - size[0]) // 2
        w = size[1] if dx >= 0 else size[1] + 2 * dx
        h = size[0] if dy >= 0 else size[0] + 2 * dy
        tx, ty = max(dx, 0), max(dy, 0)
        dx, dy = max(-dx, 0), max(-dy, 0)
        outer[:, ty : ty + h, tx : tx + w] = inner[:, dy : dy + h, dx : dx + w]
    torch.testing.assert_close(begin(asked, Alone(asked, "gpu"), SHAPE)[0], outer)
