"""fal: any model that it hosts, by its path. A request waits in a queue; where it stands, and its result, lie at URLs.

The card comes out of the model's OpenAPI description, which is public. URLs are asked as the answer gives them. Files
of some size are uploaded first, with a token that is good for that alone.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

from triptych.errors import BadAnswer, ProviderError
from triptych.providers.hosted import cards as hosted
from triptych.providers.hosted.outputs import FIRST, assets, medium_of
from triptych.providers.hosted.schema import inlined
from triptych.providers.wire import tables
from triptych.providers.wire.vendor import Answer, Reply, encoded, explained, state_of
from triptych.types import Artifact, Card, Medium, Price, Request, TicketState

if TYPE_CHECKING:
    from triptych.providers.wire.account import Account
    from triptych.providers.wire.http import Wire

__all__ = ["Fal"]

NAME: Final = "fal"
SCHEMA: Final = "https://fal.ai/api/openapi/queue/openapi.json"
UPLOAD: Final = "https://rest.fal.ai/storage/auth/token?storage_type=fal-cdn-v3"
PAGE: Final = "https://fal.ai/models"
INLINE: Final = 256 * 1024  # bytes of a file that goes along as a data URL
STATES: Mapping[str, TicketState] = {
    "IN_QUEUE": "queued",
    "IN_PROGRESS": "running",
    "COMPLETED": "succeeded",
    "CANCELLED": "cancelled",
}
HEADERS: Mapping[str, str] = {  # by the settings
    "priority": "X-Fal-Queue-Priority",
    "start_timeout": "X-Fal-Request-Timeout",
    "no_retry": "X-Fal-No-Retry",
    "lifecycle": "X-Fal-Object-Lifecycle-Preference",
}
RULES = re.compile(r"content[_ ]policy|nsfw|safety[_ ](?:checker|filter)|flagged|moderat", re.IGNORECASE)


@final
class Fal:
    """Its models, each as its own description says."""

    name = NAME

    def __init__(self, account: "Callable[[], Account]") -> None:
        """account: read when a description is asked for."""
        self._account = account
        self._shelf = hosted.Shelf(NAME, PAGE, lambda parts: not parts.version, self._asked)

    def cards(self) -> Mapping[str, Card]:
        """None that can be told without asking."""
        return {}

    def card(self, name: str) -> Card | None:
        """Asks once a process. Raises UnknownName, Unreachable, InvalidField."""
        return self._shelf.card(name)

    def batch(self, card: Card) -> int:
        return int(card.settings["batch"])

    def check(self, card: Card, request: Request) -> None:
        hosted.check(card, request)

    def price(self, card: Card, request: Request) -> Price:
        return hosted.price(card, request, card.name.partition("#")[0])

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        urls = {name: await _placed(wire, file) for name, file in request.inputs.items()}
        given = wire.account.settings
        headers = {header: given[name] for name, header in HEADERS.items() if name in given}
        reply = await wire.pay(card.settings["id"], json=hosted.body(card, request, urls), headers=headers)
        told = reply.json()
        id = told.get("request_id")
        if not isinstance(id, str) or not id:
            raise BadAnswer("its answer does not say which request it is.")
        owner, app, *_ = card.settings["id"].split("/")
        place = wire.url(f"{owner}/{app}/requests/{id}")  # where the protocol puts what an answer leaves out
        handle = {"request_id": id, "media": card.media}
        for name, end in (("response_url", ""), ("status_url", "/status"), ("cancel_url", "/cancel")):
            handle[name] = str(told.get(name) or f"{place}{end}")
        state = state_of(NAME, str(told.get("status", "IN_QUEUE")), STATES)
        begun: TicketState = "running" if state == "succeeded" else state  # the result is told to a look alone
        return Answer(begun, handle, status=_waiting(told))

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        told = (await wire.ask(handle["status_url"], params={"logs": "false"})).json()
        state = state_of(NAME, str(told.get("status", "")), STATES)
        if state != "succeeded":
            return Answer(state, handle, status=_waiting(told))
        if told.get("error"):
            words = f"{told['error']}"
            ruled = RULES.search(f"{told.get('error_type', '')} {words}")
            return Answer("moderated" if ruled else "failed", handle, reason=words)
        reply = await wire.ask(handle["response_url"], takes=lambda reply: reply.ok or reply.status in (400, 422))
        if not reply.ok:  # how a model says that it will not, or cannot
            return Answer("moderated" if _ruled(reply) else "failed", handle, reason=_words(reply))
        units = reply.headers.get("x-fal-billable-units")
        return _made(reply.json(), handle, {"billable_units": units} if units else {})

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        """Of one that is at work already it is a request to stop, no more."""
        await wire.ask(handle["cancel_url"], method="PUT")
        return True

    def explain(self, reply: Reply) -> ProviderError:
        words, spec = _words(reply), tables.spec(NAME)
        broke = reply.status == 403 and "balance" in words.lower()
        return explained(spec.title, reply, words, refused=_ruled(reply), credit=broke, key=spec.page)

    def _asked(self, name: str, parts: hosted.Name) -> Card:
        from triptych.providers.wire.http import ask_once

        account = self._account()
        place = account.settings.get("schema", SCHEMA)
        reply = ask_once(account, f"{place}?endpoint_id={quote(parts.id, safe='')}")
        if reply.status in (400, 404, 422):
            raise hosted.unknown(name, NAME, PAGE)
        if not reply.ok:
            raise self.explain(reply)
        return _card(name, parts, reply.json())


def _card(name: str, parts: hosted.Name, told: Mapping[str, Any]) -> Card:
    """Out of a model's OpenAPI description: what its path takes, and what a request there gives."""
    try:
        paths = told["paths"]
        posted = next(one["post"] for path, one in paths.items() if "post" in one and "/requests/" not in path)
        inputs = posted["requestBody"]["content"]["application/json"]["schema"]
        results = [one["get"] for path, one in paths.items() if path.endswith("/requests/{request_id}")]
        output = results[0]["responses"]["200"]["content"]["application/json"]["schema"] if results else {}
    except (KeyError, TypeError, AttributeError, StopIteration) as problem:
        raise BadAnswer(f"{NAME} describes {parts.id} in a way that cannot be read: {problem!r}.") from None
    about = told.get("info", {}).get("x-fal-metadata", {})
    media = hosted.medium(name, parts, _guessed(inlined(output, told), str(about.get("category", ""))))
    said = {"family": NAME, "license": "the terms of fal and of the model's makers", "summary": f"{parts.id} at fal"}
    return hosted.card(name, inputs, told, media, said, id=parts.id)


