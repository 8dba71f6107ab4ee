"""Hugging Face's Inference Providers: a model of the Hub, made by one of several companies behind one router and key.

huggingface:OWNER/NAME takes the first provider that the Hub names for the model and that is known here;
huggingface:PROVIDER/OWNER/NAME that one. What it is made for is told by the Hub, or after #: ...#text-to-image.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from triptych.errors import BadAnswer, InvalidField, ProviderError
from triptych.providers.hosted import cards as hosted
from triptych.providers.hosted.outputs import assets, medium_of
from triptych.providers.hosted.routes import ALIASES, ROUTES, Model, looked
from triptych.providers.wire import tables
from triptych.providers.wire.vendor import Answer, Data, Reply, encoded, explained
from triptych.types import Card, Medium, Price, Request

if TYPE_CHECKING:
    from triptych.providers.wire.account import Account
    from triptych.providers.wire.http import Wire

__all__ = ["HuggingFace"]

NAME: Final = "huggingface"
HUB: Final = "https://huggingface.co"
PAGE: Final = "https://huggingface.co/models?inference_provider=all"
EXPAND: Final = "expand=inferenceProviderMapping&expand=pipeline_tag&expand=tags"
PROVIDERS = frozenset(provider for provider, _ in ROUTES)
PROMPT: Mapping[str, Any] = {"type": "string"}
TEXTS: Mapping[str, Any] = {
    "prompt": PROMPT,
    "negative_prompt": PROMPT,
    "num_inference_steps": {"type": "integer", "minimum": 1},
    "guidance_scale": {"type": "number"},
}
SEED: Mapping[str, Any] = {"type": "integer", "minimum": 0}
SIDE: Mapping[str, Any] = {"type": "integer", "minimum": 64, "maximum": 8192, "default": 1024}
START: Mapping[str, Any] = {
    "image": {"type": "string", "format": "uri"},
    "target_size": {
        "type": "object",
        "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
        "description": "the size of the result",
    },
}
FRAMES: Mapping[str, Any] = {"num_frames": {"type": "integer", "minimum": 1}, "seed": SEED}
TASKS: Mapping[
    str, Mapping[str, Any]
] = {  # as huggingface_hub takes them; what the model's own default is, nobody says
    "text-to-image": {
        "properties": {**TEXTS, "width": SIDE, "height": SIDE, "scheduler": PROMPT, "seed": SEED},
        "required": ["prompt", "width", "height"],
    },
    "image-to-image": {"properties": {**TEXTS, **START}, "required": ["image"]},
    "text-to-video": {"properties": {**TEXTS, **FRAMES}, "required": ["prompt"]},
    "image-to-video": {"properties": {**TEXTS, **FRAMES, **START}, "required": ["image"]},
}


@final
class HuggingFace:
    """The Hub's models, each as its task and its provider take it."""

    name = NAME

    def __init__(self, account: "Callable[[], Account]") -> None:
        """account: read when the Hub is asked for a model."""
        self._account = account
        self._shelf = hosted.Shelf(
            NAME, PAGE, lambda parts: not parts.version and parts.id.count("/") <= 2, self._asked
        )

    def cards(self) -> Mapping[str, Card]:
        """None that can be told without asking."""
        return {}

    def card(self, name: str) -> Card | None:
        """Asks the Hub once a process. Raises UnknownName, Unreachable, InvalidField, KeyRefused."""
        return self._shelf.card(name)

    def batch(self, card: Card) -> int:
        return 1

    def check(self, card: Card, request: Request) -> None:
        hosted.check(card, request)

    def price(self, card: Card, request: Request) -> Price:
        """What the provider takes is passed on; the catalogue has it where it was found."""
        return hosted.price(card, request, card.name.partition("#")[0])

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        told = card.settings
        provider, route = told["provider"], ROUTES[told["provider"], told["task"]]
        urls = {name: encoded(file, url=True) for name, file in request.inputs.items()}
        model = Model(told["id"], told["mapped"], told["lora"])
        said = route.said(model, hosted.body(card, request, urls))
        path = route.path.format(model.mapped)
        if provider == "replicate" and ":" in model.mapped:
            path = "v1/predictions"
        accept = {"accept": "image/png"} if card.media == "image" else {}
        said["headers"] = {**accept, **dict(route.headers), **said.get("headers", {})}
        reply = await wire.pay(f"{provider}/{path}", **said)
        if medium_of(reply.headers.get("content-type", "")) is not None:
            return Answer("succeeded", assets=(Data(reply.body),), told={"served_by": provider})
        answer = reply.json()
        if route.queue:
            begun = looked(route.queue, answer, card.media, "")
            elsewhere = begun.state == "succeeded" and not begun.assets  # the result is told to a look alone
            return replace(begun, state="running") if elsewhere else begun
        return _made(answer, card.media, provider)

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        queue, place, media = handle["queue"], handle["get"], handle["media"]
        if queue != "fal-ai":
            return looked(queue, (await wire.ask(place)).json(), media, place)
        side = {"_subdomain": "queue"}
        answer = looked(queue, (await wire.ask(f"{place}/status", params=side)).json(), media, place)
        if answer.state != "succeeded":
            return answer
        found = _made((await wire.ask(place, params=side)).json(), media, queue)
        return Answer(found.state, handle, found.assets, reason=found.reason, told=found.told)

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        """Only two of its providers have a way that is known here; whether the router lets it through is not."""
        match handle.get("queue"):
            case "fal-ai":
                await wire.ask(f"{handle['get']}/cancel", method="PUT", params={"_subdomain": "queue"})
                return True
            case "replicate":
                await wire.ask(f"{handle['get']}/cancel", method="POST")
                return True
        return False

    def explain(self, reply: Reply) -> ProviderError:
        words, spec = _words(reply), tables.spec(NAME)
        ruled = reply.status in (400, 422) and any(word in words.lower() for word in ("nsfw", "content_policy"))
        return explained(spec.title, reply, words, refused=ruled, key=spec.page)

    def _asked(self, name: str, parts: hosted.Name) -> Card:
        from triptych.providers.wire.http import ask_once

        account = self._account()
        first, _, rest = parts.id.partition("/")
        wanted, id = (ALIASES.get(first, first), rest) if "/" in rest else ("", parts.id)
        if wanted and wanted not in PROVIDERS:
            names = ", ".join(sorted(PROVIDERS))
            raise InvalidField("model", name, f"{NAME}:OWNER/NAME or {NAME}:PROVIDER/OWNER/NAME with one of {names}")
        reply = ask_once(account, f"{account.settings.get('hub', HUB)}/api/models/{id}?{EXPAND}")
        if reply.status == 404 or reply.headers.get("x-error-code") == "RepoNotFound":
            raise hosted.unknown(name, NAME, PAGE)
        if not reply.ok:
            raise self.explain(reply)
        return _card(name, id, wanted, parts.told, reply.json())


