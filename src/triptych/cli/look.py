"""triptych show: how something was made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from triptych.cli.options import Json, Out

__all__ = ["show"]


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
