"""Samplers and spacings step by step beside those of diffusers, given the same network and the same noise.

Both sides call one smooth function of the scaled state and of the angle atan2(sigma, alpha) for a network. States are
compared after every step, relative to their largest value. What differs, and why:

- DDIM with "linspace": diffusers walks to t - 1000 // steps, which is not the time it calls the network at next.
- Karras, exponential and beta spacings of the DPM++ kind: the network is told a whole timestep; here it
  is told the one that the noise level has. Noise levels agree.
- Euler's kind with "linspace": between two entries of the table diffusers interpolates sigma / alpha, here the angle
  of the path is interpolated; timesteps agree, noise levels to 1e-5.
- DEIS ends at the first entry of the table instead of data, which is `end=0.001` here.
- UniPC: diffusers shows the predicted state after a step, here it is the corrected one, its `last_sample`. With
  order 3 and fewer steps to go than the order it lowers the order wherever the walk ends, here only at data.
- The third-order term of DPM++ 3M is halved in diffusers (see `test_third_order`).
- With zero terminal SNR the sigma / alpha of the last entry is 4096 in some of diffusers' classes, infinite here.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import diffusers
import pytest
import torch
from helpers import drawn, normal, number, walk
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import TARGETS, KarrasTarget, NetworkDenoiser
from triptych.engine.frame import ratio_frame
from triptych.engine.path import (
    Cosine,
    Discrete,
    Path,
    Straight,
    VarianceExploding,
    scaled_linear_betas,
    zero_terminal_snr,
)
from triptych.engine.samplers import SAMPLERS, Sampler, Step
from triptych.engine.samplers.dpmpp import DpmppMultistep
from triptych.engine.samplers.multistep import AdamsBashforth, deis_weights
from triptych.engine.samplers.onestep import Ancestral
from triptych.engine.spacing import (
    Beta,
    Exponential,
    Karras,
    Leading,
    Linspace,
    Listed,
    ResolutionShifted,
    Shifted,
    Spacing,
    ToFirst,
    trailing,
)

TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
LATENT = Discrete(scaled_linear_betas())
NAMES = {"eps": "epsilon", "v": "v_prediction", "x_0": "sample", "flow": "flow_prediction"}
SHAPE = (1, 2, 4, 4)


def network(x: Tensor, angle: Tensor) -> Tensor:
    """Any smooth function will do; x and the result (B, C, *S)."""
    angle = angle.to(x.dtype)
    return 0.5 * x + 0.3 * torch.sin(2 * x + angle) - 0.2 * torch.cos(3 * angle) * x.roll(1, -1)


class Network(nn.Module):
    """The same for our side, where the angle comes from the time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        t = timestep.double()
        return network(x, torch.atan2(self.path.sigma(t), self.path.alpha(t)).reshape(-1, *[1] * (x.ndim - 1)))


def ours(
    sampler: Sampler, path: Path, target: str, times: Tensor, x: Tensor, seed: int = 0, scale: object = None
) -> list[Step]:
    extra = {} if scale is None else {"scale": scale}
    denoiser = NetworkDenoiser(Network(path), path, TARGETS[target], timestep=lambda t: t, **extra)
    return walk(sampler, denoiser, x, times, drawn(seed))


