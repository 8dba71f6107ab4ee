"""The wire that OpenAI gave to all: /images/generations, /images/edits, /videos, in the words of their answers.

OpenAI itself and every server that speaks as it does are read by the same functions.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from triptych.errors import BadAnswer, ProviderError
from triptych.providers.wire.vendor import Answer, Data, Link, Part, Reply, decoded, explained, parsed, state_of
from triptych.types import Artifact, Progress, TicketState

if TYPE_CHECKING:
    from triptych.providers.wire.account import Spec

__all__ = ["clip", "drawn", "explain", "file", "fields", "streamed"]

REFUSED = ("moderation_blocked", "content_policy_violation", "content_filter", "sentinel_block")
CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
STATES: Mapping[str, TicketState] = {
    "queued": "queued",
    "pending": "queued",
    "in_progress": "running",
    "processing": "running",
    "completed": "succeeded",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "expired": "expired",
}  # OpenAI has four of them, servers that follow it a few more
SUFFIX = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
KEPT = ("size", "quality", "background", "output_format")  # of an answer, for the recipe


def drawn(told: Mapping[str, Any], cost: float | None = None) -> Answer:
    """The pictures of an answer to /images; without any, why there is none. cost: US dollars."""
    found = told.get("data")
    entries = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    assets = tuple(asset for one in entries if (asset := _asset(one)) is not None)
    if not assets:
        words, codes = _error(told)
        return Answer("moderated" if codes & {*REFUSED} else "failed", reason=words or "no picture came", cost=cost)
    kept = {name: told[name] for name in KEPT if isinstance(told.get(name), str)}
    revised = [one["revised_prompt"] for one in entries if isinstance(one.get("revised_prompt"), str)]
    return Answer("succeeded", assets=assets, cost=cost, told=kept | ({"revised_prompts": revised} if revised else {}))


async def streamed(
    events: AsyncIterator[tuple[str, Mapping[str, Any]]], first: Mapping[str, Any], previews: int, mime: str
) -> AsyncIterator[Progress | tuple[Answer, Mapping[str, Any]]]:
    """Previews as they come, then the answer and the event that brought it. first: an event that was awaited before;
    previews: how many were asked for; mime: of what is drawn. Raises BadAnswer where no picture ends it."""
    event: Mapping[str, Any] = first
    while True:
        kind = str(event.get("type", ""))
        if kind.endswith(".partial_image"):
            yield _preview(event, previews, mime)
        elif kind.endswith(".completed"):
            yield drawn({**event, "data": [event]}), event
            return
        elif "data" in event or "error" in event or kind == "error":
            yield drawn(event), event
            return
        following = await anext(events, None)
        if following is None:
            raise BadAnswer("the stream ended before the picture.")
        event = following[1]


def clip(reply: Reply) -> Answer:
    """How an entry of /videos stands, and where the clip lies: with the server, under its id, or at a URL it names."""
    told = reply.json()
    id, word, progress = told.get("id"), str(told.get("status", "")), told.get("progress")
    if not isinstance(id, str) or not id:
        raise BadAnswer("its answer does not say which clip it is.")
    state, (words, codes) = state_of("the /videos wire", word, STATES), _error(told)
    if state == "failed" and codes & {*REFUSED}:
        state = "moderated"
    url = told.get("url")
    at = Link(url) if isinstance(url, str) and url else Link(f"videos/{quote(id, safe='')}/content", keyed=True)
    share = progress / 100 if isinstance(progress, int | float) and not isinstance(progress, bool) else None
    return Answer(
        state,
        {"id": id},
        assets=(at,) if state == "succeeded" else (),
        fraction=None if share is None else min(max(share, 0.0), 1.0),
        status=word,
        reason=words,
        after=reply.after,
        told={"id": id} if state == "succeeded" else {},
    )


def explain(spec: "Spec", reply: Reply) -> ProviderError:
    """What an answer that is no success means."""
    try:
        told = parsed(reply.body)
    except ValueError:
        text = reply.body.decode(errors="replace").strip()
        return explained(spec.title, reply, "" if text.startswith("<") else text, key=spec.page)
    words, codes = _error(told) if isinstance(told, dict) else (json.dumps(told), set[str]())
    refused, credit = bool(codes & {*REFUSED}), bool(codes & {*CREDIT})
    return explained(spec.title, reply, words, refused=refused, credit=credit, key=spec.page)


def file(name: str, artifact: Artifact, called: str) -> Part:
    """A picture as a part of a multipart body. called: the file's name without its ending."""
    return Part(name, artifact.data, f"{called}.{SUFFIX.get(artifact.mime, 'bin')}", artifact.mime)


def fields(body: Mapping[str, Any], files: Sequence[Part] = ()) -> list[Part]:
    """A body as multipart: plain fields first, then the files."""
    plain = [Part(name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in body.items()]
    return [*plain, *files]


def _asset(one: Mapping[str, Any]) -> Data | Link | None:
    inline, url = one.get("b64_json"), one.get("url")
    if isinstance(inline, str) and inline:
        return decoded(inline)
    if isinstance(url, str) and url:
        return decoded(url) if url.startswith("data:") else Link(url)
    return None


def _preview(event: Mapping[str, Any], previews: int, mime: str) -> Progress:
    """A preview that cannot be read is none: the picture itself is still to come."""
    place = event.get("partial_image_index")
    number = place + 1 if isinstance(place, int) else 1
    shown = None
    with suppress(BadAnswer):
        shown = Artifact(mime, decoded(str(event.get("b64_json", ""))).data)
    return Progress(min(number / (previews + 1), 1.0), "drawing", preview=shown if shown and shown.data else None)


def _error(told: Mapping[str, Any]) -> tuple[str, set[str]]:
    """The words of an error and its codes, wherever a server has put them."""
    found = told.get("error")
    if isinstance(found, dict):
        words, codes = found.get("message"), (found.get("code"), found.get("type"))
    else:
        words = found or told.get("message") or told.get("detail") or ""
        codes = (told.get("code"), told.get("type"))
    plain = words if isinstance(words, str) else json.dumps(words) if words else ""
    return plain, {code for code in codes if isinstance(code, str)}
