"""Whose rules hold: programs disagree on what the same settings mean, and a picture is made again by its own program's.

They differ in where noise comes from, in what the walk starts with, in how many steps a strength walks, in which times
a spacing's name means, in the timesteps that a network is told, and in how prompts are read. Each rule was read in the
program's published code: diffusers 0.42, AUTOMATIC1111's web UI 1.10 (modules/rng.py, rng_philox.py, sd_schedulers.py,
sd_samplers_*.py), ComfyUI 0.3 (comfy/sample.py, samplers.py, model_sampling.py, k_diffusion/sampling.py).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import Tensor

from triptych.drawing import Alone, Drawing, Drawn, Together
from triptych.engine import counting
from triptych.engine.denoiser import Denoiser, NetworkDenoiser
from triptych.engine.frame import Frame
from triptych.engine.path import Discrete, Path
from triptych.engine.samplers import SAMPLERS, Sampler
from triptych.engine.samplers.dpmpp import DpmppMultistep
from triptych.engine.spacing import SPACINGS, Spacing
from triptych.errors import InvalidField
from triptych.types import Request

__all__ = ["PROFILES", "Profile", "counted", "drawing", "profile", "sampler", "spacing"]


def unit(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """The spread of x_t for data of unit variance: one on a variance-preserving path."""
    return torch.hypot(path.alpha(t), path.sigma(t))


def noise_alone(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """sigma: x_t of data that are nothing."""
    return path.sigma(t)


def either(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """As diffusers' `init_noise_sigma`: sigma in classes that walk sigma / alpha, on spacings that reach its end."""
    at_the_end = sampler in RATIO_WALKERS and spacing in ("linspace", "trailing")
    return (noise_alone if at_the_end else unit)(path, t, sampler, spacing)


