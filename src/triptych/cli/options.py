"""Options that several commands share, and what their texts mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from triptych.errors import InvalidField, RequestError
from triptych.types import Card, Medium

__all__ = [
    "Device",
    "DryRun",
    "Dtype",
    "Json",
    "Named",
    "Out",
    "Successor",
    "Unpriced",
    "Which",
    "medium",
    "options",
]

Out = Annotated[str | None, typer.Option("--out", "-o", metavar="PATH", help="File or folder; else named here")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps; else the first GPU there is")]
Dtype = Annotated[str | None, typer.Option(metavar="NAME", help="float32, bfloat16 or float16, of the networks")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost and take, and make nothing")]
Successor = Annotated[bool, typer.Option("--successor", help="Of a model that is gone, take what comes closest today")]
Unpriced = Annotated[bool, typer.Option("--unpriced", help="Go on where nobody knows what it costs")]
Which = Annotated[str | None, typer.Option("--model", "-m", help="See: triptych models")]
Named = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Whatever else the model takes")
]


def medium(image: bool, video: bool, audio: bool) -> Medium | None:
    """The medium that is asked for, if any is. Raises RequestError where there are several."""
    asked: dict[Medium, bool] = {"image": image, "video": video, "audio": audio}
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise RequestError(f"{' and '.join(f'--{name}' for name in chosen)} given; one of them allowed.")
    return chosen[0] if chosen else None


def options(texts: Sequence[str], card: Card, said: Mapping[str, Any]) -> dict[str, Any]:
    """What `--option name=value` says, each value of the kind that the card wants.

    said: what other flags say already; saying it twice is an error. Raises InvalidField.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InvalidField("option", text, "name=value", f"{card.name} takes {card.takes()}.")
        if name in found or said.get(name) is not None:
            raise InvalidField(name, value, "it once, and no second time")
        found[name] = _value(name, value, card)
    return found


def _value(name: str, text: str, card: Card) -> Any:
    entry = card.fields.get(name)
    kind = entry.kind if entry else "int" if name in ("height", "width") else "str"
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "artifact":
                return Path(text)
            case _:
                return text
    except ValueError:
        raise InvalidField(name, text, entry.allowed() if entry else "a whole number of pixels") from None