@dataclass
class Theirs:
    """A scheduler of diffusers, set to its steps; `states` walks it and keeps those after whole steps."""

    name: str
    options: dict = field(default_factory=dict)
    setting: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.scheduler = getattr(diffusers, self.name)(**self.options)
            self.scheduler.set_timesteps(**self.setting)
        kind = self.name.removesuffix("DiscreteScheduler")
        self.twice = kind in {"Heun", "KDPM2", "KDPM2Ancestral", "FlowMatchHeun"}  # calls a step
        self.exploding = kind in {"Euler", "EulerAncestral", "Heun", "KDPM2", "KDPM2Ancestral", "LMS"}  # x_t / alpha

    @property
    def timesteps(self) -> Tensor:
        """(steps,) of whole steps."""
        return (self.scheduler.timesteps[::2] if self.twice else self.scheduler.timesteps).double()

    def _angle(self, call: int, timestep: Tensor, x: Tensor) -> Tensor:
        if self.exploding:  # its input scale is alpha
            ones = torch.ones(1, dtype=torch.float64)
            return torch.acos(self.scheduler.scale_model_input(ones, timestep))
        if not hasattr(self.scheduler, "sigmas"):
            return torch.acos(self.scheduler.alphas_cumprod[timestep].double().sqrt())
        sigma = self.scheduler.sigmas[call].double()
        flow = self.scheduler.config.get("use_flow_sigmas") or self.name.startswith("FlowMatch")
        return torch.atan2(sigma, 1 - sigma) if flow else torch.atan(sigma)

    def states(self, x: Tensor, seed: int = 0, **options: object) -> list[Tensor]:
        generator, states = torch.Generator().manual_seed(seed), []
        keywords = self.scheduler.step.__code__.co_varnames
        if "generator" in keywords:
            options["generator"] = generator
        for call, timestep in enumerate(self.scheduler.timesteps):
            angle = self._angle(call, timestep, x)
            output = network(self.scheduler.scale_model_input(x, timestep) if self.exploding else x, angle)
            x = self.scheduler.step(output, timestep, x, **options).prev_sample
            states.append(x)
        return [*states[1:-1:2], states[-1]] if self.twice else states


def close(steps: list[Step], states: list[Tensor], path: Path | None = None, tolerance: float = 1e-4) -> None:
    """path: where theirs are x_t / alpha."""
    assert len(steps) - 1 == len(states)
    for n, (step, state) in enumerate(zip(steps[1:], states, strict=True), 1):
        theirs = state if path is None else path.alpha(number(step.t)) * state
        error = float((step.x_t - theirs).abs().max() / theirs.abs().max())
        assert error < tolerance, f"step {n} of {len(states)}: {error:.1e}"


def noise(path: Path, times: Tensor) -> Tensor:
    return path.sigma(times[0]).float() * normal(*SHAPE, dtype=torch.float32)