def _card(name: str, id: str, wanted: str, task: str, told: dict[str, Any]) -> Card:
    """Of the first provider that serves it and is known here. Raises InvalidField where there is none."""
    offered = list(_offered(told, id))
    fitting = [
        (provider, model, task or its_task)
        for provider, model, its_task in offered
        if wanted in ("", provider) and (provider, task or its_task) in ROUTES
    ]
    if not fitting:
        served = ", ".join(f"{provider} ({its_task})" for provider, _, its_task in offered) or "nobody"
        known = f"a model for {', '.join(TASKS)} from {', '.join(sorted(PROVIDERS))}"
        advice = f"{id} is served by {served}. What it is for can be told after it: {name.partition('#')[0]}#TASK."
        raise InvalidField("model", name, known, advice)
    provider, model, task = fitting[0]
    route, media = ROUTES[provider, task], _media(task)
    schema = {
        **TASKS[task],
        "properties": {k: v for k, v in TASKS[task]["properties"].items() if k not in route.without},
    }
    licenses = [str(tag).removeprefix("license:") for tag in told.get("tags") or () if str(tag).startswith("license:")]
    about = {"family": NAME, "license": licenses[0] if licenses else "see its page", "summary": f"{id}, by {provider}"}
    own = {"provider": provider, "task": task, "id": id, "mapped": model.mapped, "lora": model.lora}
    return hosted.card(name, schema, {}, media, about, **own)


def _offered(told: Mapping[str, Any], id: str) -> Iterator[tuple[str, Model, str]]:
    """(provider, model, task) of whoever serves it, those that are live first; hf-inference goes by the model's tag."""
    found = told.get("inferenceProviderMapping") or {}
    entries = found.items() if isinstance(found, Mapping) else [(one.get("provider"), one) for one in found]
    for provider, entry in sorted(entries, key=lambda one: one[1].get("status") != "live"):
        mapped = id if provider == "hf-inference" else str(entry.get("providerId", id))
        model = Model(id, mapped, str(entry.get("adapterWeightsPath") or ""))
        yield str(provider), model, str(entry.get("task", ""))
    if "hf-inference" not in dict(entries) and told.get("pipeline_tag"):
        yield "hf-inference", Model(id, id), str(told["pipeline_tag"])


def _media(task: str) -> Medium:
    return "video" if task.endswith("video") else "image"


def _made(told: dict[str, Any], media: Medium, provider: str) -> Answer:
    found = assets(told, media)
    flags = told.get("has_nsfw_concepts")
    if isinstance(flags, list) and flags and all(flag is True for flag in flags):
        return Answer("moderated", reason="its filter holds it to be unsafe")
    if not found:
        return Answer("failed", reason=_problem(told) or "its answer holds no such file")
    return Answer("succeeded", assets=found[:1], told={"served_by": provider})


def _problem(told: Mapping[str, Any]) -> str:
    found = told.get("error", told.get("detail", told.get("message", "")))
    return str(found.get("message", found)) if isinstance(found, Mapping) else str(found or "")


def _words(reply: Reply) -> str:
    try:
        return _problem(reply.json())
    except BadAnswer:
        plain = reply.headers.get("content-type", "").startswith("text/plain")
        return reply.body[:200].decode(errors="replace") if plain else ""
