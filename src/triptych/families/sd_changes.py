"""What a request changes of a loaded Stable Diffusion: files of small changes, and ControlNets beside the U-Net."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from triptych.engine.codecs.kl import KL
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Network, NetworkDenoiser
from triptych.engine.nets.controlnet import Control, Controlled, ControlNet
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.ldm import LatentUNet, Shape
from triptych.engine.text.clip import ClipText
from triptych.families import place
from triptych.families.guests import CONTROLS, Guests, net_of, walking_on, working
from triptych.families.loras import Loras, named, targets
from triptych.families.prompts import listed
from triptych.families.sd_weights import controlled
from triptych.model import Model, Script
from triptych.types import Request
from triptych.weights.files import open_tensors
from triptych.weights.layouts import unet as layouts
from triptych.weights.loading import Component
from triptych.weights.lora_names import TEXT, TEXT_2, UNET
from triptych.weights.offload import StagedCodec

__all__ = ["Changes", "Second", "sources", "walking"]

PREFIXES = {"unet": UNET, "text_encoder": TEXT, "text_encoder_2": TEXT_2}  # of names in files of small changes
KNOBS = ("scale", "start", "stop")  # of each, as `Control` takes them


def walking(pixels: int, dtype: torch.dtype) -> int:
    """Bytes beside the U-Net's weights that a step on so many pixels takes, all pictures of the batch together.

    Measured on a CPU in bfloat16, the peak of the process: SD 1.5 and SDXL at 256 and 512 pixels, one picture and two.
    """
    return working(pixels, dtype, 256, 450)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Second:
    """A model that takes over on the way. names: of its components in the rooms, which begin with the prefix."""

    model: Model
    network: LatentUNet
    prefix: str
    names: Sequence[str]


@final
class Changes:
    """The loaded model as one request wants it, and as it was for the next."""

    def __init__(
        self,
        network: Component[LatentUNet],
        shape: Shape,
        towers: Mapping[str, Component[ClipText]],
        coder: StagedCodec,
        guests: Guests,
        second: Callable[[str], Second],
        codec: Callable[[str], Component[KL]],
    ) -> None:
        """towers: by the folder that diffusers keeps them in; coder: the model's codec; guests: what else comes;
        second, codec: what load from a source the model that takes over on the way, and another codec."""
        self._network, self._shape = network, shape
        self._towers, self._coder, self._guests = towers, coder, guests
        components: dict[str, Component[Any]] = {"unet": network, **towers}
        self._loras = Loras(components, targets(components, PREFIXES, partial(layouts.diffusers, blocks=shape.blocks)))
        self._second, self._codec = second, codec
        self._refiner: tuple[str, Second] | None = None

    def __call__(self, model: Model, request: Request, hints: Mapping[str, Tensor]) -> Model:
        """hints: (1, 3, H, W) in [0, 1] by their names in CONTROLS. Raises InvalidField, WeightsError."""
        options, guests = request.options, self._guests
        hints = {name: hint for name, hint in hints.items() if name in CONTROLS}
        guests.dismiss({f"{kind} {options.get(kind)}" for kind in ("vae", *(f"{name}_net" for name in hints))})
        controls = [self._control(request, name, hint) for name, hint in hints.items()]
        source = options.get("vae")
        codec = guests.coder(self._coder, source, lambda: self._codec(str(source)))
        second = self._relief(options.get("refiner"))
        names = ["unet", *(f"{name}_net {options[f'{name}_net']}" for name in hints)]
        spare = guests.make_room(request, codec)
        warnings = guests.told(request, codec, (list(self._towers), names, [codec.name]))
        warnings += self._loras.use(request, spare)
        codec = guests.fitting(request, codec)
        network = self._network.module
        for one in [network] if second is None else [network, second.network]:
            one.merge(options["merge"])
        model = self._with(model, Controlled(network, controls) if controls else network, names, options["fast"])
        if second is not None:
            other = self._with(second.model, second.network, [f"{second.prefix}unet"], options["fast"])
            model = _relayed(model, other, 1 - options["refiner_start"])
        files = tuple(map(place, _named(request, hints)))
        warnings = [*_own(model, request), *warnings]
        return replace(model, codec=codec, moments=codec.moments, warnings=tuple(warnings), files=files)

    def plan(self, request: Request) -> str:
        """What comes into memory when, for a request that adds nothing, told by sizes alone."""
        moments = list(self._towers), ["unet"], [self._coder.name]
        return str(self._guests.plan(request, self._coder, moments))

    def _relief(self, source: str | None) -> Second | None:
        """What takes over on the way."""
        if self._refiner is not None and self._refiner[0] != source:
            for name in self._refiner[1].names:
                self._guests.rooms.remove(name)
            self._refiner = None
        if source is not None and self._refiner is None:
            self._refiner = source, self._second(source)
        return self._refiner and self._refiner[1]

    def _with(self, model: Model, network: LatentUNet | Controlled, names: Sequence[str], fast: int) -> Model:
        """The model with this network, of these components, its deep part computed at every so manieth step."""
        hastened = network if fast == 1 else Fast(network.around, fast)
        return walking_on(model, self._guests.network(hastened, names))

    def _control(self, request: Request, name: str, hint: Tensor) -> Control:
        source = net_of(request, name)

        def load() -> Component[ControlNet]:
            tensors, layout = controlled(open_tensors(place(source)), self._shape.blocks)
            shape = replace(self._shape, in_channels=4)
            return Component(lambda: ControlNet(shape), tensors, layout, self._network.device, self._network.dtype)

        net = self._guests.welcome(f"{name}_net {source}", load).module
        return Control(net, hint, *(request.options[f"{name}_{knob}"] for knob in KNOBS))


@final
class Relay(nn.Module):
    """Two networks, each for its part of the path."""

    def __init__(self, first: Network, second: Network, over: float) -> None:
        """over: the timestep below which the second takes over."""
        super().__init__()
        self._first, self._second, self._over = first, second, over

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        """As either does."""
        return (self._first if float(timestep.max()) >= self._over else self._second)(x, timestep, cond)


def _relayed(model: Model, second: Model, over: float) -> Model:
    """The model, and from the time `over` down the second, told in its own way (arXiv:2307.01952, section 2.5).

    Timestep n belongs to the time (n + 1) / 1000, so that those from 1000 over on are the first model's.
    """
    assert isinstance(model.denoiser, NetworkDenoiser), "a network on a path"
    assert isinstance(second.denoiser, NetworkDenoiser), "a network on a path"

    def encode(request: Request, prompt: str, **seen: Tensor) -> Script:
        first, last = model.encoder(request, prompt, **seen), second.encoder(request, prompt)
        assert isinstance(first, Script), "prompts may change on the way"
        assert isinstance(last, Script), "prompts may change on the way"
        return replace(first, then=(over + 0.5 / 1000, last))

    network = Relay(model.denoiser.network, second.denoiser.network, 1000 * over)
    return replace(walking_on(model, network), encoder=encode)


def _own(model: Model, request: Request) -> tuple[str, ...]:
    """What the model has to say of its own walk, where it is taken."""
    fields = model.card.fields
    own = request.sampler == fields["sampler"].default and request.spacing == fields["spacing"].default
    return model.warnings if own else ()


def sources(request: Request) -> list[str]:
    """The files, folders and hub names that the request adds to the model. Raises InvalidField."""
    return _named(request, request.inputs)


def _named(request: Request, hints: Iterable[str]) -> list[str]:
    options = request.options
    alone = ["vae", "refiner", *(f"{name}_net" for name in hints)]
    files = [file for file, _ in named(request)]
    return [*files, *(options[name] for name in alone if options.get(name)), *listed(options.get("embeddings"))]
