"""Google's Vertex AI: Veo, Lyria 2, the Gemini image models that left the Gemini API, and Imagen's wire.

The key is an access token that lives for an hour, of a project in a location. Gateways speak the same wire; with
form = "gemini" in [vertex] of config.toml they are asked as the Gemini API was, without a project.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from triptych.errors import NotSetUp, ProviderError
from triptych.providers import google_content, vertex_predict
from triptych.providers.google_words import check_pictures, explain
from triptych.providers.wire import tables
from triptych.providers.wire.vendor import Answer, Reply
from triptych.types import Card, Price, Request

if TYPE_CHECKING:
    from triptych.providers.wire.account import Account
    from triptych.providers.wire.http import Wire

__all__ = ["Vertex"]

NAME: Final = "vertex"
LOCATION: Final = "us-central1"
REGIONS = ("us", "eu")  # which are many places
STORAGE: Final = "https://storage.googleapis.com"
OPERATION: Final = re.compile(r"(?P<model>projects/[\w.:-]+/locations/(?P<location>[\w-]+)/[\w./-]+)/operations/[\w-]+")
VERSIONS: Mapping[str, str] = {"vertex": "v1beta1", "gemini": "v1beta"}


@final
class Vertex:
    """Its models with an access token of Google Cloud."""

    name = NAME

    def cards(self) -> Mapping[str, Card]:
        return tables.cards(NAME)

    def card(self, name: str) -> Card | None:
        return self.cards().get(name)

    def batch(self, card: Card) -> int:
        return int(card.settings.get("batch", 1))

    def check(self, card: Card, request: Request) -> None:
        vertex_predict.check(card, request)
        if card.settings["wire"] == "content":
            check_pictures(card, request)

    def price(self, card: Card, request: Request) -> Price:
        return tables.list_price(card, request)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        model = _model(wire.account, card.name)
        match card.settings["wire"]:
            case "content":
                reply = await wire.pay(f"{model}:generateContent", json=google_content.body(card, request))
                told = reply.json()
                return replace(google_content.heard(told), cost=tables.usage_cost(card, google_content.tokens(told)))
            case "veo":
                reply = await wire.pay(f"{model}:predictLongRunning", json=vertex_predict.BODIES["veo"](card, request))
                return vertex_predict.begun(reply.json(), card.name)
            case kind:
                body = vertex_predict.BODIES[kind](card, request)
                return vertex_predict.found((await wire.pay(f"{model}:predict", json=body)).json())

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        """An operation of a project is asked for where it began, by its name in a body; any other by its path."""
        account, name = wire.account, handle["operation"]
        place = OPERATION.fullmatch(name)
        if place is not None:
            path = f"{_base(account, place['location'])}/{_version(account)}/{place['model']}:fetchPredictOperation"
            reply = await wire.ask(path, method="POST", json={"operationName": name})
        else:
            reply = await wire.ask(f"{_base(account, '')}/{_version(account)}/{name}")
        storage = account.settings.get("storage", STORAGE)
        return replace(vertex_predict.operation(reply.json(), storage, reply.after), handle=handle)

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        return False

    def explain(self, reply: Reply) -> ProviderError:
        return explain(tables.spec(NAME), reply)


def _model(account: "Account", name: str) -> str:
    """The URL of a model, without the verb. Raises NotSetUp."""
    if _form(account) == "gemini":
        return f"{_base(account, '')}/{_version(account)}/models/{name}"
    location = account.settings.get("location", LOCATION)
    if not location.replace("-", "").isalnum():
        raise NotSetUp(f"location {location!r} of vertex is none: see GOOGLE_CLOUD_LOCATION or config.toml.")
    place = f"projects/{account.settings.get('project', '-')}/locations/{location}/publishers/google/models"
    return f"{_base(account, location)}/{_version(account)}/{place}/{name}"


def _base(account: "Account", location: str) -> str:
    """The host of a location, or the gateway that is set."""
    base_url = account.base_url.rstrip("/")
    if base_url != account.spec.base_url or location in ("", "global"):
        return base_url
    if location in REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def _version(account: "Account") -> str:
    return account.settings.get("api_version", VERSIONS[_form(account)])


def _form(account: "Account") -> str:
    """Raises NotSetUp where it is none."""
    form = account.settings.get("form", "vertex")
    if form not in VERSIONS:
        raise NotSetUp(f"form {form!r} of vertex is none of {', '.join(VERSIONS)}: see [vertex] of config.toml.")
    return form
