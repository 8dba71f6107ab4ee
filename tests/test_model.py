"""The one loop, on a small real network over one, two and three axes."""

import ast
import importlib.util
import math
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.engine import path as paths
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, NetworkDenoiser, Prediction, broadcast, flow_target, v_target
from triptych.engine.guidance import (
    GUIDANCES,
    ClassifierFree,
    Interval,
    PerpendicularNegative,
    Projected,
    Rescaled,
    unguided,
)
from triptych.engine.path import Cosine, Discrete, Linear, Straight, VarianceExploding, scaled_linear_betas
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import SPACINGS, Shifted, uniform
from triptych.errors import BrokenResult, InvalidField, NotFinite, RequestError, UnknownName
from triptych.model import Model, Script, decode, generate, walked
from triptych.types import Axis, Card, Field, Request

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AXES = {
    1: (Axis("duration", 2, 1, 8, rate=16, multiple=4),),
    2: (Axis("height", 32, 8, 64, multiple=4), Axis("width", 24, 8, 64, multiple=4)),
    3: (
        Axis("duration", 1, 1, 4, rate=8, multiple=4),
        Axis("height", 16, 8, 64, multiple=4),
        Axis("width", 12, 8, 64, multiple=4),
    ),
}
FIELDS = {
    "prompt": Field("str", minimum=1),
    "negative_prompt": Field("str", default=""),
    "seed": Field("int", minimum=0),
    "count": Field("int", default=1, minimum=1),
    "steps": Field("int", default=6, minimum=1),
    "guidance_scale": Field("float", default=3.0, minimum=1),
    "sampler": Field("str", default="euler", choices=tuple(SAMPLERS)),
    "spacing": Field("str"),
    "strength": Field("float", default=0.7),
    "init": Field("artifact"),
    "guidance": Field("str"),
    **{f"guidance_{name}": Field("float") for name in ("rescale", "start", "stop")},
    **{f"guidance_{knob}": Field("float") for entry in GUIDANCES.values() for knob in entry.knobs},
    "eta": Field("float"),
}


def card(rank: int = 2) -> Card:
    return Card("toy", "toy", {1: "audio", 2: "image", 3: "video"}[rank], AXES[rank], FIELDS, "MIT")


@dataclass
class Letters:
    """Each letter of the prompt is a token; it remembers what it was asked."""

    asked: list[str] = field(default_factory=list)

    def __call__(self, request: Request, prompt: str) -> Conditioning:
        self.asked.append(prompt)
        ids = torch.tensor([[*prompt.encode()[:8], *[0] * (8 - len(prompt.encode()[:8]))]])
        tokens = torch.sin(ids[..., None] * torch.arange(1, 7))
        return Conditioning(tokens=tokens, vector=tokens.mean(1))


