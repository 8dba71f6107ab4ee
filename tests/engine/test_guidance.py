"""Guidance on Gaussian data, where every guided prediction has a closed form, and beside other implementations."""

import math
import warnings
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import (
    Denoiser,
    NetworkDenoiser,
    Prediction,
    broadcast,
    data_target,
    flow_target,
    noise_target,
    solve,
    v_target,
)
from triptych.engine.guidance import (
    GUIDANCES,
    Autoguidance,
    ClassifierFree,
    ClassifierFreePlusPlus,
    Interval,
    Keep,
    PerpendicularNegative,
    Projected,
    Rescaled,
    Together,
    one_by_one,
    rows,
    unguided,
)
from triptych.engine.path import Cosine, Discrete, Linear, Path, Straight, VarianceExploding, scaled_linear_betas

PATHS = {
    "straight": Straight(),
    "cosine": Cosine(),
    "linear": Linear(),
    "exploding": VarianceExploding(10.0),
    "discrete": Discrete(scaled_linear_betas()),
}


@dataclass
class Gaussian:
    """The exact denoiser of data N(mean, std^2), both told by the conditioning; counts its calls and samples."""

    path: Path
    calls: int = 0
    samples: int = 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        self.calls += 1
        self.samples += x_t.shape[0]
        mean, std = (broadcast(cond.scalars[name], x_t) for name in ("mean", "std"))
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        variance = alpha.square() * std.square() + sigma.square()
        x_0 = mean + alpha * std.square() / variance * (x_t - alpha * mean)
        return Prediction(x_0, sigma / variance * (x_t - alpha * mean))


def told(mean: float, std: float = 1.0, count: int = 2) -> Conditioning:
    return Conditioning(
        scalars={name: torch.full((count,), value).double() for name, value in (("mean", mean), ("std", std))}
    )


def at(time: float, count: int = 2) -> Tensor:
    return torch.full((count, 1, 1, 1), time, dtype=torch.float64)


