"""The machine at hand as one more provider: asynchronous outside, one thread hop, one job at a time on a device."""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from triptych import families
from triptych.errors import InvalidField
from triptych.providers import Finding, Resolved
from triptych.providers.here import drift, pictures
from triptych.providers.here.latents import Latents
from triptych.types import Card, Event, Field, Price, Request, Ticket

if TYPE_CHECKING:
    from triptych.providers.here.work import Bench

__all__ = ["OPTIONS", "Local"]

SEEDS = 2**32

OPTIONS: Mapping[str, Field] = {  # what every model takes when it runs here
    "device": Field("str", default="auto", help="cpu, cuda, cuda:1, mps; auto: the first GPU, else the CPU"),
    "dtype": Field("str", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="of the networks"),
    "preview_every": Field("float", default=0.0, minimum=0, help="seconds between previews; 0: none"),
    "trace": Field(
        "str", default="none", choices=("none", "png", "mp4", "gif", "webp"), help="show the first sample's path"
    ),
}


@final
class Local:
    """Every family that is installed, run in this process."""

    name = "local"

    def __init__(self, folder: Path, measured: Path | None = None, cache: Path | None = None) -> None:
        """folder: where latents wait until they are decoded; measured: where tables of drift are, if anywhere; cache:
        where encoded prompts and quantised weights are kept, if anywhere."""
        self._folder, self._cache = folder, cache
        self._drift = drift.Tables(measured)
        self._bench: Bench | None = None
        self._stops: dict[str, threading.Event] = {}

    def cards(self) -> Mapping[str, Card]:
        return {name: _local(card) for name, card in families.cards().items()}

    def card(self, name: str) -> Card:
        return _local(families.card(name))

    def price(self, request: Request) -> Price:
        """Nothing: the machine is paid for."""
        self._resolve(request)
        return Price()

    def lacks(self, name: str) -> str:
        """Its weights, where they are not on this machine yet."""
        source = families.cards()[name].settings.get("source") if name in families.cards() else None
        if source is None or families.fetched(source):
            return ""
        return f"needs its weights ({source}), which are fetched when it is first used"

    async def check(self) -> Sequence[Finding]:
        """The device, the memory, the weights that are here."""
        from triptych.providers.here.device import findings

        here = [name for name in families.cards() if not self.lacks(name)]
        weights = Finding("weights", True, f"here: {', '.join(here)}", "others are fetched when first used")
        return [*await asyncio.to_thread(findings), weights]

    def gateway(self) -> bool:
        return False

    def plan(self, request: Request) -> str:
        """What comes into memory when, as headers tell. Raises InvalidField, WeightsError."""
        from triptych.providers.here.device import pick_device, pick_dtype

        resolved, _ = self._resolve(request)
        card, device = families.card(resolved.model), pick_device(resolved.options["device"])
        if not families.here(card):
            return ""
        return families.planned(card, device, pick_dtype(resolved), resolved)

    async def resolve(self, request: Request) -> Resolved:
        """Raises InvalidField, or FileProblem where an input is no picture."""
        resolved, warnings = await asyncio.to_thread(self._resolve, request)  # which may ask a hub
        return Resolved(resolved, tuple(warnings))

    async def submit(self, request: Request, key: str | None = None) -> Ticket:
        """As `resolve`; one that is resolved stays as it is."""
        return Ticket(self.name, (await self.resolve(request)).request, {"id": key or secrets.token_hex(8)})

    def find(self, key: str, request: Request) -> Ticket | None:
        """None: it costs nothing to begin anew."""
        return None

    async def watch(self, ticket: Ticket) -> AsyncIterator[Event]:
        """Runs what is left to do of the ticket. Raises TriptychError."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event | BaseException | None]()
        stop = self._stops.setdefault(ticket.handle["id"], threading.Event())
        worker = threading.Thread(target=self._work, args=(ticket, stop, loop, events), daemon=True)
        worker.start()
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            stop.set()
            self._stops.pop(ticket.handle["id"], None)

    async def cancel(self, ticket: Ticket) -> None:
        """The worker looks after every step."""
        self._stops.setdefault(ticket.handle["id"], threading.Event()).set()

    def kept(self, ticket: Ticket) -> str:
        return self._latents(ticket).tell(ticket.request)

    async def forget(self, ticket: Ticket) -> None:
        self._latents(ticket).remove()

    def _latents(self, ticket: Ticket) -> Latents:
        return Latents(self._folder / ticket.handle["id"])

    def _work(
        self,
        ticket: Ticket,
        stop: threading.Event,
        loop: asyncio.AbstractEventLoop,
        events: asyncio.Queue[Event | BaseException | None],
    ) -> None:
        """The thread: every event, then what went wrong or None."""
        last: BaseException | None = None
        try:
            from triptych.providers.here.work import Bench

            self._bench = self._bench or Bench(self._cache)
            for event in self._bench.run(ticket.request, self._latents(ticket), stop):
                loop.call_soon_threadsafe(events.put_nowait, event)
        except BaseException as problem:  # it crosses the thread and is raised by the watcher
            last = problem
        with suppress(RuntimeError):  # nobody is left to hear it
            loop.call_soon_threadsafe(events.put_nowait, last)

    def _resolve(self, request: Request) -> tuple[Request, Sequence[str]]:
        """The request with all that it did not say, and what has to be said of that."""
        from triptych.families import elsewhere  # which takes its time, and few commands need it

        card = self.card(request.model)
        resolved = pictures.settled(card, card.resolve(_sized(card, request)))
        if "mask" in resolved.inputs and "init" not in resolved.inputs:
            raise InvalidField("mask", "a file", "only beside an init", "Give the picture that is to change as init.")
        whole, told = elsewhere.completed(card, resolved)
        settled, warnings = self._drift.settled(card, whole)
        return replace(settled, seed=_seed(settled)), [*told, *warnings]


def _local(card: Card) -> Card:
    return replace(card, fields={**OPTIONS, **pictures.fields(card), **drift.fields(card), **card.fields})


def _sized(card: Card, request: Request) -> Request:
    """The size of the init where none is asked for and the model can make it, or the one near it that the model was
    trained for. Reads every input."""
    if not {"height", "width"} <= {axis.name for axis in card.axes}:
        return request
    from triptych.media import image

    sizes = {name: image.picture(value.data, f"the {name}").size for name, value in request.inputs.items()}
    if "init" in sizes and "extend" in request.options and "extend" in card.fields:
        return pictures.on_canvas(card, request, sizes["init"])
    if "init" not in sizes or request.width is not None or request.height is not None:
        return request
    width, height = pictures.usual(card, sizes["init"])
    fitting = replace(request, width=width, height=height)
    try:
        card.lengths(fitting)
    except InvalidField:
        return request
    return fitting


def _seed(request: Request) -> int:
    """A seed that leaves room for all samples. Raises InvalidField."""
    room = SEEDS - request.count
    if request.seed is None:
        return secrets.randbelow(room + 1)
    if request.seed > room:
        raise InvalidField("seed", request.seed, f"0 to {room} with count {request.count}")
    return request.seed
