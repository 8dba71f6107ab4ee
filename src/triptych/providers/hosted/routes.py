"""The providers behind Hugging Face's router: where each takes a task, how it wants it said, and how it answers.

As huggingface_hub 2.4.0 sends it, through https://router.huggingface.co/PROVIDER/... with a token of Hugging Face's.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import urlsplit

from triptych.errors import BadAnswer
from triptych.providers.hosted.outputs import assets
from triptych.providers.replicate import answered
from triptych.providers.wire.vendor import Answer, state_of
from triptych.types import Medium, TicketState

__all__ = ["ALIASES", "ROUTES", "Model", "Route", "looked"]

ALIASES: Mapping[str, str] = {"zai": "zai-org"}
STATES: Mapping[str, TicketState] = {
    "queued": "queued",
    "created": "queued",
    "IN_QUEUE": "queued",
    "in_progress": "running",
    "processing": "running",
    "IN_PROGRESS": "running",
    "PROCESSING": "running",
    "completed": "succeeded",
    "COMPLETED": "succeeded",
    "SUCCESS": "succeeded",
    "failed": "failed",
    "FAIL": "failed",
}
Said = dict[str, Any]  # prompt, image (a data URL) and what else the task takes, in huggingface_hub's names


@final
@dataclass(frozen=True, slots=True)
class Model:
    """id: at the Hub; mapped: the provider's own; lora: of an adapter, the file of its weights."""

    id: str
    mapped: str
    lora: str = ""


@final
@dataclass(frozen=True, slots=True)
class Route:
    """path: below the provider, {} is the model; said: what is sent; queue: who answers that it is at work, and where
    it is looked at ("": the answer is the result); without: what it does not take; headers: beside the key."""

    path: str
    said: Callable[[Model, Said], dict[str, Any]]
    queue: str = ""
    without: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


def looked(queue: str, told: dict[str, Any], media: Medium, place: str) -> Answer:
    """What one that is at work says of itself. place: where it is looked at, below the router. Raises BadAnswer."""
    if queue == "replicate":
        found = answered(told, media, place or f"replicate/v1/predictions/{told.get('id', '')}")
        return Answer(
            found.state,
            {**found.handle, "get": _below(queue, found.handle["get"]), "queue": queue},
            found.assets,
            found.fraction,
            found.status,
            found.reason,
            told=found.told,
        )
    inner = told.get("data") if queue == "wavespeed" else told
    inner = inner if isinstance(inner, dict) else {}
    place = place or _place(queue, inner)
    word = str(inner.get("task_status" if queue == "zai-org" else "status") or "queued")
    state, handle = state_of("huggingface", word, STATES), {"get": place, "queue": queue, "media": media}
    problem = inner.get("error") or ""
    reason = str(problem.get("message", problem)) if isinstance(problem, Mapping) else str(problem)
    if queue == "fal-ai" or state != "succeeded":  # whose result lies elsewhere
        failed = state == "succeeded" and reason
        return Answer("failed" if failed else state, handle, status=word, reason=reason)
    found_assets = assets(inner.get("outputs") or inner.get("image_result"), media)
    return Answer("succeeded" if found_assets else "failed", handle, found_assets, status=word, reason=reason)


def _place(queue: str, told: Mapping[str, Any]) -> str:
    """Where a request that was just taken in is looked at."""
    match queue:
        case "fal-ai":
            return _below(queue, told.get("response_url"))
        case "wavespeed":
            urls = told.get("urls")
            return _below(queue, urls.get("get") if isinstance(urls, Mapping) else None)
    id = told.get("id")
    if not isinstance(id, str) or not id:
        raise BadAnswer("its answer does not say which request it is.")
    return f"together/v2/videos/{id}" if queue == "together" else f"zai-org/api/paas/v4/async-result/{id}"


def _below(queue: str, url: Any) -> str:
    """The path of a provider's URL, below the router."""
    if not isinstance(url, str) or not url:
        raise BadAnswer("its answer does not say where to look for the result.")
    parts = urlsplit(url)
    return f"{queue}/{parts.path.lstrip('/')}" if parts.scheme else url


def _split(said: Said, *names: str) -> tuple[list[Any], Said]:
    """The values of these names, None where one is missing, and the rest."""
    return [said.get(name) for name in names], {name: value for name, value in said.items() if name not in names}


def _sized(said: Said) -> Said:
    """width and height as one text."""
    (width, height), rest = _split(said, "width", "height")
    return {**rest, "size": f"{width}x{height}"} if width and height else rest


def _stepped(said: Said) -> Said:
    """The number of steps under a shorter name."""
    (steps,), rest = _split(said, "num_inference_steps")
    return rest if steps is None else {**rest, "steps": steps}


def _hub_text(model: Model, said: Said) -> dict[str, Any]:
    (prompt,), rest = _split(said, "prompt")
    return {"json": {"inputs": prompt, "parameters": rest}}


def _hub_image(model: Model, said: Said) -> dict[str, Any]:
    """A picture alone goes as it is."""
    (image,), rest = _split(said, "image")
    mime, _, data = str(image).removeprefix("data:").partition(";base64,")
    if rest:
        return {"json": {"inputs": data, "parameters": rest}}
    return {"content": base64.b64decode(data), "headers": {"content-type": mime}}


