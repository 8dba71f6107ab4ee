"""What a request makes of a loaded flow-matching transformer: its parts from wherever they lie, and what is added."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final, final

import torch
from torch import Tensor

from triptych.engine.denoiser import TARGETS, NetworkDenoiser
from triptych.engine.nets.controlnet import Control, Controlled, Watching
from triptych.engine.nets.fast import Fast
from triptych.engine.path import Path, Straight
from triptych.errors import InvalidField
from triptych.families import CACHE, place
from triptych.families.flow import Parts, Seat, Spaced, Tuned, counted
from triptych.families.flow_prompts import Listener
from triptych.families.guests import CONTROLS, Guests, Moments, net_of, staged_codec, walking_on
from triptych.families.loras import Loras, named
from triptych.model import Model
from triptych.types import Card, Request
from triptych.weights.files import open_bundle
from triptych.weights.loading import Component
from triptych.weights.lora_names import Target
from triptych.weights.offload import Rooms, StagedCodec

__all__ = ["Beside", "Changes", "Family", "Means", "loaded", "sources"]

NEAR: Final = 1e-6  # of a share of the walk: rounding
REDUX: Final = ("redux_net", "redux_eye")  # options that name parts for a picture that is told as words
PARTS: Final = ("clip_l", "clip_g", "t5", "vae")  # options that name parts


@final
@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """A ControlNet. watching: the module, and the kind of hint, to what sees it beside the network; shown: samples
    (1, 3, H, W) in [-1, 1] to the hint."""

    component: Component[Any]
    watching: Callable[[Any, int | None], Watching]
    shown: Callable[[StagedCodec, Tensor], Tensor]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What an encoder of prompts has at hand.

    towers: by their options; more: components that the request alone brings, by their names in the rooms; pictures:
    (1, 3, H, W) in [0, 1] by the names of their inputs, all but the init and hints of ControlNets.
    """

    parts: Parts
    rooms: Rooms
    towers: Mapping[str, Tuned]
    more: Mapping[str, Component[Any]]
    codec: StagedCodec
    pictures: Mapping[str, Tensor]


Makers = Mapping[str, Callable[[], Component[Any]]]
"""What makes components, by their names in the rooms."""


def nothing(request: Request, parts: Parts) -> Makers:
    """A request brings no components of its own."""
    return {}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """What differs between families.

    towers: seats by the names that files of small changes know them by; network: its component, quantised or not;
    listening: what encodes the prompts of a request; control: a ControlNet out of a source, beside the network;
    targets: what files of small changes may change of these components; work: pixels of a batch to the bytes that a
    step on them takes beside the network's weights; more: what else a request brings, for its encoder.
    """

    towers: Mapping[str, Seat]
    codec: Seat
    network: Callable[[Parts, str | None], Component[Any]]
    listening: Callable[[Request, Means], Listener]
    control: Callable[[str, Parts, Component[Any]], Beside]
    targets: Callable[[Mapping[str, Component[Any]]], Mapping[str, Target]]
    work: Callable[[int, torch.dtype], int]
    more: Callable[[Request, Parts], Makers] = nothing


@final
@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """The components of one request, and their names in the rooms: of towers by part, of ControlNets by their hints."""

    called: str
    network: Component[Any]
    names: Mapping[str, str]
    towers: Mapping[str, Component[Any]]
    beside: Mapping[str, tuple[str, Beside]]
    more: Mapping[str, Component[Any]]
    codec: StagedCodec

    @property
    def moments(self) -> Moments:
        """What is told the prompt, what walks and what codes, by their names."""
        nets = [name for name, _ in self.beside.values()]
        return [*self.names.values(), *self.more], [self.called, *nets], [self.codec.name]


