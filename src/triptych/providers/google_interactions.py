"""Google's Interactions: one call for pictures, clips and music, which is answered at once or asked for later.

A refusal is an interaction that is completed and holds words only. What it costs follows from its usage.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from triptych.errors import BadAnswer, InvalidField
from triptych.providers.google_words import CLIPS, PICTURES, check_pictures, located, objects, refuses
from triptych.providers.wire.inputs import check_type, named
from triptych.providers.wire.vendor import Answer, Data, Link, decoded, encoded, state_of
from triptych.types import Artifact, Card, Request, TicketState

__all__ = ["body", "check", "heard", "task", "tokens"]

STATES: Mapping[str, TicketState] = {
    "queued": "queued",
    "in_progress": "running",
    "requires_action": "needs_action",
    "requires_continuation": "needs_action",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "incomplete": "failed",
    "budget_exceeded": "failed",
}
ALIKE = ("aspect_ratio", "image_size", "resolution", "delivery")  # of the format, under our names
HARMS = ("hate_speech", "dangerous_content", "harassment", "sexually_explicit")
STORAGE: Final = "https://storage.googleapis.com"
MOST = 3  # pictures, and clips, that a clip can refer to
PINNED = 10.0  # seconds of a clip between two frames


def body(card: Card, request: Request) -> dict[str, Any]:
    """What is sent; what the request leaves to them is left out."""
    options = request.options
    said: dict[str, Any] = {"model": card.name, "input": _input(request)}
    wanted, config = _format(card, request), _config(card, request)
    if wanted != {"type": "audio"}:
        said["response_format"] = wanted
    if config:
        said["generation_config"] = config
    if options.get("background") == "on":
        said["background"] = True
    if "previous_interaction_id" in options:
        said["previous_interaction_id"] = options["previous_interaction_id"]
    if "safety" in options:
        said["safety_settings"] = [{"type": harm, "threshold": options["safety"]} for harm in HARMS]
    return said


def check(card: Card, request: Request) -> None:
    """Raises InvalidField where files do not fit, or do not fit together."""
    if card.media == "video":
        _check_clip(card, request)
    else:
        check_pictures(card, request)


def task(request: Request) -> str | None:
    """What is done for a clip; None where words in the prompt say which file is what."""
    references, told = any(named(request, "reference")), request.options.get("task")
    if told is not None or _is_clip(request.inputs.get("init")):
        return told or "edit"
    if "previous_interaction_id" in request.options or ("init" in request.inputs and references):
        return None
    if "init" in request.inputs:
        return "image_to_video"
    return "reference_to_video" if references else "text_to_video"


def heard(told: Mapping[str, Any], handle: Mapping[str, Any], after: float | None = None) -> Answer:
    """An interaction, as it stands. handle: its medium and model; gets its id."""
    word = str(told.get("status", ""))
    state = state_of("google", word, STATES)
    handle = {**handle, "id": str(told.get("id") or handle.get("id", ""))}
    contents = list(_contents(told))
    text = " ".join(str(one["text"]) for one in contents if one.get("type") == "text" and one.get("text"))
    if state in ("queued", "running"):
        if not handle["id"]:
            raise BadAnswer("its answer does not say which interaction it is.")
        return Answer(state, handle, status=word, after=after)
    if state == "succeeded":
        assets = tuple(_assets(contents, handle["media"]))
        if assets:
            said = {"id": handle["id"], "text": text} if text else {"id": handle["id"]}
            return Answer(state, handle, assets, status=word, told=said)
    errors = list(_errors(told))
    reason = _reason(word, errors, text) or f"it is completed, and has no {handle['media']}"
    refused = refuses(*(error.get(part) for error in errors for part in ("code", "message")))
    if refused and state != "cancelled":
        state = "moderated"
    elif state == "succeeded":
        state = "moderated" if text else "failed"
    return Answer(state, handle, status=word, reason=reason)


def tokens(told: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind an interaction took, by the names of the price list; empty where it does not tell."""
    usage = told.get("usage")
    if not isinstance(usage, dict):
        return {}
    found: dict[str, int] = {}
    for way in ("in", "out"):
        for part in objects(usage.get(f"{way}put_tokens_by_modality")):
            kind = f"{part.get('modality')}_{way}"
            found[kind] = found.get(kind, 0) + _whole(part.get("tokens"))
    if thoughts := _whole(usage.get("total_thought_tokens")):
        found["text_out"] = found.get("text_out", 0) + thoughts
    return found


