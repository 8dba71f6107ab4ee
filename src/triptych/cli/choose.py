"""triptych choose: which model for what, by the catalogue's rules, with a reason for each and for each that is out."""

import json
from collections.abc import Mapping
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli.flags import flagged
from triptych.cli.options import Json

if TYPE_CHECKING:
    from triptych.catalogue.choose import Line, Ranking, Ruled, Wish
    from triptych.types import Medium, Price

__all__ = ["choose"]

FIRST = 8  # lines that are shown unless all are asked for
NAME = 30  # characters of the column of names; a longer one shifts its own line
INDENT = " " * 5
NAMED = 6  # models that are named of those that one rule puts out
OUT: Mapping[str, str] = {  # by the rule that is broken first
    "alive": "cannot be asked today",
    "medium": "make something else",
    "input": "work on a picture, and none is spoken of",
    "local-only": "run elsewhere",
    "licence": "make what may not be sold",
    "needs": "lack what is needed",
    "size": "make smaller ones",
    "duration": "make shorter ones",
    "budget": "cost too much, or nobody knows what",
    "max-seconds": "take too long",
    "usable-only": "cannot be used now",
}


@flagged("size", "duration", "count")
def choose(
    prompt: Annotated[str, typer.Argument(help="What is to be made")],
    kind: Annotated[str | None, typer.Option(metavar="MEDIUM", help="image, video or audio; else by the words")] = None,
    budget: Annotated[float | None, typer.Option(metavar="DOLLARS", help="The most that all of it may cost")] = None,
    local_only: Annotated[bool, typer.Option("--local-only", help="On this machine alone")] = False,
    usable_only: Annotated[bool, typer.Option("--usable-only", help="With the keys and weights there are")] = False,
    licence: Annotated[str | None, typer.Option(metavar="NAME", help="commercial: what is made may be sold")] = None,
    max_seconds: Annotated[float | None, typer.Option(metavar="SECONDS", help="The longest to wait for one")] = None,
    needs: Annotated[str | None, typer.Option(metavar="NAME,...", help="Like text,reference,transparent,seed")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every line, and why each of the others is out")] = False,
    as_json: Json = False,
    *,
    said: dict[str, Any],
) -> None:
    """Say which model is for it, with reasons, out of the catalogue: no network, nothing is sent."""
    from triptych import client
    from triptych.catalogue import use
    from triptych.catalogue.choose import Wish, advice, ranked
    from triptych.service.config import config

    wish = Wish(
        prompt,
        kind=_kind(kind),
        budget=budget,
        local_only=local_only,
        commercial=_commercial(licence),
        max_seconds=max_seconds,
        size=(said["width"], said["height"]) if "width" in said else None,
        duration=said["duration"],
        count=1 if said["count"] is None else said["count"],
        needs=tuple(filter(None, (need.strip().replace("-", "_") for need in (needs or "").split(",")))),
        usable_only=usable_only,
    )
    use(config().catalogue)
    service = client.shared()
    ranking = ranked(wish, lambda entry: service.usable(entry.name))
    hint = advice(ranking)
    if as_json:
        typer.echo(json.dumps(_told(ranking, hint)))
    else:
        _print(ranking, every)
        typer.echo(f"triptych: nothing is left. {hint}" if hint else "", err=True, nl=bool(hint))
    if hint:
        raise typer.Exit(1)


def _kind(given: str | None) -> "Medium | None":
    """Raises InvalidField."""
    match given:
        case None | "image" | "video" | "audio":
            return given
    from triptych.errors import InvalidField

    raise InvalidField("kind", given, "image, video or audio")


def _commercial(given: str | None) -> bool:
    """Raises InvalidField."""
    if given not in (None, "commercial"):
        from triptych.errors import InvalidField

        raise InvalidField("licence", given, "commercial")
    return given is not None


def _print(ranking: "Ranking", every: bool) -> None:
    told = ranking.reading
    subjects = ", ".join(_word(name, word) for name, word in told.subjects.items())
    asked = ", ".join(_word(name, word) for name, word in told.abilities.items())
    typer.echo(f"{told.medium}: {told.why}. About {subjects}{f'; asks for {asked}' if asked else ''}.")
    typer.echo(f"Prices are of {_what(ranking.wish, told.medium)}.")
    shown = ranking.lines if every else ranking.lines[:FIRST]
    if shown:
        _table(shown)
    if len(shown) < len(ranking.lines):
        typer.echo(f"{len(ranking.lines) - len(shown)} more, and why others are out: --all")
    if every:
        _each(ranking.ruled)
    else:
        _groups(ranking.ruled)


def _what(wish: "Wish", medium: "Medium") -> str:
    """What the prices are of."""
    from triptych.catalogue.wish import SECONDS, SIZE

    many = f"{wish.count} times " if wish.count > 1 else ""
    size = wish.size or (SIZE if medium == "image" else None)
    pixels = "{} x {} pixels".format(*size) if size else ""
    long = "" if medium == "image" else f"{wish.duration or SECONDS[medium]:g} s"
    return f"{many}{' and '.join(filter(None, (pixels, long)))}"


def _table(lines: "tuple[Line, ...]") -> None:
    """A line for each, and below it why, as wide as the screen: names and reasons are whole however narrow that is."""
    head = ("model", "where", "points", "price", "seconds")
    rows = [head, *(_cells(line) for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    widths[0] = min(widths[0], NAME)
    width = get_terminal_size().columns
    for rank, row in enumerate(rows):
        cells = [cell.ljust(long) for cell, long in zip(row, widths, strict=True)]
        cells[2] = row[2].rjust(widths[2])
        typer.echo(f"{rank or '':>3}  {'  '.join(cells)}".rstrip())
        if rank:
            typer.echo(fill("; ".join(lines[rank - 1].reasons), width, initial_indent=INDENT, subsequent_indent=INDENT))


def _cells(line: "Line") -> tuple[str, ...]:
    where = "here" if line.entry.local else line.entry.provider
    return (line.entry.name, where, f"{line.score:.1f}", _price(line.price), _seconds(line))


def _groups(ruled: "tuple[Ruled, ...]") -> None:
    """One line a rule."""
    if ruled:
        typer.echo("Ruled out:")
    for rule, told in OUT.items():
        names = [one.entry.name for one in ruled if one.rule == rule]
        if names:
            more = f", {len(names) - NAMED} more" if len(names) > NAMED else ""
            typer.echo(f"  {len(names):>3} {told}: {', '.join(names[:NAMED])}{more}")


def _each(ruled: "tuple[Ruled, ...]") -> None:
    if ruled:
        typer.echo("Ruled out:")
    for rule in OUT:
        for one in ruled:
            if one.rule == rule:
                typer.echo(f"  {one.entry.name}: {'; '.join(one.broken.values())}")


def _word(name: str, word: str) -> str:
    """A subject or an ability, with the word of the prompt that named it."""
    told = name.replace("_", " ")
    return told if word in ("", told) else f"{told} ({word})"


def _price(price: "Price | None") -> str:
    from dataclasses import replace

    return "unknown" if price is None else "free" if price.most == 0 else str(replace(price, why=""))


def _seconds(line: "Line") -> str:
    if line.entry.seconds is None:
        return "unknown"
    least, most = line.entry.seconds
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _told(ranking: "Ranking", hint: str) -> dict[str, Any]:
    """The ranking as JSON has it."""
    told = ranking.reading
    return {
        "medium": told.medium,
        "why": told.why,
        "subjects": dict(told.subjects),
        "asks": dict(told.abilities),
        "prices_of": _what(ranking.wish, told.medium),
        "models": [_told_line(line) for line in ranking.lines],
        "ruled_out": [
            {"model": one.entry.name, "rule": one.rule, "why": list(one.broken.values())} for one in ranking.ruled
        ],
        "advice": hint,
    }


def _told_line(line: "Line") -> dict[str, Any]:
    price = line.price
    return {
        "model": line.entry.name,
        "provider": line.entry.provider,
        "points": line.score,
        "price": None if price is None else {"least": price.least, "most": price.most, "why": price.why},
        "seconds": line.entry.seconds,
        "missing": line.missing,
        "terms": [{"name": term.name, "points": term.points, "why": term.why} for term in line.terms],
    }