def _fal(model: Model, said: Said) -> dict[str, Any]:
    (width, height, target), rest = _split(said, "width", "height", "target_size")
    if width and height:
        rest["image_size"] = {"width": width, "height": height}
    if target:
        rest["image_size"] = target
    return {"json": {**rest, **_fal_lora(model)}}


def _fal_image(model: Model, said: Said) -> dict[str, Any]:
    (image,), rest = _split(said, "image")
    return _fal(model, {"image_url": image, "image_urls": [image], **rest})


def _fal_first(model: Model, said: Said) -> dict[str, Any]:
    (image,), rest = _split(said, "image")
    return {"json": {"image_url": image, **rest, **_fal_lora(model)}}


def _fal_lora(model: Model) -> Said:
    if not model.lora:
        return {}
    told: Said = {"loras": [{"path": f"https://huggingface.co/{model.id}/resolve/main/{model.lora}", "scale": 1}]}
    if model.mapped == "fal-ai/lora":
        told["model_name"] = "stabilityai/stable-diffusion-xl-base-1.0"
    return told


def _replicate(model: Model, said: Said) -> dict[str, Any]:
    lora = {"lora_weights": f"https://huggingface.co/{model.id}"} if model.lora else {}
    version = model.mapped.partition(":")[2]
    return {"json": {"input": {**said, **lora}, **({"version": version} if version else {})}}


def _replicate_image(model: Model, said: Said) -> dict[str, Any]:
    """Its models differ in what they call the picture."""
    (image,), rest = _split(said, "image")
    every = {"image": image, "images": [image], "input_image": image, "input_images": [image]}
    return _replicate(Model(model.id, model.mapped), {**every, **rest})


def _together(model: Model, said: Said) -> dict[str, Any]:
    return {"json": {**_stepped(said), "response_format": "base64", "model": model.mapped}}


def _together_image(model: Model, said: Said) -> dict[str, Any]:
    (image, prompt), rest = _split(said, "image", "prompt")
    small = model.mapped.lower()
    named: Said = {"image_url": image} if "kontext" in small and "flux.1" in small else {"reference_images": [image]}
    return _together(model, {"prompt": prompt or "", **named, **rest})


def _together_clip(model: Model, said: Said) -> dict[str, Any]:
    (image, target), rest = _split(said, "image", "target_size")
    first = {"frame_images": [{"input_image": image, "frame": "first"}]} if image else {}
    return {"json": {**_stepped(rest), **(target or {}), **first, "model": model.mapped}}


def _nscale(model: Model, said: Said) -> dict[str, Any]:
    return {"json": {"response_format": "b64_json", "model": model.mapped, **_sized(said)}}


def _zai(model: Model, said: Said) -> dict[str, Any]:
    return {"json": {"model": model.mapped, **_sized(said)}}


def _plain(model: Model, said: Said) -> dict[str, Any]:
    return {"json": said}


FAL_QUEUE = "{}?_subdomain=queue"
WAIT = (("prefer", "wait"),)
CHANNEL = (("accept-language", "en-US,en"), ("x-source-channel", "hugging_face"))
ROUTES: Mapping[tuple[str, str], Route] = {
    ("hf-inference", "text-to-image"): Route("models/{}", _hub_text),
    ("hf-inference", "image-to-image"): Route("models/{}", _hub_image),
    ("fal-ai", "text-to-image"): Route("{}", _fal),
    ("fal-ai", "image-to-image"): Route(FAL_QUEUE, _fal_image, "fal-ai"),
    ("fal-ai", "text-to-video"): Route(FAL_QUEUE, _fal, "fal-ai"),
    ("fal-ai", "image-to-video"): Route(FAL_QUEUE, _fal_first, "fal-ai"),
    ("replicate", "text-to-image"): Route("v1/models/{}/predictions", _replicate, "replicate", headers=WAIT),
    ("replicate", "image-to-image"): Route("v1/models/{}/predictions", _replicate_image, "replicate", headers=WAIT),
    ("replicate", "text-to-video"): Route("v1/models/{}/predictions", _replicate, "replicate", headers=WAIT),
    ("together", "text-to-image"): Route("v1/images/generations", _together),
    ("together", "image-to-image"): Route("v1/images/generations", _together_image),
    ("together", "text-to-video"): Route("v2/videos", _together_clip, "together"),
    ("together", "image-to-video"): Route("v2/videos", _together_clip, "together"),
    ("nscale", "text-to-image"): Route("v1/images/generations", _nscale, without=("num_inference_steps",)),
    ("novita", "text-to-video"): Route("v3/hf/{}", _plain),
    ("wavespeed", "text-to-image"): Route("api/v3/{}", _plain, "wavespeed"),
    ("wavespeed", "text-to-video"): Route("api/v3/{}", _plain, "wavespeed"),
    ("wavespeed", "image-to-image"): Route("api/v3/{}", _plain, "wavespeed"),
    ("wavespeed", "image-to-video"): Route("api/v3/{}", _plain, "wavespeed"),
    ("zai-org", "text-to-image"): Route("api/paas/v4/async/images/generations", _zai, "zai-org", headers=CHANNEL),
}