def by_kind(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """As the web UI: sigma, but for samplers that count timesteps the noise as it is drawn."""
    return (unit if sampler in TIMESTEP_WALKERS else noise_alone)(path, t, sampler, spacing)


def at_most(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """As ComfyUI's `max_denoise`: sigma, but one where the path's largest sigma / alpha is, to a hundred thousandth."""
    clock, largest = (Frame(path, ratio=True).clock(each) for each in (t, torch.ones_like(t)))
    return (unit if bool(clock >= largest * (1 - 1e-5)) else noise_alone)(path, t, sampler, spacing)


RATIO_WALKERS = ("euler", "euler_ancestral", "heun", "dpm2", "dpm2_ancestral", "lms")
TIMESTEP_WALKERS = ("ddim", "pndm", "unipc")


def whole_steps(steps: int, strength: float) -> int:
    """The whole steps within this share of the path."""
    return min(int(steps * strength), steps)


def one_more(steps: int, strength: float) -> int:
    """One more than the whole steps within this share, which is never all."""
    return int(min(strength, 0.999) * steps) + 1


EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
SDE = ("dpmpp_2m_sde", "dpmpp_3m_sde")


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one program.

    reading: the name of its rules for prompts; noise: what draws as asked; spread: what the first noise is multiplied
    by, from (path, t (), sampler, spacing); walked: (steps, strength) to steps; sampled: whether the latents of an init
    are a sample of the posterior, drawn before all other noise, or else its mean; held: whether what is kept of a
    picture is kept for a network, too, that sees it; blank: whether a whole walk starts from noise alone where an init
    may change. spacings: times that are others by the same name; own: those of samplers that heed no name; skipping:
    samplers that leave out the last time but one; samplers: those that are others by the same name; moving: those whose
    noise is one motion's; told: a path to the rule by which a time becomes the one that a network is told.
    """

    reading: str
    noise: Callable[[Drawing], Drawn] = Alone
    spread: Callable[[Path, Tensor, str | None, str | None], Tensor] = unit
    walked: Callable[[int, float], int] = whole_steps
    sampled: bool = False
    held: bool = True
    blank: bool = True
    spacings: Mapping[str, Spacing] = field(default_factory=lambda: EMPTY)
    own: Mapping[str, Spacing] = field(default_factory=lambda: EMPTY)
    skipping: Sequence[str] = ()
    samplers: Mapping[str, Sampler] = field(default_factory=lambda: EMPTY)
    moving: Sequence[str] = ()
    told: Callable[[Path], Callable[[Tensor], Tensor]] | None = None


K_DIFFUSION: Final[Mapping[str, Sampler]] = MappingProxyType(
    {"dpmpp_3m_sde": DpmppMultistep(order=3, eta=1.0, last=0.5)}
)
BETWEEN: Final[Mapping[str, Spacing]] = MappingProxyType(
    {
        "linspace": counting.Counted(),
        "sgm_uniform": counting.Counted(spare=1),
        "ddim_uniform": counting.every,
    }
)

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "native": Profile("a1111"),
        "diffusers": Profile("none", spread=either, sampled=True, held=False),
        "a1111": Profile(
            "a1111",
            noise=partial(Alone, source="gpu"),
            spread=by_kind,
            walked=one_more,
            blank=False,
            spacings={
                **BETWEEN,
                "kl_optimal": counting.optimal_to_the_first,
                "align_your_steps": counting.tabled(
                    *(14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
                ),
                "align_your_steps_xl": counting.tabled(
                    *(14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
                ),
            },
            own={"ddim": counting.every_but_the_first, "pndm": counting.every_but_the_first},
            skipping=("dpm2", "dpm2_ancestral", "dpmpp_3m_sde"),
            samplers=K_DIFFUSION,
            moving=SDE,
            told=counting.between_entries,
        ),
        "comfy": Profile(
            "comfy",
            noise=Together,
            spread=at_most,
            blank=False,
            spacings={**BETWEEN, "beta": counting.quantiles},
            skipping=("dpm2", "dpm2_ancestral", "unipc"),
            samplers=K_DIFFUSION,
            moving=SDE,
            told=counting.nearest_entries,
        ),
    }
)


def profile(name: str | None) -> Profile:
    """The rules of this name; ours without one."""
    return PROFILES[name or "native"]


def spacing(
    rules: Profile, request: Request, usual: Spacing, shifted: Callable[[Spacing], Spacing] = lambda named: named
) -> Spacing:
    """The times that the request's words mean; usual: those of a model where it says nothing; shifted: what a model
    makes of named ones."""
    name = request.sampler or ""
    found = usual if request.spacing is None else shifted(SPACINGS[request.spacing])
    found = rules.own.get(name) or rules.spacings.get(request.spacing or "") or found
    return counting.Skipping(found) if name in rules.skipping else found


def sampler(rules: Profile, name: str) -> Sampler:
    """The sampler of this name, which is one of SAMPLERS."""
    return rules.samplers.get(name) or SAMPLERS[name]


def counted(denoiser: Denoiser, rules: Profile) -> Denoiser:
    """The denoiser whose network is told times as the program counts them, on a path of a table."""
    if rules.told is None or not isinstance(denoiser, NetworkDenoiser) or not isinstance(denoiser.path, Discrete):
        return denoiser
    told, timestep = rules.told(denoiser.path), denoiser.timestep
    return NetworkDenoiser(
        denoiser.network, denoiser.path, denoiser.target, lambda t: timestep(told(t)), scale=denoiser.scale
    )


def drawing(request: Request, factor: Sequence[int]) -> Drawing:
    """What a request with a seed says of noise; factor: samples per latent, per axis. Raises InvalidField."""
    said, seed = request.options, request.seed or 0
    source = said.get("noise")
    return Drawing(
        [seed + n for n in range(request.count)],
        None if source == "auto" else source,
        said.get("noise_delta") or 0,
        (said.get("variation_seed") or 0, said.get("variation_strength") or 0.0),
        _size(said.get("noise_size"), factor),
    )


def _size(said: str | None, factor: Sequence[int]) -> tuple[int, ...] | None:
    """WIDTHxHEIGHT in samples to latents (H, W)."""
    if not said:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", said)
    size = tuple(int(part) // n for part, n in zip(found.groups()[::-1], factor, strict=True)) if found else ()
    if not size or min(size) < 1:
        raise InvalidField("noise_size", said, "WIDTHxHEIGHT", "Say the size of the picture whose noise it is.")
    return size
