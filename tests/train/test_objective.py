"""Densities against their laws, weightings against the papers' forms, and the loss they make."""

import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import TARGETS, NetworkDenoiser, broadcast, flow_target
from triptych.engine.path import Cosine, Linear, Straight, VarianceExploding
from triptych.train.objective import (
    EdmWeight,
    MinSnr,
    Objective,
    SigmoidWeight,
    constant,
    cosine_map,
    drop,
    log_normal,
    logit_normal,
    mode,
    shifted,
    stratified,
    uniform,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def cosine_map_cdf(t):
    """t = 1 - 1 / (tan(pi u / 2) + 1) solved for u."""
    return 2 / math.pi * torch.atan(torch.tensor(t) / (1 - torch.tensor(t))).numpy()


EDM = VarianceExploding(80.0)
LAWS = {
    "uniform": (uniform, stats.uniform.cdf),
    "stratified": (stratified, stats.uniform.cdf),
    "logit_normal": (
        partial(logit_normal, mean=0.5, std=0.8),
        lambda t: stats.norm.cdf((torch.logit(torch.tensor(t)).numpy() - 0.5) / 0.8),
    ),
    "cosine_map": (cosine_map, cosine_map_cdf),
    "shifted": (partial(shifted, shift=3.0), lambda t: t / (3 - 2 * t)),
    "log_normal": (
        partial(log_normal, path=EDM),
        lambda t: stats.lognorm.cdf(80.0 * t, s=1.2, scale=math.exp(-1.2)),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_times_follow_their_law(name):
    density, cdf = LAWS[name]
    times = density(20_000, generator())
    assert times.shape == (20_000,)
    assert 0 < float(times.min()) < float(times.max()) <= 1
    assert stats.kstest(times.double().numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.29])
def test_mode_times_follow_the_derivative_of_their_inverse(scale):
    """Its law has no closed form: its inverse is the defining formula, decreasing in u, so F(f(u)) = 1 - u."""
    times = mode(20_000, generator(), scale=scale).double()
    u = torch.linspace(0, 1, 2001, dtype=torch.float64)
    grid = 1 - u - scale * (torch.cos(0.5 * math.pi * u).square() - 1 + u)
    assert bool((grid.diff() <= 1e-12).all())
    empirical = (times[None] <= grid[::100, None]).double().mean(1)
    assert float((empirical - (1 - u[::100])).abs().max()) < 0.02


def test_the_cosine_map_gives_the_straight_path_the_log_snr_of_the_cosine_one():
    u = torch.linspace(0.01, 0.99, 50)
    t = cosine_map(50, generator(), base=lambda count, _: u)
    torch.testing.assert_close(Straight().half_log_snr(t), Cosine().half_log_snr(u), atol=1e-4, rtol=1e-4)


def test_stratified_times_are_spread_evenly():
    times = stratified(64, generator()).sort().values
    torch.testing.assert_close(times.diff(), torch.full((63,), 1 / 64), atol=1e-6, rtol=0)


def test_densities_are_functions_of_their_generator():
    for density, _ in LAWS.values():
        assert torch.equal(density(8, generator(3)), density(8, generator(3)))
        assert not torch.equal(density(8, generator(3)), density(8, generator(4)))


TIMES = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
SNR = {"cosine": Cosine(), "linear": Linear()}


@pytest.mark.parametrize("path", SNR)
def test_min_snr_has_the_papers_form_for_each_target(path):
    snr = (2 * SNR[path].half_log_snr(TIMES)).exp()
    clamped = snr.clamp(max=5.0)
    forms = {"x_0": clamped, "eps": clamped / snr, "v": clamped / (snr + 1)}
    for name, expected in forms.items():
        torch.testing.assert_close(MinSnr(5.0)(SNR[path], TARGETS[name], TIMES), expected)


def test_the_edm_weight_is_one_for_the_karras_target_and_the_papers_for_data():
    sigma = EDM.sigma(TIMES)
    torch.testing.assert_close(EdmWeight(0.5)(EDM, TARGETS["karras"], TIMES), torch.ones_like(TIMES))
    paper = (sigma.square() + 0.25) / (0.5 * sigma).square()
    torch.testing.assert_close(EdmWeight(0.5)(EDM, TARGETS["x_0"], TIMES), paper)


@pytest.mark.parametrize("path", SNR)
def test_the_sigmoid_weight_is_a_sigmoid_on_eps(path):
    log_snr = 2 * SNR[path].half_log_snr(TIMES)
    expected = torch.sigmoid(2.0 - log_snr)
    torch.testing.assert_close(SigmoidWeight(2.0)(SNR[path], TARGETS["eps"], TIMES), expected)


class Fixed(torch.nn.Module):
    """A network with one answer."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        return self.value


@pytest.mark.parametrize("weighting", [MinSnr(), EdmWeight(), SigmoidWeight()])
@pytest.mark.parametrize("path", [Cosine(), Straight(), VarianceExploding(10.0)])
def test_a_weighted_loss_does_not_depend_on_the_networks_target(weighting, path):
    """The same wrong x_0, said as x_0, eps, v, flow or the Karras F, costs the same."""
    x_0, eps, wrong = (torch.randn(6, 2, 4, generator=generator(seed), dtype=torch.float64) for seed in range(3))
    t = broadcast(torch.linspace(0.1, 0.9, 6, dtype=torch.float64), x_0)
    x_t = path.perturb(x_0, eps, t)
    wrong_eps = (x_t - path.alpha(t) * wrong) / path.sigma(t)
    losses = []
    for target in TARGETS.values():
        a, b = target(path, t)
        denoiser = NetworkDenoiser(Fixed(a * wrong + b * wrong_eps), path, target)
        losses.append(weighting(path, target, t).flatten() * denoiser.loss(x_0, eps, t, Conditioning()))
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-6, atol=1e-9)


def labels(value: float, count: int = 1000) -> Conditioning:
    return Conditioning(vector=torch.full((count, 1), value), scalars={"fps": torch.full((count,), value)})


def test_dropping_replaces_a_share_of_whole_samples():
    told = drop(labels(1.0), labels(0.0), 0.3, generator())
    assert abs(1 - float(told.vector.mean()) - 0.3) < 0.05
    assert torch.equal(told.vector[:, 0], told.scalars["fps"])
    assert torch.equal(drop(labels(1.0), labels(0.0), 0.0, generator()).vector, labels(1.0).vector)
    assert torch.equal(drop(labels(1.0), labels(0.0), 1.0, generator()).vector, labels(0.0).vector)
    with pytest.raises(ValueError, match="differ"):
        drop(labels(1.0), Conditioning(), 0.5, generator())


def test_an_objective_is_the_weighted_loss_at_the_times_and_noise_of_its_seed():
    x_0 = torch.randn(5, 2, 4)
    denoiser = NetworkDenoiser(Fixed(torch.zeros(5, 2, 4)), Straight(), flow_target)
    objective = Objective(partial(logit_normal, std=0.5), MinSnr(), drop=0.0)
    loss = objective(denoiser, x_0, labels(1.0, 5), labels(0.0, 5), seed=7)
    draws = generator(7)
    t = broadcast(logit_normal(5, draws, std=0.5), x_0)
    eps = torch.randn(x_0.shape, generator=draws)
    expected = MinSnr()(Straight(), flow_target, t).flatten() * (eps - x_0).square().mean((1, 2))
    torch.testing.assert_close(loss, expected)
    again = objective(denoiser, x_0, labels(1.0, 5), labels(0.0, 5), seed=7)
    assert torch.equal(loss, again)
    assert torch.equal(constant(Straight(), flow_target, t), torch.ones_like(t))


def test_a_linear_network_learns_the_gaussian_it_is_shown():
    """Flow matching on N(2, 0.5^2): one affine map at a fixed time converges to the exact conditional mean."""
    torch.manual_seed(0)

    class Affine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
            return self.weight * x + self.bias

    network = Affine()
    denoiser = NetworkDenoiser(network, Straight(), flow_target)
    objective = Objective(lambda count, _: torch.full((count,), 0.5), drop=0.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for seed in range(400):
        x_0 = 2 + 0.5 * torch.randn(512, 1, 1, generator=generator(10_000 + seed))
        loss = objective(denoiser, x_0, Conditioning(), Conditioning(), seed=seed).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # x_t = x_0 / 2 + eps / 2: E[eps - x_0 | x_t] = cov / var (x_t - 1) - 2, cov = 0.5 - 0.125, var = 0.25 + 0.0625
    slope = (0.5 - 0.125) / 0.3125
    assert network.weight.item() == pytest.approx(slope, abs=0.05)
    assert network.bias.item() == pytest.approx(-2 - slope, abs=0.08)
