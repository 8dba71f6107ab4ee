"""A model and its one loop: prompt to conditioning, seed to noise, noise along the path to latents, latents to samples.

Everything that a request may say about the walk is composed here out of the engine's parts, and nothing about files.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from triptych.drawing import Drawing, Drawn, along, begin
from triptych.engine.codec import Codec, latent_shape
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, NetworkDenoiser, v_target
from triptych.engine.guidance import (
    GUIDANCES,
    ClassifierFree,
    Interval,
    Keep,
    Rescaled,
    rows,
    tensors,
    unguided,
)
from triptych.engine.samplers import SAMPLERS, Sampler, Step
from triptych.engine.spacing import SPACINGS, Spacing, uniform
from triptych.errors import BrokenResult, InvalidField, NotFinite, UnknownName
from triptych.profiles import PROFILES, Profile, counted, drawing, profile, sampler, spacing
from triptych.types import Card, Request

__all__ = ["Encoder", "Guide", "Model", "Script", "decode", "generate", "prepared", "walked"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """A prompt that changes on the way: conditionings, each told from a step on, counted from 0; the first from there.

    Steps are those of the whole path; one that is not walked is told nothing.
    """

    turns: tuple[tuple[int, Conditioning], ...]
    then: "tuple[float, Script] | None" = None  # from a time down, another script

    def later(self, times: Tensor) -> list[tuple[float, Conditioning]]:
        """All but the first turn by the time that they begin at, in falling order; times: of the path (steps + 1,)."""
        begun = [(float(times[min(step, len(times) - 1)]), cond) for step, cond in self.turns]
        if self.then is None:
            return begun[1:]
        over, script = self.then
        after = [(over, script.turns[0][1]), *((min(t, over), cond) for t, cond in script.later(times))]
        return [(t, cond) for t, cond in begun[1:] if t > over] + after


class Encoder(Protocol):
    """A prompt, and whatever else of the request the network is told, to a conditioning of batch 1, or to several.

    The conditioning lies on the device where the denoiser runs; `generate` repeats it for every sample.
    """

    def __call__(self, request: Request, prompt: str, **seen: Tensor) -> Conditioning | Script:
        """seen: of a model whose network sees its init, `init`, samples (1, c, *S), and `mask`, if there are any."""
        ...


Guide = Callable[[Denoiser, float, Conditioning], Denoiser]
"""(denoiser, guidance scale, conditioning of the negative prompt) -> the denoiser that is sampled from."""


def told_scale(request: Request) -> float | None:
    """How much to guide, as the request says it."""
    return request.guidance_scale


def as_it_is(spacing: Spacing) -> Spacing:
    """The spacing itself."""
    return spacing


@final
@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """All that `generate` needs to know. guide: `unguided` for distilled models, which are told the scale instead.

    scale: how much to guide; shifted: a spacing that a request names to the model's own; walked: (steps, strength) to
    steps, where a model's rule is not its program's.

    init: what an init is: where the walk starts ("start"); that, and the network sees it and its mask ("seen"), or sees
    it as it is, beside x_t, and no mask ("beside"); or the first member of a sequence, which the network sees and which
    is kept ("first"). moments: samples to the mean and the deviation of the codec's posterior, of a codec that has one.
    prepare: what a request changes of the model; plan: what of it comes into memory when; warnings: what of it came to
    nothing; files: which it was read from; see `prepared`.
    """

    card: Card
    encoder: Encoder
    denoiser: Denoiser
    codec: Codec
    spacing: Spacing = uniform
    guide: Guide = ClassifierFree
    scale: Callable[[Request], float | None] = told_scale
    shifted: Callable[[Spacing], Spacing] = as_it_is
    walked: Callable[[int, float], int] | None = None
    init: Literal["start", "seen", "beside", "first"] = "start"
    moments: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    prepare: "Prepare | None" = None
    plan: Callable[[Request], str] | None = None
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


Prepare = Callable[[Model, Request, Mapping[str, Tensor]], Model]
"""(model, request, hints by the names of its inputs) -> the model for that request alone."""


def prepared(model: Model, request: Request, hints: Mapping[str, Tensor]) -> Model:
    """The model with what the request adds to it: changed weights, networks that see hints (1, c, *S) in [0, 1].

    It holds until the next request is prepared. Raises InvalidField, WeightsError.
    """
    return model if model.prepare is None else model.prepare(model, request, hints)


def generate(
    model: Model,
    request: Request,
    init: Tensor | None = None,
    mask: Tensor | None = None,
    strength: float | None = None,
) -> Iterator[Step]:
    """Walks the path: a `Step` before each move and one for the result, whose x_t is what `decode` takes.

    request: resolved by the model's card, with a seed. Its options may hold guidance (a name of GUIDANCES, its knobs
    as guidance_KNOB), guidance_rescale, guidance_start and guidance_stop (shares of the path, from the noise on), and
    the sampler's eta; what the chosen one does not take is refused, so cards leave the defaults of knobs None.
    init: samples (1 or count, c, *samples) in [-1, 1] to start from, or those (1, c, *S) that the network is shown.
    mask: (1 or count, 1, *samples) in [0, 1], 1 where the init may change. strength: the share of the path that is
    walked; None: the request's.
    Closing the generator stops the walk. Raises InvalidField and UnknownName at once, NotFinite on the way.
    """
    _said("seed", request.seed)
    steps = _said("steps", request.steps)
    if request.spacing is not None and request.spacing not in SPACINGS:
        raise UnknownName("spacing", request.spacing, SPACINGS)
    _check_guidance(request)
    seen = {name: x for name, x in (("init", init), ("mask", mask)) if x is not None}
    if model.init == "first" and init is not None:
        init, mask, strength = init.unsqueeze(2), _rest(model.card.lengths(request)), 1.0
    _check_samples(model, request, init, mask)
    if model.init != "start":
        model = replace(model, encoder=_seeing(model.encoder, seen))
    share = _share(request, init, strength)
    rules = profile(request.options.get("profile"))
    asked = drawing(request, model.codec.scale_factor)
    walk = _Walk(steps, walked(steps, share, rules, model.walked), _sampler(request, rules), rules, asked)
    return _walk(model, request, walk, init, mask)


def walked(
    steps: int,
    strength: float,
    rules: Profile = PROFILES["native"],
    own: Callable[[int, float], int] | None = None,
) -> int:
    """How many of these steps are walked within this share of the path; own: a model's rule. Raises InvalidField."""
    count = (own or rules.walked)(steps, strength)
    if count < 1:
        raise InvalidField("strength", strength, f"{1 / steps:g} or more with {steps} steps", "Or take more steps.")
    return count