class Network(nn.Module):
    """Convolutions, a norm over groups and attention to the tokens: what batches could mix up."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(rank)
        self.enter, self.leave = CONV[rank](3, 16, 3, padding=1), CONV[rank](16, 3, 3, padding=1)
        self.norm, self.vector, self.tokens = nn.GroupNorm(4, 16), nn.Linear(6, 16), nn.Linear(6, 16)

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        shift = self.vector(cond.vector) + timestep[:, None] / 1000
        h = self.norm(self.enter(x)).flatten(2) + shift[..., None]
        keys = self.tokens(cond.tokens)
        h = h + (torch.einsum("bcn,blc->bnl", h, keys).softmax(-1) @ keys).mT
        return self.leave(functional.silu(h).unflatten(2, x.shape[2:])) + x


@dataclass(frozen=True)
class Coarse:
    """Four samples a latent along each axis."""

    rank: int
    channels: int = 3

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return (4,) * self.rank

    def encode(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=1 / 4, mode="area")

    def decode(self, z: Tensor) -> Tensor:
        return functional.interpolate(z, scale_factor=4)


@dataclass
class Spy:
    """Remembers how it was called: (samples, time)."""

    denoiser: Denoiser
    calls: list[tuple[int, float]] = field(default_factory=list)
    first: Tensor | None = None

    @property
    def path(self) -> paths.Path:
        return self.denoiser.path

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        self.first = x_t if self.first is None else self.first
        self.calls.append((x_t.shape[0], float(t.flatten()[0])))
        return self.denoiser(x_t, t, cond)


def toy(rank: int = 2, path: paths.Path = Straight(), target=flow_target, **changes) -> Model:  # noqa: B008  (frozen)
    denoiser = NetworkDenoiser(Network(rank), path, target)
    return replace(Model(card(rank), Letters(), denoiser, Coarse(rank)), **changes)


def spied(**changes) -> Model:
    model = toy(**changes)
    return replace(model, denoiser=Spy(model.denoiser))


def ask(model: Model, **fields) -> Request:
    fields = {"prompt": "a fox", "seed": 7, **fields}
    request = Request("toy", fields.pop("prompt"), **fields)
    return model.card.resolve(request)


def latents(model: Model, *samples: Tensor, strength: float | None = None, **fields) -> Tensor:
    *_, last = generate(model, ask(model, **fields), *samples, strength=strength)
    return last.x_t


STOCHASTIC = ("euler_ancestral", "dpmpp_2m_sde", "lcm")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", *STOCHASTIC])
def test_four_samples_are_four_seeds(rank, sampler):
    model = toy(rank)
    together = latents(model, count=4, seed=7, sampler=sampler)
    shifted = latents(model, count=4, seed=8, sampler=sampler)
    assert torch.equal(together[1:], shifted[:-1])  # the same batch size: bit for bit, wherever a sample lies
    alone = torch.cat([latents(model, count=1, seed=seed, sampler=sampler) for seed in range(7, 11)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert together.dtype == torch.float32
    assert not torch.allclose(together[0], together[1])


def test_the_walk_begins_with_the_noise_of_torch_and_leaves_its_global_generator_alone():
    model, before = spied(), torch.random.get_rng_state()
    latents(model, seed=11, guidance_scale=1)
    expected = torch.randn((1, 3, 8, 6), generator=torch.Generator("cpu").manual_seed(11))
    assert torch.equal(model.denoiser.first, expected)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("path", "scale"), [(Straight(), 1.0), (Cosine(), 1.0), (VarianceExploding(9.0), 82**0.5)])
def test_the_first_x_t_has_the_spread_of_its_time(path, scale):
    model = spied(path=path, target=v_target)
    next(generate(model, ask(model, guidance_scale=1)))
    noise = torch.randn((1, 3, 8, 6), generator=torch.Generator("cpu").manual_seed(7))
    torch.testing.assert_close(model.denoiser.first, scale * noise, atol=1e-6, rtol=1e-6)


def test_eta_is_the_samplers():
    model = toy()
    still, ancestral = latents(model, sampler="euler"), latents(model, sampler="euler_ancestral")
    assert torch.equal(latents(model, sampler="ddim", options={"eta": 1.0}), ancestral)
    torch.testing.assert_close(latents(model, sampler="euler_ancestral", options={"eta": 0.0}), still)
    assert not torch.allclose(still, ancestral, atol=1e-2)


def test_a_spacing_may_be_named():
    model = toy()
    assert torch.equal(latents(model, spacing="uniform"), latents(model))
    assert not torch.allclose(latents(model, spacing="beta"), latents(model), atol=1e-3)
    named = replace(model, spacing=Shifted(3.0))
    assert not torch.allclose(latents(named), latents(model), atol=1e-3)
    assert torch.equal(latents(named, spacing="uniform"), latents(model))


def test_the_same_request_gives_the_same_latents_and_another_prompt_others():
    model = toy()
    assert torch.equal(latents(model), latents(model))
    assert not torch.allclose(latents(model), latents(model, prompt="a cat"), atol=1e-3)
    assert not torch.allclose(latents(model), latents(model, negative_prompt="blur"), atol=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_sizes_reach_the_latents_and_the_samples(rank):
    model = toy(rank)
    sizes = {1: {"duration": 3.0}, 2: {"height": 40, "width": 8}, 3: {"duration": 2.0, "height": 8, "width": 20}}[rank]
    z = latents(model, steps=1, **sizes)
    samples = decode(model, z)
    lengths = model.card.lengths(ask(model, **sizes))
    assert tuple(samples.shape) == (1, 3, *lengths)
    assert tuple(z.shape[2:]) == tuple(n // 4 for n in lengths)


@dataclass
class Gaussian:
    """The exact denoiser of data N(mean, 0.5^2), the mean told by the length of the prompt."""

    path: paths.Path = Cosine()  # noqa: RUF009  (frozen)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        mean, (alpha, sigma) = broadcast(cond.scalars["mean"], x_t), (self.path.alpha(t), self.path.sigma(t))
        variance = alpha.square() * 0.25 + sigma.square()
        x_0 = mean + alpha * 0.25 / variance * (x_t - alpha * mean)
        return Prediction(x_0, sigma / variance * (x_t - alpha * mean))


def length(request: Request, prompt: str) -> Conditioning:
    return Conditioning(scalars={"mean": torch.tensor([len(prompt) / 10])})


def test_guided_gaussians_end_where_the_closed_form_says():
    model = Model(card(), length, Gaussian(), Coarse(2))
    z = latents(model, steps=800, prompt="x" * 6, negative_prompt="x" * 2, guidance_scale=3.0)
    noise = torch.randn((1, 3, 8, 6), generator=torch.Generator("cpu").manual_seed(7))
    torch.testing.assert_close(z, 0.2 + 3 * 0.4 + 0.5 * noise, atol=2e-2, rtol=0)


def test_a_scale_of_one_asks_nothing_of_the_negative_prompt():
    model = spied()
    latents(model, guidance_scale=1, negative_prompt="blur", count=2)
    assert model.encoder.asked == ["a fox"]
    assert {samples for samples, _ in model.denoiser.calls} == {2}
    model = spied()
    latents(model, negative_prompt="blur", count=2)
    assert model.encoder.asked == ["a fox", "blur"]
    assert {samples for samples, _ in model.denoiser.calls} == {4}


def test_a_distilled_model_is_told_its_scale_and_called_once():
    model = replace(spied(), guide=unguided)
    latents(model, guidance_scale=3.5)
    assert model.encoder.asked == ["a fox"]
    assert {samples for samples, _ in model.denoiser.calls} == {1}


def by_hand(model: Model, guided: Denoiser) -> Tensor:
    """Euler's steps through a denoiser that the test composed itself."""
    x = torch.randn((1, 3, 8, 6), generator=torch.Generator("cpu").manual_seed(7))
    times = uniform(model.denoiser.path, 6, 48)
    with torch.no_grad():
        *_, last = SAMPLERS["euler"](guided, x, times, model.encoder(ask(model), "a fox"), torch.randn_like)
    return last.x_t


