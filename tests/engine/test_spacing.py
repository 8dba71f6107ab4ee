"""Spacings: what all share, and each against its formula. That they are those of diffusers: see test_diffusers."""

import math

import pytest
import torch
from helpers import FROM_PURE_NOISE, PATHS, REPEATABLE, number
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from triptych.engine.frame import Frame, ratio_frame
from triptych.engine.path import Discrete, Straight, VarianceExploding, scaled_linear_betas
from triptych.engine.spacing import (
    SPACINGS,
    Beta,
    Exponential,
    Karras,
    Leading,
    Linspace,
    Listed,
    ResolutionShifted,
    Shifted,
    beta_quantiles,
    shift_by,
    trailing,
    uniform,
)
from triptych.errors import InvalidField

EVERY = {
    **SPACINGS,
    "listed": Listed(tuple(1 - n / 7 for n in range(8))),
    "shifted": Shifted(3.0),
    "shifted karras": Shifted(0.5, Karras()),
    "by resolution": ResolutionShifted(),
    "by resolution, linear": ResolutionShifted(scale=float),
    "karras between": Karras(5.0, largest=0.9, smallest=0.1),
    "exponential between": Exponential(largest=0.9, smallest=0.1),
    "leading, held": Leading(end=0.001),
    "snapped": Linspace(spare=2, snap=torch.round),
}