def _seeing(encoder: Encoder, seen: Mapping[str, Tensor]) -> Encoder:
    """The encoder, told of what the network sees."""

    def told(request: Request, prompt: str, **more: Tensor) -> Conditioning | Script:
        return encoder(request, prompt, **seen)

    return told


LEAST = 2 / 255  # peak to peak, one level of 8 bits: below it a file would hold nothing


@torch.no_grad()
def decode(model: Model, latents: Tensor) -> Tensor:
    """Latents (B, C, *latents) to samples (B, c, *samples), about [-1, 1]. Raises NotFinite, BrokenResult."""
    samples = model.codec.decode(latents.float()).float()
    if not bool(torch.isfinite(samples).all()):
        raise NotFinite("decoding", advice="Try --dtype float32: some codecs overflow in float16.")
    low, high = samples.flatten(1).amin(1).tolist(), samples.flatten(1).amax(1).tolist()
    for number, (least, most) in enumerate(zip(low, high, strict=True), 1):
        if most - least < LEAST:
            raise BrokenResult(
                f"sample {number} of {len(low)} is {least:.3f} from end to end: nothing to see or hear. "
                "Try another seed, a lower guidance_scale or --dtype float32."
            )
    return samples


def _rest(lengths: Sequence[int]) -> Tensor:
    """The mask (1, 1, *lengths) that keeps the first member of a sequence."""
    mask = torch.ones(1, 1, *lengths)
    mask[:, :, 0] = 0
    return mask


@final
@dataclass(frozen=True, slots=True)
class _Walk:
    steps: int  # of the whole path
    walked: int  # the last of them
    sampler: Sampler
    rules: Profile
    noise: Drawing


