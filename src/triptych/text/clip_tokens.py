"""CLIP's tokenizer (arXiv:2103.00020, section 2.4), from merges that ship with the package: nothing is fetched.

Byte pair encoding (arXiv:1508.07909) of lower-case text. The table is the 256 bytes, the 256 bytes that end a word,
one token for each merge, and the two that begin and end a text.
"""

import gzip
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from triptych.engine.text.clip import END

__all__ = ["BEGIN", "COMMA", "LENGTH", "ids", "merges", "padded", "vocabulary"]

BEGIN: Final = 49406  # the id of the token that every text begins with
COMMA: Final = 267  # the id of a comma that ends a word
LENGTH: Final = 75  # the most tokens of one text, between BEGIN and END

_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # published with it
)


def ids(text: str) -> list[int]:
    """The ids of a text of any length, without those that begin and end it."""
    found: list[int] = _tokenizer().encode(text, add_special_tokens=False).ids
    return found


def padded(tokens: Sequence[int], pad: int) -> list[int]:
    """BEGIN, at most LENGTH ids, END, and pad up to LENGTH + 2 ids; pad is END for OpenAI's tower, 0 for OpenCLIP's."""
    return [BEGIN, *tokens, END] + [pad] * (LENGTH - len(tokens))


def merges() -> list[tuple[str, str]]:
    """What is joined to what, the most frequent first."""
    packed = files("triptych.text").joinpath("clip_merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    return [(left, right) for left, _, right in (line.partition(" ") for line in lines)]


def vocabulary() -> dict[str, int]:
    """Every token and its id."""
    letters = _letters()
    joined = [left + right for left, right in merges()]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def _letters() -> list[str]:
    """A visible letter for each byte, in CLIP's order: those that are visible stand for themselves."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(visible)
    return [chr(byte) for byte in visible] + [chr(256 + number) for number in range(others)]


@cache
def _tokenizer() -> Tokenizer:
    model = BPE(vocabulary(), merges(), end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<|startoftext|>", "<|endoftext|>")])
    return tokenizer