def _guessed(output: Mapping[str, Any], category: str) -> Medium | None:
    """By what the result holds, else by what fal files it under: text-to-video."""
    held = output.get("properties", {})
    found: list[Medium] = [media for media, keys in FIRST.items() if held.keys() & set(keys)]
    return found[0] if len(found) == 1 else medium_of(f"{category.rpartition('-to-')[2]}/")


def _made(told: dict[str, Any], handle: Mapping[str, Any], beside: Mapping[str, Any]) -> Answer:
    """What came of it: what its own filter blackened is left out."""
    found, flags = assets(told, handle["media"]), told.get("has_nsfw_concepts")
    clean = found
    if isinstance(flags, list) and len(flags) == len(found):
        clean = tuple(asset for asset, flag in zip(found, flags, strict=True) if flag is not True)
    reason = "" if len(clean) == len(found) else f"its filter holds {len(found) - len(clean)} to be unsafe"
    if not clean:
        return Answer("moderated" if found else "failed", handle, reason=reason or "its result holds no such file")
    kept = {name: told[name] for name in ("seed", "prompt") if isinstance(told.get(name), int | str)}
    return Answer(
        "succeeded", handle, clean, reason=reason, told={"request_id": handle["request_id"], **kept, **beside}
    )


async def _placed(wire: "Wire", file: Artifact) -> str:
    """Where fal finds a file: in the request itself, or uploaded."""
    if len(file.data) <= INLINE:
        return encoded(file, url=True)
    told = (await wire.ask(wire.account.settings.get("upload", UPLOAD), method="POST", json={})).json()
    try:
        base, token = str(told["base_url"]), f"{told['token_type']} {told['token']}"
        headers = {"authorization": token, "content-type": file.mime}
        reply = await wire.ask(f"{base}/files/upload", method="POST", content=file.data, headers=headers)
        return str(reply.json()["access_url"])
    except KeyError as problem:
        raise BadAnswer(f"its answer to an upload lacks {problem}; nothing was asked for.") from None


def _waiting(told: Mapping[str, Any]) -> str:
    place = told.get("queue_position")
    return f"in the queue, {place} before it" if isinstance(place, int) else str(told.get("status", ""))


def _details(reply: Reply) -> list[Mapping[str, Any]]:
    """What went wrong, as fal lists it: {loc, msg, type} each, or a text alone. Never raises."""
    try:
        told = reply.json()
    except BadAnswer:
        return []
    found = told.get("detail", told.get("error", ""))
    if isinstance(found, list):
        return [one for one in found if isinstance(one, Mapping)]
    return [{"msg": str(found), "type": str(told.get("error_type", ""))}] if found else []


def _words(reply: Reply) -> str:
    told = (f"{_place(one.get('loc'))} {one.get('msg', '')}".strip() for one in _details(reply))
    return "; ".join(filter(None, told))


def _place(told: Any) -> str:
    return ".".join(map(str, told)) if isinstance(told, list) else ""


def _ruled(reply: Reply) -> bool:
    """Whether its rules are why: by the kind of error alone, since words may quote the prompt."""
    kinds = [reply.headers.get("x-fal-error-type", ""), *(str(one.get("type", "")) for one in _details(reply))]
    return any(RULES.search(kind) for kind in kinds)