TWO_ENDS = ("linspace", {"timestep_spacing": "linspace"}, Linspace())
LEADING = ("leading", {"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1))
TRAILING = ("trailing", {"timestep_spacing": "trailing"}, trailing)
SNAPPED = ("linspace", {"timestep_spacing": "linspace"}, Linspace(snap=torch.round))
LEVELS = [
    ("karras", {"use_karras_sigmas": True}, Karras()),
    ("exponential", {"use_exponential_sigmas": True}, Exponential()),
    ("beta", {"use_beta_sigmas": True}, Beta()),
]
COUNTED_ON = [  # the DPM++ kind counts one more step than it takes
    ("linspace", {"timestep_spacing": "linspace"}, Linspace(spare=1, snap=torch.round)),
    ("leading", {"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1, spare=1)),
    TRAILING,
]
TO_THE_FIRST_ENTRY = [
    ("linspace", {"timestep_spacing": "linspace"}, Linspace(spare=1, snap=torch.round, end=0.001)),
    ("leading", {"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1, spare=1, end=0.001)),
]

Row = tuple[str, dict, Sampler, list[tuple[str, dict, Spacing]]]
ROWS: dict[str, Row] = {
    "ddpm": ("DDPMScheduler", {"clip_sample": False}, SAMPLERS["ddpm"], [SNAPPED, LEADING, TRAILING]),
    "euler": ("EulerDiscreteScheduler", {}, SAMPLERS["euler"], [TWO_ENDS, LEADING, TRAILING, *LEVELS]),
    "euler_ancestral": (
        "EulerAncestralDiscreteScheduler",
        {},
        SAMPLERS["euler_ancestral"],
        [TWO_ENDS, LEADING, TRAILING],
    ),
    "heun": ("HeunDiscreteScheduler", {}, SAMPLERS["heun"], [TWO_ENDS, LEADING, TRAILING, *LEVELS]),
    "dpm2": ("KDPM2DiscreteScheduler", {}, SAMPLERS["dpm2"], [TWO_ENDS, LEADING, TRAILING, *LEVELS]),
    "dpm2_ancestral": (
        "KDPM2AncestralDiscreteScheduler",
        {},
        SAMPLERS["dpm2_ancestral"],
        [TWO_ENDS, LEADING, TRAILING, *LEVELS],
    ),
    "lms": ("LMSDiscreteScheduler", {}, SAMPLERS["lms"], [TWO_ENDS, LEADING, TRAILING, *LEVELS]),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}, SAMPLERS["dpmpp_2m"], [*COUNTED_ON, *LEVELS]),
    "dpmpp_1m": ("DPMSolverMultistepScheduler", {"solver_order": 1}, SAMPLERS["ddim"], [*COUNTED_ON, *LEVELS]),
    "dpmpp_2m_sde": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        SAMPLERS["dpmpp_2m_sde"],
        [*COUNTED_ON, *LEVELS],
    ),
    "dpmpp_2s": (
        "DPMSolverSinglestepScheduler",
        {"lower_order_final": True},
        SAMPLERS["dpmpp_2s"],
        [COUNTED_ON[0], *LEVELS],
    ),
    "unipc": ("UniPCMultistepScheduler", {}, SAMPLERS["unipc"], [*COUNTED_ON, *LEVELS]),
    "deis": ("DEISMultistepScheduler", {}, SAMPLERS["deis"], TO_THE_FIRST_ENTRY),
    "deis 3": (
        "DEISMultistepScheduler",
        {"solver_order": 3},
        AdamsBashforth(deis_weights, 3, ratio_frame),
        TO_THE_FIRST_ENTRY,
    ),
}
CASES = [
    pytest.param(row, options, spacing, target, steps, id=f"{name}-{spaced}-{target}-{steps}")
    for name, row in ROWS.items()
    for spaced, options, spacing in row[3]
    for target, steps in (("eps", 16), ("eps", 21), ("v", 21), ("x_0", 16))
]


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # in diffusers' DEIS
@pytest.mark.parametrize(("row", "options", "spacing", "target", "steps"), CASES)
def test_samplers_and_spacings(row, options, spacing, target, steps):
    name, more, sampler, _ = row
    every = {**TABLE, **more, "prediction_type": NAMES[target], **options}
    if "timestep_spacing" in options and name == "DPMSolverSinglestepScheduler":
        every.pop("timestep_spacing")
    theirs = Theirs(name, every, {"num_inference_steps": steps})
    times = spacing(LATENT, steps, 16)
    rounded = 1.01 if "timestep_spacing" not in options else 1e-3
    torch.testing.assert_close(1000 * times[:-1] - 1, theirs.timesteps, atol=rounded, rtol=0)
    start = noise(LATENT, times)
    try:
        states = theirs.states(start / LATENT.alpha(times[0]).float() if theirs.exploding else start)
    except NotImplementedError:
        pytest.skip("diffusers lacks this target")
    if name == "UniPCMultistepScheduler":
        states = corrected(theirs, start)
    tolerance = 3e-4 if "DEIS" in name else 1e-4  # it works out its weights in float32
    close(ours(sampler, LATENT, target, times, start), states, LATENT if theirs.exploding else None, tolerance)


def corrected(theirs: Theirs, x: Tensor) -> list[Tensor]:
    """The states that diffusers' UniPC goes on from, and the last."""
    theirs.__post_init__()
    scheduler, states = theirs.scheduler, []
    for call, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(network(x, theirs._angle(call, timestep, x)), timestep, x).prev_sample
        states.append(scheduler.last_sample)
    return [*states[1:], x]


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("target", ["eps", "v", "x_0"])
@pytest.mark.parametrize(
    ("options", "spacing"),
    [
        ({"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1)),
        ({"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}, Leading(1, end=0.001)),
        ({"timestep_spacing": "leading"}, Leading(offset=0)),
        ({"timestep_spacing": "trailing"}, trailing),
    ],
)
def test_ddim(options, spacing, target, eta):
    every = {**TABLE, "clip_sample": False, "prediction_type": NAMES[target], **options}
    theirs = Theirs("DDIMScheduler", every, {"num_inference_steps": 20})
    times = spacing(LATENT, 20, 16)
    torch.testing.assert_close(1000 * times[:-1] - 1, theirs.timesteps, atol=1e-9, rtol=0)
    start = noise(LATENT, times)
    close(ours(Ancestral(eta), LATENT, target, times, start), theirs.states(start, eta=eta))


def test_ddim_of_diffusers_with_linspace_does_not_walk_to_where_it_looks_next():
    theirs = Theirs("DDIMScheduler", {**TABLE, "timestep_spacing": "linspace"}, {"num_inference_steps": 20})
    timesteps = theirs.timesteps
    assert timesteps[1] == 946  # where the network is called
    assert timesteps[0] - 1000 // 20 == 949  # where the first step leads


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_zero_terminal_snr(name):
    """Exactly with DDIM; the others take 4096 for an infinite sigma / alpha."""
    path = Discrete(zero_terminal_snr(scaled_linear_betas()))
    every = {**TABLE, "prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    theirs = Theirs(name, {**every, **({"clip_sample": False} if name[1] == "D" else {})}, {"num_inference_steps": 20})
    times = trailing(path, 20, 16)
    assert float(path.alpha(times[0])) == 0
    start = normal(*SHAPE, dtype=torch.float32)
    alpha = 1 / math.hypot(1, 4096)
    states = theirs.states(start / alpha if theirs.exploding else start)
    sampler = SAMPLERS["dpmpp_2m"] if name[1] == "P" else SAMPLERS["euler"]
    steps = ours(sampler, path, "v", times, start)
    close(steps, states, path if theirs.exploding else None, 1e-4 if name[1] == "D" else 2e-3)


def nothing(steps: int) -> dict:
    return {}


FLOWS: dict[str, tuple[str, dict, Callable[[int], dict], Sampler, Spacing]] = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}, nothing, SAMPLERS["euler"], Linspace()),
    "euler, shift": (  # as Stable Diffusion 3: the last time is shifted when made, and again with the others
        "FlowMatchEulerDiscreteScheduler",
        {"shift": 3.0},
        nothing,
        SAMPLERS["euler"],
        Shifted(3.0, Linspace(last=0.003 / 1.002)),
    ),
    "euler, shift with resolution": (  # as Flux
        "FlowMatchEulerDiscreteScheduler",
        {"use_dynamic_shifting": True},
        lambda steps: {"sigmas": [1 - n / steps for n in range(steps)], "mu": 0.5 + 0.65 * (1024 - 256) / 3840},
        SAMPLERS["euler"],
        ResolutionShifted(),
    ),
    "euler, linear shift with resolution": (
        "FlowMatchEulerDiscreteScheduler",
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        lambda steps: {"sigmas": [1 - n / steps for n in range(steps)], "mu": 0.5 + 0.65 * (1024 - 256) / 3840},
        SAMPLERS["euler"],
        ResolutionShifted(scale=float),
    ),
    "euler, karras": (
        "FlowMatchEulerDiscreteScheduler",
        {"use_karras_sigmas": True},
        nothing,
        SAMPLERS["euler"],
        Karras(),
    ),
    "euler, exponential": (
        "FlowMatchEulerDiscreteScheduler",
        {"use_exponential_sigmas": True},
        nothing,
        SAMPLERS["euler"],
        Exponential(),
    ),
    "euler, beta": ("FlowMatchEulerDiscreteScheduler", {"use_beta_sigmas": True}, nothing, SAMPLERS["euler"], Beta()),
    "stochastic": (  # which jumps to the data and adds fresh noise
        "FlowMatchEulerDiscreteScheduler",
        {"stochastic_sampling": True},
        nothing,
        SAMPLERS["lcm"],
        Linspace(),
    ),
    "heun": ("FlowMatchHeunDiscreteScheduler", {}, nothing, SAMPLERS["heun"], Linspace()),
    "heun, shift": (
        "FlowMatchHeunDiscreteScheduler",
        {"shift": 3.0},
        nothing,
        SAMPLERS["heun"],
        Shifted(3.0, Linspace(last=0.003 / 1.002)),
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_flow_matching(name):
    scheduler, options, setting, sampler, spacing = FLOWS[name]
    steps, path, start = 12, Straight(), normal(*SHAPE, dtype=torch.float32)
    setting = setting(steps)
    theirs = Theirs(scheduler, options, setting if "sigmas" in setting else {"num_inference_steps": steps})
    times = spacing(path, steps, 4 * 1024)
    torch.testing.assert_close(times[:-1].float(), theirs.timesteps.float() / 1000, atol=1e-6, rtol=1e-5)
    close(ours(sampler, path, "flow", times, start), theirs.states(start))


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # in diffusers' DEIS
@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize(
    ("name", "sampler", "options"),
    [
        ("DPMSolverMultistepScheduler", "dpmpp_2m", {}),
        ("DPMSolverMultistepScheduler", "dpmpp_2m_sde", {"algorithm_type": "sde-dpmsolver++"}),
        ("DPMSolverSinglestepScheduler", "dpmpp_2s", {"lower_order_final": True}),
        ("UniPCMultistepScheduler", "unipc", {}),
        ("DEISMultistepScheduler", "deis", {}),
    ],
)
def test_solvers_in_log_snr_on_the_straight_path(name, sampler, options, shift):
    """Wan's and Sana's choice. All start a little below t = 1, and DEIS ends by a step of no length, left out here."""
    steps, path = 16, Straight()
    every = {"use_flow_sigmas": True, "flow_shift": shift, "prediction_type": "flow_prediction", **options}
    theirs = Theirs(name, every, {"num_inference_steps": steps})
    base = Linspace(spare=1) if sampler == "unipc" else from_0_999
    times = Shifted(shift, base)(path, steps, 1)
    times = times[:-1] if sampler == "deis" else times.clamp(max=1 - 1e-6)
    torch.testing.assert_close(times.float(), theirs.scheduler.sigmas[: len(times)], atol=1e-6, rtol=1e-5)
    start = noise(path, times)
    states = corrected(theirs, start) if sampler == "unipc" else theirs.states(start)
    close(ours(SAMPLERS[sampler], path, "flow", times, start), states[: len(times) - 1])


def from_0_999(path: Path, steps: int, latents: int) -> Tensor:
    return torch.linspace(0.999, 0, steps + 1, dtype=torch.float64)


def test_edm():
    """Karras' preconditioning and spacing, with Euler and DPM++ 2M."""
    path, steps = VarianceExploding(80.0), 18
    times = Karras(largest=80.0, smallest=0.002)(path, steps, 1)

    def scale(path: Path, t: Tensor) -> Tensor:  # c_in
        return 1 / (path.sigma(t).square() + 0.25).sqrt()

    for name, sampler in {"EDMEulerScheduler": "euler", "EDMDPMSolverMultistepScheduler": "dpmpp_2m"}.items():
        theirs = Theirs(name, {"sigma_data": 0.5}, {"num_inference_steps": steps})
        torch.testing.assert_close(path.sigma(times).float(), theirs.scheduler.sigmas, atol=1e-6, rtol=1e-5)
        start = x = 80 * normal(*SHAPE, dtype=torch.float32)
        states = []
        for sigma, timestep in zip(theirs.scheduler.sigmas, theirs.scheduler.timesteps, strict=False):
            output = network(theirs.scheduler.scale_model_input(x, timestep), torch.atan(sigma.double()))
            x = theirs.scheduler.step(output, timestep, x).prev_sample
            states.append(x)
        assert TARGETS["karras"] == KarrasTarget(0.5)
        close(ours(SAMPLERS[sampler], path, "karras", times, start, scale=scale), states)


def test_lcm():
    """diffusers blends a little of x_t in (c_skip of arXiv:2310.04378), under 1e-5 above timestep 20."""
    theirs = Theirs("LCMScheduler", {**TABLE, "clip_sample": False}, {"num_inference_steps": 4})
    times = torch.cat([(theirs.timesteps + 1) / 1000, torch.zeros(1, dtype=torch.float64)])
    assert torch.equal(Listed(tuple(times.tolist()))(LATENT, 4, 1), times)
    start = noise(LATENT, times)
    close(ours(SAMPLERS["lcm"], LATENT, "eps", times, start), theirs.states(start))


def test_improved_pndm():
    """Its network tells v on the cosine path. Its first step, from pure noise, loses x_0 to a rounded 0 / 0."""
    path = Cosine()
    theirs = Theirs("IPNDMScheduler", {}, {"num_inference_steps": 12})
    scheduler, timesteps = theirs.scheduler, theirs.scheduler.timesteps[1:]
    scheduler.set_begin_index(1)
    times = torch.cat([timesteps.double(), torch.zeros(1, dtype=torch.float64)])
    start = x = normal(*SHAPE, dtype=torch.float32)
    states = []
    for timestep in timesteps:
        x = scheduler.step(network(x, timestep.double() * math.pi / 2), timestep, x).prev_sample
        states.append(x)
    close(ours(SAMPLERS["ipndm"], path, "v", times, start), states)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50])
@pytest.mark.parametrize(
    ("options", "spacing"),
    [
        ({"steps_offset": 1}, ToFirst(Leading())),  # as Stable Diffusion 1.5 has it
        ({"steps_offset": 1, "set_alpha_to_one": True}, Leading()),
        ({"set_alpha_to_one": True}, Leading(offset=0)),
        ({"timestep_spacing": "trailing"}, ToFirst(trailing)),
    ],
)
def test_pndm(options, spacing, steps):
    """Its first two calls, at both ends of the first step, are one step here. Trailing steps are of 1000 // steps."""
    if 1000 % steps and spacing == ToFirst(trailing):
        pytest.skip("it does not walk to where it looks next")
    theirs = Theirs("PNDMScheduler", {**TABLE, "skip_prk_steps": True, **options}, {"num_inference_steps": steps})
    assert len(theirs.timesteps) == (steps + 1 if steps > 1 else 1)
    times = spacing(LATENT, steps, 16)
    start = noise(LATENT, times)
    states = theirs.states(start)
    close(ours(SAMPLERS["pndm"], LATENT, "eps", times, start), states[1:] if steps > 1 else states, tolerance=1e-5)


def test_third_order():
    """The authors' code and diffusers leave half of the last term away: alpha_s (phi_2 / h - 1/2) D_2.

    Their second step, without enough past for the third order, is by the midpoint rule instead of phi_2, so that what
    is compared is how far the third step goes. Both sides are told the same x_0s.
    """
    told = [normal(*SHAPE, seed=n) for n in range(6)]

    class Telling(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
            return told[int((times == timestep[0]).nonzero())]

    options = {"solver_order": 3, "prediction_type": "sample", "use_exponential_sigmas": True}
    theirs = Theirs("DPMSolverMultistepScheduler", {**TABLE, **options}, {"num_inference_steps": 6})
    times, start = Exponential()(LATENT, 6, 1), normal(*SHAPE)
    denoiser = NetworkDenoiser(Telling(), LATENT, TARGETS["x_0"], timestep=lambda t: t)
    steps = [step.x_t for step in walk(DpmppMultistep(order=3), denoiser, start, times)]
    states = [start]
    for output, timestep in zip(told, theirs.scheduler.timesteps, strict=True):
        states.append(theirs.scheduler.step(output, timestep, states[-1]).prev_sample)
    torch.testing.assert_close(steps[1], states[1], atol=1e-5, rtol=1e-5)

    sigmas = LATENT.sigma(times)
    ours_goes, theirs_goes = (x[3] - sigmas[3] / sigmas[2] * x[2] for x in (steps, states))
    l_0, l_1, l_2, l_3 = LATENT.half_log_snr(times[:4])
    h = l_3 - l_2
    first, second = (told[1] - told[0]) * h / (l_1 - l_0), (told[2] - told[1]) * h / (l_2 - l_1)
    half = -LATENT.alpha(times[3]) * ((torch.expm1(-h) / h + 1) / h - 0.5) * (second - first) / ((l_2 - l_0) / h)
    torch.testing.assert_close(ours_goes, theirs_goes + half, atol=1e-5, rtol=1e-5)
    assert float(half.abs().max()) > 0.01
