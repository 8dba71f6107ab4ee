"""triptych costs: what calls have cost, one by one or summed up, as a table and as a picture."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli.options import Json, Out
from triptych.errors import InvalidField, TriptychError
from triptych.types import dollars

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from triptych.service.bills import By, Sum
    from triptych.service.budgets import Span
    from triptych.service.ledger import Ledger, Line

__all__ = ["costs"]

LAST = 20  # calls that are shown where nothing says which
NARROWEST = 9  # letters of a column that is cut
EARLIEST, LATEST = date(2000, 1, 1), date(2999, 12, 31)
SAID: Mapping[str, str] = {"list": "list price", "in_doubt": "in doubt", "released": "not paid"}
DOUBT = "In doubt: nobody knows whether it was paid for. Say so: triptych costs --clear JOB --cost DOLLARS"


def costs(
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Like 2026-11-30, 7d, today or month")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="The last day, like 2026-11-30")] = None,
    by: Annotated[str | None, typer.Option(metavar="WHAT", help="Sums: model, day, project or provider")] = None,
    out: Out = None,
    clear: Annotated[str | None, typer.Option(metavar="JOB", help="Say what this call cost, by --cost")] = None,
    cost: Annotated[float | None, typer.Option(metavar="DOLLARS", help="With --clear; 0: it was never made")] = None,
    as_json: Json = False,
) -> None:
    """Show what calls have cost: the last ones, or sums; with -o as a picture."""
    from triptych.service import bills
    from triptych.service.config import config
    from triptych.service.ledger import Ledger

    ledger = Ledger(config().ledger)
    if clear is not None or cost is not None:
        _clear(ledger, clear, cost, as_json)
        return
    chosen, span = _by(by, out), _span(since, until)
    lines = _settled(ledger, span)
    if chosen is None:
        _print_lines(lines if span else lines[-LAST:], len(lines), as_json)
        return
    sums, whole = bills.sums(lines, chosen), bills.total(lines)
    drawn = [] if out is None else [str(_drawn(out, chosen, sums, whole, (since, until)))]
    if as_json:
        told = {"by": chosen, "sums": [_told_sum(one) for one in sums], "total": _told_sum(whole), "files": drawn}
        typer.echo(json.dumps(told))
        return
    _print_sums(chosen, sums, whole)
    for path in drawn:
        typer.echo(path)


def _settled(ledger: "Ledger", span: "Span | None") -> "Sequence[Line]":
    """The lines of a time, once it is known what became of those whose process is gone."""
    lines = ledger.lines(span)
    open = [line for line in lines if line.state == "reserved"]
    if not open:
        return lines
    from triptych import client

    for line in open:
        with suppress(TriptychError):  # a job that was thrown away leaves its line as it is
            client.shared().job(line.call.job)
    return ledger.lines(span)


def _clear(ledger: "Ledger", job: str | None, cost: float | None, as_json: bool) -> None:
    if job is None:
        raise InvalidField("cost", cost, "only with --clear JOB")
    if cost is None:
        raise InvalidField("clear", job, "only with --cost DOLLARS (0 if nothing was paid)")
    ledger.clear(job, cost)
    typer.echo(json.dumps(_told(ledger.line(job))) if as_json else f"{job}: settled at {dollars(cost)}, as you say")


def _by(given: str | None, out: str | None) -> "By | None":
    """What is summed by; a picture is of days unless told. Raises InvalidField."""
    from triptych.service.bills import BY

    if given is None:
        return None if out is None else "day"
    found = next((name for name in BY if name == given), None)
    if found is None:
        raise InvalidField("by", given, f"{', '.join(BY)}")
    return found


def _span(since: str | None, until: str | None) -> "Span | None":
    """The days that are asked about; None: all. Raises InvalidField."""
    from triptych.service.budgets import days

    if since is None and until is None:
        return None
    today = datetime.now().astimezone().date()
    first = EARLIEST if since is None else _first(since, today)
    last = LATEST if until is None else today if until == "today" else _date("until", until, "today, or a date")
    if first > last:
        raise InvalidField("until", until or since, f"a day from {first} on")
    return days(first, last)


def _first(text: str, today: date) -> date:
    counted = re.fullmatch(r"([1-9]\d{0,4})d", text)
    if counted:
        return max(today - timedelta(days=int(counted[1]) - 1), EARLIEST)
    known = {"today": today, "month": today.replace(day=1)}
    return known.get(text) or _date("since", text, "today, month, a number of days like 7d, or a date")


def _date(name: str, text: str, allowed: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = date.min
    if not EARLIEST <= found <= LATEST:
        raise InvalidField(name, text, f"{allowed} like 2026-11-30")
    return found


def _print_lines(lines: "Sequence[Line]", whole: int, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"calls": [_told(line) for line in lines]}))
        return
    if not lines:
        typer.echo("No calls.")
        return
    rows = [(f"{line.began.astimezone():%m-%d %H:%M}", line.call.job, _amount(line), _word(line)) for line in lines]
    shown = [(*row, line.call.model, line.call.what) for row, line in zip(rows, lines, strict=True)]
    _table(("when", "job", "cost", "from", "model", "what"), shown, right=("cost",), free=("model", "what"))
    if len(lines) < whole:
        typer.echo(f"The last {len(lines)} of {whole}. All of a time: triptych costs --since 7d", err=True)
    if any(row[3] == SAID["in_doubt"] for row in rows):
        typer.echo(DOUBT, err=True)


def _print_sums(by: str, sums: "Sequence[Sum]", whole: "Sum") -> None:
    from triptych.service.bills import PARTS

    if not sums:
        typer.echo("No calls.")
        return
    parts = [part for part in PARTS if part in whole.parts]
    names = [by, "calls", "spent", *(SAID.get(part, part) for part in parts), *(["unknown"] if whole.unknown else [])]
    rows = [
        (
            one.name,
            str(one.calls),
            "unknown" if one.unknown == one.calls else dollars(one.spent),
            *(dollars(one.parts[part]) if part in one.parts else "" for part in parts),
            *([str(one.unknown or "")] if whole.unknown else []),
        )
        for one in (*sums, *([whole] if len(sums) > 1 else []))
    ]
    _table(names, rows, right=names[1:], free=(by,))
    if "in_doubt" in parts:
        typer.echo(DOUBT, err=True)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], free: Sequence[str]) -> None:
    """right: columns of numbers; free: columns whose cells are cut where there is no room; of the others none is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = {name: max(map(len, (*name.split(), *cells))) for name, *cells in zip(names, *rows, strict=True)}
    room = Console().width - 2 * len(names) - sum(width for name, width in widths.items() if name not in free)
    for left, name in zip(range(len(free) - 1, -1, -1), free, strict=True):
        widths[name] = min(widths[name], max(room // (left + 1), NARROWEST))
        room -= widths[name]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        side: JustifyMethod = "right" if name in right else "left"
        table.add_column(name.replace(" ", "\n"), justify=side, width=widths[name])
    for row in rows:
        cells = ["".join(filter(str.isprintable, cell)) for cell in row]
        table.add_row(*(Text(_cut(cell, widths[name])) for name, cell in zip(names, cells, strict=True)))
    Console(width=sum(widths.values()) + 2 * len(names)).print(table)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _drawn(out: str, by: "By", sums: "Sequence[Sum]", whole: "Sum", asked: tuple[str | None, str | None]) -> Path:
    """Draws the sums, and returns where. Raises FileProblem."""
    from triptych import media
    from triptych.cli import places
    from triptych.media import bars, files, image
    from triptych.service.bills import PARTS, filled

    wanted = places.plan(out, "image")
    path = wanted.folder / (wanted.name or f"costs-by-{by}{wanted.suffix}")
    draw = bars.columns if by == "day" else bars.bars
    shown = filled(sums) if by == "day" else sums
    parts = [SAID.get(part, part) for part in PARTS]
    given = [bars.Bar(one.name, _said(one.parts), _unknown(one)) for one in shown]
    picture = draw(given, parts, _title(by, whole, asked), dollars)
    return files.write(path, image.encode(picture, media.mime(path), {}), replace=wanted.replace)


def _title(by: str, whole: "Sum", asked: tuple[str | None, str | None]) -> str:
    since, until = asked
    time = (f", since {since}" if since else "") + (f", until {until}" if until else "")
    open = whole.total - whole.spent
    more = f"up to {dollars(open)} more reserved or in doubt" if open > 0 else ""
    return ", ".join(filter(None, (f"Costs by {by}{time}: {dollars(whole.spent)}", more, _unknown(whole))))


def _said(parts: Mapping[str, float]) -> dict[str, float]:
    return {SAID.get(part, part): sum for part, sum in parts.items()}


def _unknown(one: "Sum") -> str:
    return f"{one.unknown} of unknown cost" if one.unknown else ""


def _amount(line: "Line") -> str:
    """What it cost; of what is not known yet, the most that it could."""
    return "unknown" if line.most is None else dollars(line.most)


def _word(line: "Line") -> str:
    if line.source is not None:
        return SAID.get(line.source, line.source)
    state = "in_doubt" if line.state == "settled" else line.state  # over, and nobody has told the cost
    return SAID.get(state, state)


def _told(line: "Line") -> dict[str, Any]:
    call, price = line.call, line.price
    return {
        "job": call.job,
        "when": line.began.isoformat(timespec="seconds"),
        "provider": call.provider,
        "model": call.model,
        "what": call.what,
        "project": call.project,
        "state": line.state,
        "price": None if price is None else {"least": price.least, "most": price.most},
        "cost": line.cost,
        "source": line.source,
        "seconds": line.seconds,
        "ticket": None if line.ticket is None else dict(line.ticket),
        "files": list(line.files),
    }


def _told_sum(one: "Sum") -> dict[str, Any]:
    return {"name": one.name, "calls": one.calls, "spent": one.spent, "unknown": one.unknown, **one.parts}
