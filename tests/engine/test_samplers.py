"""Samplers beside the exact flow of a mixture of Gaussians, and what all of them have in common."""

import math

import numpy
import pytest
import torch
from helpers import (
    CONSISTENCY,
    DETERMINISTIC,
    FROM_PURE_NOISE,
    NOTHING,
    PATHS,
    STOCHASTIC,
    Gaussian,
    Mixture,
    between,
    drawn,
    normal,
    number,
    silence,
    slope,
    walk,
)
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import TARGETS, NetworkDenoiser, Prediction
from triptych.engine.noise import SeededNoise
from triptych.engine.path import Path, Straight
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import SPACINGS, uniform

RANGE = (-1.0, 1.5)  # of half_log_snr: the part of the path where the mixture takes shape
IN_LOG_SNR = {"ddpm", "ddim", "euler", "euler_ancestral", "lcm", "deis"} | {  # see no frame, on the straight path too
    name for name in SAMPLERS if name.startswith("dpmpp") or name == "unipc"
}
EXTRAPOLATES = {"lms", "ipndm", "pndm"}  # in the clock, even at its end


def test_every_sampler_is_in_one_table():
    tables = [set(DETERMINISTIC) & set(SAMPLERS), set(STOCHASTIC) & set(SAMPLERS), set(CONSISTENCY)]
    assert set.union(*tables) == set(SAMPLERS)
    assert sum(map(len, tables)) == len(SAMPLERS)


def test_every_path_is_listed():
    assert {type(path) for path in PATHS.values()} == set(Path.__subclasses__())


