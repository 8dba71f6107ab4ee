"""What Google's interfaces share: the words of their errors, the codes of a refusal, where a result's file lies."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from triptych.errors import InvalidField, KeyRefused, ProviderError
from triptych.providers.wire.account import Spec
from triptych.providers.wire.inputs import check_type
from triptych.providers.wire.vendor import Link, Reply, explained, parsed
from triptych.types import Card, Request

__all__ = ["CLIPS", "PICTURES", "check_pictures", "explain", "located", "objects", "refuses"]

PICTURES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")
CLIPS = ("video/mp4", "video/webm")
CODES: Final = re.compile(
    r"(IMAGE_)?(SAFETY|PROHIBITED_CONTENT|RECITATION)|BLOCKLIST|SPII|MODEL_ARMOR|JAILBREAK", re.IGNORECASE
)
PHRASES: Final = re.compile(
    r"\bblocked\b[^.]*\b(safety|polic(y|ies))\b|responsible ai|usage guidelines|support codes?:", re.IGNORECASE
)


def refuses(*told: object) -> bool:
    """Whether one of these codes or sentences says that the vendor's rules forbid it."""
    texts = [one for one in told if isinstance(one, str)]
    return any(CODES.fullmatch(text) or PHRASES.search(text) for text in texts)


def check_pictures(card: Card, request: Request) -> None:
    """Raises InvalidField where a file is no picture that they take, or there are more than the model takes."""
    for name, artifact in request.inputs.items():
        check_type(name, artifact, PICTURES)
    most = card.settings.get("pictures")
    if most is not None and len(request.inputs) > most:
        raise InvalidField("pictures", f"{len(request.inputs)} in all", f"at most {most}")


def explain(spec: Spec, reply: Reply) -> ProviderError:
    """What an answer that is no success means."""
    error = _error(reply.body)
    words = str(error.get("message") or "") or reply.body.decode(errors="replace")
    code = str(error.get("status") or error.get("code") or "")
    said = f"{words} ({code})" if code and not code.isdigit() else words
    details = list(objects(error.get("details")))
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
        where = f" Keys: {spec.page}" if spec.page else ""
        return KeyRefused(f"{spec.title} answered {reply.status}: {said}. See triptych doctor.{where}")
    credit = "credits are depleted" in words.lower() or (code == "FAILED_PRECONDITION" and "billing" in words.lower())
    return explained(
        spec.title, reply, said, refused=refuses(code, words), credit=credit or _used_up(details), key=spec.page
    )


def located(uri: str, storage: str) -> Link:
    """A result's file: in Cloud Storage, among the Gemini API's files, or at a URL as it is.

    storage: the base URL of Cloud Storage. The key goes along to hosts of the vendor's and nowhere else.
    """
    if uri.startswith("gs://"):
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        return Link(f"{storage.rstrip('/')}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media", keyed=True)
    parts = urlsplit(uri)
    if "/files/" in parts.path and "alt=" not in parts.query:
        path = parts.path if parts.path.endswith(":download") else f"{parts.path}:download"
        query = f"{parts.query}&alt=media" if parts.query else "alt=media"
        return Link(parts._replace(path=path, query=query).geturl(), keyed=True)
    return Link(uri, keyed=True)


def objects(told: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list; nothing of what is no list."""
    return (one for one in told if isinstance(one, dict)) if isinstance(told, list) else iter(())


def _error(body: bytes) -> Mapping[str, Any]:
    """The object `error` of an answer, which may come in a list; empty where there is none."""
    try:
        told = parsed(body)
    except ValueError:
        return {}
    first = told[0] if isinstance(told, list) and told else told
    error = first.get("error") if isinstance(first, dict) else None
    return error if isinstance(error, dict) else {}


def _used_up(details: list[Mapping[str, Any]]) -> bool:
    """Whether a quota of a day is gone, for which nobody waits."""
    quotas = (
        str(violation.get("quotaId", "")) for detail in details for violation in objects(detail.get("violations"))
    )
    return any("PerDay" in quota for quota in quotas)