@torch.no_grad()
def _walk(model: Model, request: Request, walk: _Walk, init: Tensor | None, mask: Tensor | None) -> Iterator[Step]:
    path, shape = model.denoiser.path, latent_shape(model.codec, model.card.lengths(request))
    model = replace(model, denoiser=counted(model.denoiser, walk.rules))
    whole = spacing(walk.rules, request, model.spacing, model.shifted)(path, walk.steps, math.prod(shape[1:]))
    whole_walk = walk.walked == walk.steps
    times, tell = whole if whole_walk else whole[-walk.walked - 1 :], partial(_told, model, request, whole)
    cond = tell(request.prompt)
    device = next((tensor.device for tensor in tensors(cond)), torch.device("cpu"))
    noise, denoiser = walk.rules.noise(walk.noise), _guided(model, request, tell)
    held = model.init != "seen" or walk.rules.held
    if mask is not None and not held:
        # The network alone sees it. Where a path ends in noise alone, the init's sample is drawn all the same.
        init, mask = None if whole_walk and path.alpha(times[0]) > 0 else init, None
    elif model.init == "beside" and whole_walk and mask is None:
        init = None
    drawn = noise if walk.rules.sampled and model.init != "beside" else None
    encoded = None if init is None else _encoded(model, init.to(device), drawn, shape)
    eps = begin(walk.noise, noise, shape).to(device)
    x_t = walk.rules.spread(path, times[0].double(), request.sampler, request.spacing).float() * eps
    if encoded is not None:
        known = encoded.expand_as(eps)
        start = path.perturb(known, eps, times[0]) if walk.rules.blank else path.alpha(times[0]) * known + x_t
        free = None if mask is None else _shrunk(mask.to(device), shape[1:])
        # A whole walk keeps nothing of the init where it may change; a part of it starts from the init everywhere.
        blank = None if not whole_walk or not walk.rules.blank else free
        x_t = start if blank is None else torch.lerp(start, x_t, blank.expand_as(x_t))
        denoiser = denoiser if free is None else Keep(denoiser, known, free)
    moving = request.sampler in walk.rules.moving
    anew = along(noise, path, times, shape) if moving else noise
    for number, step in enumerate(walk.sampler(denoiser, x_t, times, cond, anew), 1):
        if not bool(torch.isfinite(step.x_t).all() & torch.isfinite(step.prediction.x_0).all()):
            advice = "Try --dtype float32, a lower guidance_scale or sampler euler."
            raise NotFinite("sampling", min(number, walk.walked), advice)
        yield step


def _said(name: str, value: int | None) -> int:
    if value is None:
        raise InvalidField(name, None, "a whole number", "Resolve the request by the model's card, and choose a seed.")
    return value


def _told(model: Model, request: Request, times: Tensor, prompt: str) -> Conditioning:
    """What a prompt tells every sample; of a script, by times of the whole path (steps + 1,)."""
    found = model.encoder(request, prompt)
    if isinstance(found, Script):
        found = replace(found.turns[0][1], later=tuple(found.later(times)))
    return rows(found, torch.zeros(request.count, dtype=torch.long))


def _encoded(model: Model, init: Tensor, noise: Drawn | None, shape: Sequence[int]) -> Tensor:
    """The latents of an init: where noise is given and the codec has a posterior, a sample of it, else its mean."""
    if noise is None or model.moments is None:
        return model.codec.encode(init).float()
    mean, deviation = model.moments(init)
    return (mean + deviation * noise.draw(shape).to(mean)).float()


def _shrunk(mask: Tensor, latents: Sequence[int]) -> Tensor:
    """(B, 1, *samples) to (B, 1, *latents): the share of each latent's samples that may change."""
    return interpolate(mask.float(), tuple(latents), mode="area")


