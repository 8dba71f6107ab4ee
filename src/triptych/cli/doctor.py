"""triptych doctor: which systems can be used now, and what to do for the others."""

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from triptych.cli.options import Json
from triptych.types import dollars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triptych.providers import Finding

__all__ = ["doctor"]


def doctor(as_json: Json = False) -> None:
    """Say which systems are usable now (keys, network, device, weights), and what to do for the others."""
    from triptych import client
    from triptych.service.config import config

    service, chosen = client.shared(), config()
    found = client.portal().call(service.roster.check())
    here = {"settings": str(chosen.settings.path), "data": str(chosen.data), "cache": str(chosen.cache)}
    if as_json:
        systems = {
            name: {"usable": _usable(rows), "findings": [_told(row) for row in rows]} for name, rows in found.items()
        }
        typer.echo(json.dumps({"systems": systems, **here}))
        return
    _said(found)
    for name, place in here.items():
        typer.echo(f"{name:<9} {place}")
    limits = {name: limit for name, limit in asdict(chosen.settings.budgets()).items() if limit is not None}
    told = ", ".join(f"{dollars(limit)} a {name}" for name, limit in limits.items())
    typer.echo(f"{'budgets':<9} {told or 'none (docs/costs.md)'}")


def _said(found: "Mapping[str, Sequence[Finding]]") -> None:
    """A line or two a finding: whether the system is usable, what there is or is missing, and what to do."""
    for name, rows in found.items():
        head = f"{name:<18}{'yes' if _usable(rows) else 'no':<5}"
        for row in rows:
            for text in filter(None, (f"{row.what}: {row.told}" if row.good is not False else row.told, row.advice)):
                typer.echo(textwrap.fill(text, 100, initial_indent=head, subsequent_indent=" " * len(head)))
                head = " " * len(head)
    typer.echo()


def _usable(rows: "Sequence[Finding]") -> bool:
    return all(row.good is not False for row in rows)


def _told(row: "Finding") -> dict[str, object]:
    return {"what": row.what, "good": row.good, "told": row.told, "advice": row.advice}
