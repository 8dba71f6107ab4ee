"""Whose rules hold: walks of the web UI and of ComfyUI, against k-diffusion's own numbers and their published rules."""

from collections.abc import Callable
from itertools import pairwise
from math import atan, isclose, log, tan

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import TARGETS, NetworkDenoiser
from triptych.engine.frame import Frame
from triptych.engine.noise import SeededNoise, gpu
from triptych.engine.path import Discrete, scaled_linear_betas, zero_terminal_snr
from triptych.engine.spacing import SPACINGS, Karras
from triptych.errors import InvalidField
from triptych.families import cards
from triptych.model import Model, generate
from triptych.profiles import PROFILES, counted, spacing
from triptych.types import Artifact, Request

PATH = Discrete(scaled_linear_betas())
ALPHAS = torch.cumprod(1 - scaled_linear_betas(), 0)  # "alphas_cumprod"
SIGMAS = ((1 - ALPHAS) / ALPHAS).sqrt()
FILE = Artifact("image/png", b"")  # stands for what is given as samples


class Closed(nn.Module):
    """A network of a formula: what it is told of time and prompt matters, and neighbours do."""

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        share = (timestep.float() / 1000).reshape(-1, 1, 1, 1)
        told = cond.tokens.mean((1, 2)).reshape(-1, 1, 1, 1)
        moved = 0.3 * torch.roll(x, 1, -1) * torch.cos(40 * share)
        return torch.tanh(1.5 * x * (1.2 - share) + told) + moved + 0.2 * told


class Coarse:
    channels, scale_factor = 4, (8, 8)

    def encode(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 8)[:, [0, 1, 2, 0]]

    def decode(self, z: Tensor) -> Tensor:
        return functional.interpolate(z[:, :3], scale_factor=8)


def letters(request: Request, prompt: str) -> Conditioning:
    codes = torch.tensor([[*prompt.encode()[:8], *[0] * (8 - len(prompt.encode()[:8]))]])
    return Conditioning(tokens=torch.sin(codes[..., None] * torch.arange(1, 49)))


def model(target: str = "eps", path: Discrete = PATH) -> Model:
    denoiser = NetworkDenoiser(Closed(), path, TARGETS[target], lambda t: 1000 * t - 1)
    return Model(cards()["sd15"], letters, denoiser, Coarse())


def made(profile: str, **asked) -> Tensor:
    """The latents of a walk."""
    options = {"profile": profile} | asked.pop("options", {})
    given = {name: asked.pop(name) for name in ("init", "mask", "strength") if name in asked}
    fields = {
        "seed": 7,
        "height": 64,
        "width": 64,
        "negative_prompt": "blur",
        "guidance_scale": 6.0,
        "steps": 9,
    } | asked
    inputs = {name: FILE for name in ("init", "mask") if name in given}
    one = model()
    request = one.card.resolve(Request("sd15", "a red fox", inputs=inputs, options=options, **fields))
    *_, last = generate(one, request, **given)
    return last.x_t


