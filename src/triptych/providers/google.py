"""Google's Gemini API: the Nano Banana family, Omni's clips and Lyria's music, by Interactions.

Pictures also come by generateContent, which more gateways speak: the option wire. What runs on Vertex AI, with another
key, is in vertex.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from triptych.errors import InvalidField, ProviderError
from triptych.providers import google_content, google_interactions
from triptych.providers.google_words import explain
from triptych.providers.wire import tables
from triptych.providers.wire.vendor import Answer, Reply
from triptych.types import Card, Price, Request

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = ["Google"]

NAME: Final = "google"
BEYOND = ("background", "delivery", "output_format", "previous_interaction_id")  # what generateContent has not


@final
class Google:
    """Its models with a key of the Gemini API, one request a sample."""

    name = NAME

    def cards(self) -> Mapping[str, Card]:
        return tables.cards(NAME)

    def card(self, name: str) -> Card | None:
        return self.cards().get(name)

    def batch(self, card: Card) -> int:
        return 1

    def check(self, card: Card, request: Request) -> None:
        google_interactions.check(card, request)
        if request.options.get("wire") != "generateContent":
            return
        for name in BEYOND:
            if request.options.get(name, card.fields[name].default) != card.fields[name].default:
                allowed = "none with wire generateContent"
                raise InvalidField(name, request.options[name], allowed, "Leave one of the two out.")

    def price(self, card: Card, request: Request) -> Price:
        """By the list; of a clip that is changed, which keeps its length, from the shortest to the longest."""
        if card.media != "video" or google_interactions.task(request) != "edit":
            return tables.list_price(card, request)
        axis, why = card.axes[0], "it is as long as the clip that is changed"
        least = tables.list_price(card, replace(request, duration=axis.minimum))
        most = tables.list_price(card, replace(request, duration=axis.maximum))
        return Price(most.most, least.most if least.least is None else least.least, why)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        if request.options.get("wire") == "generateContent":
            path = f"/{_version(wire)}/models/{card.name}:generateContent"
            told = (await wire.pay(path, json=google_content.body(card, request))).json()
            return replace(google_content.heard(told), cost=tables.usage_cost(card, google_content.tokens(told)))
        reply = await wire.pay(f"/{_version(wire)}/interactions", json=google_interactions.body(card, request))
        return self._heard(reply, {"model": card.name, "media": card.media})

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        path = f"/{_version(wire)}/interactions/{handle['id']}"
        return self._heard(await wire.ask(path, params={"stream": "false"}), handle)

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        await wire.ask(f"/{_version(wire)}/interactions/{handle['id']}/cancel", method="POST")
        return True

    def explain(self, reply: Reply) -> ProviderError:
        return explain(tables.spec(NAME), reply)

    def _heard(self, reply: Reply, handle: Mapping[str, Any]) -> Answer:
        told = reply.json()
        answer, card = google_interactions.heard(told, handle, reply.after), self.card(handle["model"])
        counts = google_interactions.tokens(told)
        return answer if card is None else replace(answer, cost=tables.usage_cost(card, counts))


def _version(wire: "Wire") -> str:
    return wire.account.settings.get("api_version", "v1")
