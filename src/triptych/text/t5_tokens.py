"""The tokenizers of T5's towers: T5's own ships with the package, others are read from tokenizer.json or spiece.model.

A text is cut into the pieces that are likeliest together (arXiv:1804.10959) and ends with END. Files of weights hold
no tokenizer, but for UMT5's as ComfyUI packs them; folders of models hold one beside the weights.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, final

from tokenizers import Tokenizer

from triptych.errors import FileProblem
from triptych.text import spiece
from triptych.text.prompts import Piece, Sections

__all__ = ["END", "PAD", "Row", "Tokens", "beside", "find", "load", "packed", "row", "shipped"]

END: Final = 1  # the id that every text ends with
PAD: Final = 0  # the id after the end of a text
FOLDERS = ("tokenizer_3", "tokenizer_2", "tokenizer")  # of a model; those of CLIP are called so too
FILES = ("tokenizer.json", "spiece.model")


@final
class Tokens:
    """A tokenizer. where: for messages. Raises FileProblem where it is none of T5's kind."""

    def __init__(self, tokenizer: Tokenizer, where: str) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if (tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<pad>")) != (END, PAD):
            raise FileProblem(
                f"{where} is not of T5, whose texts end with </s>, id 1, and are filled up with <pad>, id 0."
            )
        self._tokenizer, self.where = tokenizer, where

    @property
    def size(self) -> int:
        """How many ids there are."""
        count: int = self._tokenizer.get_vocab_size()
        return count

    def ids(self, text: str) -> list[int]:
        """The ids of a text of any length, without END."""
        return [token for token, _ in self.placed(text)]

    def placed(self, text: str) -> list[tuple[int, int]]:
        """The ids of a text, and where in it each of them begins."""
        said = self._tokenizer.encode(text, add_special_tokens=False)
        return [(token, start) for token, (start, _) in zip(said.ids, said.offsets, strict=True)]


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A text as a tower reads it: its ids with END, and the weight of each. cut: the words that do not fit in."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    cut: str = ""

    def padded(self, length: int) -> list[int]:
        """The ids, filled up to so many."""
        return [*self.ids] + [PAD] * (length - len(self.ids))


def row(sections: Sections, tokens: Tokens, most: int | None) -> Row:
    """What sections say, one after the other, in at most so many tokens with END; None: all of it.

    Pieces of other weights are cut into tokens by themselves, as AUTOMATIC1111 and ComfyUI do.
    """
    pieces = [piece for section in sections for piece in section]
    placed = [(number, *at) for number, piece in enumerate(pieces) for at in tokens.placed(piece.text)]
    fits = len(placed) if most is None else min(len(placed), most - 1)
    ids = [token for _, token, _ in placed[:fits]]
    weights = [pieces[number].weight for number, _, _ in placed[:fits]]
    return Row((*ids, END), (*weights, 1.0), _rest(pieces, placed[fits:]))


def find(named: Path | None, model: Path, words: int, within: bytes | None = None) -> Tokens:
    """The tokenizer of a model: the one that somebody named, one that is packed with it or lies beside it, or T5's own.

    words: rows of the tower's table; within: a spiece.model that its weights hold. Raises FileProblem that says what to
    do where there is none, or one that has not about as many ids as the table rows.
    """
    if named is None and within is not None:
        return _fitting(packed(within, str(model)), words)
    place = named or beside(model)
    if place is not None:
        return _fitting(load(place), words)
    if words == OWN:
        return shipped()
    raise FileProblem(
        f"the tokenizer of a text encoder of {words} words is no part of {model}, and none lies beside it. Name a "
        "folder or file with tokenizer.json or spiece.model by --option t5_tokenizer=PATH; UMT5's: google/umt5-xxl."
    )


def beside(model: Path) -> Path | None:
    """The folder of a model, or the one that a file of weights is in, may hold a tokenizer of T5's kind."""
    root = model if model.is_dir() else model.parent
    places = [folder / name for folder in (*(root / name for name in FOLDERS), root) for name in FILES]
    return next((place for place in places if place.is_file() and _is_unigram(place)), None)


def load(path: Path) -> Tokens:
    """Out of tokenizer.json or spiece.model, or a folder with one. Raises FileProblem."""
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()] or [
            place for place in [beside(path)] if place
        ]
        if not found:
            raise FileProblem(
                f"{path} holds neither tokenizer.json nor spiece.model. Name the folder or file that does."
            )
        path = found[0]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileProblem(
            f"{path} cannot be read ({error.strerror}). Name a tokenizer.json or spiece.model."
        ) from error
    if path.suffix != ".json":
        return packed(data, str(path))
    try:
        made = Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises nothing narrower
        raise FileProblem(f"{path} is no tokenizer.json ({error}). Download it again.") from error
    return Tokens(made, str(path))


def packed(data: bytes, where: str) -> Tokens:
    """Out of the bytes of a spiece.model. Raises FileProblem."""
    pieces = spiece.parsed(data, where)
    more = SENTINELS if len(pieces.items) == PIECES else []
    return Tokens(spiece.tokenizer(pieces, more), where)


@cache
def shipped() -> Tokens:
    """T5's own, of all its sizes and versions; not of UMT5."""
    data = gzip.decompress(files("triptych.text").joinpath("t5.model.gz").read_bytes())
    return packed(data, "T5's own tokenizer")


OWN = 32128  # rows of T5's tables, of which its tokenizer uses 32100
SPARE = 512  # rows that a table may have beyond its tokenizer; UMT5's has 384 beyond its pieces
PIECES = 32000  # of T5's own spiece.model
SENTINELS = [f"<extra_id_{number}>" for number in range(99, -1, -1)]  # of T5, that its tables have beyond its pieces


def _rest(pieces: Sequence[Piece], placed: Sequence[tuple[int, int, int]]) -> str:
    """The text from a token on."""
    if not placed:
        return ""
    number, _, start = placed[0]
    return (pieces[number].text[start:] + "".join(piece.text for piece in pieces[number + 1 :])).strip()


def _fitting(tokens: Tokens, words: int) -> Tokens:
    if not words - SPARE <= tokens.size <= words:
        raise FileProblem(
            f"{tokens.where} has {tokens.size} tokens, and the text encoder's table {words}: it is of another model. "
            "Name the one that goes with it by --option t5_tokenizer=PATH."
        )
    return tokens


def _is_unigram(place: Path) -> bool:
    """Whether a file is of T5's kind, as those of CLIP are not."""
    if place.suffix != ".json":
        return True
    try:
        told = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return False
    model = told.get("model") if isinstance(told, dict) else None
    return isinstance(model, dict) and model.get("type") == "Unigram"
