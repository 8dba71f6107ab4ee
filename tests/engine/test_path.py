"""Paths: ends, derivatives, inverses and tables, each against its definition."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from helpers import FROM_PURE_NOISE, PATHS, REPEATABLE, normal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from triptych.engine.path import (
    Cosine,
    Discrete,
    Linear,
    Straight,
    VarianceExploding,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    zero_terminal_snr,
)

PRESERVING = ("linear", "cosine", "discrete")
INSIDE = torch.linspace(0.003, 0.997, 200, dtype=torch.float64)


@pytest.mark.parametrize("name", PATHS)
def test_data_is_at_zero_and_noise_grows(name):
    path, t = PATHS[name], torch.linspace(0, 1, 101, dtype=torch.float64)
    assert float(path.alpha(t[0])) == 1
    assert float(path.sigma(t[0])) == 0
    assert float(path.half_log_snr(t[0])) == math.inf
    assert bool((path.alpha(t).diff() <= 0).all())
    assert bool((path.sigma(t).diff() > 0).all())
    assert bool((path.half_log_snr(t).diff() < 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FROM_PURE_NOISE)
def test_pure_noise_is_exact(name, dtype):
    path, t = FROM_PURE_NOISE[name], torch.ones((), dtype=dtype)
    assert float(path.alpha(t)) == 0
    assert float(path.sigma(t)) == 1
    assert float(path.half_log_snr(t)) == -math.inf
    assert float(path.time(path.half_log_snr(t))) == 1


@pytest.mark.parametrize("name", PRESERVING)
def test_variance_is_preserved(name):
    path = PATHS[name]
    torch.testing.assert_close(path.alpha(INSIDE).square() + path.sigma(INSIDE).square(), torch.ones_like(INSIDE))


def test_the_other_paths_are_what_they_are_called():
    torch.testing.assert_close(Straight().alpha(INSIDE) + Straight().sigma(INSIDE), torch.ones_like(INSIDE))
    exploding = VarianceExploding(7.0)
    assert torch.equal(exploding.alpha(INSIDE), torch.ones_like(INSIDE))
    torch.testing.assert_close(exploding.sigma(INSIDE), 7 * INSIDE)


@pytest.mark.parametrize("name", PATHS)
def test_velocity_is_the_derivative(name):
    """By central differences, which do not straddle an entry of the table."""
    path, h = PATHS[name], 1e-6
    t = INSIDE + 0.0003
    for which, velocity in zip((path.alpha, path.sigma), path.velocity(t), strict=True):
        torch.testing.assert_close(velocity, (which(t + h) - which(t - h)) / (2 * h), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", PATHS)
@REPEATABLE
@given(t=st.floats(1e-4, 1.0))
def test_time_is_the_inverse_of_half_log_snr(name, t):
    path, time = PATHS[name], torch.tensor(t, dtype=torch.float64)
    assert float(path.time(path.half_log_snr(time))) == pytest.approx(t, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", PATHS)
@REPEATABLE
@given(half_log_snr=st.floats(-4.0, 8.0))
def test_half_log_snr_is_the_inverse_of_time(name, half_log_snr):
    path, value = PATHS[name], torch.tensor(half_log_snr, dtype=torch.float64)
    t = path.time(value)
    if 0 < float(t) < 1:
        assert float(path.half_log_snr(t)) == pytest.approx(half_log_snr, abs=1e-9)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(name, shape, dtype):
    path, t = PATHS[name], torch.full(shape, 0.4, dtype=dtype)
    results = [path.alpha(t), path.sigma(t), *path.velocity(t), path.half_log_snr(t), path.time(path.half_log_snr(t))]
    assert all(result.shape == shape and result.dtype == dtype for result in results)


@pytest.mark.parametrize("name", PATHS)
def test_float32_agrees_with_float64(name):
    path = PATHS[name]
    for which in (path.alpha, path.sigma, path.half_log_snr):
        torch.testing.assert_close(which(INSIDE.float()).double(), which(INSIDE.float().double()), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", PATHS)
def test_perturb_takes_one_time_a_sample_or_a_position(name):
    path, x_0, eps = PATHS[name], normal(2, 3, 4), normal(2, 3, 4, seed=1)
    a_sample = torch.tensor([0.2, 0.9], dtype=torch.float64).reshape(2, 1, 1)
    x_t = path.perturb(x_0, eps, a_sample)
    for n in range(2):
        torch.testing.assert_close(x_t[n], path.alpha(a_sample[n]) * x_0[n] + path.sigma(a_sample[n]) * eps[n])
    a_position = torch.linspace(0.1, 0.9, 4, dtype=torch.float64).expand(2, 1, 4)
    x_t = path.perturb(x_0, eps, a_position)
    torch.testing.assert_close(x_t[..., 3], path.perturb(x_0[..., 3], eps[..., 3], a_position[0, 0, 3]))


def test_linear_solves_its_equation():
    """d log alpha / dt = -beta(t) / 2 with beta linear, the variance-preserving SDE of arXiv:2011.13456."""
    path = Linear(0.3, 12.0)
    rate = path.velocity(INSIDE)[0] / path.alpha(INSIDE)
    torch.testing.assert_close(rate, -0.5 * (0.3 + 11.7 * INSIDE))


def test_a_fine_table_of_linear_betas_is_linear():
    table, path = Discrete(linear_betas()), Linear()
    t = torch.linspace(0.05, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(table.alpha(t), path.alpha(t), atol=3e-3, rtol=0)


def test_cosine_betas_without_offset_are_cosine():
    table = Discrete(cosine_betas(offset=0.0, largest=1.0))
    torch.testing.assert_close(table.alpha(INSIDE), Cosine().alpha(INSIDE), atol=1e-9, rtol=0)
    torch.testing.assert_close(table.sigma(INSIDE), Cosine().sigma(INSIDE), atol=1e-9, rtol=0)


SCHEDULES = {
    "linear": linear_betas(),
    "scaled_linear": scaled_linear_betas(0.0001, 0.02),
    "squaredcos_cap_v2": cosine_betas(),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_are_those_of_diffusers(schedule):
    theirs = DDPMScheduler(beta_schedule=schedule).alphas_cumprod.double()
    path = Discrete(SCHEDULES[schedule])
    entries = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(path.alpha(entries).square(), theirs, atol=1e-6, rtol=1e-4)


def test_zero_terminal_snr_is_that_of_diffusers():
    betas = zero_terminal_snr(scaled_linear_betas())
    assert float(betas[-1]) == 1
    assert float(betas[0]) == pytest.approx(0.00085)
    theirs = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    torch.testing.assert_close(torch.cumprod(1 - betas, 0), theirs.alphas_cumprod.double(), atol=1e-6, rtol=1e-3)


def test_a_table_says_how_long_it_is():
    assert Discrete(linear_betas(entries=40)).entries == 40


def angle(path: Discrete, t: Tensor) -> Tensor:
    return torch.atan2(path.sigma(t), path.alpha(t))


def test_between_entries_the_angle_is_linear():
    path = Discrete(linear_betas(entries=10))
    at, after, between = (torch.tensor(value, dtype=torch.float64) for value in (0.3, 0.4, 0.325))
    torch.testing.assert_close(angle(path, between), 0.75 * angle(path, at) + 0.25 * angle(path, after))
