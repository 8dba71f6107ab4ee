"""SentencePiece's files (arXiv:1808.06226) without its library: a unigram model (arXiv:1804.10959) of `tokenizers`.

A file is a Protocol Buffers message, `ModelProto` of sentencepiece_model.proto: pieces with their log-probabilities,
and how a text is normalised before it is cut into the pieces that are likeliest together.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, final

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from triptych.errors import FileProblem

__all__ = ["Kind", "Piece", "Pieces", "parsed", "tokenizer"]


class Kind(IntEnum):
    """What a piece is."""

    NORMAL = 1
    UNKNOWN = 2  # stands for what no pieces make up
    CONTROL = 3  # ends a text, fills it up
    DEFINED = 4  # by whoever trained the model: always one piece
    UNUSED = 5
    BYTE = 6  # of what no other pieces make up


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """A piece, its log-probability, and what it is."""

    text: str
    score: float = 0.0
    kind: Kind = Kind.NORMAL


@final
@dataclass(frozen=True, slots=True)
class Pieces:
    """What a file says. charsmap: which characters become which, compiled; the others as its proto names them."""

    items: tuple[Piece, ...]
    charsmap: bytes = b""
    dummy_prefix: bool = True
    less_space: bool = True  # remove_extra_whitespaces


def parsed(data: bytes, where: str) -> Pieces:
    """What the bytes of a file say; where: for messages. Raises FileProblem for what is no unigram model."""
    try:
        fields = list(_fields(data))
        trainer = dict(_fields(next((_bytes(value) for number, value in fields if number == _TRAINER), b"")))
        normalizer = dict(_fields(next((_bytes(value) for number, value in fields if number == _NORMALIZER), b"")))
        items = tuple(_piece(_bytes(value)) for number, value in fields if number == _PIECES)
        charsmap = _bytes(normalizer.get(2, b""))
    except (ValueError, struct.error) as problem:
        raise FileProblem(f"{where} is no SentencePiece model ({problem}). Download it again.") from problem
    unknown = [piece for piece in items if piece.kind == Kind.UNKNOWN]
    if trainer.get(3, _UNIGRAM) != _UNIGRAM or len(unknown) != 1:
        raise FileProblem(
            f"{where} is no unigram model of SentencePiece, which T5's tokenizers are. Name another file."
        )
    return Pieces(items, charsmap, bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)))


def tokenizer(pieces: Pieces, more: Sequence[str] = ()) -> Tokenizer:
    """A tokenizer of these pieces; more: special tokens whose ids follow theirs.

    As transformers makes one: what ends a text, fills it up, stands for a byte or is one of `more` is itself where a
    text says it; and a mark on a letter that no piece has is a part of what is unknown, not more of it.
    """
    items = pieces.items
    best = max((piece.score for piece in items if piece.kind == Kind.NORMAL), default=0.0)
    scores = [(piece.text, _score(piece, best)) for piece in items]
    unknown = next(number for number, piece in enumerate(items) if piece.kind == Kind.UNKNOWN)
    falls_back = any(piece.kind == Kind.BYTE for piece in items)
    made = Tokenizer(Unigram([*scores, *((token, 0.0) for token in more)], unknown, falls_back))
    made.normalizer = normalizers.Sequence(_normalizers(pieces))
    if pieces.dummy_prefix:
        made.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=False)
    special = [piece.text for piece in items if piece.kind in (Kind.CONTROL, Kind.UNKNOWN)]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in [*special, *more]])
    return made


Value = int | bytes
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # numbers of fields of ModelProto
_UNIGRAM: Final = 1
_SPACE: Final = "\u2581"


def _score(piece: Piece, best: float) -> float:
    """Its log-probability, as SentencePiece takes it; best: the largest of any piece."""
    if piece.kind == Kind.DEFINED:
        return len(piece.text.encode()) * best - 0.1
    return piece.score


def _normalizers(pieces: Pieces) -> list[normalizers.Normalizer]:
    """In SentencePiece's order; a text that begins with its space gets another one, which `Metaspace` would not add."""
    found: list[normalizers.Normalizer] = []
    if pieces.charsmap:
        found.append(normalizers.Precompiled(pieces.charsmap))
    if pieces.less_space:
        found += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    found.append(normalizers.Replace(" ", _SPACE))
    if pieces.dummy_prefix:
        found.append(normalizers.Replace(Regex(rf"\A{_SPACE}"), 2 * _SPACE))
    return found


def _piece(data: bytes) -> Piece:
    told = dict(_fields(data))
    score = struct.unpack("<f", _bytes(told[2]))[0] if 2 in told else 0.0
    kind = told.get(3, 1)
    if not isinstance(kind, int):
        raise ValueError("bytes where a number is due")
    return Piece(_bytes(told.get(1, b"")).decode(), score, Kind(kind))


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are due")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Numbers and values of a message's fields (protobuf.dev/programming-guides/encoding). Raises ValueError."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, at = _varint(data, at)
            case 5:
                length = 4
            case other:
                raise ValueError(f"wire type {other} at byte {at}")
        if at + length > len(data):
            raise ValueError(f"it ends within a field at byte {at}")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError(f"a number of more than 64 bits at byte {at}")