def _input(request: Request) -> str | list[dict[str, Any]]:
    files = [
        {"type": artifact.mime.partition("/")[0], "data": encoded(artifact), "mime_type": artifact.mime}
        for artifact in _files(request)
    ]
    if not files:
        return request.prompt
    return [{"type": "user_input", "content": [{"type": "text", "text": request.prompt}, *files]}]


def _format(card: Card, request: Request) -> dict[str, Any]:
    options = request.options
    wanted: dict[str, Any] = {"type": card.media}
    wanted |= {name: options[name] for name in ALIKE if name in options}
    if card.media == "video" and task(request) != "edit":
        wanted["duration"] = f"{request.duration:g}s"
    if "output_format" in options:
        wanted["mime_type"] = f"image/{options['output_format']}"
    if "audio_format" in options:
        wanted["mime_type"] = f"audio/{options['audio_format']}"
    return wanted


def _config(card: Card, request: Request) -> dict[str, Any]:
    config: dict[str, Any] = {} if request.seed is None else {"seed": request.seed}
    if card.media == "video" and (done := task(request)) is not None:
        config["video_config"] = {"task": done}
    return config


def _files(request: Request) -> list[Artifact]:
    """What is changed or comes first, the last frame, what shall be seen."""
    first = [request.inputs[name] for name in ("init", "last_frame") if name in request.inputs]
    return [*first, *(artifact for _, artifact in named(request, "reference"))]


def _check_clip(card: Card, request: Request) -> None:
    given, references = request.inputs, dict(named(request, "reference"))
    for name, artifact in given.items():
        check_type(name, artifact, PICTURES if name == "last_frame" else (*PICTURES, *CLIPS))
    _check_number(references, "pictures", "image/")
    _check_number(references, "clips", "video/")
    changes, frames = _is_clip(given.get("init")), "init" in given and not _is_clip(given["init"])
    if "last_frame" in given and not frames:
        raise InvalidField("last_frame", "a picture", "none without a first frame", "Give init, a picture.")
    if frames and references and "<FIRST_FRAME>" not in request.prompt:
        advice = "Such as: [# Sources <FIRST_FRAME>@Image1] [# References <IMAGE_REF_0>@Image2] a woman walks."
        raise InvalidField("reference", "beside a first frame", "a prompt that says which file is which", advice)
    if "task" in request.options and not (changes or "previous_interaction_id" in request.options):
        raise InvalidField("task", request.options["task"], "none without a clip to change", "Give init, a clip.")
    if "last_frame" in given and (request.duration or 0.0) > PINNED:
        raise InvalidField("duration", request.duration, f"up to {PINNED:g} seconds between two frames")
    if task(request) == "edit" and request.duration != card.axes[0].default:
        raise InvalidField("duration", request.duration, "the clip's own, when it is changed,", "Leave it out.")


def _check_number(references: Mapping[str, Artifact], kind: str, mime: str) -> None:
    number = sum(artifact.mime.startswith(mime) for artifact in references.values())
    if number > MOST:
        raise InvalidField("reference", f"{number} {kind}", f"at most {MOST} {kind}")


def _is_clip(artifact: Artifact | None) -> bool:
    return artifact is not None and artifact.mime.startswith("video/")


def _contents(told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What the model put out, without what it thought."""
    for step in objects(told.get("steps")):
        if step.get("type") == "model_output":
            yield from objects(step.get("content"))


def _assets(contents: list[Mapping[str, Any]], media: str) -> Iterator[Data | Link]:
    for one in contents:
        if one.get("type") == media and isinstance(one.get("data"), str) and one["data"]:
            yield decoded(one["data"])
        elif one.get("type") == media and isinstance(one.get("uri"), str) and one["uri"]:
            yield located(one["uri"], STORAGE)


def _errors(told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from objects(told.get("errors"))
    for place in [told, *objects(told.get("steps"))]:
        if isinstance(place.get("error"), dict):
            yield place["error"]


def _reason(word: str, errors: list[Mapping[str, Any]], text: str) -> str:
    """The vendor's words of why; of one that is done, without the word that says so."""
    parts = [" ".join(str(error[part]) for part in ("code", "message") if error.get(part)) for error in errors]
    said = "; ".join(filter(None, [*parts, text]))
    if word == "completed":
        return said
    return f"{word}: {said}" if said else word


def _whole(told: Any) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else 0
