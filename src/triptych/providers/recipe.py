"""Requests as JSON, and the recipe: everything that it takes to make an artifact again."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from typing import Any

from triptych.errors import FileProblem
from triptych.types import Artifact, Request

__all__ = ["describe", "digest", "inputs", "recipe", "restore"]

FORMAT = 1
PLAIN = tuple(field.name for field in fields(Request) if field.name not in ("inputs", "options"))
PASSING = ("trace", "preview_every")  # options that change what is shown meanwhile, never what is made


def digest(artifact: Artifact) -> str:
    """The SHA-256 of a file's bytes."""
    return hashlib.sha256(artifact.data).hexdigest()


def describe(request: Request) -> dict[str, Any]:
    """A request without its inputs' bytes."""
    plain = {name: getattr(request, name) for name in PLAIN}
    return {name: value for name, value in plain.items() if value is not None} | {"options": dict(request.options)}


def inputs(request: Request) -> dict[str, dict[str, str]]:
    """What a request brought along: hash, type, and the file's own name where it is known."""
    return {
        name: {"sha256": digest(value), "mime": value.mime, **_name(value)} for name, value in request.inputs.items()
    }


def restore(entry: Mapping[str, Any], brought: Mapping[str, Artifact], where: str) -> Request:
    """The request that `describe` described. Raises FileProblem where it says what no request says."""
    unknown = set(entry) - {*PLAIN, "options"}
    if unknown or not isinstance(entry.get("prompt"), str) or not isinstance(entry.get("model"), str):
        told = f"unknown: {', '.join(sorted(unknown))}" if unknown else "model and prompt are missing"
        raise FileProblem(f"{where}: the request inside cannot be read ({told}).")
    return Request(**{**entry, "inputs": dict(brought), "options": dict(entry.get("options", {}))})


def recipe(request: Request, model: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """How an artifact of this resolved request was made.

    model: its name and hashes; made: device, dtype and whatever else of the machine decides about the last bit.
    There is no time and no path in it, so that the same picture is the same file.
    """
    said = describe(request)
    said["options"] = {name: value for name, value in said["options"].items() if name not in PASSING}
    return {
        "triptych": FORMAT,
        "request": said,
        "inputs": inputs(request),
        "model": dict(model),
        "versions": {"triptych": version("triptych")},
        "profile": request.options.get("profile") or "native",
        **made,
    }


def _name(artifact: Artifact) -> dict[str, str]:
    file = artifact.recipe.get("file")
    return {"file": file} if isinstance(file, str) else {}