def test_options_compose_the_guidance_that_they_name():
    model = toy()
    d, uncond, empty = model.denoiser, model.encoder(ask(model), "blur"), model.encoder(ask(model), "")
    free = ClassifierFree(d, 3.0, uncond)
    cases = {
        (): free,
        (("guidance", "cfg"),): free,
        (("guidance_rescale", 0.7),): Rescaled(free, 0.7, flow_target),
        (("guidance_start", 0.25), ("guidance_stop", 0.5)): Interval(free, d, 0.5, 0.75),
        (("guidance", "apg"),): Projected(d, 3.0, uncond),
        (
            ("guidance", "apg"),
            ("guidance_eta", 0.5),
            ("guidance_momentum", 0.1),
            ("guidance_threshold", 1.0),
        ): Projected(d, 3.0, uncond, eta=0.5, momentum=0.1, threshold=1.0),
        (("guidance", "perp-neg"), ("guidance_weight", 0.5)): PerpendicularNegative(d, 3.0, uncond, empty, 0.5),
        (("guidance", "apg"), ("guidance_rescale", 0.5), ("guidance_stop", 0.6)): Interval(
            Rescaled(Projected(d, 3.0, uncond), 0.5, flow_target), d, 0.4, 1.0
        ),
    }
    seen = []
    for options, guided in cases.items():
        z = latents(model, negative_prompt="blur", options=dict(options))
        torch.testing.assert_close(z, by_hand(model, guided), atol=1e-5, rtol=1e-5)
        seen.append(z)
    assert len({tuple(z.flatten().tolist()) for z in seen}) == len(cases) - 1  # the first two are one


@pytest.mark.parametrize("name", GUIDANCES)
def test_every_named_guidance_generates(name):
    model = toy()
    z = latents(model, options={"guidance": name})
    assert bool(torch.isfinite(z).all())
    assert not torch.allclose(z, latents(model, guidance_scale=1), atol=1e-4)