# What k-diffusion 0.1.1's functions of these names give: CompVisDenoiser of the network above (quantize=True for
# ComfyUI, whose timesteps are whole), karras sigmas from the table's ends, one of which more and the last but one left
# out where the program does so, uncond + 6 (cond - uncond), two samples. The web UI's: noise of rng_philox.py's kind
# for seeds 7 and 8, BrownianTreeNoiseSampler(seed=[7, 8]) whose numbers are of that kind, too. ComfyUI's: noise of
# torch's CPU generator for the seed 5 * 2^32 + 7 times sqrt(1 + sigma^2), then that of a GPU's generator of that seed,
# and BrownianTreeNoiseSampler(seed=that). Of the result [1, 2, 3, :5].
K_DIFFUSION = {
    "a1111": {
        "euler": (1.71358, -4.69337, 2.99713, -0.17292, -11.97508),
        "euler_ancestral": (6.51111, -5.78069, 1.56235, -0.27711, -24.78415),
        "heun": (0.58232, -3.23854, 2.74632, -0.17132, -10.13977),
        "dpm2": (2.86536, -2.83783, 0.82110, 0.03615, -10.58556),
        "dpm2_ancestral": (0.35661, -1.51717, 0.69363, -0.37866, -21.23605),
        "dpmpp_2s_ancestral": (3.04900, -4.90676, 0.79369, -0.29458, -23.03771),
        "dpmpp_2m": (0.91386, -3.64353, 2.78958, -0.05369, -10.30073),
        "dpmpp_2m_sde": (1.01812, -14.49879, -2.15793, -0.51690, -16.00691),
        "dpmpp_3m_sde": (6.16067, -8.78318, -2.02460, 0.53676, -15.93900),
        "lms": (1.06647, -4.12739, 2.91723, -0.13300, -11.26291),
    },
    "comfy": {
        "euler": (-1.13509, -14.32648, -7.56502, 0.08267, 5.43045),
        "euler_ancestral": (-4.19199, -3.76530, -6.49581, -0.24531, 0.99208),
        "heun": (-0.46677, -12.34341, -4.04933, 0.03221, 3.87234),
        "dpm2": (-0.53046, -13.20081, -8.85018, -0.64944, 4.59474),
        "dpm2_ancestral": (-0.50223, -0.39728, -0.65294, -0.44682, 1.10291),
        "dpmpp_2s_ancestral": (-2.77100, -1.02662, -0.79554, -0.21141, 0.11234),
        "dpmpp_2m": (-0.45732, -12.39675, -4.06185, 0.09504, 4.03999),
        "dpmpp_2m_sde": (0.09889, -29.24284, -3.85135, -0.48968, 1.39630),
        "dpmpp_3m_sde": (-1.46589, -25.08234, -13.53162, -2.77607, -0.33132),
        "lms": (-0.72418, -13.55238, -6.13935, -0.02946, 4.74555),
    },
}


@pytest.mark.parametrize("sampler", K_DIFFUSION["a1111"])
@pytest.mark.parametrize("profile", K_DIFFUSION)
def test_walks_are_those_of_k_diffusion(profile, sampler):
    """Within 0.01 of numbers of about 10: 60 dB."""
    options = {"noise_delta": 5 * 2**32} if profile == "comfy" else {}
    latents = made(profile, sampler=sampler, spacing="karras", count=2, options=options)
    expected = torch.tensor(K_DIFFUSION[profile][sampler])
    torch.testing.assert_close(latents[1, 2, 3, :5], expected, atol=0.01, rtol=0)


def linear(first: float, last: float, count: int) -> Tensor:
    return torch.linspace(first, last, count, dtype=torch.float64)


def between(timesteps: Tensor) -> Tensor:
    """Levels of the table along straight lines of their logarithms: k-diffusion's and ComfyUI's t_to_sigma."""
    return torch.from_numpy(np.exp(np.interp(timesteps.numpy(), np.arange(1000), SIGMAS.log().numpy())))


def every(steps: int) -> Tensor:
    return SIGMAS[torch.arange(1, 1000, 1000 // steps)].flip(0)


def aligned(levels: list[float], count: int) -> Tensor:
    places = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(levels)), np.log(levels[::-1]))
    return torch.from_numpy(np.exp(places)[::-1].copy())


def quadratic(steps: int) -> Tensor:
    """By the coefficients of the published formula: a i^2 + b i + c after the linear half."""
    half = steps // 2
    gap, rest = half - 0.025 * steps, steps - half
    a = gap / (half * rest**2)
    b = 0.025 / half - 2 * gap / rest**2
    noise = [i * 0.025 / half if i < half else a * i**2 + b * i + a * half**2 for i in range(steps)]
    return (1 - torch.tensor(noise, dtype=torch.float64)) * SIGMAS[-1]


def whole(steps: int) -> Tensor:
    counted = np.rint(stats.beta.ppf(1 - np.linspace(0, 1, steps, endpoint=False), 0.6, 0.6) * 999)
    return SIGMAS[[int(n) for n, before in zip(counted, [-1, *counted], strict=False) if n != before]]


