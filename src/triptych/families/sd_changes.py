"""What a request changes of a loaded Stable Diffusion: files of small changes, and ControlNets beside the U-Net."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import final

from torch import Tensor, nn

from triptych.engine.codecs.kl import KL
from triptych.engine.codecs.tiles import Strips
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Network, NetworkDenoiser
from triptych.engine.nets.controlnet import Control, Controlled, ControlNet
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.ldm import LatentUNet, Shape
from triptych.errors import InvalidField
from triptych.families import place
from triptych.families.fast import every
from triptych.families.sd_prompts import listed
from triptych.families.sd_weights import controlled, filled
from triptych.model import Model, Script
from triptych.types import Request
from triptych.weights.files import open_tensors
from triptych.weights.layouts import unet as layouts
from triptych.weights.lora import Lora, Merged, Use, read, target
from triptych.weights.lora_names import TEXT, TEXT_2, UNET

__all__ = ["CONTROLS", "Changes", "loras"]

LARGE = 1600 * 1600  # pixels that the codec takes about 4 GiB to decode whole, in bfloat16
CONTROLS = ("control", "control_2", "control_3")  # inputs of a request: hints
KNOBS = ("scale", "start", "stop")  # of each, as `Control` takes them


@final
class Changes:
    """The loaded model as one request wants it, and as it was for the next."""

    def __init__(
        self,
        network: LatentUNet,
        shape: Shape,
        towers: Mapping[str, nn.Module],
        second: Callable[[str], Model],
        codec: Callable[[str], KL],
    ) -> None:
        """towers: by the folder that diffusers keeps them in; second, codec: what load from a source the model that
        takes over on the way, and a codec that takes the place of the model's own."""
        self._network, self._shape = network, shape
        self._applied = Merged({"unet": network, **towers})
        self._targets = {"unet": target(network, UNET, layouts.diffusers(network.state_dict(), shape.blocks))}
        for name, tower in towers.items():
            self._targets[name] = target(tower, TEXT_2 if name == "text_encoder_2" else TEXT)
        self._second, self._codec = cache(second), cache(codec)
        self._nets: dict[str, ControlNet] = {}
        self._loras: dict[tuple[Path, int], Lora] = {}

    def __call__(self, model: Model, request: Request, hints: Mapping[str, Tensor]) -> Model:
        """hints: (1, 3, H, W) in [0, 1] by their names in CONTROLS. Raises InvalidField, WeightsError."""
        files, warnings = self._changed(request)
        controls = [self._control(request, name, hint) for name, hint in hints.items() if name in CONTROLS]
        if source := request.options.get("vae"):
            codec = self._codec(source)
            model = replace(model, codec=codec, moments=codec.moments)
        if _in_strips(request) and isinstance(model.codec, KL):
            strips = Strips(model.codec)
            model = replace(model, codec=strips, moments=strips.moments)
        fast = every(model.card, request)
        model = _with(model, _hastened(Controlled(self._network, controls) if controls else self._network, fast))
        if source := request.options.get("refiner"):
            second = self._second(source)
            second = _with(second, _hastened(_network(second), fast))
            model = _relayed(model, second, 1 - request.options["refiner_start"])
        named = ["vae", "refiner", *(f"{name}_net" for name in hints)]
        files += [place(request.options[name]) for name in named if request.options.get(name)]
        files += [place(file) for file in listed(request.options.get("embeddings"))]
        return replace(model, warnings=tuple(warnings), files=tuple(files))

    def _changed(self, request: Request) -> tuple[list[Path], list[str]]:
        """Changes the weights as the request says: the files that say how, and what of them fits nothing."""
        uses, files, warnings = [], list[Path](), list[str]()
        for file, strengths in loras(request.options.get("loras")):
            files.append(place(file))
            lora = self._lora(files[-1])
            uses.append(Use(lora, strengths.pop("", 1.0), {n: s for n, s in strengths.items() if n in lora.changes}))
            warnings += [lora.matched.warning] if lora.matched.warning else []
        self._applied.use(*uses)
        return files, warnings

    def _lora(self, path: Path) -> Lora:
        key = path, path.stat().st_mtime_ns
        if key not in self._loras:
            tensors = open_tensors(path)
            read_in = {name: tensors.read(name) for name in tensors.names()}
            self._loras[key] = read(read_in, self._targets, str(path), tensors.metadata)
        return self._loras[key]

    def _control(self, request: Request, name: str, hint: Tensor) -> Control:
        source = request.options.get(f"{name}_net")
        if not source:
            raise InvalidField(f"{name}_net", None, "the file, folder or hub name of a ControlNet beside a hint")
        if source not in self._nets:
            weight = next(self._network.parameters())
            tensors, layout = controlled(open_tensors(place(source)), self._shape.blocks)
            shape = replace(self._shape, in_channels=4)
            self._nets[source] = filled(lambda: ControlNet(shape), tensors, layout, str(weight.device), weight.dtype)
        return Control(self._nets[source], hint, *(request.options[f"{name}_{knob}"] for knob in KNOBS))


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


def _in_strips(request: Request) -> bool:
    """Whether samples are coded strip by strip: in half the memory and one and a half times the time."""
    if request.options["coding"] != "auto":
        return bool(request.options["coding"] == "strips")
    return (request.height or 0) * (request.width or 0) > LARGE


def _network(model: Model) -> LatentUNet:
    assert isinstance(model.denoiser, NetworkDenoiser), "a network on a path"
    assert isinstance(model.denoiser.network, LatentUNet), "a U-Net as it was loaded"
    return model.denoiser.network


def _hastened(network: LatentUNet | Controlled, fast: int) -> Network:
    """The network, its deep part computed at every so manieth step."""
    return network if fast == 1 else Fast(network.around, fast)


def _with(model: Model, network: Network) -> Model:
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
    return replace(_with(model, network), encoder=encode)


def loras(text: str | None) -> list[tuple[str, dict[str, float]]]:
    """FILE, FILE:STRENGTH or FILE:STRENGTH:TEXT_STRENGTH, between commas: files and strengths by the part of the model,
    "" for all others. Raises InvalidField."""
    found = []
    for entry in listed(text):
        file, numbers = entry, list[float]()
        while len(numbers) < 2 and (number := _number(file.rpartition(":")[2])) is not None and ":" in file:
            file, numbers = file.rpartition(":")[0], [number, *numbers]
        if not file:
            raise InvalidField("loras", entry, "FILE, FILE:STRENGTH or FILE:STRENGTH:TEXT_STRENGTH")
        words = {"text_encoder": numbers[1], "text_encoder_2": numbers[1]} if len(numbers) == 2 else {}
        found.append((file, {"": numbers[0] if numbers else 1.0, **words}))
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
