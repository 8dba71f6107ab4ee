"""ElevenLabs: music from a prompt or a plan, and sound effects; the answer is the sound itself.

A plan is JSON: of version 1 with sections, of version 2 with chunks, each with its words, styles and milliseconds. It
stands in place of the prompt, and the song is as long as its parts; a seed is taken with a plan only.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from triptych.errors import InvalidField, ProviderError
from triptych.providers.wire import tables
from triptych.providers.wire.vendor import Answer, Data, Reply, check_medium, complaint, explained, parsed
from triptych.types import Card, Price, Request

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = ["ElevenLabs"]

NAME: Final = "elevenlabs"
SWITCHES = ("force_instrumental", "respect_sections_durations", "store_for_inpainting", "sign_with_c2pa", "loop")
WITH_PLAN = ("plan_seed", "respect_sections_durations")  # and never without
PART = (3000, 120_000)  # milliseconds of a part of a plan
SONG = (3000, 600_000)  # and of them together
REFUSED = ("bad_prompt", "bad_composition_plan", "content_policy_violation")
SPENT = ("quota_exceeded", "insufficient_credits", "payment_required")


@final
class ElevenLabs:
    """Their sounds, one request a sample."""

    name = NAME

    def cards(self) -> Mapping[str, Card]:
        return tables.cards(NAME)

    def card(self, name: str) -> Card | None:
        return self.cards().get(name)

    def batch(self, card: Card) -> int:
        return 1

    def check(self, card: Card, request: Request) -> None:
        options = request.options
        if "composition_plan" in options:
            _check_plan(card, request)
        elif not request.prompt.strip():
            raise InvalidField(
                "prompt", request.prompt, "a text" + (", or a composition_plan," if _plans(card) else "")
            )
        elif any(name in options for name in WITH_PLAN):
            name = next(name for name in WITH_PLAN if name in options)
            raise InvalidField(name, options[name], "none without a composition_plan", "Leave it out.")
        kind = options.get("output_format", "mp3")
        if options.get("sign_with_c2pa") == "on" and not kind.startswith(("mp3", "auto")):
            raise InvalidField("sign_with_c2pa", "on", "off where the output_format is no MP3")

    def price(self, card: Card, request: Request) -> Price:
        if "composition_plan" in request.options:
            seconds = _milliseconds(_plan(card, request)) / 1000
            return tables.list_price(card, replace(request, duration=seconds))
        return tables.list_price(card, request)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        body = _music(card, request) if _plans(card) else _effect(request)
        options = {
            name: value for name, value in request.options.items() if name not in ("composition_plan", "plan_seed")
        }
        format = options.pop("output_format", None)
        body |= {name: value == "on" if name in SWITCHES else value for name, value in options.items()}
        params = None if format is None else {"output_format": format}
        return _answer(await wire.pay(card.settings["path"], json=body, params=params))

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        return Answer("expired", handle, reason="the sound came with the answer, and is not kept there")

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        return False

    def explain(self, reply: Reply) -> ProviderError:
        kinds, words = _kinds(reply), _words(reply)
        refused, spent = any(kind in REFUSED for kind in kinds), any(kind in SPENT for kind in kinds)
        spec = tables.spec(NAME)
        return explained(spec.title, reply, words, refused=refused, credit=spent, key=spec.page)


def _plans(card: Card) -> bool:
    """Whether it is music."""
    return "composition_plan" in card.fields


def _music(card: Card, request: Request) -> dict[str, Any]:
    if "composition_plan" in request.options:
        body: dict[str, Any] = {"composition_plan": _plan(card, request)}
        if "plan_seed" in request.options:
            body["seed"] = request.options["plan_seed"]
    else:
        body = {"prompt": request.prompt, "music_length_ms": round((request.duration or 0) * 1000)}
    return body | {"model_id": card.settings["model"]}


def _effect(request: Request) -> dict[str, Any]:
    return {"text": request.prompt, "duration_seconds": request.duration}


def _check_plan(card: Card, request: Request) -> None:
    """A plan goes without what stands in its place: prompt, length, and whether somebody sings."""
    if request.prompt:
        raise InvalidField("prompt", request.prompt, "none beside a composition_plan", "Take one of the two away.")
    if "force_instrumental" in request.options:
        given = request.options["force_instrumental"]
        raise InvalidField(
            "force_instrumental", given, "none beside a composition_plan", "A plan without words says it."
        )
    if "plan_seed" in request.options and request.count > 1:
        raise InvalidField("count", request.count, "1 with plan_seed", "The same seed makes the same song.")
    seconds = _milliseconds(_plan(card, request)) / 1000
    if request.duration not in (seconds, card.axes[0].default):
        told = f"{seconds:g}, which is what the parts of composition_plan add up to,"
        raise InvalidField("duration", request.duration, told, "Leave it out.")


def _plan(card: Card, request: Request) -> dict[str, Any]:
    """The plan as an object with parts. Raises InvalidField."""
    given, name = request.options["composition_plan"], card.settings["plan"]
    try:
        plan = json.loads(given)
    except (ValueError, RecursionError) as problem:
        raise InvalidField("composition_plan", given, "JSON", f"{problem}.") from None
    parts = plan.get(name) if isinstance(plan, dict) else None
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise InvalidField("composition_plan", given, f"an object with a list of {name} (of {card.settings['model']})")
    for number, part in enumerate(parts):
        length = _length(part)
        if not PART[0] <= length <= PART[1] and "song_id" not in part:
            place = f"composition_plan.{name}[{number}].duration_ms"
            raise InvalidField(place, part.get("duration_ms"), "{} to {} milliseconds".format(*PART))
    if not SONG[0] <= _milliseconds(plan) <= SONG[1]:
        raise InvalidField("composition_plan", f"{_milliseconds(plan)} ms in all", "{} to {} ms".format(*SONG))
    return dict(plan)


def _milliseconds(plan: Mapping[str, Any]) -> int:
    return sum(_length(part) for part in plan.get("sections") or plan.get("chunks") or ())


def _length(part: Mapping[str, Any]) -> int:
    """Milliseconds of a part: told, or of the range that is taken of another song; 0 where neither is."""
    told = part.get("duration_ms")
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    found = part.get("range")
    if isinstance(found, dict) and isinstance(found.get("start_ms"), int) and isinstance(found.get("end_ms"), int):
        return int(found["end_ms"] - found["start_ms"])
    return 0


def _answer(reply: Reply) -> Answer:
    """Of a 200: the sound. JSON in its place, or nothing, is no success."""
    told = {name: reply.headers[key] for name, key in IDS if reply.headers.get(key)}
    if not reply.body or reply.headers.get("content-type", "").startswith("application/json"):
        refused = any(kind in REFUSED for kind in _kinds(reply))
        reason = _words(reply) if reply.body else "the answer is empty"
        return Answer("moderated" if refused else "failed", reason=reason, told=told)
    check_medium(reply)
    return Answer("succeeded", assets=(Data(reply.body),), told=told)


IDS = (("song_id", "song-id"), ("request_id", "request-id"))


def _detail(reply: Reply) -> Any:
    try:
        told = parsed(reply.body)
    except ValueError:
        return None
    return told.get("detail", told) if isinstance(told, dict) else told


def _kinds(reply: Reply) -> list[str]:
    """Their names of what is wrong."""
    detail = _detail(reply)
    return (
        [str(detail[name]) for name in ("status", "code", "type") if name in detail] if isinstance(detail, dict) else []
    )


def _words(reply: Reply) -> str:
    """Theirs of what is wrong, with what they suggest in its place."""
    detail = _detail(reply)
    if detail is None:
        return reply.body.decode(errors="replace")
    if isinstance(detail, list):
        return "; ".join(complaint(one) for one in detail)
    if not isinstance(detail, dict):
        return str(detail)
    said = str(detail.get("message") or next(iter(_kinds(reply)), "") or json.dumps(detail))
    suggested = _suggestion(detail)
    return f"{said} They suggest: {suggested}" if suggested else said


def _suggestion(detail: Mapping[str, Any]) -> str:
    data = detail.get("data")
    for place in (data if isinstance(data, dict) else {}, detail):
        for name in ("prompt_suggestion", "composition_plan_suggestion", "suggestion"):
            if place.get(name):
                return place[name] if isinstance(place[name], str) else json.dumps(place[name])
    return ""
