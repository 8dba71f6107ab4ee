"""One Brownian motion: torchsde's own numbers, and what is true of every Brownian motion."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from triptych.engine.brownian import Brownian
from triptych.engine.noise import SOURCES, cpu

LOW, HIGH = 0.0292, 14.614642

# W(start) - W(end) of torchsde 0.2.6: BrownianTree(0.0291675, zeros(2, 2), 14.614642, entropy=1234) of torch's CPU.
TORCHSDE = {
    (14.614642, 7.25): (1.8447542190551758, -1.3012586832046509, 0.4024905562400818, -2.083622455596924),
    (7.25, 0.5): (0.19839933514595032, 0.12868323922157288, -0.5422297120094299, -4.683783531188965),
    (0.5, 0.0291675): (0.9459308981895447, 0.2647685408592224, -0.7119053602218628, -1.1621336936950684),
}


@pytest.mark.parametrize("ends", TORCHSDE)
def test_increments_are_those_of_torchsde(ends):
    """With the sign that k-diffusion gives them on the way down."""
    start, end = ends
    noise = Brownian(1234, 0.0291675, HIGH, (2, 2), cpu)(start, end)
    expected = -torch.tensor(TORCHSDE[ends]) / (start - end) ** 0.5
    torch.testing.assert_close(noise.flatten(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("source", SOURCES)
def test_a_motion_is_the_same_however_finely_it_is_looked_at(source):
    levels = np.geomspace(HIGH, LOW, 7)
    whole, parts = (Brownian(5, LOW, HIGH, (3, 4), SOURCES[source]) for _ in range(2))
    moved = sum(parts(a, b) * (a - b) ** 0.5 for a, b in pairwise(levels))
    torch.testing.assert_close(whole(HIGH, LOW) * (HIGH - LOW) ** 0.5, moved, atol=1e-4, rtol=0)


def test_increments_are_normal_and_independent():
    levels = np.geomspace(HIGH, LOW, 5)
    motion = Brownian(9, LOW, HIGH, (2000,), SOURCES["gpu"])
    steps = torch.stack([motion(a, b) for a, b in pairwise(levels)])
    for step in steps:
        assert stats.kstest(step.numpy(), "norm").pvalue > 0.001
    together = torch.corrcoef(steps) - torch.eye(len(steps))
    assert float(together.abs().max()) < 0.08


def test_places_beyond_the_ends_are_the_ends():
    motion = Brownian(1, LOW, HIGH, (4,), cpu)
    torch.testing.assert_close(motion(HIGH + 1e-6, LOW), motion(HIGH, LOW - 1e-6), atol=1e-6, rtol=0)
