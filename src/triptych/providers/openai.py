"""OpenAI: GPT Image, and the shut-down DALL-E and Sora, whose wire gateways speak. Pictures come with the answer, with
previews where it is streamed; clips are looked for by their id."""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

from triptych.errors import BadAnswer, InDoubt, PriceUnknown, ProviderError
from triptych.providers import openai_inputs, openai_prices, openai_wire
from triptych.providers.wire import tables
from triptych.providers.wire.vendor import Answer, Part, Reply
from triptych.types import Artifact, Card, Price, Progress, Request

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = ["OpenAI"]

NAME: Final = "openai"
BATCH: Final = 10  # pictures of one call
OURS = ("partial_images", "size")  # options that are not sent as they are


@final
class OpenAI:
    """Its models, and those that gateways serve under the same names."""

    name = NAME

    def cards(self) -> Mapping[str, Card]:
        return tables.cards(NAME)

    def card(self, name: str) -> Card | None:
        return self.cards().get(name)

    def batch(self, card: Card) -> int:
        return int(card.settings.get("batch", BATCH))

    def check(self, card: Card, request: Request) -> None:
        openai_inputs.check(card, request)

    def price(self, card: Card, request: Request) -> Price:
        return openai_prices.price(card, request)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        if card.settings.get("wire") == "videos":
            return await _clip(wire, card, request)
        path, said = _said(card, request)
        previews = request.options.get("partial_images")
        if previews is None:
            told = (await wire.pay(path, **said)).json()
            return openai_wire.drawn(told, openai_prices.cost(card, told.get("usage")))
        events = wire.events(path, **said)
        first = await anext(events, None)
        if first is None:
            raise BadAnswer("the stream ended before it began.")
        mime = f"image/{request.options.get('output_format', 'png')}"
        return Answer("running", live=_live(card, openai_wire.streamed(events, first[1], previews, mime)))

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        if "id" not in handle:
            why = "the picture was on its way when this ended, and OpenAI does not keep it"
            raise InDoubt(f"{why}. It may have been charged: see your account there before you ask again.")
        reply = await wire.ask(f"videos/{quote(handle['id'], safe='')}")
        answer = replace(openai_wire.clip(reply), handle=dict(handle))
        if "remix" in handle and answer.state == "succeeded":
            return replace(answer, cost=self._remixed(reply.json()))
        return answer

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        return False

    def explain(self, reply: Reply) -> ProviderError:
        return openai_wire.explain(tables.spec(NAME), reply)

    def _remixed(self, told: Mapping[str, Any]) -> float | None:
        """Dollars of a clip that was made anew, by what is told of it; None where that is not enough."""
        card = self.card(str(told.get("model")))
        with suppress(ValueError, PriceUnknown):
            width, height = map(int, str(told.get("size")).split("x"))
            seconds = float(str(told.get("seconds")))
            if card is not None:
                like = Request(card.name, "", width=width, height=height, duration=seconds)
                return tables.list_price(card, like).most
        return None


async def _clip(wire: "Wire", card: Card, request: Request) -> Answer:
    """A new clip, or an earlier one made anew."""
    earlier = request.options.get("remix")
    if earlier is not None:
        reply = await wire.pay(f"videos/{quote(earlier, safe='')}/remix", json={"prompt": request.prompt})
    else:
        body = {
            "prompt": request.prompt,
            "model": card.name,
            "seconds": f"{request.duration:g}",
            "size": f"{request.width}x{request.height}",
        }
        init = request.inputs.get("init")
        files = [] if init is None else [openai_wire.file("input_reference", init, "init")]
        reply = await wire.pay("videos", parts=openai_wire.fields(body, files))
    answer = openai_wire.clip(reply)
    return replace(answer, handle={**answer.handle, **({} if earlier is None else {"remix": earlier})})


def _said(card: Card, request: Request) -> tuple[str, dict[str, Any]]:
    """Where a request for pictures goes, and what it says: JSON, or parts where pictures come along."""
    chosen = request.options.get("size")
    body: dict[str, Any] = {
        "model": card.name,
        "prompt": request.prompt,
        "n": request.count,
        "size": chosen or f"{request.width}x{request.height}",
        **{name: value for name, value in request.options.items() if name not in OURS},
    }
    if card.settings.get("wire") == "dall-e":
        body["response_format"] = "b64_json"
    if "partial_images" in request.options:
        body |= {"stream": True, "partial_images": request.options["partial_images"]}
    given = openai_inputs.pictures(request)
    if not given:
        return "images/generations", {"json": body}
    return "images/edits", {"parts": openai_wire.fields(body, _files(card, request, given))}


def _files(card: Card, request: Request, given: list[tuple[str, Artifact]]) -> list[Part]:
    name = "image" if card.settings.get("wire") == "dall-e" else "image[]"
    files = [openai_wire.file(name, artifact, called) for called, artifact in given]
    if "mask" in request.inputs:
        files.append(openai_wire.file("mask", openai_inputs.cut_out(request.inputs["mask"]), "mask"))
    if "markup" in request.inputs:
        files.append(openai_wire.file("markup", request.inputs["markup"], "markup"))
    return files


async def _live(
    card: Card, pieces: AsyncIterator[Progress | tuple[Answer, Mapping[str, Any]]]
) -> AsyncIterator[Progress | Answer]:
    async for piece in pieces:
        if isinstance(piece, Progress):
            yield piece
        else:
            answer, event = piece
            yield replace(answer, cost=openai_prices.cost(card, event.get("usage")))