@final
class Changes:
    """The loaded model as one request wants it, and as it was for the next."""

    def __init__(self, family: Family, parts: Parts, guests: Guests, spacing: Spaced) -> None:
        """spacing: the model's own, by which shares of a walk are shares of its steps."""
        self._family, self._parts, self._guests, self._spacing = family, parts, guests, spacing
        self._nets: dict[str, Beside] = {}
        self._loras: tuple[Sequence[str], Loras] | None = None

    def __call__(self, model: Model, request: Request, hints: Mapping[str, Tensor]) -> Model:
        """hints: (1, 3, H, W) in [0, 1] by their names. Raises InvalidField, WeightsError."""
        family, guests, here = self._family, self._guests, self._gathered(request, hints)
        pictures = {name: picture for name, picture in hints.items() if name not in CONTROLS}
        rare = {name for part, name in here.names.items() if family.towers[part].option == "t5" and not named(request)}
        spare = guests.make_room(request, here.codec, rare)  # what T5 says may be kept, where nothing acts in it
        warnings = guests.told(request, here.codec, here.moments)
        components = {"transformer": here.network, **here.towers}
        warnings += self._tuned([here.called, *here.names.values()], components).use(request, spare)
        codec = guests.fitting(request, here.codec)
        controls = [
            self._control(request, name, hints[name], beside, codec) for name, (_, beside) in here.beside.items()
        ]
        walking = Controlled(here.network.module, controls) if controls else here.network.module
        fast = request.options["fast"]
        hastened = walking if fast == 1 else Fast(walking.around, fast)
        tuned = {family.towers[part].option: Tuned(tower, here.names[part]) for part, tower in here.towers.items()}
        encoder = family.listening(request, Means(self._parts, guests.rooms, tuned, here.more, codec, pictures))
        if cut := encoder.cut(request):
            warnings.append(f"more words than T5 is told here; left out: {' ... '.join(cut)}")
        model = walking_on(model, guests.network(hastened, here.moments[1]))
        files = tuple(map(place, sources(request)))
        told = (*model.warnings, *warnings)
        return replace(model, encoder=encoder, codec=codec, moments=codec.moments, warnings=told, files=files)

    def plan(self, request: Request) -> str:
        """What comes into memory when, for a request without ControlNets, told by sizes alone. Raises as a call."""
        here = self._gathered(request, {})
        return str(self._guests.plan(request, here.codec, here.moments))

    def _gathered(self, request: Request, hints: Mapping[str, Tensor]) -> "Gathered":
        """The components that the request takes, none of which need be in memory; those of others go."""
        options, family, guests = request.options, self._family, self._guests
        seats = {part: seat for part, seat in family.towers.items() if not _silenced(seat, options)}
        names = {part: _called(seat.option, options) for part, seat in seats.items()}
        called, coder = _called("network", options), _called("vae", options)
        nets = {name: f"control {net_of(request, name)} of {called}" for name in CONTROLS if name in hints}
        makers = family.more(request, self._parts)
        guests.dismiss({called, coder, *names.values(), *nets.values(), *makers})
        network = guests.welcome(called, lambda: family.network(self._parts, _bits("network", options)))
        towers = {part: self._part(seats[part], names[part], options) for part in seats}
        kept = self._part(family.codec, coder, options)
        return Gathered(
            called,
            network,
            names,
            towers,
            {name: (net, self._beside(net, net_of(request, name), network)) for name, net in nets.items()},
            {name: guests.welcome(name, make) for name, make in makers.items()},
            staged_codec(kept.module, guests.rooms, coder, kept.dtype),
        )

    def _part(self, seat: Seat, name: str, options: Mapping[str, Any]) -> Component[Any]:
        source, bits = options.get(seat.option), _bits(seat.option, options)
        return self._guests.welcome(name, lambda: self._parts.component(seat, source, bits))

    def _beside(self, name: str, source: str, network: Component[Any]) -> Beside:
        if name not in self._nets:
            self._nets[name] = self._family.control(source, self._parts, network)
        self._guests.welcome(name, lambda: self._nets[name].component)
        return self._nets[name]

    def _control(self, request: Request, name: str, hint: Tensor, beside: Beside, codec: StagedCodec) -> Control:
        seen, options = beside.shown(codec, hint * 2 - 1), request.options
        net = beside.watching(beside.component.module, options.get(f"{name}_kind"))
        start, stop = (self._walked(request, codec, options[f"{name}_{end}"]) for end in ("start", "stop"))
        return Control(net, seen, options[f"{name}_scale"], start - NEAR, stop + NEAR)

    def _walked(self, request: Request, codec: StagedCodec, share: float) -> float:
        """How much of the noise is gone after this share of the model's own steps."""
        lengths = (request.height or 0, request.width or 0)
        latents = prod(length // factor for length, factor in zip(lengths, codec.scale_factor, strict=True))

        def there(path: Path, steps: int, latents: int) -> Tensor:
            return torch.tensor([1 - share], dtype=torch.float64)

        return 1 - float(self._spacing.around(there)(Straight(), 1, latents))

    def _tuned(self, names: Sequence[str], components: Mapping[str, Component[Any]]) -> Loras:
        """What applies files of small changes to these components: another one where they are others."""
        if self._loras is None or self._loras[0] != names:
            if self._loras is not None:
                self._loras[1].leave()
            self._loras = names, Loras(components, self._family.targets(components))
        return self._loras[1]


QUANTIZED: Final = {"network": "quantize", "t5": "quantize_t5"}  # options that say so, of what


def _bits(part: str, options: Mapping[str, Any]) -> str | None:
    """How a part is quantised, if it is."""
    asked = options.get(QUANTIZED.get(part, ""), "none")
    return None if asked == "none" else str(asked)


def _silenced(seat: Seat, options: Mapping[str, Any]) -> bool:
    """Whether a request does without this part. Raises InvalidField where the model cannot."""
    absent = options.get(seat.option) == "none"
    if absent and not seat.silent:
        allowed = "a file, a folder, a hub's OWNER/NAME, or nothing where it lies with the network"
        raise InvalidField(seat.option, "none", allowed, "This model cannot do without it.")
    return absent


def _called(part: str, options: Mapping[str, Any]) -> str:
    """What a part is called in the rooms, so that another one has another name."""
    return " ".join(filter(None, [part, _bits(part, options), options.get(part)]))


def sources(request: Request) -> list[str]:
    """The files, folders and hub names that the request adds to the model. Raises InvalidField."""
    options = request.options
    alone = [*PARTS, *(f"{name}_net" for name in CONTROLS if name in request.inputs)]
    alone += REDUX if "redux" in request.inputs else []
    return [file for file, _ in named(request)] + [options[n] for n in alone if options.get(n) not in (None, "none")]


def loaded(card: Card, device: str, dtype: torch.dtype, family: Family, spacing: Spaced) -> Model:
    """The model of a family whose network lies where the card's settings say. Raises WeightsError, WeightsMismatch.

    Its towers and its codec come with a request, which may name others: what it has until then knows sizes alone.
    """
    parts = Parts(open_bundle(place(card.settings["source"])), device, dtype, card.settings.get(CACHE))
    rooms = Rooms()
    guests = Guests(rooms, device, lambda pixels: family.work(pixels, dtype))
    guests.welcome("network", lambda: family.network(parts, None))
    with torch.device("meta"):
        codec = parts.sketch(family.codec)
    denoiser = NetworkDenoiser(_unready, Straight(), TARGETS["flow"], timestep)
    changes = Changes(family, parts, guests, spacing)
    return Model(
        card,
        _unready,
        denoiser,
        codec,
        spacing,
        shifted=spacing.around,
        walked=counted,
        prepare=changes,
        plan=changes.plan,
    )


def timestep(t: Tensor) -> Tensor:
    """The network's clock: 1,000 is noise."""
    return 1000 * t


def _unready(*_: Any, **__: Any) -> Any:
    raise AssertionError("a model of parts is prepared for each request")
