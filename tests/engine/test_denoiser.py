"""`solve` gives back exactly what a target was made of, and a network is fed what it should be."""

import math

import pytest
import torch
from helpers import FROM_PURE_NOISE, NOTHING, PATHS, REPEATABLE, Mixture, between, normal, number
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import (
    TARGETS,
    KarrasTarget,
    NetworkDenoiser,
    Prediction,
    broadcast,
    data_target,
    flow_target,
    noise_target,
    solve,
    v_target,
)
from triptych.engine.path import Cosine, Linear, Straight, VarianceExploding
from triptych.errors import SingularTarget


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", TARGETS)
@REPEATABLE
@given(t=st.floats(0.02, 0.98), seed=st.integers(0, 1000), rank=st.integers(1, 3))
def test_solve_is_exact(target, path, t, seed, rank):
    """Latents of any rank: 1 for sequences, 2 and 3 for grids."""
    path, shape = PATHS[path], (2, 3, *(4, 2, 3)[:rank])
    x_0, eps = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    times = broadcast(torch.tensor([t, 0.5], dtype=torch.float64), x_0)
    a, b = TARGETS[target](path, times)
    p = solve(path, TARGETS[target], path.perturb(x_0, eps, times), times, a * x_0 + b * eps)
    torch.testing.assert_close(p.x_0, x_0, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(p.eps, eps, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("target", TARGETS)
@REPEATABLE
@given(t=st.floats(0.02, 0.98), seed=st.integers(0, 1000))
def test_whatever_the_output_the_halves_add_up_to_x_t(target, path, t, seed):
    path, x_t, output = PATHS[path], normal(2, 3, 4, seed=seed), normal(2, 3, 4, seed=seed + 1)
    times = broadcast(number(t), x_t)
    p = solve(path, TARGETS[target], x_t, times, output)
    scale = 1 + float(p.x_0.abs().max())
    torch.testing.assert_close(path.perturb(p.x_0, p.eps, times) / scale, x_t / scale, atol=1e-10, rtol=0)


@REPEATABLE
@given(sigma=st.floats(0.002, 80.0), sigma_data=st.floats(0.1, 2.0), seed=st.integers(0, 100))
def test_karras_target_is_table_1(sigma, sigma_data, seed):
    """c_skip and c_out of arXiv:2206.00364, table 1, column "Ours": D = c_skip x + c_out F."""
    path, x_t, output = VarianceExploding(80.0), normal(1, 2, 3, seed=seed), normal(1, 2, 3, seed=seed + 1)
    p = solve(path, KarrasTarget(sigma_data), x_t, number(sigma / 80.0), output)
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / math.sqrt(sigma**2 + sigma_data**2)
    torch.testing.assert_close(p.x_0, c_skip * x_t + c_out * output, atol=1e-10, rtol=1e-10)


def test_targets_are_what_their_papers_say():
    x_0, eps, t = normal(2, 3), normal(2, 3, seed=1), number(0.3)

    def output(target, path) -> Tensor:
        a, b = target(path, t)
        return a * x_0 + b * eps

    for path in PATHS.values():
        torch.testing.assert_close(output(data_target, path), x_0)
        torch.testing.assert_close(output(noise_target, path), eps)
    torch.testing.assert_close(output(flow_target, Straight()), eps - x_0)
    cosine = Cosine()
    turned = number(0.3 * math.pi / 2)  # v is the derivative of x_t in the angle (arXiv:2202.00512, appendix D)
    torch.testing.assert_close(output(v_target, cosine), torch.cos(turned) * eps - torch.sin(turned) * x_0)
    torch.testing.assert_close(output(flow_target, cosine), math.pi / 2 * output(v_target, cosine))


def test_every_target_of_this_module_is_in_the_list():
    assert list(TARGETS) == ["x_0", "eps", "v", "flow", "karras"]


@pytest.mark.parametrize("path", FROM_PURE_NOISE)
@pytest.mark.parametrize("target", ["eps"])
def test_nothing_can_be_said_of_the_data_from_noise_alone(target, path):
    x_t = normal(2, 3, 4)
    with pytest.raises(SingularTarget, match="t = 1"):
        solve(FROM_PURE_NOISE[path], TARGETS[target], x_t, broadcast(number(1.0), x_t), x_t)


@pytest.mark.parametrize("path", FROM_PURE_NOISE)
@pytest.mark.parametrize("target", ["v", "flow", "karras", "x_0"])
def test_the_others_are_defined_at_pure_noise(target, path):
    path, x_0, eps, t = FROM_PURE_NOISE[path], normal(2, 3), normal(2, 3, seed=1), number(1.0)
    a, b = TARGETS[target](path, t)
    p = solve(path, TARGETS[target], eps, t, a * x_0 + b * eps)
    torch.testing.assert_close(p.x_0, x_0)
    torch.testing.assert_close(p.eps, eps)


@pytest.mark.parametrize("path", PATHS)
def test_noise_can_not_be_seen_in_data(path):
    x_t = normal(2, 3, 4)
    with pytest.raises(SingularTarget, match="t = 0"):
        solve(PATHS[path], data_target, x_t, broadcast(number(0.0), x_t), x_t)


def test_one_singular_sample_is_enough():
    x_t, t = normal(2, 3, 4), torch.tensor([0.5, 1.0], dtype=torch.float64).reshape(2, 1, 1)
    with pytest.raises(SingularTarget):
        solve(Straight(), noise_target, x_t, t, x_t)


@REPEATABLE
@given(weight=st.floats(-3.0, 9.0))
def test_lerp_goes_from_one_to_the_other_and_beyond(weight):
    one, other = (Prediction(normal(2, 3, seed=n), normal(2, 3, seed=n + 1)) for n in (0, 2))
    mixed = one.lerp(other, weight)
    torch.testing.assert_close(mixed.x_0, (1 - weight) * one.x_0 + weight * other.x_0)
    torch.testing.assert_close(mixed.eps, (1 - weight) * one.eps + weight * other.eps)


class Spy(nn.Module):
    """Remembers what it is fed, and returns it halved."""

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        self.x, self.timestep, self.cond = x, timestep, cond
        return (x / 2).to(torch.float16)


def test_a_network_is_fed_its_own_clock_and_scale():
    spy, path = Spy(), VarianceExploding(80.0)

    def c_in(path: VarianceExploding, t: Tensor) -> Tensor:
        return 1 / (path.sigma(t).square() + 0.25).sqrt()

    denoiser = NetworkDenoiser(spy, path, KarrasTarget(), timestep=lambda t: (80 * t).log() / 4, scale=c_in)
    x_t = 10 * normal(2, 3, 4, dtype=torch.float32)
    times = broadcast(torch.tensor([0.1, 0.5]), x_t)
    p = denoiser(x_t, times, NOTHING)
    torch.testing.assert_close(spy.x, x_t / (torch.tensor([8.0, 40.0]).reshape(2, 1, 1).square() + 0.25).sqrt())
    torch.testing.assert_close(spy.timestep, torch.tensor([8.0, 40.0]).log() / 4)
    assert spy.cond is NOTHING
    assert denoiser.path is path
    assert p.x_0.dtype == p.eps.dtype == torch.float32  # the network's half precision stays inside it


def test_a_network_may_be_told_one_time_a_position():
    spy, x_t = Spy(), normal(2, 3, 4, dtype=torch.float32)
    times = torch.linspace(0.1, 0.9, 4).expand(2, 1, 4)
    NetworkDenoiser(spy, Straight(), flow_target)(x_t, times, NOTHING)
    torch.testing.assert_close(spy.timestep, 1000 * times)


@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_is_the_squared_error_of_the_output(target):
    """Zero for the network that knows; and for a constant error its square, whatever the sample."""
    path, x_0, eps = Linear(), normal(2, 3, 4), normal(2, 3, 4, seed=1)
    times = broadcast(torch.tensor([0.2, 0.7], dtype=torch.float64), x_0)
    a, b = TARGETS[target](path, times)

    class Knows(nn.Module):
        error = torch.tensor([0.0, 3.0], dtype=torch.float64).reshape(2, 1, 1)

        def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
            torch.testing.assert_close(x, path.perturb(x_0, eps, times))
            return a * x_0 + b * eps + self.error

    loss = NetworkDenoiser(Knows(), path, TARGETS[target]).loss(x_0, eps, times, NOTHING)
    torch.testing.assert_close(loss, torch.tensor([0.0, 9.0], dtype=torch.float64))


@pytest.mark.parametrize("path", PATHS)
def test_the_exact_denoiser_of_a_mixture_is_exact(path):
    """Tweedie's formula, arXiv:2011.13456: eps = -sigma grad log p(x_t), by differentiating the density."""
    mixture = Mixture(PATHS[path])
    t = between(mixture.path, (-1.0, 1.5), 4)[2].expand(6, 1)
    x_t = (mixture.path.sigma(t) * normal(6, 2)).requires_grad_()
    alpha, sigma = mixture.path.alpha(t), mixture.path.sigma(t)
    variance = (alpha * mixture.std).square() + sigma.square()
    apart = (x_t[:, None] - alpha[..., None] * mixture.means).square().sum(-1)
    density = torch.logsumexp(mixture.shares.log() - apart / (2 * variance) - variance.log(), 1)
    (score,) = torch.autograd.grad(density.sum(), x_t)
    torch.testing.assert_close(mixture(x_t, t, NOTHING).eps, -sigma * score, atol=1e-10, rtol=1e-9)


def test_broadcast_stands_one_time_beside_every_sample():
    assert broadcast(number(0.3), normal(4, 3, 2, 2)).shape == (4, 1, 1, 1)
    assert broadcast(normal(4), normal(4, 3, 2)).shape == (4, 1, 1)
