"""triptych models and triptych show: what can be made, and how something was made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli.flags import flagged
from triptych.cli.options import Json, Named, Out
from triptych.types import Card, Field

if TYPE_CHECKING:
    from triptych.service import Service

__all__ = ["models", "show"]


@flagged("memory", "size", "device", "dtype")
def models(
    name: Annotated[str | None, typer.Argument(help="One of them, with every range and default")] = None,
    as_json: Json = False,
    option: Named = None,
    *,
    said: dict[str, Any],
) -> None:
    """List the models, and what each takes; with --memory, what of one comes into memory when."""
    from triptych import client

    service = client.shared()
    cards = service.cards()
    chosen = cards if name is None else {name: service.card(name)}
    plan = _plan(service, chosen[name] if name else None, said, option or [])
    if as_json:
        told = {"models": [_told(card) for card in chosen.values()]}
        typer.echo(json.dumps(told | ({"plan": plan} if plan else {})))
    elif name is None:
        _overview(cards)
    elif plan:
        typer.echo(plan)
    else:
        _details(chosen[name])


def _plan(service: "Service", card: Card | None, said: Mapping[str, Any], texts: list[str]) -> str:
    """What of a model comes into memory when, if that is asked. Raises RequestError."""
    from triptych import client
    from triptych.cli import options
    from triptych.errors import RequestError

    if texts == [] and all(value is None for value in said.values()):
        return ""
    if card is None:
        raise RequestError("--memory, --size, --device, --dtype and --option say what is asked of one model: name it.")
    asked = {"memory": "auto"} | {key: value for key, value in said.items() if value is not None}
    told = options.options(texts, card, asked)
    plan = service.plan(client.request(card, "a plan", **asked, **told))
    if not plan:
        advice = "Its weights are not on this machine yet, or it does not come in parts."
        raise RequestError(f"what {card.name} brings into memory is not known. {advice}")
    return plan


def show(
    file: Annotated[Path, typer.Argument(help="A picture, a clip or a sound")],
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the wave and the spectrogram of a sound or a clip, as a picture")
    ] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show the recipe inside a file, or what another program wrote; with --plot, what a sound looks like."""
    from triptych.errors import InvalidField

    if plot:
        drawn = str(_plotted(file, out))
        typer.echo(json.dumps({"files": [drawn]}) if as_json else drawn)
        return
    if out is not None:
        raise InvalidField("out", out, "only with --plot")
    told = _said(file)
    if as_json:
        typer.echo(json.dumps(told))
        return
    lost = [("no equivalent here", sentence) for sentence in told.pop("lost", [])]
    for name, value in [*_lines(told), *lost]:
        typer.echo(f"{name:<22} {value}")


def _said(file: Path) -> dict[str, Any]:
    """The recipe inside a file, or what is understood of another program's. Raises NoRecipe, FileProblem."""
    from triptych import client, foreign, media
    from triptych.errors import NoRecipe
    from triptych.media import files

    try:
        return client.recipe(file)
    except NoRecipe as problem:
        try:
            return foreign.described(client.foreign(file))
        except NoRecipe:
            for text in media.read_texts(files.read(file), str(file)).values():
                problem.add_note(f"Another program wrote into it:\n{text}")
            raise problem from None


def _plotted(file: Path, out: str | None) -> Path:
    """Writes the picture, beside the file unless told, and returns where."""
    from triptych import media
    from triptych.cli import places
    from triptych.media import audio, files, image
    from triptych.media.plot import plot

    wanted = places.plan(out or str(file.with_suffix(".png")), "image")
    path = wanted.folder / (wanted.name or f"{file.stem}{wanted.suffix}")
    sound = audio.decode(files.read(file), str(file))
    return files.write(path, image.encode(plot(sound), media.mime(path), {}), replace=out is not None)


def _lines(recipe: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Every leaf of the recipe with its dotted name; what is empty is left out."""
    found: list[tuple[str, str]] = []
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            found += _lines(value, f"{name}." if before in ("", "request.") and name != "request" else before)
        elif value not in (None, ""):
            found.append((before + name, str(value)))
    return found


def _overview(cards: Mapping[str, Card]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "makes", "licence", "what", "takes", box=SIMPLE_HEAD)
    for card in cards.values():
        table.add_row(card.name, card.media, card.license, card.summary, card.takes())
    console = Console()
    console.print(table)
    console.print("Ranges and defaults of one: triptych models NAME", highlight=False)


def _details(card: Card) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{card.name}: {card.media}, licence {card.license}. {card.summary}", highlight=False, markup=False)
    table = Table("takes", "default", "allowed", "", box=SIMPLE_HEAD)
    for axis in card.axes:
        table.add_row(axis.name, f"{axis.default:g}", axis.allowed(), "")
    for name, field in sorted(card.fields.items()):
        table.add_row(name, _default(field), field.allowed(), field.help)
    console.print(table)


def _default(field: Field) -> str:
    return "" if field.default in (None, "") else str(field.default)


def _told(card: Card) -> dict[str, Any]:
    fields = {
        name: {"kind": field.kind, "default": field.default, "allowed": field.allowed(), "help": field.help}
        for name, field in card.fields.items()
    }
    axes = {axis.name: {"default": axis.default, "allowed": axis.allowed()} for axis in card.axes}
    plain = {"name": card.name, "family": card.family, "medium": card.media, "license": card.license}
    return {**plain, "summary": card.summary, "axes": axes, "fields": fields}