@pytest.fixture
def x_t() -> Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def close(a: Prediction, b: Prediction, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a.x_0, b.x_0, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(a.eps, b.eps, atol=tolerance, rtol=tolerance)


def consistent(path: Path, p: Prediction, x_t: Tensor, t: Tensor) -> None:
    torch.testing.assert_close(path.perturb(p.x_0, p.eps, t), x_t, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_guidance_of_two_gaussians_of_one_width_is_the_gaussian_of_the_extrapolated_mean(name, time, x_t):
    path, t = PATHS[name], at(time)
    guided = ClassifierFree(Gaussian(path), 4.0, told(-0.5, 0.7))
    close(guided(x_t, t, told(1.0, 0.7)), Gaussian(path)(x_t, t, told(-0.5 + 4 * 1.5, 0.7)))


@pytest.mark.parametrize("name", PATHS)
def test_classifier_free_guidance_of_two_gaussians_mixes_their_scores(name, x_t):
    path, t, scale = PATHS[name], at(0.6), 3.0
    p = ClassifierFree(Gaussian(path), scale, told(0.3, 2.0))(x_t, t, told(1.0, 0.5))
    alpha, sigma = path.alpha(t), path.sigma(t)

    def score(mean: float, std: float) -> Tensor:
        return -(x_t - alpha * mean) / (alpha.square() * std**2 + sigma.square())

    expected = score(0.3, 2.0) + scale * (score(1.0, 0.5) - score(0.3, 2.0))
    torch.testing.assert_close(-p.eps / sigma, expected)
    consistent(path, p, x_t, t)


@pytest.mark.parametrize("name", PATHS)
def test_autoguidance_mixes_the_scores_of_a_sharp_and_a_blurred_model(name, x_t):
    """Data N(0, s^2); the worse model believes a wider N(0, (3 s)^2): guidance narrows the law below s."""
    path, t, scale, std = PATHS[name], at(0.4), 2.0, 0.5

    @dataclass
    class Blurred:
        path: Path

        def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
            wider = Conditioning(scalars={**cond.scalars, "std": 3 * cond.scalars["std"]})
            return Gaussian(self.path)(x_t, t, wider)

    p = Autoguidance(Gaussian(path), Blurred(path), scale)(x_t, t, told(0.0, std))
    alpha, sigma = path.alpha(t), path.sigma(t)
    precision = scale / (alpha.square() * std**2 + sigma.square()) + (1 - scale) / (
        alpha.square() * 9 * std**2 + sigma.square()
    )
    torch.testing.assert_close(p.eps, sigma * precision * x_t)
    assert bool((precision > 1 / (alpha.square() * std**2 + sigma.square())).all())
    consistent(path, p, x_t, t)


def every(denoiser: Denoiser, scale: float) -> dict[str, Denoiser]:
    """Every guidance whose scale of 1 means none."""
    uncond = told(-1.0, 0.5)
    free = ClassifierFree(denoiser, scale, uncond)
    return {
        "cfg": free,
        "auto": Autoguidance(denoiser, Gaussian(denoiser.path), scale),
        "apg": Projected(denoiser, scale, uncond),
        "perp-neg": PerpendicularNegative(denoiser, scale, told(-2.0), uncond),
        "rescaled": Rescaled(free, 0.7),
        "interval": Interval(free, denoiser, 0.2, 0.8),
        "interval(rescaled(apg))": Interval(Rescaled(Projected(denoiser, scale, uncond), 0.7), denoiser, 0.2, 0.8),
        "keep(rescaled)": Keep(Rescaled(free, 0.5), torch.zeros(1, 3, 4, 5).double(), torch.ones(1, 1, 1, 1)),
        "unguided": unguided(denoiser, scale, uncond),
    }


@pytest.mark.parametrize("name", every(Gaussian(Straight()), 1.0))
def test_a_scale_of_one_means_none_and_costs_one_call(name, x_t):
    denoiser = Gaussian(Cosine())
    p = every(denoiser, 1.0)[name](x_t, at(0.5), told(1.0))
    assert (denoiser.calls, denoiser.samples) == (1, 2)
    close(p, Gaussian(Cosine())(x_t, at(0.5), told(1.0)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", every(Gaussian(Straight()), 1.0))
def test_the_halves_of_a_guided_prediction_still_make_up_x_t(name, path, x_t):
    guided = every(Gaussian(PATHS[path]), 5.0)[name]
    assert guided.path is PATHS[path]
    consistent(PATHS[path], guided(x_t, at(0.7), told(1.0)), x_t, at(0.7))


class Network(nn.Module):
    """A small real network: convolutions, the vector added, attention over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.vector, self.tokens = nn.Linear(4, 16), nn.Linear(5, 16)

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        h = self.enter(x) + (self.vector(cond.vector) + timestep[:, None] / 1000)[..., None, None]
        keys = self.tokens(cond.tokens)
        weights = torch.einsum("bchw,blc->blhw", h, keys).masked_fill(~cond.mask[..., None, None], -torch.inf)
        return self.leave(torch.tanh(h + torch.einsum("blhw,blc->bchw", weights.softmax(1), keys)))


def prompt(seed: int, length: int = 6, count: int = 2) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(count, length, generator=generator) < 0.7
    mask[:, 0] = True
    tokens = torch.randn(count, length, 5, generator=generator)
    return Conditioning(tokens=tokens, mask=mask, vector=torch.randn(count, 4, generator=generator))


@pytest.mark.parametrize("guide", [ClassifierFree, ClassifierFreePlusPlus, Projected])
def test_one_doubled_batch_and_two_calls_give_the_same_numbers(guide):
    denoiser = NetworkDenoiser(Network(), Straight(), flow_target)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8]).reshape(2, 1, 1, 1)
    with torch.no_grad():
        together = guide(denoiser, 4.0, prompt(1), evaluate=Together())(x, t, prompt(2))
        apart = guide(denoiser, 4.0, prompt(1), evaluate=one_by_one)(x, t, prompt(2))
    close(together, apart, 1e-6)


def test_a_doubled_batch_is_one_call_and_keeps_its_stacked_conditioning():
    seen = []

    @dataclass
    class Spy:
        path: Path

        def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
            seen.append((x_t.shape[0], t.shape[0], cond))
            return Prediction(x_t, x_t)

    guided = ClassifierFree(Spy(Straight()), 2.0, prompt(1))
    cond, x = prompt(2), torch.randn(2, 3, 8, 8)
    for t in (torch.full((2, 1, 1, 1), 0.5), torch.tensor(0.5)):
        guided(x, t.reshape(-1, 1, 1, 1), cond)
    assert [(samples, times) for samples, times, _ in seen] == [(4, 4), (4, 1)]
    assert seen[0][2] is seen[1][2]
    guided(x, t.reshape(-1, 1, 1, 1), prompt(3))
    assert seen[2][2] is not seen[1][2]


def test_conditionings_of_different_lengths_take_two_calls():
    denoiser = NetworkDenoiser(Network(), Straight(), flow_target)
    x, t = torch.randn(2, 3, 8, 8), torch.full((2, 1, 1, 1), 0.5)
    with torch.no_grad():
        p = ClassifierFree(denoiser, 4.0, prompt(1, length=3))(x, t, prompt(2))
        expected = denoiser(x, t, prompt(1, length=3)).lerp(denoiser(x, t, prompt(2)), 4.0)
    close(p, expected, 1e-6)


def test_plus_plus_is_the_papers_algorithm_written_for_ddim():
    """arXiv:2406.08070, algorithm 2, with a-bar = alpha^2: clean part from the guided eps, noise unconditional."""
    path, scale = Discrete(scaled_linear_betas()), 0.6
    gaussian, cond, uncond = Gaussian(path), told(1.0, 0.4), told(-1.0, 0.9)
    guided = ClassifierFreePlusPlus(gaussian, scale, uncond)
    x = y = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    times = torch.linspace(1, 0, 11, dtype=torch.float64)
    for t, s in pairwise(times):
        p = guided(x, broadcast(t, x), cond)
        x = path.perturb(p.x_0, p.eps, s)
        eps_c, eps_u = (gaussian(y, broadcast(t, y), c).eps for c in (cond, uncond))
        a_bar, a_bar_next = path.alpha(t) ** 2, path.alpha(s) ** 2
        clean = (y - (1 - a_bar).sqrt() * (eps_u + scale * (eps_c - eps_u))) / a_bar.sqrt()
        y = a_bar_next.sqrt() * clean + (1 - a_bar_next).sqrt() * eps_u
    torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-6)
    plain = ClassifierFreePlusPlus(gaussian, 0.0, uncond)(x, at(0.5), cond)
    close(plain, gaussian(x, at(0.5), uncond))


def diffusers_guiders():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.guiders import adaptive_projected_guidance, guider_utils
    return adaptive_projected_guidance, guider_utils


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("momentum", [-0.5, 0.0])
@pytest.mark.parametrize("threshold", [0.0, 2.0, 1e3])
def test_projected_guidance_equals_that_of_diffusers_over_several_steps(eta, momentum, threshold):
    apg, _ = diffusers_guiders()
    path, scale, buffer = Cosine(), 6.0, apg.MomentumBuffer(momentum)
    cond, uncond = told(1.0, 0.4), told(-1.0, 0.9)
    guided = Projected(Gaussian(path), scale, uncond, eta=eta, momentum=momentum, threshold=threshold)
    generator = torch.Generator().manual_seed(3)
    for time in (0.9, 0.6, 0.3):
        x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
        x_0, x_0_uncond = (Gaussian(path)(x, at(time), c).x_0 for c in (cond, uncond))
        expected = apg.normalized_guidance(
            x_0, x_0_uncond, scale - 1, buffer, eta, threshold, use_original_formulation=True
        )
        p = guided(x, at(time), cond)
        torch.testing.assert_close(p.x_0, expected, atol=1e-9, rtol=1e-9)
        consistent(path, p, x, at(time))


def test_projected_guidance_with_nothing_projected_is_classifier_free(x_t):
    plain = Projected(Gaussian(Straight()), 5.0, told(-1.0), eta=1.0, momentum=0.0, threshold=0.0)
    close(
        plain(x_t, at(0.5), told(1.0)), ClassifierFree(Gaussian(Straight()), 5.0, told(-1.0))(x_t, at(0.5), told(1.0))
    )


def test_projected_guidance_moves_across_the_conditional_prediction_and_no_further_than_its_threshold(x_t):
    scale, threshold = 5.0, 0.8
    guided = Projected(Gaussian(Straight()), scale, told(-1.0, 0.3), momentum=0.0, threshold=threshold)
    p, plain = guided.with_plain(x_t, at(0.5), told(1.0))
    move = p.x_0 - plain.x_0
    assert (move * plain.x_0).sum((1, 2, 3)).abs().max() < 1e-9
    assert bool((move.square().sum((1, 2, 3)).sqrt() <= (scale - 1) * threshold + 1e-9).all())


@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("target", [noise_target, v_target, flow_target])
def test_rescaling_equals_that_of_diffusers_in_the_networks_own_output(phi, target, x_t):
    _, utils = diffusers_guiders()
    path, t = Cosine(), at(0.6)
    free = ClassifierFree(Gaussian(path), 7.5, told(-1.0, 0.3))
    a, b = target(path, t)
    guided, plain = free.with_plain(x_t, t, told(1.0))
    output = utils.rescale_noise_cfg(a * guided.x_0 + b * guided.eps, a * plain.x_0 + b * plain.eps, phi)
    close(Rescaled(free, phi, target)(x_t, t, told(1.0)), solve(path, target, x_t, t, output), 1e-9)


def test_full_rescaling_gives_the_output_the_spread_of_the_unguided_one(x_t):
    path, t = Straight(), at(0.6)
    p = Rescaled(ClassifierFree(Gaussian(path), 7.5, told(-1.0, 0.3)), 1.0)(x_t, t, told(1.0))
    plain = Gaussian(path)(x_t, t, told(1.0))
    v, v_plain = (path.alpha(t) * q.eps - path.sigma(t) * q.x_0 for q in (p, plain))
    torch.testing.assert_close(v.std((1, 2, 3)), v_plain.std((1, 2, 3)))


def test_perpendicular_negative_leaves_what_the_prompt_says(x_t):
    gaussian, cond, empty = Gaussian(Linear()), told(1.0, 0.4), told(0.0)
    plain = ClassifierFree(gaussian, 5.0, empty)(x_t, at(0.5), cond)
    same = PerpendicularNegative(gaussian, 5.0, cond, empty)(x_t, at(0.5), cond)
    close(same, plain)  # a negative prompt equal to the prompt takes nothing away
    close(PerpendicularNegative(gaussian, 5.0, told(-3.0), empty, weight=0.0)(x_t, at(0.5), cond), plain)
    close(PerpendicularNegative(gaussian, 5.0, empty, empty)(x_t, at(0.5), cond), plain)
    away = PerpendicularNegative(gaussian, 5.0, told(-3.0, 0.2), empty)(x_t, at(0.5), cond)
    main = (gaussian(x_t, at(0.5), cond).x_0 - gaussian(x_t, at(0.5), empty).x_0).flatten(1)
    taken = (away.x_0 - plain.x_0).flatten(1)
    assert (main * taken).sum(1).abs().max() < 1e-9
    assert taken.abs().max() > 0.1
    consistent(Linear(), away, x_t, at(0.5))


def test_an_interval_guides_inside_and_costs_one_call_outside(x_t):
    denoiser = Gaussian(Straight())
    interval = Interval(ClassifierFree(denoiser, 3.0, told(-1.0)), denoiser, 0.25, 0.75)
    guided, plain = ClassifierFree(Gaussian(Straight()), 3.0, told(-1.0)), Gaussian(Straight())
    for time, expected, samples in ((0.25, plain, 2), (0.26, guided, 4), (0.75, guided, 4), (0.8, plain, 2)):
        denoiser.samples = 0
        close(interval(x_t, at(time), told(1.0)), expected(x_t, at(time), told(1.0)))
        assert denoiser.samples == samples
    mixed = torch.tensor([0.1, 0.5]).reshape(2, 1, 1, 1).double()
    p = interval(x_t, mixed, told(1.0))
    torch.testing.assert_close(p.x_0[:1], plain(x_t[:1], mixed[:1], told(1.0, count=1)).x_0)
    one = ClassifierFree(Gaussian(Straight()), 3.0, told(-1.0, count=1))
    torch.testing.assert_close(p.x_0[1:], one(x_t[1:], mixed[1:], told(1.0, count=1)).x_0)


@pytest.mark.parametrize("name", PATHS)
def test_an_interval_may_be_given_in_noise(name):
    path = PATHS[name]
    interval = Interval.of_noise(Gaussian(path), Gaussian(path), 0.28, 2.9)
    for t, level in ((interval.start, 0.28), (interval.stop, 2.9)):
        time = torch.tensor(t, dtype=torch.float64)
        assert float(path.sigma(time) / path.alpha(time)) == pytest.approx(level, rel=1e-6)
    whole = Interval.of_noise(Gaussian(path), Gaussian(path), 0.0, math.inf)
    assert (whole.start, whole.stop) == (0.0, 1.0)


def noiseless_euler(denoiser: Denoiser, x: Tensor, times: Tensor, cond: Conditioning) -> Tensor:
    for t, s in pairwise(times):
        p = denoiser(x, broadcast(t, x), cond)
        x = denoiser.path.perturb(p.x_0, p.eps, s)
    return x


@pytest.mark.parametrize("name", PATHS)
def test_what_is_kept_ends_as_it_was_and_the_rest_as_without_keeping(name):
    """Beside the rule of diffusers: after every step the kept part is replaced by the known one at that noise."""
    path, generator = PATHS[name], torch.Generator().manual_seed(5)
    known, eps = (torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros(1, 1, 6, 6).double()
    mask[..., 2:5] = 1
    denoiser, cond = ClassifierFree(Gaussian(path), 3.0, told(-1.0)), told(1.0, 0.3)
    times = torch.linspace(0.95, 0, 9, dtype=torch.float64)
    start = path.perturb(known, eps, times[0])
    kept = noiseless_euler(Keep(denoiser, known, mask), start, times, cond)
    torch.testing.assert_close(kept * (1 - mask), known * (1 - mask), atol=1e-9, rtol=0)
    replaced = start
    for t, s in pairwise(times):
        p = denoiser(replaced, broadcast(t, replaced), cond)
        made = path.perturb(p.x_0, p.eps, s)
        replaced = mask * made + (1 - mask) * path.perturb(known, eps, s)
    torch.testing.assert_close(kept, replaced, atol=1e-8, rtol=0)


@given(share=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_a_soft_mask_blends_and_stays_consistent(share):
    x_t = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known, t = torch.full((1, 3, 4, 5), 0.25).double(), at(0.6)
    p = Keep(Gaussian(Cosine()), known, torch.full((1, 1, 1, 1), share).double())(x_t, t, told(1.0))
    made = Gaussian(Cosine())(x_t, t, told(1.0))
    torch.testing.assert_close(p.x_0, share * made.x_0 + (1 - share) * known.expand_as(x_t))
    consistent(Cosine(), p, x_t, t)


def test_keeping_leaves_the_two_halves_of_plus_plus_apart(x_t):
    free = ClassifierFreePlusPlus(Gaussian(Cosine()), 0.6, told(-1.0))
    ones = torch.ones(1, 1, 1, 1).double()
    close(Keep(free, torch.zeros_like(x_t), ones)(x_t, at(0.5), told(1.0)), free(x_t, at(0.5), told(1.0)))


@pytest.mark.parametrize("name", GUIDANCES)
def test_every_named_guidance_is_built_on_the_common_scale(name, x_t):
    entry, denoiser = GUIDANCES[name], Gaussian(Cosine())
    more = {"empty": told(0.0)} if entry.empty else {}
    guided = entry.build(denoiser, 4.0, told(-1.0), **more)
    p, plain = guided.with_plain(x_t, at(0.5), told(1.0))
    close(plain, Gaussian(Cosine())(x_t, at(0.5), told(1.0)))
    assert bool(((p.x_0 - plain.x_0).abs() > 1e-3).any())
    assert denoiser.samples == (6 if entry.empty else 4)


def test_guided_sampling_of_two_gaussians_ends_on_the_extrapolated_one():
    """Euler through classifier-free guidance carries the standard normal to N(mean_w, std^2), quantile by quantile."""
    path, std, scale = Cosine(), 0.5, 3.0
    guided = ClassifierFree(Gaussian(path), scale, told(-0.2, std, 1))
    x_T = torch.linspace(-2, 2, 41, dtype=torch.float64).reshape(1, 1, 1, 41)
    times = torch.linspace(1, 0, 2001, dtype=torch.float64)
    x = noiseless_euler(guided, x_T, times, told(0.4, std, 1))
    torch.testing.assert_close(x, -0.2 + scale * 0.6 + std * x_T, atol=5e-3, rtol=0)


def test_rows_repeat_pick_and_keep_every_route():
    cond = Conditioning(
        tokens=torch.randn(2, 3, 4),
        mask=torch.ones(2, 3, dtype=torch.bool),
        vector=torch.randn(2, 4),
        concat=torch.randn(2, 1, 5, 5),
        references=(torch.randn(2, 3, 5, 5),),
        scalars={"fps": torch.tensor([8.0, 24.0])},
    )
    picked = rows(cond, torch.tensor([1, 1, 0]))
    assert picked.scalars["fps"].tolist() == [24.0, 24.0, 8.0]
    for one, many in zip(
        (cond.tokens, cond.mask, cond.vector, cond.concat, cond.references[0]),
        (picked.tokens, picked.mask, picked.vector, picked.concat, picked.references[0]),
        strict=True,
    ):
        assert torch.equal(many, one[[1, 1, 0]])
    nothing = rows(Conditioning(), torch.tensor([0, 0]))
    assert nothing.tokens is None
    assert nothing.references == ()


def test_solving_for_data_is_what_keeping_and_projection_rely_on(x_t):
    p = solve(Straight(), data_target, x_t, at(0.3), torch.full_like(x_t, 2.0))
    assert torch.equal(p.x_0, torch.full_like(x_t, 2.0))
    consistent(Straight(), p, x_t, at(0.3))