LOW, HIGH = float(SIGMAS[0]), float(SIGMAS[-1])
STABLE = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
LISTED = [14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092]
LISTED += [0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582]
NORMAL: dict[str, Callable[[int], Tensor]] = {
    "linspace": lambda n: between(linear(999, 0, n)),
    "sgm_uniform": lambda n: between(linear(999, 0, n + 1)[:-1]),
    "karras": lambda n: (HIGH ** (1 / 7) + linear(0, 1, n) * (LOW ** (1 / 7) - HIGH ** (1 / 7))) ** 7,
    "exponential": lambda n: linear(log(HIGH), log(LOW), n).exp(),
    "simple": lambda n: SIGMAS[[-(1 + int(x * (1000 / n))) for x in range(n)]],
    "ddim_uniform": every,
}
SCHEDULERS = {  # levels of each program before the last, which is 0 but in one
    "a1111": NORMAL
    | {
        "beta": lambda n: LOW + torch.from_numpy(stats.beta.ppf(1 - np.linspace(0, 1, n), 0.6, 0.6)) * (HIGH - LOW),
        "kl_optimal": lambda n: torch.tensor([tan(x / n * atan(LOW) + (1 - x / n) * atan(HIGH)) for x in range(n + 1)]),
        "align_your_steps": lambda n: aligned(STABLE, n),
    },
    "comfy": NORMAL
    | {
        "beta": whole,
        "linear_quadratic": quadratic,
        "kl_optimal": lambda n: (linear(0, 1, n) * atan(LOW) + (1 - linear(0, 1, n)) * atan(HIGH)).tan(),
        "align_your_steps": lambda n: aligned(LISTED, n + 1)[:-1],
    },
}


@pytest.mark.parametrize(("profile", "name"), [(one, name) for one, named in SCHEDULERS.items() for name in named])
@pytest.mark.parametrize("steps", [4, 11, 20, 30, 60])
def test_noise_levels_are_those_of_the_programs(profile, name, steps):
    expected = SCHEDULERS[profile][name](steps).double()
    times = spacing(PROFILES[profile], Request("m", "p", spacing=name), Karras())(PATH, steps, 1)
    levels = Frame(PATH).clock(times)
    if (profile, name) != ("a1111", "kl_optimal"):
        assert float(levels[-1]) == 0
        levels = levels[:-1]
    if (profile, name) == ("a1111", "align_your_steps"):
        expected = expected.clamp(max=HIGH)  # 14.615 lies beyond the table
    torch.testing.assert_close(levels, expected, rtol=2e-6, atol=0)
    if (name, steps) == ("ddim_uniform", 30):
        assert len(levels) == 31


@pytest.mark.parametrize("profile", SCHEDULERS)
def test_samplers_that_skip_the_last_time_but_one(profile):
    for name in PROFILES[profile].skipping:
        times = spacing(PROFILES[profile], Request("m", "p", sampler=name, spacing="karras"), Karras())(PATH, 7, 1)
        more = Karras()(PATH, 8, 1)
        assert torch.equal(times, torch.cat([more[:7], more[8:]]))


def test_other_profiles_keep_our_words():
    for name in SPACINGS:
        request = Request("m", "p", sampler="dpm2", spacing=name)
        assert spacing(PROFILES["native"], request, Karras()) is SPACINGS[name]


