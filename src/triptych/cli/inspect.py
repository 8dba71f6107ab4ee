"""triptych inspect: what a file or folder of weights is, told from its headers alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triptych.cli.options import Json

if TYPE_CHECKING:
    from triptych.weights.inspect import Report
    from triptych.weights.recognise import Found

__all__ = ["inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(help="A .safetensors or .gguf file, a folder of one, or a diffusers folder")],
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="Like fp16, of a folder that has several")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what weights are: family, parts, precision, memory. Reads no weight and needs no network."""
    from triptych.weights.inspect import inspect as look

    report = look(path, variant)
    if as_json:
        typer.echo(json.dumps(report.told()))
        return
    for name, value in _lines(report):
        if value:
            typer.echo(f"{name:<12} {value}")


def _lines(report: "Report") -> list[tuple[str, str]]:
    lines = _found(report.found) if report.found else [("family", "unknown"), ("note", report.unknown)]
    lines += [("matches", share.sentence) for share in report.shares]
    lines += [
        ("numbers", f"{report.parameters:,} in {report.tensors} tensors of {_counted(report.files, 'file')}"),
        ("dtype", _shares(report.dtypes)),
        ("memory", ", ".join(f"{size / 2**30:.2f} GiB in {name}" for name, size in report.memory.items())),
    ]
    return lines + [("metadata", f"{name} = {text}") for name, text in report.metadata.items()]


def _found(found: "Found") -> list[tuple[str, str]]:
    from triptych.weights import networks

    known = networks.families()
    low = found.adapter
    lines = [
        ("family", " or ".join(f"{name} ({known[name].title})" for name in found.families) or "unknown"),
        ("kind", ", ".join(filter(None, (found.kind, found.variant, f"{' and '.join(found.naming)} names")))),
        ("predicts", f"{found.prediction}, told by {found.told_by}" if found.prediction else ""),
        ("", "with zero terminal SNR" if found.zero_snr else ""),
    ]
    for part in found.parts:
        dtypes = "/".join(sorted({entry.dtype for entry in part.entries.values()}))
        lines.append(("part", f"{part.name}: {part.parameters:,} numbers, {len(part.entries)} tensors, {dtypes}"))
    lines.append(("missing", ", ".join(_told(found, part) for part in found.missing)))
    if low:
        ranks = f"rank {' '.join(map(str, low.ranks))}" if low.ranks else "no rank"
        ranks += f", alpha {' '.join(f'{alpha:g}' for alpha in low.alphas)}" if low.alphas else ""
        changed = f"{_counted(low.modules, 'module')} of {', '.join(low.targets)}"
        lines.append(("changes", f"{low.algorithm}, {ranks}, {changed}"))
    return [*lines, *(("note", note) for note in found.notes), ("refused", found.refusal)]


def _told(found: "Found", part: str) -> str:
    """A part that is missing, and the option that names a file of it."""
    from triptych.weights import networks

    family = networks.families()[found.family]
    if part not in family.options:
        return part
    spare = " or none" if part in family.spare else ""
    return f"{part} (--option {family.options[part]}=PATH{spare})"


def _shares(dtypes: Mapping[str, int]) -> str:
    whole = sum(dtypes.values()) or 1
    return ", ".join(f"{name} {count / whole:.1%}" if len(dtypes) > 1 else name for name, count in dtypes.items())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
