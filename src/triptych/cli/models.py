"""triptych models: what there is, here and elsewhere; what it takes, what it costs, and whether it still lives."""

import json
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli.flags import flagged
from triptych.cli.options import Json, Named

if TYPE_CHECKING:
    from triptych.cli.listing import Line
    from triptych.service import Service
    from triptych.types import Card, Field

__all__ = ["models"]

KINDS = ("image", "video", "audio")


@flagged("memory", "size", "device", "dtype")
def models(
    name: Annotated[str | None, typer.Argument(help="One of them, with all that is known of it")] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="MEDIUM", help="image, video or audio")] = None,
    local: Annotated[bool, typer.Option("--local", help="Those that run on this machine")] = False,
    api: Annotated[bool, typer.Option("--api", help="Those that a vendor or a host runs")] = False,
    alive: Annotated[bool, typer.Option("--alive", help="Those that can be asked today")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask vendors and the public price map what is new")
    ] = False,
    as_json: Json = False,
    option: Named = None,
    *,
    said: dict[str, Any],
) -> None:
    """List the models, or tell all of one: what it takes, costs and brings into memory (--memory), and until when."""
    from triptych.catalogue import use
    from triptych.errors import InvalidField, RequestError
    from triptych.service.config import config

    if kind not in (None, *KINDS):
        raise InvalidField("kind", kind, f"one of {', '.join(KINDS)}")
    if name is not None and (kind or local or api or alive or refresh):
        raise RequestError("--kind, --local, --api, --alive and --refresh are of the whole list: leave the name out.")
    if name is None and (option or any(value is not None for value in said.values())):
        raise RequestError("--memory, --size, --device, --dtype and --option say what is asked of one model: name it.")
    use(config().catalogue)
    if refresh:
        _refresh(as_json)
    elif name is not None:
        _one(name, said, option or [], as_json)
    else:
        _list(kind, (local, api), alive, as_json)


def _list(kind: str | None, places: tuple[bool, bool], living: bool, as_json: bool) -> None:
    """places: whether those that run here and those that others run are wanted; neither: all there are."""
    from triptych.cli import listing

    today = date.today()
    chosen = [
        line
        for line in listing.lines(_cards())
        if kind in (None, *line.media) and _there(line, *places) and (line.alive(today) or not living)
    ]
    if as_json:
        typer.echo(json.dumps({"models": [listing.plain(line, today) for line in chosen]}))
        return
    typer.echo(listing.table(chosen, today))
    old = sum(1 for line in chosen if line.old(today))
    if old:
        typer.echo(f"\n{old} of them were last checked more than 60 days ago: triptych models --refresh")
    typer.echo("\nAll of one: triptych models NAME")


def _there(line: "Line", local: bool, api: bool) -> bool:
    if not (local or api):
        return True
    return (local and line.provider == "local") or (api and line.provider not in ("", "local"))


def _one(name: str, said: Mapping[str, Any], texts: list[str], as_json: bool) -> None:
    from triptych import client
    from triptych.cli import listing

    service = client.shared()
    line = _line(service, name)
    plan = _plan(service, line, said, texts)
    today = date.today()
    if as_json:
        told: dict[str, Any] = {"models": [listing.plain(line, today)]}
        typer.echo(json.dumps(told | ({"plan": plan} if plan else {})))
    elif plan:
        typer.echo(plan)
    else:
        _details(line, today)


def _line(service: "Service", name: str) -> "Line":
    """What is meant by a name: of the catalogue, of a card, or where weights lie. Raises UnknownName, WeightsError."""
    from triptych.catalogue import found
    from triptych.cli.listing import Line
    from triptych.errors import UnknownName

    try:
        entry = found(name)
    except UnknownName as unknown:
        try:
            card = service.card(name)
        except UnknownName:
            raise unknown from None
        return Line(card.name, card, None)
    card_here = service.card(entry.name) if entry.local else _cards().get(entry.name)  # a dead one is told of, too
    return Line(entry.name, card_here, entry)


def _plan(service: "Service", line: "Line", said: Mapping[str, Any], texts: list[str]) -> str:
    """What of a model comes into memory when, if that is asked. Raises RequestError."""
    from triptych import client
    from triptych.cli import options
    from triptych.errors import RequestError

    if texts == [] and all(value is None for value in said.values()):
        return ""
    card = line.card
    asked = {"memory": "auto"} | {key: value for key, value in said.items() if value is not None}
    plan = ""
    if card is not None:
        told = options.options(texts, card, asked)
        plan = service.plan(client.request(card, "a plan", **asked, **told))
    if not plan:
        advice = "Its weights are not on this machine yet, or it does not come in parts."
        raise RequestError(f"what {line.name} brings into memory is not known. {advice}")
    return plan


def _details(line: "Line", today: date) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from triptych.cli import listing

    console = Console()
    head = f"{line.name}: {', '.join(line.media)}, licence {line.licence}. {line.summary}"
    console.print(head, highlight=False, markup=False)
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in listing.details(line, today):
        facts.add_row(name, text)
    if facts.row_count:
        console.print(facts, highlight=False, markup=False)
    if line.card is None:
        return
    table = Table("takes", "default", "allowed", "", box=SIMPLE_HEAD)
    for axis in line.card.axes:
        table.add_row(axis.name, f"{axis.default:g}", axis.allowed(), "")
    for name, told in line.card.several():
        field = line.card.fields[name]
        table.add_row(told, _default(field), field.allowed(), field.help)
    console.print(table)


def _default(field: "Field") -> str:
    return "" if field.default in (None, "") else str(field.default)


def _refresh(as_json: bool) -> None:
    """Says what is new, and whose list was and was not asked; exit code 1 where one failed."""
    from triptych.service import refresh
    from triptych.service.config import config

    settings = config()
    report = refresh.refreshed(settings.catalogue, refresh.accounts(settings), date.today())
    if as_json:
        changes = [
            {"model": one.model, "what": one.what, "before": one.before, "now": one.now} for one in report.changes
        ]
        told = {"asked": report.asked, "left": report.left, "failed": report.failed, "changes": changes}
        typer.echo(json.dumps({name: dict(part) if isinstance(part, Mapping) else part for name, part in told.items()}))
    else:
        for change in report.changes:
            typer.echo(str(change))
        for name, count in report.asked.items():
            typer.echo(f"{name}: {count} of our models are in its list")
        for name, why in report.left.items():
            typer.echo(f"{name}: not asked, {why}")
        for name, problem in report.failed.items():
            typer.echo(f"{name}: not refreshed: {problem}", err=True)
    if report.failed:
        raise typer.Exit(1)


def _cards() -> "Mapping[str, Card]":
    """Those of every family and vendor, without what making things takes to load."""
    from triptych import families
    from triptych.catalogue.entries import PACKAGE
    from triptych.providers.wire import tables

    found = dict(families.cards())
    for path in sorted((PACKAGE / "providers").glob("*.toml")):
        if "\n[[cards]]" in path.read_text(encoding="utf-8"):
            found |= tables.cards(path.stem)
    return found