def test_momentum_does_not_leak_from_one_generation_into_the_next():
    model = toy()
    first, second = (latents(model, options={"guidance": "apg", "guidance_momentum": 0.9}) for _ in range(2))
    assert torch.equal(first, second)


def test_an_interval_guides_in_its_share_of_the_walk_alone():
    model = spied()
    latents(model, steps=10, options={"guidance_start": 0.2, "guidance_stop": 0.5})
    guided = [t for samples, t in model.denoiser.calls if samples == 2]
    assert all(0.5 < t <= 0.8 + 1e-6 for t in guided)
    assert 2 <= len(guided) <= 4
    assert len(model.denoiser.calls) == 10


@cache
def diffusers_rule():
    """`get_timesteps` of diffusers' own file, without its module, which would import transformers."""
    folder = Path(importlib.util.find_spec("diffusers").origin).parent / "pipelines" / "stable_diffusion"
    module = ast.parse((folder / "pipeline_stable_diffusion_img2img.py").read_text())
    (rule,) = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == "get_timesteps"]
    scope: dict = {}
    exec(compile(ast.Module([rule], []), "get_timesteps", "exec"), scope)

    def count(steps: int, strength: float) -> int:
        pipeline = SimpleNamespace(scheduler=SimpleNamespace(timesteps=list(range(steps)), order=1))
        return len(scope["get_timesteps"](pipeline, steps, strength, None)[0])

    return count


def test_strength_walks_as_many_steps_as_diffusers():
    for steps in (1, 2, 3, 4, 7, 20, 28, 50, 999):
        for strength in (0.0, 0.01, 0.07, 0.1, 0.29, 0.3, 0.5, 0.57, 0.58, 0.7, 0.75, 0.8, 0.9, 0.999, 1.0):
            expected = diffusers_rule()(steps, strength)
            if expected:
                assert walked(steps, strength) == expected
            else:
                with pytest.raises(InvalidField, match="strength"):
                    walked(steps, strength)