@pytest.fixture(scope="module")
def flows():
    """For every path x at the start of RANGE and where the exact flow takes it, by an order 8 Runge-Kutta method."""
    noise = normal(32, 2)

    def flow(path: Path) -> tuple[Tensor, Tensor]:
        first, last = path.time(torch.tensor(RANGE, dtype=torch.float64))
        x, mixture = path.sigma(first) * noise, Mixture(path)

        def velocity(ratio: float, moved: numpy.ndarray) -> numpy.ndarray:  # of x / alpha against sigma / alpha
            t = path.time(-number(ratio).log())
            x_t = path.alpha(t) * torch.from_numpy(moved).reshape(noise.shape)
            return mixture(x_t, t.expand(len(noise), 1), NOTHING).eps.flatten().numpy()

        ratios = [math.exp(-value) for value in RANGE]
        start = (x / path.alpha(first)).flatten().numpy()
        moved = solve_ivp(velocity, ratios, start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
        return x, path.alpha(last) * torch.from_numpy(moved).reshape(noise.shape)

    return {name: flow(path) for name, path in PATHS.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_measured_order(name, path, flows):
    """Steps short at first, so that the low order of a first step without a past does not show.

    Improved PNDM takes all steps for equal, as PLMS does: order 2 where they change smoothly; of equal log-SNR here.
    """
    sampler, order = DETERMINISTIC[name]
    x, exact = flows[path]
    errors = {}
    for steps in (64, 128, 256) if order > 3 else (32, 64, 128):  # high orders show later
        times = between(PATHS[path], RANGE, steps, 1.0 if name in ("ipndm", "pndm") else 2.0)
        end = walk(sampler, Mixture(PATHS[path]), x, times)[-1].x_t
        errors[steps] = float((end - exact).square().mean().sqrt())
    assert slope(errors) == pytest.approx(order, abs=0.25)
    assert errors[128] < 0.1 / 8**order


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_walk_is_one_step_a_time_and_the_result(name, spacing):
    path, x = PATHS["linear"], normal(2, 3, 4)
    times = SPACINGS[spacing](path, 6, 4)
    steps = walk(SAMPLERS[name], Gaussian(path, mean=0.3), x, times, drawn(0))
    assert [step.t for step in steps] == times.tolist()
    assert torch.equal(steps[0].x_t, x)
    assert steps[-1].prediction is steps[-2].prediction
    if name not in EXTRAPOLATES and times[-1] == 0:
        torch.testing.assert_close(steps[-1].x_t, steps[-1].prediction.x_0, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_walk_may_end_before_the_data(name, path):
    data = Gaussian(PATHS[path], std=0.7, mean=-0.2)
    times = torch.linspace(0.9, 0.02, 9, dtype=torch.float64)
    steps = walk(SAMPLERS[name], data, data.spread(times[0]) * normal(3, 5), times, drawn(1))
    assert bool(torch.isfinite(steps[-1].x_t).all())
    assert steps[-1].t == 0.02


@pytest.mark.parametrize("path", FROM_PURE_NOISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_walk_may_start_from_pure_noise(name, dtype, path):
    """alpha = 0: half_log_snr is infinite, and the first step is of first order in every frame that is infinite too."""
    path = FROM_PURE_NOISE[path]
    assert float(path.alpha(torch.ones((), dtype=dtype))) == 0
    data, x = Gaussian(path, std=0.5, mean=1.0), normal(4, 6, dtype=dtype)
    steps = walk(SAMPLERS[name], data, x, uniform(path, 40, 1), drawn(2))
    assert all(bool(torch.isfinite(step.x_t).all()) for step in steps)
    assert steps[-1].x_t.dtype == dtype
    apart = (steps[-1].x_t - data.mean) / data.std
    assert float(apart.abs().max()) < 6
    if name in DETERMINISTIC and (name in IN_LOG_SNR or not isinstance(path, Straight)):
        expected = path.perturb(steps[0].prediction.x_0, steps[0].prediction.eps, number(steps[1].t))
        if name != "unipc":  # whose second state is corrected
            torch.testing.assert_close(steps[1].x_t, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_path_does_not_matter_where_the_frame_is_the_same(name):
    """At the same half_log_snr, x_t / alpha is the same on every path: paths are a choice of units (2206.00364)."""
    walks = []
    for path in PATHS.values():
        if name not in IN_LOG_SNR and isinstance(path, Straight):
            continue
        times = between(path, (-2.0, 3.0), 12)
        x = path.sigma(times[0]) * normal(5, 2)
        steps = walk(SAMPLERS[name], Mixture(path), x, times, drawn(3))
        walks.append(torch.stack([step.x_t / path.alpha(number(step.t)) for step in steps]))
    for other in walks[1:]:
        torch.testing.assert_close(other, walks[0], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_euler_is_ddim_and_on_the_straight_path_eulers_method(name):
    path, times = Straight(), uniform(Straight(), 7, 1)
    steps = walk(SAMPLERS[name], Mixture(path), normal(5, 2), times)
    x = normal(5, 2)
    for step, s in zip(steps, times[1:].tolist(), strict=False):
        torch.testing.assert_close(step.x_t, x)
        x = x + (s - step.t) * (step.prediction.eps - step.prediction.x_0)
    torch.testing.assert_close(steps[-1].x_t, x)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_target_does_not_matter(name, target):
    """One denoiser dressed as a network of every target walks the same way."""
    path, shape = PATHS["cosine"], (2, 2)

    class Dressed(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
            t = timestep.reshape(-1, 1) / 1000
            p = Mixture(path)(x, t, cond)
            a, b = TARGETS[target](path, t)
            return a * p.x_0 + b * p.eps

    times = between(path, (-2.0, 3.0), 8)
    plain = walk(SAMPLERS[name], Mixture(path), normal(*shape), times, drawn(4))
    dressed = walk(SAMPLERS[name], NetworkDenoiser(Dressed(), path, TARGETS[target]), normal(*shape), times, drawn(4))
    for ours, theirs in zip(plain, dressed, strict=True):
        torch.testing.assert_close(ours.x_t, theirs.x_t, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_is_its_samples_side_by_side(name, path):
    data, times = Gaussian(PATHS[path], mean=0.1), SPACINGS["karras"](PATHS[path], 5, 6)
    x = normal(3, 2, 3, dtype=torch.float32)
    together = walk(SAMPLERS[name], data, x, times, SeededNoise([5, 6, 7]))[-1].x_t
    alone = [walk(SAMPLERS[name], data, x[n : n + 1], times, SeededNoise([5 + n]))[-1].x_t for n in range(3)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("name", SAMPLERS)
def test_stopping_early_costs_nothing(name):
    """A generator computes only what is asked for."""
    calls = []

    class Counted(Mixture):
        def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
            calls.append(float(t.flatten()[0]))
            return super().__call__(x_t, t, cond)

    steps = SAMPLERS[name](Counted(PATHS["linear"]), normal(2, 2), uniform(PATHS["linear"], 9, 1), NOTHING, drawn(0))
    next(steps)
    assert calls == [1.0]
    steps.close()


class Apart:
    """Halves that do not add up to x_t, as guidance takes them from different calls: x_0 still, eps of the time."""

    def __init__(self, path: Path) -> None:
        self.path, self.x_0, self.directions = path, normal(2, 3, seed=8), normal(2, 3, seed=9)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return Prediction(self.x_0, torch.cos(7 * t) * self.directions)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "unipc"])
def test_each_half_is_taken_at_its_word(name, path):
    """x_0 does not change, so that a solver on x_0 has nothing to extrapolate and takes DDIM's steps with this eps."""
    path = PATHS[path]
    halves = Apart(path)
    times = between(path, (-2.0, 3.0), 6)
    for before, step in zip(times, walk(SAMPLERS[name], halves, normal(2, 3), times, silence)[1:], strict=False):
        eps = halves(step.x_t, before, NOTHING).eps
        expected = path.perturb(halves.x_0, eps, number(step.t))
        torch.testing.assert_close(step.x_t, expected, atol=1e-9, rtol=1e-9)


def test_2s_ancestral_in_noise_levels():
    """k-diffusion's recursion where alpha = 1, in sigma: half a step of log sigma, a whole one, then the noise."""
    path = PATHS["exploding"]
    times = between(path, (-3.0, 2.0), 6)
    sigmas, draw, x = path.sigma(times).tolist(), drawn(6), 80 * normal(5, 2)
    steps = walk(SAMPLERS["dpmpp_2s_ancestral"], Mixture(path), x, times, drawn(6))

    def x_0(x: Tensor, sigma: float) -> Tensor:
        return Mixture(path)(x, number(sigma / 80).expand(5, 1), NOTHING).x_0

    for sigma, after, step in zip(sigmas, sigmas[1:], steps[1:], strict=False):
        up = after * math.sqrt(1 - (after / sigma) ** 2)
        down = math.sqrt(after**2 - up**2)
        middle = math.sqrt(sigma * down)
        inner = x_0(x, sigma) + middle / sigma * (x - x_0(x, sigma))
        known = x_0(inner, middle)
        x = known + down / sigma * (x - known)
        x = x + up * draw(x)
        torch.testing.assert_close(step.x_t, x, atol=1e-9, rtol=1e-9)