@pytest.mark.parametrize("path", [*PATHS.values(), *FROM_PURE_NOISE.values()], ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("name", EVERY)
def test_times_fall_from_noise_to_data(name, path):
    times = EVERY[name](path, 7, 1024)
    assert times.shape == (8,)
    assert times.dtype == torch.float64
    assert bool((times.diff() < 0).all())
    assert float(times[0]) <= 1
    assert float(times[0]) > 0.5 or "between" in name
    assert float(times[-1]) == (0.001 if name.endswith(("_first", "held")) else 0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SPACINGS)
@settings(REPEATABLE, max_examples=20)
@given(steps=st.integers(1, 200))
def test_any_number_of_steps(name, path, steps):
    times = SPACINGS[name](PATHS[path], steps, 1024)
    assert times.shape == (steps + 1,)
    assert bool((times.diff() < 0).all())
    assert float(times[0]) <= 1


@pytest.mark.parametrize("name", SPACINGS)
def test_as_many_steps_as_entries(name):
    if "spare" in name or "first" in name:
        with pytest.raises(InvalidField, match="steps: 1000 given"):
            SPACINGS[name](PATHS["discrete"], 1000, 1)
        return
    times = SPACINGS[name](PATHS["discrete"], 1000, 1)
    assert bool((times.diff() < 0).all())
    assert float(times[0]) <= 1


@pytest.mark.parametrize("name", [name for name in SPACINGS if name.endswith("_first")])
def test_walks_to_the_first_entry_are_those_to_data_but_for_their_end(name):
    path = Discrete(scaled_linear_betas(entries=400))
    held, whole = (SPACINGS[each](path, 8, 1) for each in (name, name.removesuffix("_first")))
    assert torch.equal(held[:-1], whole[:-1])
    assert (float(held[-1]), float(whole[-1])) == (1 / 400, 0)


@pytest.mark.parametrize("spacing", [Leading(), trailing])
def test_no_more_steps_than_entries_where_they_are_counted(spacing):
    with pytest.raises(InvalidField, match="steps: 11 given, 1 to 10 allowed"):
        spacing(Discrete(scaled_linear_betas(entries=10)), 11, 1)


def test_uniform_is_uniform():
    assert uniform(Straight(), 4, 1).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_entry_n_of_a_table_is_at_its_time():
    """Of timesteps 999, 899, ... 99 on a table of a thousand, and 9, 8, ... of ten."""
    expected = [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0]
    assert trailing(Discrete(scaled_linear_betas()), 10, 1).tolist() == pytest.approx(expected)
    assert trailing(Discrete(scaled_linear_betas(entries=10)), 10, 1).tolist() == pytest.approx(expected)
    times = Leading(offset=1)(Discrete(scaled_linear_betas()), 4, 1)
    assert (1000 * times - 1).tolist() == pytest.approx([751, 501, 251, 1, -1])
    times = Leading(offset=1, spare=1)(Discrete(scaled_linear_betas()), 4, 1)
    assert (1000 * times - 1).tolist() == pytest.approx([801, 601, 401, 201, -1])
    times = Linspace()(Discrete(scaled_linear_betas()), 4, 1)
    assert (1000 * times - 1).tolist() == pytest.approx([999, 666, 333, 0, -1])
    times = SPACINGS["sgm_uniform"](Discrete(scaled_linear_betas()), 3, 1)
    assert (1000 * times - 1).tolist() == pytest.approx([999, 666, 333, -1])


def test_karras_is_its_formula():
    """arXiv:2206.00364, equation 5, in noise levels of EDM."""
    path, steps = VarianceExploding(80.0), 18
    sigmas = path.sigma(Karras(largest=80.0, smallest=0.002)(path, steps, 1))
    for n in range(steps):
        ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
        assert float(sigmas[n]) == pytest.approx((ends[0] + n / (steps - 1) * (ends[1] - ends[0])) ** 7)
    assert float(sigmas[-1]) == 0


@pytest.mark.parametrize("path", PATHS)
def test_exponential_steps_are_equal_in_the_log_of_the_clock(path):
    frame = Frame(PATHS[path])
    logs = frame.clock(Exponential()(frame.path, 9, 1)[:-1]).log()
    torch.testing.assert_close(logs.diff(), logs.diff()[:1].expand(8), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("path", PATHS)
def test_the_ends_of_the_clock_are_the_ends_of_the_table(path):
    """The noisiest time whose clock is finite, and the first of a thousand entries."""
    noisiest = 0.999 if path == "cosine" else 1
    for spacing in (Karras(), Exponential(), Beta()):
        times = spacing(PATHS[path], 6, 1)
        assert float(times[0]) == pytest.approx(noisiest)
        assert float(times[-2]) == pytest.approx(0.001)


@given(alpha=st.floats(0.3, 4.0), beta=st.floats(0.3, 4.0))
@settings(REPEATABLE, max_examples=40)
def test_beta_quantiles_invert_the_distribution(alpha, beta):
    """Told by the share below them: a share next to 1 leaves a quantile of a large beta open."""
    shares = torch.linspace(0, 1, 21, dtype=torch.float64)
    below = stats.beta.cdf(beta_quantiles(shares, alpha, beta).numpy(), alpha, beta)
    torch.testing.assert_close(torch.from_numpy(below), shares, atol=1e-9, rtol=0)


def test_beta_quantiles_are_scipys():
    shares = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = torch.from_numpy(stats.beta.ppf(shares.numpy(), 0.6, 0.6))
    torch.testing.assert_close(beta_quantiles(shares, 0.6, 0.6), expected, atol=1e-10, rtol=0)


def test_beta_is_dense_at_both_ends():
    widths = -Beta()(Straight(), 20, 1)[:-1].diff()
    assert float(widths[0]) < float(widths[9]) / 3
    assert float(widths[-1]) < float(widths[9]) / 3


@REPEATABLE
@given(t=st.floats(0.0, 1.0), shift=st.floats(0.2, 10.0))
@example(t=1.0, shift=0.2)
def test_a_shift_adds_its_logarithm_to_log_sigma_over_alpha(t, shift):
    """arXiv:2403.03206, equation 23: more noise for the same t, as for a picture of shift^2 as many pixels."""
    path, time = Straight(), torch.tensor(t, dtype=torch.float64)
    moved = shift_by(time, shift)
    assert 0 <= float(moved) <= 1
    if 1e-6 < t < 1 - 1e-6:
        gained = path.half_log_snr(time) - path.half_log_snr(moved)
        assert float(gained) == pytest.approx(math.log(shift), abs=1e-6)
    assert float(shift_by(moved, 1 / shift)) == pytest.approx(t, abs=1e-9)


def test_a_shift_of_one_is_none():
    torch.testing.assert_close(Shifted(1.0)(Straight(), 5, 1), uniform(Straight(), 5, 1))


def test_the_shift_grows_with_resolution():
    """Flux: mu = 0.5 at 256 tokens, 1.15 at 4096, of four latents each; shift e^mu."""
    for tokens, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        times = ResolutionShifted()(Straight(), 8, 4 * tokens)
        torch.testing.assert_close(times, Shifted(math.exp(mu))(Straight(), 8, 1))
        times = ResolutionShifted(scale=float)(Straight(), 8, 4 * tokens)
        torch.testing.assert_close(times, Shifted(mu)(Straight(), 8, 1))


def test_listed_times_have_one_number_of_steps():
    listed = Listed((1.0, 0.5, 0.0))
    assert listed(Straight(), 2, 1).tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(InvalidField, match="steps: 3 given, 2 allowed"):
        listed(Straight(), 3, 1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("build", [Frame, ratio_frame])
def test_a_frame_is_where_the_path_is_straight(build, path):
    """x_t / gauge is linear in the clock while the halves stay put, with the slope that the frame says."""
    frame, t = build(PATHS[path]), torch.linspace(0.1, 0.95, 9, dtype=torch.float64)
    torch.testing.assert_close(frame.time(frame.clock(t)), t)
    for x_0, eps in ((1.0, 0.0), (0.0, 1.0), (0.7, -1.3)):
        placed = frame.path.perturb(number(x_0), number(eps), t) / frame.gauge(t)
        slopes = placed.diff() / frame.clock(t).diff()
        expected = eps - x_0 if frame.straight else eps
        torch.testing.assert_close(slopes, torch.full_like(slopes, expected), atol=1e-9, rtol=1e-9)
