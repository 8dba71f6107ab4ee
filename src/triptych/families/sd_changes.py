"""What a request changes of a loaded Stable Diffusion: files of small changes, and ControlNets beside the U-Net."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor, nn

from triptych.engine.codecs.kl import KL
from triptych.engine.codecs.tiles import Strips
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Network, NetworkDenoiser
from triptych.engine.nets.controlnet import Control, Controlled, ControlNet
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.ldm import LatentUNet, Shape
from triptych.engine.text.clip import ClipText
from triptych.errors import InvalidField
from triptych.families import place
from triptych.families.sd_loras import Loras, named
from triptych.families.sd_memory import decoding, staged_codec, staged_network, walking
from triptych.families.sd_prompts import listed
from triptych.families.sd_weights import controlled
from triptych.model import Model, Script
from triptych.types import Request
from triptych.weights.files import open_tensors
from triptych.weights.loading import Component
from triptych.weights.memory import available
from triptych.weights.offload import Rooms, StagedCodec

__all__ = ["CONTROLS", "Changes", "Second", "sources"]

LARGE = 1600 * 1600  # pixels that the codec takes about 4 GiB to decode whole, in bfloat16
CONTROLS = ("control", "control_2", "control_3")  # inputs of a request: hints
KNOBS = ("scale", "start", "stop")  # of each, as `Control` takes them


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
        rooms: Rooms,
        second: Callable[[str], Second],
        codec: Callable[[str], Component[KL]],
    ) -> None:
        """towers: by the folder that diffusers keeps them in; rooms: where all of them are; second, codec: what load
        from a source the model that takes over on the way, and a codec in place of the model's own."""
        self._network, self._shape, self._rooms = network, shape, rooms
        self._loras = Loras(network, shape, towers)
        self._second, self._codec = second, codec
        self._guests: dict[str, Component[Any]] = {}  # what requests have added, by names in the rooms
        self._refiner: tuple[str, Second] | None = None

    def __call__(self, model: Model, request: Request, hints: Mapping[str, Tensor]) -> Model:
        """hints: (1, 3, H, W) in [0, 1] by their names in CONTROLS. Raises InvalidField, WeightsError."""
        options, hints = request.options, {name: hint for name, hint in hints.items() if name in CONTROLS}
        self._dismiss({f"{kind} {options.get(kind)}" for kind in ("vae", *(f"{name}_net" for name in hints))})
        controls = [self._control(request, name, hint) for name, hint in hints.items()]
        codec = self._coder(model, options.get("vae"))
        second = self._relief(options.get("refiner"))
        warnings = self._loras.use(request, spare=self._make_room(request))
        if _in_strips(request, self._rooms, codec):
            assert isinstance(codec.codec, KL), "a codec as it was loaded"
            codec = staged_codec(Strips(codec.codec), self._rooms, codec.name, codec.dtype)
        network = self._network.module
        for one in [network] if second is None else [network, second.network]:
            one.merge(options["merge"])
        names = ["unet", *(f"{name}_net {options[f'{name}_net']}" for name in hints)]
        model = self._with(model, Controlled(network, controls) if controls else network, names, options["fast"])
        if second is not None:
            other = self._with(second.model, second.network, [f"{second.prefix}unet"], options["fast"])
            model = _relayed(model, other, 1 - options["refiner_start"])
        files = tuple(map(place, _named(request, hints)))
        warnings = [*_own(model, request), *warnings]
        return replace(model, codec=codec, moments=codec.moments, warnings=tuple(warnings), files=files)

    def _dismiss(self, wanted: Set[str]) -> None:
        """Those that other requests have added go."""
        for name in self._guests.keys() - wanted:
            del self._guests[name]
            self._rooms.remove(name)

    def _guest(self, name: str, make: Callable[[], Component[Any]]) -> Component[Any]:
        if name not in self._guests:
            self._guests[name] = make()
            self._rooms.add(name, self._guests[name])
        return self._guests[name]

    def _make_room(self, request: Request) -> float:
        """How much there is, and everything into it if it holds everything; bytes that are left."""
        pixels, dtype = (request.height or 0) * (request.width or 0), self._network.dtype
        free = available(self._network.device, request.options.get("memory"))
        self._rooms.budget = self._rooms.held + free
        work = max(walking(2 * pixels * request.count, dtype), decoding(pixels, dtype))
        self._rooms.settle(work)
        return self._rooms.budget - self._rooms.held - work

    def _coder(self, model: Model, source: str | None) -> StagedCodec:
        """The codec: of a source, or the model's own."""
        assert isinstance(model.codec, StagedCodec), "a codec as it was loaded"
        if source is None:
            return model.codec
        guest = self._guest(f"vae {source}", lambda: self._codec(source))
        return staged_codec(guest.module, self._rooms, f"vae {source}", guest.dtype)

    def _relief(self, source: str | None) -> Second | None:
        """What takes over on the way."""
        if self._refiner is not None and self._refiner[0] != source:
            for name in self._refiner[1].names:
                self._rooms.remove(name)
            self._refiner = None
        if source is not None and self._refiner is None:
            self._refiner = source, self._second(source)
        return self._refiner and self._refiner[1]

    def _with(self, model: Model, network: LatentUNet | Controlled, names: Sequence[str], fast: int) -> Model:
        """The model with this network, of these components, its deep part computed at every so manieth step."""
        hastened = network if fast == 1 else Fast(network.around, fast)
        return _walking(model, staged_network(hastened, self._rooms, names, self._network.dtype))

    def _control(self, request: Request, name: str, hint: Tensor) -> Control:
        source = request.options.get(f"{name}_net")
        if not source:
            raise InvalidField(f"{name}_net", None, "the file, folder or hub name of a ControlNet beside a hint")

        def load() -> Component[ControlNet]:
            tensors, layout = controlled(open_tensors(place(source)), self._shape.blocks)
            shape = replace(self._shape, in_channels=4)
            return Component(lambda: ControlNet(shape), tensors, layout, self._network.device, self._network.dtype)

        net = self._guest(f"{name}_net {source}", load).module
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


def _in_strips(request: Request, rooms: Rooms, codec: StagedCodec) -> bool:
    """Whether samples are coded strip by strip: in half the memory and one and a half times the time."""
    if request.options["coding"] != "auto":
        return bool(request.options["coding"] == "strips")
    pixels = (request.height or 0) * (request.width or 0)
    return pixels > LARGE or codec.work(pixels) > rooms.budget


def _walking(model: Model, network: Network) -> Model:
    """The model with another network on the same path."""
    assert isinstance(model.denoiser, NetworkDenoiser), "a network on a path"
    was = model.denoiser
    return replace(model, denoiser=NetworkDenoiser(network, was.path, was.target, was.timestep))


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
    return replace(_walking(model, network), encoder=encode)


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
