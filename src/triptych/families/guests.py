"""What requests bring into a loaded model, and the room that all of it has there."""

import math
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import replace
from typing import Any, Final, final

import torch
from torch import Tensor

from triptych.engine.codecs.kl import KL
from triptych.engine.codecs.tiles import Strips
from triptych.engine.denoiser import Network, NetworkDenoiser
from triptych.errors import InvalidField
from triptych.model import Model
from triptych.types import Request
from triptych.weights.loading import Component
from triptych.weights.memory import available
from triptych.weights.offload import Posterior, Rooms, StagedCodec, StagedNetwork
from triptych.weights.plan import Moment, Plan

__all__ = ["CONTROLS", "Guests", "Moments", "decoding", "net_of", "staged_codec", "walking_on", "working"]

CONTROLS: Final = ("control", "control_2", "control_3")  # inputs of a request: hints

Moments = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Names of what is told the prompt, of what walks, and of what codes."""

LARGE: Final = 1600 * 1600  # pixels that a codec takes about 4 GiB to decode whole, in bfloat16
PATCH: Final = 8 * 8  # pixels of a latent


def decoding(pixels: int, dtype: torch.dtype) -> int:
    """Bytes beside its weights that a KL codec takes for so many pixels as a whole.

    Measured on a CPU in bfloat16, the peak of the process, at 512 and 768 pixels; float32 takes twice as much.
    """
    return working(pixels, dtype, 128, 1800)


def working(pixels: int, dtype: torch.dtype, least: int, each: int) -> int:
    """Bytes of some work on so many pixels: so many MiB and so many bytes a pixel in numbers of two bytes."""
    return (least * 2**20 + each * pixels) * dtype.itemsize // 2


def net_of(request: Request, name: str) -> str:
    """Where the ControlNet of a hint lies. Raises InvalidField where the request does not say."""
    source = request.options.get(f"{name}_net")
    if not source:
        raise InvalidField(f"{name}_net", None, "the file, folder or hub name of a ControlNet beside a hint")
    return str(source)


def staged_codec(codec: Posterior, rooms: Rooms, name: str, dtype: torch.dtype) -> StagedCodec:
    """The codec, whose component of this name comes when it is used; in strips it takes half the memory."""
    share = 2 if isinstance(codec, Strips) else 1
    return StagedCodec(codec, dtype, rooms, name, lambda pixels: decoding(pixels, dtype) // share)


def walking_on(model: Model, network: Network) -> Model:
    """The model with another network on the same path."""
    assert isinstance(model.denoiser, NetworkDenoiser), "a network on a path"
    was = model.denoiser
    return replace(model, denoiser=NetworkDenoiser(network, was.path, was.target, was.timestep))


@final
class Guests:
    """The components that requests add, by their names in the rooms, and how much the model's work takes beside them.

    walking: pixels of all pictures of a batch to the bytes that a step takes beside the network's weights.
    """

    def __init__(self, rooms: Rooms, device: str, walking: Callable[[int], int]) -> None:
        self.rooms, self._device, self._walking = rooms, device, walking
        self._here: dict[str, Component[Any]] = {}

    def dismiss(self, wanted: Set[str]) -> None:
        """All but these go."""
        for name in self._here.keys() - wanted:
            del self._here[name]
            self.rooms.remove(name)

    def welcome(self, name: str, make: Callable[[], Component[Any]]) -> Component[Any]:
        """The one of this name, made if it is not there."""
        if name not in self._here:
            self._here[name] = make()
            self.rooms.add(name, self._here[name])
        return self._here[name]

    def make_room(self, request: Request, codec: StagedCodec, apart: Collection[str] = ()) -> float:
        """How much there is for the request, and everything into it if it holds everything; bytes that are left.

        apart: those that come when they are used, which may be never.
        """
        self._measure(request)
        work = max(self._works(request, codec))
        self.rooms.settle(work, apart)
        return self.rooms.budget - self.rooms.held - work

    def plan(self, request: Request, codec: StagedCodec, moments: Moments) -> Plan:
        """What is going to be in memory when, and how much that takes. It reads nothing."""
        self._measure(request)
        return self._planned(request, codec, moments)

    def told(self, request: Request, codec: StagedCodec, moments: Moments) -> list[str]:
        """What has to be said of the room that was made: where not everything stays, or somebody has asked."""
        plan = self._planned(request, codec, moments)
        asked = request.options.get("memory") not in (None, "auto")
        return [f"memory: {plan}"] if asked or plan.passing or len(plan.turns) > 1 else []

    def _measure(self, request: Request) -> None:
        """How much memory there is for the request."""
        self.rooms.budget = self.rooms.held + available(self._device, request.options.get("memory"))

    def _works(self, request: Request, codec: StagedCodec) -> tuple[int, int, int]:
        """Bytes that telling, walking and coding take beside weights."""
        pixels = (request.height or 0) * (request.width or 0)
        return 0, self._walking(2 * pixels * request.count), codec.work(pixels)

    def _planned(self, request: Request, codec: StagedCodec, moments: Moments) -> Plan:
        turns = zip(moments, self._works(request, codec), strict=True)
        return self.rooms.plan([Moment(tuple(names), work) for names, work in turns if names])

    def coder(self, own: StagedCodec, source: str | None, make: Callable[[], Component[KL]]) -> StagedCodec:
        """The codec: of a source, or the model's own."""
        if source is None:
            return own
        guest = self.welcome(f"vae {source}", make)
        return staged_codec(guest.module, self.rooms, f"vae {source}", guest.dtype)

    def fitting(self, request: Request, codec: StagedCodec) -> StagedCodec:
        """The codec as it is used: strip by strip in half the memory and one and a half times the time, or whole."""
        assert isinstance(codec.codec, KL), "a codec as it was loaded"
        asked = request.options["coding"]
        pixels = (request.height or 0) * (request.width or 0)
        short = pixels > LARGE or codec.work(pixels) > self.rooms.budget
        if asked == "strips" or (asked == "auto" and short):
            return staged_codec(Strips(codec.codec), self.rooms, codec.name, codec.dtype)
        return codec

    def network(self, network: Network, names: Sequence[str]) -> StagedNetwork:
        """The network, whose components of these names come when it is called."""

        def work(x: Tensor) -> int:
            return self._walking(len(x) * math.prod(x.shape[2:]) * PATCH)

        return StagedNetwork(network, self.rooms, names, work)