def told(profile: str, levels: Tensor) -> Tensor:
    """The timesteps that the network is told at these levels of sigma / alpha."""
    seen = []

    class Ear(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
            seen.append(float(timestep[0]))
            return x

    heard = NetworkDenoiser(Ear(), PATH, TARGETS["eps"], lambda t: 1000 * t - 1)
    for t in Frame(PATH).time(levels):
        counted(heard, PROFILES[profile])(torch.zeros(1, 1), t.reshape(1, 1), Conditioning())
    return torch.tensor(seen, dtype=torch.float64)


def test_networks_are_told_timesteps_as_the_programs_count_them():
    levels = torch.cat([SIGMAS[[0, 1, 7, 500, 999]], torch.tensor([0.031, 0.0335, 0.05, 0.333, 3.0, 14.5])])
    nearest = (levels.log() - SIGMAS.log()[:, None]).abs().argmin(0)
    torch.testing.assert_close(told("comfy", levels), nearest.double(), atol=1e-9, rtol=0)
    expected = torch.from_numpy(np.interp(levels.log().numpy(), SIGMAS.log().numpy(), np.arange(1000.0)))
    torch.testing.assert_close(told("a1111", levels), expected, atol=1e-6, rtol=0)
    assert float((told("native", levels) - expected).abs().max()) > 0.01


def denoised(x: Tensor, sigma: Tensor, timestep: float) -> Tensor:
    """x_0 of x = x_0 + sigma eps under guidance, by the web UI's rule."""
    both = [letters(None, prompt) for prompt in ("a red fox", "blur")]
    scaled, time = x / (1 + sigma**2).sqrt(), torch.tensor([timestep])
    cond, uncond = (x - sigma * Closed()(scaled, time, each) for each in both)
    return uncond + 6 * (cond - uncond)


def euler(x: Tensor, sigmas: Tensor, count: Callable[[float], float]) -> Tensor:
    for sigma, following in pairwise(sigmas):
        x_0 = denoised(x, sigma, count(float(sigma)))
        x = x + (x - x_0) / sigma * (following - sigma)
    return x


def lines(sigma: float) -> float:
    return float(np.interp(log(sigma), SIGMAS.log().numpy(), np.arange(1000.0)))


def nearest(sigma: float) -> float:
    return float((SIGMAS.log() - log(sigma)).abs().argmin())


def picture() -> Tensor:
    return torch.sin(torch.arange(3 * 64 * 64).reshape(1, 3, 64, 64) / 97)


@pytest.mark.parametrize("strength", [0.3, 0.55, 1.0])
def test_the_web_ui_goes_on_from_a_picture(strength):
    """sd_samplers_kdiffusion.py: t_enc = int(min(s, 0.999) n), x_0 + noise sigma, sigmas[n - t_enc - 1:]."""
    steps = 9
    begun = int(min(strength, 0.999) * steps)
    sigmas = torch.cat([between(linear(999, 0, steps)), torch.zeros(1)])[steps - begun - 1 :].float()
    x = Coarse().encode(picture()) + sigmas[0] * gpu(7)((4, 8, 8))
    latents = made("a1111", sampler="euler", spacing="linspace", init=picture(), strength=strength)
    torch.testing.assert_close(latents, euler(x, sigmas, lines), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("denoise", [0.3, 0.55, 1.0])
def test_comfyui_goes_on_from_a_picture(denoise):
    """samplers.py: the last of int(n / denoise) sigmas; x_0 + noise sigma, or at the path's end sqrt(1 + sigma^2)."""
    steps = 10
    many = int(steps / denoise)
    sigmas = torch.cat([between(linear(999, 0, many)), torch.zeros(1)])[-(steps + 1) :].float()
    spread = (1 + sigmas[0] ** 2).sqrt() if isclose(float(sigmas[0]), HIGH, rel_tol=1e-5) else sigmas[0]
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    strength = np.nextafter(steps / many, 1)
    latents = made("comfy", sampler="euler", spacing="linspace", init=picture(), strength=strength, steps=many)
    expected = euler(Coarse().encode(picture()) + spread * noise, sigmas, nearest)
    torch.testing.assert_close(latents, expected, atol=1e-3, rtol=1e-4)


def test_comfyui_starts_below_the_end_with_sigma():
    """ddim_uniform begins at timestep 991 of 30 steps: 31 of them, from noise times sigma."""
    sigmas = torch.cat([every(30), torch.zeros(1)]).float()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    latents = made("comfy", sampler="euler", spacing="ddim_uniform", steps=30)
    torch.testing.assert_close(latents, euler(sigmas[0] * noise, sigmas, nearest), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("eta", [None, 0.7])
@pytest.mark.parametrize("steps", [9, 20])
def test_ddim_of_the_web_ui(steps, eta):
    """sd_samplers_timesteps_impl.py: from noise as it is drawn, along 1, 1 + m, ... down to 1 (arXiv:2010.02502)."""
    timesteps = (torch.arange(0, 1000, 1000 // steps) + 1).clamp(max=999)
    noise, both = SeededNoise([7], gpu), [letters(None, prompt) for prompt in ("a red fox", "blur")]
    x = noise.draw((4, 8, 8))
    for now, before in zip(timesteps.tolist()[:0:-1], timesteps.tolist()[-2::-1], strict=True):
        a, b = float(ALPHAS[now]), float(ALPHAS[before])
        cond, uncond = (Closed()(x, torch.tensor([now]), each) for each in both)
        eps = uncond + 6 * (cond - uncond)
        sigma = (eta or 0) * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        x_0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
        x = b**0.5 * x_0 + (1 - b - sigma**2) ** 0.5 * eps + sigma * noise.draw((4, 8, 8))
    options = {} if eta is None else {"eta": eta}
    latents = made("a1111", sampler="ddim", spacing="karras", steps=steps, options=options)
    torch.testing.assert_close(latents, x, atol=1e-3, rtol=1e-4)


def test_a_whole_walk_goes_on_from_what_is_masked_in_both_programs():
    """Where a mask leaves a picture free, ours starts from noise alone, theirs from noise on the picture."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    walk = {"sampler": "euler", "spacing": "linspace", "steps": 5, "strength": 1.0}
    for profile, moves in (("native", False), ("a1111", True), ("comfy", True)):
        one = made(profile, init=picture(), mask=mask, **walk)
        # Neighbours within a row matter to the network: only rows, not columns, are told apart.
        other = made(profile, init=picture() * torch.where(mask > 0, 5.0, 1.0), mask=mask, **walk)
        assert torch.equal(one[..., 4:], other[..., 4:]) != moves


@pytest.mark.parametrize(
    ("profile", "noise", "same"),
    [
        *(("a1111", "gpu", True), ("a1111", "cpu", False), ("comfy", "gpu", True), ("comfy", "cpu", False)),
        *(("native", "cpu", True), ("native", "gpu", False), ("diffusers", "cpu", True)),
    ],
)
def test_where_noise_comes_from(profile, noise, same):
    walk = {"sampler": "euler_ancestral", "spacing": "linspace", "steps": 3}
    own, auto, asked = (made(profile, **walk, options=said) for said in ({}, {"noise": "auto"}, {"noise": noise}))
    assert torch.equal(own, auto)
    assert torch.equal(own, asked) == same


def test_of_a_batch_each_is_what_it_is_alone_but_in_comfyui():
    for sampler in ("euler_ancestral", "dpmpp_2m_sde"):
        walk = {"sampler": sampler, "spacing": "linspace", "steps": 3}
        for profile in ("native", "a1111", "comfy"):
            both, second = made(profile, count=2, **walk), made(profile, seed=8, **walk)
            assert torch.allclose(both[1:], second, atol=1e-4) == (profile != "comfy")


def test_levels_of_a_table_that_ends_in_noise_alone_are_finite():
    path = Discrete(zero_terminal_snr(scaled_linear_betas()))
    for profile in ("a1111", "comfy"):
        for name in SPACINGS:
            times = spacing(PROFILES[profile], Request("m", "p", spacing=name), Karras())(path, 8, 1)
            assert bool(times.isfinite().all())
            assert bool((times.diff() < 0).all())
            assert bool(PROFILES[profile].told(path)(times[:-1]).isfinite().all())
        request = cards()["sd15"].resolve(
            Request("sd15", "a fox", seed=1, height=64, width=64, steps=4, sampler="dpmpp_2m_sde", spacing="karras",
                    options={"profile": profile})
        )  # fmt: skip
        *_, last = generate(model("v", path), request)
        assert bool(last.x_t.isfinite().all())


@pytest.mark.parametrize("said", ["64", "64x", "0x64", "64 x 64", "7x64"])
def test_a_size_of_noise_is_two_numbers(said):
    with pytest.raises(InvalidField, match="WIDTHxHEIGHT"):
        made("a1111", options={"noise_size": said})
