"""Google's generateContent: pictures out of a model that also speaks; on the Gemini API, on Vertex AI and at gateways.

A refusal is an answer with status 200 and no picture: finishReason or blockReason says why.
"""

from collections.abc import Mapping
from typing import Any

from triptych.providers.google_words import objects, refuses
from triptych.providers.wire.inputs import named
from triptych.providers.wire.vendor import Answer, decoded, encoded
from triptych.types import Card, Request

__all__ = ["body", "heard", "tokens"]

HARMS = ("HATE_SPEECH", "DANGEROUS_CONTENT", "HARASSMENT", "SEXUALLY_EXPLICIT")
PICTURE = {"aspect_ratio": "aspectRatio", "image_size": "imageSize", "person_generation": "personGeneration"}


def body(card: Card, request: Request) -> dict[str, Any]:
    """What is sent; what the request leaves to them is left out."""
    options = request.options
    first = [request.inputs["init"]] if "init" in request.inputs else []
    pictures = [*first, *(artifact for _, artifact in named(request, "reference"))]
    files = [{"inlineData": {"mimeType": one.mime, "data": encoded(one)}} for one in pictures]
    config: dict[str, Any] = {"responseModalities": ["IMAGE"]}
    if request.seed is not None:
        config["seed"] = request.seed
    picture: dict[str, Any] = {theirs: options[ours] for ours, theirs in PICTURE.items() if ours in options}
    if "output_format" in options:
        picture["imageOutputOptions"] = {"mimeType": f"image/{options['output_format']}"}
    if picture:
        config["imageConfig"] = picture
    said: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": request.prompt}, *files]}]}
    said["generationConfig"] = config
    if "safety" in options:
        threshold = options["safety"].upper()
        said["safetySettings"] = [{"category": f"HARM_CATEGORY_{harm}", "threshold": threshold} for harm in HARMS]
    return said


def heard(told: Mapping[str, Any]) -> Answer:
    """The pictures of an answer, or why there are none."""
    candidates = list(objects(told.get("candidates")))
    parts = [part for candidate in candidates for part in _parts(candidate) if not part.get("thought")]
    datas = [part["inlineData"].get("data") for part in parts if isinstance(part.get("inlineData"), dict)]
    assets = tuple(decoded(data) for data in datas if isinstance(data, str) and data)
    text = " ".join(str(part["text"]) for part in parts if part.get("text"))
    if assets:
        return Answer("succeeded", assets=assets, told={"text": text} if text else {})
    feedback = told.get("promptFeedback")
    blocked = feedback if isinstance(feedback, dict) else {}
    codes = [blocked.get("blockReason"), *(candidate.get("finishReason") for candidate in candidates)]
    words = [blocked.get("blockReasonMessage"), *(candidate.get("finishMessage") for candidate in candidates), text]
    reason = ": ".join(part for part in (_joined(codes), _joined(words)) if part)
    moderated = bool(blocked.get("blockReason")) or refuses(*codes)
    return Answer(
        "moderated" if moderated else "failed", reason=reason or "no picture in the answer, and no word of why"
    )


def tokens(told: Mapping[str, Any]) -> dict[str, int]:
    """How many of each kind an answer took, by the names of the price list; empty where it does not tell."""
    usage = told.get("usageMetadata")
    if not isinstance(usage, dict):
        return {}
    found: dict[str, int] = {}
    for way, details in (("in", "promptTokensDetails"), ("out", "candidatesTokensDetails")):
        for part in objects(usage.get(details)):
            if isinstance(part.get("tokenCount"), int):
                kind = f"{str(part.get('modality')).lower()}_{way}"
                found[kind] = found.get(kind, 0) + part["tokenCount"]
    thoughts = usage.get("thoughtsTokenCount")
    if found and isinstance(thoughts, int):
        found["text_out"] = found.get("text_out", 0) + thoughts
    return found


def _parts(candidate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = candidate.get("content")
    return list(objects(content.get("parts"))) if isinstance(content, dict) else []


def _joined(told: list[Any]) -> str:
    return "; ".join(dict.fromkeys(one for one in told if isinstance(one, str) and one not in ("", "STOP")))
