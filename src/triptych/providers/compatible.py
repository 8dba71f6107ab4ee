"""Any server that speaks OpenAI's wire, under the user's own base URL: openai-compatible:MODEL makes pictures by
/images/generations, openai-compatible:video/MODEL clips by /videos. What it costs, nobody here knows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

from triptych.errors import InDoubt, PriceUnknown, ProviderError
from triptych.providers import openai_wire
from triptych.providers.wire import tables
from triptych.providers.wire.inputs import PICTURES, check_type
from triptych.providers.wire.vendor import Answer, Reply
from triptych.types import Axis, Card, Field, Price, Request

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = ["Compatible"]

NAME: Final = "openai-compatible"
VIDEO: Final = "video/"
BATCH: Final = 10  # pictures of one call
LICENSE: Final = "that of the model behind it"
SIZE = Field("str", choices=("auto", "unsaid"), help="in place of width and height: auto, or nothing, is sent")
PICTURE: Mapping[str, Field] = {
    "prompt": Field("str", minimum=1, maximum=32000),
    "count": Field("int", default=1, minimum=1, maximum=100, help="ten at most come of one call"),
    "size": SIZE,
    "quality": Field("str", minimum=1, maximum=40, help="as the server has it: standard, hd, low, high, ..."),
    "response_format": Field(
        "str", choices=("b64_json", "url"), help="how results come, where the server is to be told"
    ),
}
CLIP: Mapping[str, Field] = {
    "prompt": Field("str", minimum=1, maximum=32000),
    "count": Field("int", default=1, minimum=1, maximum=100, help="one call each"),
    "size": SIZE,
    "init": Field("artifact", help="the first frame: PNG, WebP or JPEG"),
}
SIDES = (("height", 1024, 720), ("width", 1024, 1280))  # of pictures and of clips, unless told


@final
class Compatible:
    """One server, as the user has set it up."""

    name = NAME

    def cards(self) -> Mapping[str, Card]:
        return tables.cards(NAME)

    def card(self, name: str) -> Card | None:
        vendor, colon, model = name.partition(":")
        if vendor != NAME or not colon or not model.removeprefix(VIDEO).strip():
            return None
        return _of_clips(name) if model.startswith(VIDEO) else _of_pictures(name)

    def batch(self, card: Card) -> int:
        return 1 if card.media == "video" else BATCH

    def check(self, card: Card, request: Request) -> None:
        if "init" in request.inputs:
            check_type("init", request.inputs["init"], PICTURES)

    def price(self, card: Card, request: Request) -> Price:
        why = f'this server sets its own prices (prices = "free" in [{NAME}] of config.toml where it costs nothing)'
        raise PriceUnknown(card.name, why)

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        model = card.name.partition(":")[2]
        body: dict[str, Any] = {"model": model.removeprefix(VIDEO), "prompt": request.prompt}
        size = request.options.get("size", f"{request.width}x{request.height}")
        body |= {} if size == "unsaid" else {"size": size}
        if card.media == "video":
            init = request.inputs.get("init")
            files = [] if init is None else [openai_wire.file("input_reference", init, "init")]
            parts = openai_wire.fields({**body, "seconds": f"{request.duration:g}"}, files)
            return openai_wire.clip(await wire.pay("videos", parts=parts))
        body |= {"n": request.count, **{name: value for name, value in request.options.items() if name != "size"}}
        return openai_wire.drawn((await wire.pay("images/generations", json=body)).json())

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        if "id" not in handle:
            raise InDoubt("the pictures came with an answer that is gone; nothing is kept of it to ask for.")
        return openai_wire.clip(await wire.ask(f"videos/{quote(handle['id'], safe='')}"))

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        return False

    def explain(self, reply: Reply) -> ProviderError:
        return openai_wire.explain(tables.spec(NAME), reply)


def _of_pictures(name: str) -> Card:
    axes = tuple(Axis(side, usual, 64, 8192) for side, usual, _ in SIDES)  # type: ignore[arg-type]  # names of axes
    return Card(name, NAME, "image", axes, PICTURE, LICENSE, "Whatever the server has under this name")


def _of_clips(name: str) -> Card:
    sides = tuple(Axis(side, usual, 64, 8192) for side, _, usual in SIDES)  # type: ignore[arg-type]  # names of axes
    axes = (Axis("duration", 4, 1, 600), *sides)
    return Card(name, NAME, "video", axes, CLIP, LICENSE, "Whatever the server has under this name")