def _guided(model: Model, request: Request, tell: Callable[[str], Conditioning]) -> Denoiser:
    """The model's denoiser under all the guidance that the request asks for."""
    scale, options = model.scale(request), request.options
    name, phi = options.get("guidance"), options.get("guidance_rescale") or 0.0
    if scale is None or scale == 1 or (name is None and model.guide is unguided):
        return model.denoiser
    uncond = tell(request.negative_prompt or "")
    if name is None and not phi:
        guided = model.guide(model.denoiser, scale, uncond)
    else:
        entry = GUIDANCES[name or "cfg"]
        given = {knob: options.get(f"guidance_{knob}") for knob in entry.knobs}
        knobs = {knob: value for knob, value in given.items() if value is not None}
        if entry.empty:
            knobs["empty"] = tell("")
        named = entry.build(model.denoiser, scale, uncond, **knobs)
        target = model.denoiser.target if isinstance(model.denoiser, NetworkDenoiser) else v_target
        guided = Rescaled(named, phi, target) if phi else named
    start, stop = _interval(request)
    return guided if (start, stop) == (0, 1) else Interval(guided, model.denoiser, start, stop)


def _interval(request: Request) -> tuple[float, float]:
    """The times where guidance acts; the request gives shares of the path already walked, which run the other way."""
    first, last = request.options.get("guidance_start") or 0.0, request.options.get("guidance_stop")
    last = 1.0 if last is None else last
    if not 0 <= first < last <= 1:
        allowed = "0 <= guidance_start < guidance_stop <= 1"
        raise InvalidField("guidance_start", first, allowed, f"guidance_stop is {last:g}.")
    return 1 - last, 1 - first


def _check_guidance(request: Request) -> None:
    name = request.options.get("guidance") or "cfg"
    if name not in GUIDANCES:
        raise UnknownName("guidance", name, GUIDANCES)
    for other, entry in GUIDANCES.items():
        for key in (f"guidance_{knob}" for knob in entry.knobs if knob not in GUIDANCES[name].knobs):
            if request.options.get(key) is not None:
                raise InvalidField(key, request.options[key], f"none with guidance {name}", f"It belongs to {other}.")
    if request.options.get("guidance_rescale") and not GUIDANCES[name].rescalable:
        raise InvalidField("guidance_rescale", request.options["guidance_rescale"], f"0 with guidance {name}")
    _interval(request)


def _check_samples(model: Model, request: Request, init: Tensor | None, mask: Tensor | None) -> None:
    whole = model.card.lengths(request)
    for name, given, lengths in (
        ("init", init, (1, *whole[1:]) if model.init == "first" else whole),
        ("mask", mask, whole),
    ):
        if given is not None and (tuple(given.shape[2:]) != lengths or given.shape[0] not in (1, request.count)):
            allowed = f"1 or {request.count} of {' x '.join(map(str, lengths))} samples"
            raise InvalidField(name, tuple(given.shape), allowed, "Crop or resize it.")
    if mask is None:
        return
    if init is None:
        raise InvalidField("mask", tuple(mask.shape), "none without an init", "Give what is to be kept as init.")
    if mask.shape[1] != 1 or not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InvalidField("mask", tuple(mask.shape), "one channel of numbers in [0, 1], 1 where the init may change")


def _share(request: Request, init: Tensor | None, strength: float | None) -> float:
    share = request.strength if strength is None else strength
    if init is None and share not in (None, 1):
        raise InvalidField("strength", share, "1 without an init", "Give an init to start from.")
    share = 1.0 if share is None else share
    if not 0 <= share <= 1:
        raise InvalidField("strength", share, "0 to 1")
    return share


def _sampler(request: Request, rules: Profile) -> Sampler:
    """The sampler of the request's name, with the eta that its options set."""
    name = request.sampler or "euler"
    if name not in SAMPLERS:
        raise UnknownName("sampler", name, SAMPLERS)
    found, eta = sampler(rules, name), request.options.get("eta")
    if eta is None:
        return found
    if not _has_eta(found):
        owners = ", ".join(name for name, each in SAMPLERS.items() if _has_eta(each))
        raise InvalidField("eta", eta, f"none with sampler {name}", f"Those that draw noise take it: {owners}.")
    return replace(found, eta=eta)  # type: ignore[type-var]  # a dataclass, as _has_eta has seen


def _has_eta(sampler: Sampler) -> bool:
    return is_dataclass(sampler) and any(field.name == "eta" for field in fields(sampler))