def picture(rank: int = 2, count: int = 1) -> Tensor:
    lengths = [axis.length(None) for axis in AXES[rank]]
    return torch.randn(count, 3, *lengths, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_part_of_the_path_starts_from_the_noised_init(rank):
    model, init = spied(rank=rank), picture(rank)
    path, steps = model.denoiser.path, list(generate(model, ask(model, steps=10, guidance_scale=1), init, strength=0.3))
    assert len(steps) == 3 + 1
    assert steps[-1].t == 0
    known = model.codec.encode(init)
    noise = torch.randn(known.shape, generator=torch.Generator("cpu").manual_seed(7))
    t = uniform(path, 10, known[0, 0].numel())[7]
    torch.testing.assert_close(model.denoiser.first, path.perturb(known, noise, t))


def test_more_strength_leads_further_from_the_init():
    model, init = Model(card(), length, Gaussian(), Coarse(2)), picture()
    away = [
        (latents(model, init, steps=50, strength=share) - model.codec.encode(init)).square().mean().item()
        for share in (0.1, 0.4, 0.7, 1.0)
    ]
    assert away == sorted(away)
    assert away[0] < 0.1 * away[-1]


def test_the_requests_own_strength_is_heard():
    model, init = toy(), picture()
    request = replace(ask(model, steps=10), strength=0.5)
    assert len(list(generate(model, request, init))) == 5 + 1
    assert len(list(generate(model, request, init, strength=0.2))) == 2 + 1
    assert len(list(generate(model, replace(request, strength=None), init))) == 10 + 1


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_what_the_mask_keeps_comes_back_and_the_rest_is_made(rank, strength):
    model, init = toy(rank), picture(rank)
    mask = torch.zeros(1, 1, *init.shape[2:])
    mask[..., : init.shape[-1] // 2 // 4 * 4] = 1
    samples = decode(model, latents(model, init, mask, count=2, strength=strength))
    known = model.codec.decode(model.codec.encode(init)).expand_as(samples)
    keep = (mask == 0).expand_as(samples)
    torch.testing.assert_close(samples[keep], known[keep], atol=1e-5, rtol=0)
    assert (samples[~keep] - known[~keep]).abs().mean() > 0.1
    assert not torch.allclose(samples[0], samples[1], atol=1e-2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_brings_back_what_is_kept(name):
    model, init, mask = toy(), picture(), torch.zeros(1, 1, 32, 24)
    mask[..., :12] = 1
    z = latents(model, init, mask, sampler=name, steps=8)
    torch.testing.assert_close(z[..., 3:], model.codec.encode(init)[..., 3:], atol=2e-5, rtol=0)


def test_a_whole_walk_keeps_nothing_of_the_init_where_it_may_change():
    model = toy(path=Discrete(scaled_linear_betas()), target=v_target)  # which at t = 1 still holds 7 % of the data
    init, mask = picture(), torch.zeros(1, 1, 32, 24)
    mask[..., :12] = 1
    other = init.clone()
    other[..., :12] = 0.9
    assert torch.equal(latents(model, init, mask), latents(model, other, mask))
    assert not torch.equal(latents(model, init, mask, strength=0.5), latents(model, other, mask, strength=0.5))


def test_a_mask_of_ones_is_no_mask_and_one_of_zeros_keeps_all():
    model, init = toy(), picture()
    ones, zeros = torch.ones(1, 1, 32, 24), torch.zeros(1, 1, 32, 24)
    torch.testing.assert_close(latents(model, init, ones), latents(model), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(latents(model, init, zeros), model.codec.encode(init), atol=1e-5, rtol=1e-5)


def test_closing_the_generator_stops_the_walk_at_once():
    model = spied()
    steps = generate(model, ask(model, steps=50))
    next(steps)
    next(steps)
    steps.close()
    calls = len(model.denoiser.calls)
    assert calls <= 3
    with pytest.raises(StopIteration):
        next(steps)
    assert len(model.denoiser.calls) == calls


def test_gradients_are_off_inside_and_as_before_between_steps():
    model = toy()
    for step in generate(model, ask(model)):
        assert torch.is_grad_enabled()
        assert not step.x_t.requires_grad
    assert not decode(model, step.x_t).requires_grad


@dataclass
class Breaking:
    """NaN from the given call on."""

    at: int
    path: paths.Path = Straight()  # noqa: RUF009  (frozen)
    calls: int = 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        self.calls += 1
        value = torch.full_like(x_t, math.nan if self.calls >= self.at else 0.0)
        return Prediction(value, x_t)


def test_numbers_that_are_none_are_found_at_their_step():
    model = replace(toy(), denoiser=Breaking(3))
    seen = []
    with pytest.raises(NotFinite) as caught:
        seen.extend(generate(model, ask(model, guidance_scale=1)))
    assert (caught.value.stage, caught.value.step) == ("sampling", 3)
    assert "--dtype float32" in str(caught.value)


@dataclass(frozen=True)
class Painted:
    """A codec that decodes to what it is told."""

    samples: Tensor
    channels: int = 3
    scale_factor: tuple[int, ...] = (1, 1)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return self.samples


def test_what_decodes_to_nothing_is_never_a_result():
    good = torch.randn(2, 3, 8, 8)
    z = torch.zeros(2, 3, 8, 8)
    assert torch.equal(decode(replace(toy(), codec=Painted(good)), z), good)
    for value in (-1.0, 0.0, 1.0):
        flat = good.clone()
        flat[1] = value
        with pytest.raises(BrokenResult, match=f"sample 2 of 2 is {value:.3f} from end to end.* Try another seed"):
            decode(replace(toy(), codec=Painted(flat)), z)
    for value in (math.nan, math.inf):
        broken = good.clone()
        broken[0, 0, 0, 0] = value
        with pytest.raises(NotFinite, match="decoding"):
            decode(replace(toy(), codec=Painted(broken)), z)


def wrong() -> dict[str, tuple[dict, tuple, type[RequestError], list[str]]]:
    init, mask = picture(), torch.ones(1, 1, 32, 24)
    return {
        "no seed": ({"seed": None}, (), InvalidField, ["seed", "choose a seed"]),
        "no steps": ({"steps": None}, (), InvalidField, ["steps"]),
        "sampler": ({"sampler": "eular"}, (), UnknownName, ["sampler 'eular'", "Did you mean 'euler'?"]),
        "spacing": ({"spacing": "unifrom"}, (), UnknownName, ["spacing 'unifrom'", "Did you mean 'uniform'?"]),
        "guidance": ({"options": {"guidance": "cgf"}}, (), UnknownName, ["guidance 'cgf'", "apg"]),
        "knob": ({"options": {"guidance_momentum": 0.5}}, (), InvalidField, ["guidance_momentum", "belongs to apg"]),
        "eta": ({"options": {"eta": 0.5}}, (), InvalidField, ["eta: 0.5", "none with sampler euler"]),
        "rescale": (
            {"options": {"guidance": "cfg++", "guidance_rescale": 0.7}},
            (),
            InvalidField,
            ["guidance_rescale: 0.7", "0 with guidance cfg++"],
        ),
        "interval": (
            {"options": {"guidance_start": 0.6, "guidance_stop": 0.4}},
            (),
            InvalidField,
            ["guidance_start: 0.6", "guidance_stop is 0.4"],
        ),
        "strength alone": ({"strength": 0.5}, (), InvalidField, ["strength: 0.5", "1 without an init"]),
        "strength too small": ({"strength": 0.1}, (init,), InvalidField, ["strength: 0.1", "0.166667 or more with 6"]),
        "strength nan": ({"strength": math.nan}, (init,), InvalidField, ["strength: nan", "0 to 1"]),
        "mask alone": ({}, (None, mask), InvalidField, ["mask", "none without an init"]),
        "size": ({}, (init[..., :8],), InvalidField, ["init: (1, 3, 32, 8)", "32 x 24 samples", "resize"]),
        "mask size": ({}, (init, mask[..., :8]), InvalidField, ["mask: (1, 1, 32, 8)"]),
        "mask channels": ({}, (init, mask.expand(1, 3, -1, -1)), InvalidField, ["mask: (1, 3, 32, 24)", "one channel"]),
        "mask range": ({}, (init, 2 * mask), InvalidField, ["mask", "[0, 1]"]),
        "mask nan": ({}, (init, mask * math.nan), InvalidField, ["mask", "[0, 1]"]),
        "init count": ({}, (init.expand(3, -1, -1, -1),), InvalidField, ["init: (3, 3, 32, 24)", "1 or 1 of"]),
    }


@pytest.mark.parametrize("name", wrong())
def test_what_cannot_be_is_refused_before_anything_is_computed(name):
    fields, samples, kind, parts = wrong()[name]
    model = spied()
    request = replace(ask(model), **fields)
    with pytest.raises(kind) as caught:
        generate(model, request, *samples)
    for part in parts:
        assert part in str(caught.value)
    assert model.encoder.asked == []
    assert model.denoiser.calls == []


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_walks_every_spacing_from_noise_and_from_an_init(name, spacing):
    model, init = toy(path=Linear(), target=v_target), picture()
    part = latents(model, init, strength=0.5, sampler=name, spacing=spacing, steps=8)
    assert bool(torch.isfinite(part).all())
    z = latents(model, sampler=name, spacing=spacing, steps=8)
    assert tuple(z.shape) == (1, 3, 8, 6)
    assert bool(torch.isfinite(z).all())


def scripted(*turns):
    """An encoder whose prompt changes: (step, what is said from there on); the negative prompt stays."""
    single = Letters()

    def encode(request, prompt):
        said = turns if prompt == "a fox" else ((0, prompt),)
        return Script(tuple((step, single(request, text)) for step, text in said))

    return encode


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_prompt_may_change_on_the_way(scale):
    model, heard = toy(), []

    def network(x, timestep, cond):
        heard.append((round(float(timestep[0])), cond.tokens[0, :, 0].sin().sum().item()))
        return model.denoiser.network(x, timestep, cond)

    changing = replace(
        model,
        encoder=scripted((0, "a fox"), (2, "an owl"), (5, "a cat")),
        denoiser=NetworkDenoiser(network, Straight(), flow_target),
    )
    latents(changing, guidance_scale=scale, steps=6)
    single = Letters()
    expected = [
        single(None, text).tokens[0, :, 0].sin().sum().item()
        for text in ("a fox", "a fox", "an owl", "an owl", "an owl", "a cat")
    ]
    assert [value for _, value in heard] == pytest.approx(expected)
    whole = latents(model, guidance_scale=scale)
    same = replace(model, encoder=scripted((0, "a fox")))
    assert torch.equal(latents(same, guidance_scale=scale), whole)
