"""Replicate: any model that it hosts, as owner/name or owner/name:version. A request is a prediction, looked at by URL.

The card comes out of the OpenAPI description that a version carries. Results are kept for an hour. What a prediction
costs is not in its answer: predict_time is seconds of a machine, and no price.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from triptych.errors import BadAnswer, NotSetUp, ProviderError
from triptych.providers.hosted import cards as hosted
from triptych.providers.hosted.outputs import assets, medium_in
from triptych.providers.wire import tables
from triptych.providers.wire.checks import ready
from triptych.providers.wire.vendor import Answer, Part, Reply, encoded, explained, state_of
from triptych.types import Artifact, Card, Medium, Price, Request, TicketState

if TYPE_CHECKING:
    from triptych.providers.wire.account import Account
    from triptych.providers.wire.http import Wire

__all__ = ["Replicate", "answered"]

NAME: Final = "replicate"
PAGE: Final = "https://replicate.com/explore"
INLINE: Final = 256 * 1024  # bytes of a file that goes along as a data URL
STATES: Mapping[str, TicketState] = {
    "starting": "queued",
    "processing": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
    "aborted": "failed",
}
HEADERS: Mapping[str, tuple[str, str]] = {  # by the settings: the header, and what it may say
    "prefer": ("Prefer", r"wait(=([1-9]|[1-5]\d|60))?"),
    "cancel_after": ("Cancel-After", r"(\d+[hms])+"),
}
RULES = re.compile(r"nsfw|flagged|sensitive|safety (?:checker|filter)|content polic|moderat", re.IGNORECASE)
DONE = re.compile(r"(\d+)%\|")  # of a bar in the log


@final
class Replicate:
    """Its models, each as its own description says."""

    name = NAME

    def __init__(self, account: "Callable[[], Account]") -> None:
        """account: read when a description is asked for."""
        self._account = account
        self._shelf = hosted.Shelf(NAME, PAGE, lambda parts: parts.id.count("/") == 1, self._asked)

    def cards(self) -> Mapping[str, Card]:
        """None that can be told without asking."""
        return {}

    def card(self, name: str) -> Card | None:
        """Asks once a process, with the key. Raises UnknownName, Unreachable, InvalidField, NotSetUp, KeyRefused."""
        return self._shelf.card(name)

    def batch(self, card: Card) -> int:
        return int(card.settings["batch"])

    def check(self, card: Card, request: Request) -> None:
        hosted.check(card, request)

    def price(self, card: Card, request: Request) -> Price:
        parts = hosted.named(card.name, NAME)
        return hosted.price(card, request, f"{NAME}:{parts.id}" if parts else card.name)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        headers = _headers(wire.account.settings)
        urls = {name: await _placed(wire, file) for name, file in request.inputs.items()}
        body: dict[str, Any] = {"input": hosted.body(card, request, urls)}
        path, version = f"v1/models/{card.settings['id']}/predictions", card.settings["version"]
        if version:
            path, body = "v1/predictions", {"version": version, **body}
        told = (await wire.pay(path, json=body, headers=headers)).json()
        return answered(told, card.media, wire.url(f"v1/predictions/{told.get('id', '')}"))

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        told = (await wire.ask(handle["get"])).json()
        return answered(told, handle["media"], handle["get"])

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        await wire.ask(handle["cancel"], method="POST")
        return True

    def explain(self, reply: Reply) -> ProviderError:
        words, spec = _words(reply), tables.spec(NAME)
        ruled = reply.status in (400, 422) and RULES.search(words) is not None
        return explained(spec.title, reply, words, refused=ruled, key=spec.page)

    def _asked(self, name: str, parts: hosted.Name) -> Card:
        ready(self._account())
        place = f"v1/models/{parts.id}"
        model = self._got(name, place)
        newest = model.get("latest_version")
        found = self._got(name, f"{place}/versions/{parts.version}") if parts.version else newest
        if not isinstance(found, Mapping) or not isinstance(found.get("openapi_schema"), Mapping):
            raise BadAnswer(f"Replicate does not describe {parts.id}: it has no version that can be asked.")
        pinned = parts.version or ("" if model.get("is_official", True) else str(found.get("id", "")))
        return _card(name, parts, found["openapi_schema"], model, pinned)

    def _got(self, name: str, path: str) -> dict[str, Any]:
        from triptych.providers.wire.http import ask_once

        account = self._account()
        reply = ask_once(account, f"{account.base_url}/{path}")
        if reply.status == 404:
            raise hosted.unknown(name, NAME, PAGE)
        if not reply.ok:
            raise self.explain(reply)
        return reply.json()


def answered(told: dict[str, Any], media: Medium, place: str) -> Answer:
    """What a prediction says. place: where it lies, unless it says so itself. Raises BadAnswer."""
    urls, id = told.get("urls"), told.get("id")
    if not isinstance(id, str) or not id:
        raise BadAnswer("its answer does not say which prediction it is.")
    urls = urls if isinstance(urls, Mapping) else {}
    get = str(urls.get("get") or place)
    handle = {"id": id, "media": media, "get": get, "cancel": str(urls.get("cancel") or f"{get}/cancel")}
    word, reason = str(told.get("status", "")), str(told.get("error") or "")
    state = state_of(NAME, word, STATES)
    if state == "failed" and RULES.search(reason):
        state = "moderated"
    if state != "succeeded":
        return Answer(state, handle, fraction=_fraction(told.get("logs")), status=word, reason=reason)
    found = assets(told.get("output"), media)
    if not found:
        gone = told.get("data_removed") is True
        return Answer("expired" if gone else "moderated" if reason else "failed", handle, reason=reason or _empty(gone))
    kept = {name: told[name] for name in ("id", "version", "metrics") if told.get(name)}
    return Answer(state, handle, found, fraction=1.0, status=word, told=kept)


def _empty(gone: bool) -> str:
    return "results are kept for an hour" if gone else "its result holds no such file"


def _card(name: str, parts: hosted.Name, schema: Mapping[str, Any], model: Mapping[str, Any], pinned: str) -> Card:
    kinds = schema.get("components", {}).get("schemas", {})
    inputs = kinds.get("Input", {})
    media = hosted.medium(name, parts, _guessed(kinds, model))
    about = {
        "family": NAME,
        "license": str(model.get("license_url") or "the terms of Replicate and of the model's makers"),
        "summary": str(model.get("description") or f"{parts.id} at Replicate"),
    }
    return hosted.card(name, inputs, schema, media, about, id=parts.id, version=pinned)


def _guessed(kinds: Mapping[str, Any], model: Mapping[str, Any]) -> Medium | None:
    """By what its example gave, since the description says no more than that it is a file; else by what it takes."""
    example = model.get("default_example")
    found = medium_in(example.get("output") if isinstance(example, Mapping) else None)
    held = kinds.get("Input", {}).get("properties", {}).keys()
    if found is None and held & {"aspect_ratio", "num_outputs", "output_quality"} and not held & {"duration", "fps"}:
        return "image"
    return found


async def _placed(wire: "Wire", file: Artifact) -> str:
    """Where Replicate finds a file: in the request itself, or uploaded, where it stays for a day."""
    if len(file.data) <= INLINE:
        return encoded(file, url=True)
    part = Part("content", file.data, "file", file.mime)
    told = (await wire.ask("v1/files", method="POST", parts=[part])).json()
    urls = told.get("urls")
    if not isinstance(urls, Mapping) or not isinstance(urls.get("get"), str):
        raise BadAnswer("its answer to an upload does not say where the file lies; nothing was asked for.")
    return str(urls["get"])


def _headers(settings: Mapping[str, str]) -> dict[str, str]:
    """Raises NotSetUp where a setting is not as Replicate takes it."""
    found = {}
    for name, (header, form) in HEADERS.items():
        if name in settings:
            if not re.fullmatch(form, settings[name]):
                told = 'prefer = "wait" or "wait=1" to "wait=60", cancel_after = "90s", "15m" or "1h30m"'
                raise NotSetUp(f"{name} of [{NAME}] in config.toml is {settings[name]!r}; it may say {told}.")
            found[header] = settings[name]
    return found


def _fraction(logs: Any) -> float | None:
    """The last bar in a log, in [0, 1]."""
    found = DONE.findall(logs) if isinstance(logs, str) else []
    return min(int(found[-1]) / 100, 1.0) if found else None


def _words(reply: Reply) -> str:
    try:
        told = reply.json()
    except BadAnswer:
        return ""
    return ": ".join(str(told[name]) for name in ("title", "detail", "error") if told.get(name))
