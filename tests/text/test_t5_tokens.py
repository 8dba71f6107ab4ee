"""T5's tokenizers: T5's own against ids that its tokenizer.json gave, others against SentencePiece's own library.

t5_recorded.json holds what tokenizers 0.23 made of Flux's tokenizer_2/tokenizer.json, and sentencepiece 0.2.3 of two
models that were trained on this repository's documents: bytes.model with pieces for bytes and words of its own,
bare.model without the space that others put before a text; neither has a table of characters.
"""

import hashlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from t5_texts import own, texts
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import T5Tokenizer

from triptych.engine.text.t5 import TOWERS, T5Text
from triptych.errors import FileProblem
from triptych.text import spiece
from triptych.text.prompts import a1111, literal
from triptych.text.t5_tokens import END, OWN, PAD, SENTINELS, beside, find, load, packed, row, shipped

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "t5_recorded.json").read_text())
OWN_SHA256 = (
    "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"  # of spiece.model wherever T5 is published
)


NEXT_LINE = "\x85"  # unknown to SentencePiece and to the published file, a space to transformers' class alone


def digest(rows):
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@pytest.fixture(scope="module")
def theirs():
    pieces = spiece.parsed(own(), "T5")
    vocabulary = [(piece.text, piece.score) for piece in pieces.items] + [(token, 0.0) for token in SENTINELS]
    return T5Tokenizer(vocab=vocabulary, _spm_precompiled_charsmap=pieces.charsmap)


def test_what_ships_is_the_file_that_t5_is_published_with():
    assert hashlib.sha256(own()).hexdigest() == OWN_SHA256
    assert shipped().size == 32100
    assert shipped().size <= OWN == T5Text(**{**TOWERS["t5-xxl"], "width": 1, "layers": 0}).shared.num_embeddings


@pytest.mark.parametrize("text", RECORDED["t5"]["texts"])
def test_ids_are_those_of_the_published_tokenizer(text):
    assert [*shipped().ids(text), END] == RECORDED["t5"]["texts"][text]


def test_thousands_of_texts_have_the_ids_of_the_published_tokenizer():
    words = [piece.text.replace("\u2581", " ") for piece in spiece.parsed(own(), "T5").items[3:]]
    said = texts(words, RECORDED["t5"]["count"])
    assert digest([[*shipped().ids(text), END] for text in said]) == RECORDED["t5"]["sha256"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.text(st.characters(exclude_characters=NEXT_LINE), max_size=60)
    | st.text(st.characters(max_codepoint=0x24F, exclude_characters=NEXT_LINE), max_size=60)
)
def test_it_is_transformers_tokenizer_on_any_text(theirs, text):
    assert [*shipped().ids(text), END] == theirs(text).input_ids


@pytest.mark.parametrize("name", ["bytes", "bare"])
def test_any_unigram_model_has_the_ids_of_sentencepiece(name):
    data, told = (HERE / f"{name}.model").read_bytes(), RECORDED[name]
    pieces = spiece.parsed(data, name)
    tokens = packed(data, name)
    for text, ids in told["texts"].items():
        assert tokens.ids(text) == ids, text
    words = [piece.text.replace("\u2581", " ") for piece in pieces.items if piece.kind == spiece.Kind.NORMAL]
    said = [text for text in texts(words, 3000) if "</s>" not in text and "\u2581" not in text]
    assert digest([tokens.ids(text) for text in said if text not in told["skipped"]]) == told["sha256"]


def test_what_a_file_says_of_itself():
    told = spiece.parsed((HERE / "bytes.model").read_bytes(), "bytes")
    kinds = [piece.kind for piece in told.items]
    assert kinds.count(spiece.Kind.BYTE) == 256
    assert [piece.text for piece in told.items if piece.kind == spiece.Kind.DEFINED] == ["<cat>", "dog"]
    assert (told.charsmap, told.dummy_prefix, told.less_space) == (b"", True, True)
    assert not spiece.parsed((HERE / "bare.model").read_bytes(), "bare").dummy_prefix
    assert len(spiece.parsed(own(), "T5").charsmap) == 237539


def model(*fields):
    """A ModelProto by hand: bytes of (number, bytes or number)."""
    said = b""
    for number, value in fields:
        tag = bytes([number << 3 | (0 if isinstance(value, int) else 2)])
        said += tag + (bytes([value]) if isinstance(value, int) else bytes([len(value)]) + value)
    return said


def piece(text, kind=1, score=-1.0):
    return 1, model((1, text.encode()))[:] + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind])


TINY = [piece("<pad>", 3), piece("</s>", 3), piece("<unk>", 2), piece("\u2581"), piece("a", 1, -2), piece("\u2581a")]


def test_a_model_by_hand():
    tokens = packed(model(*TINY, (2, model((3, 1)))), "by hand")
    assert tokens.ids("a aa b") == [5, 5, 4, 3, 2]
    assert tokens.size == len(TINY)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no unigram model"),
        (model(*TINY, (2, model((3, 2)))), "no unigram model"),  # byte pairs
        (model(*(TINY[:2] + TINY[3:])), "no unigram model"),  # nothing for what is unknown
        (model(*TINY)[:-3], "ends within"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 11, "more than 64 bits"),
        (model((1, 7)), "a number where bytes are due"),
        (b'{"not": "a proto"}', "Download it again"),
        (model(piece("<unk>", 2), piece("</s>", 3), piece("<pad>", 3)), "is not of T5"),
    ],
)
def test_what_is_no_tokenizer_of_t5_is_refused(data, says):
    with pytest.raises(FileProblem, match=says):
        packed(data, "a file")


@pytest.fixture
def published(tmp_path, theirs):
    """A folder as the one of a model: CLIP's tokenizers and T5's."""
    (tmp_path / "text_encoder_3").mkdir()
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        (tmp_path / name).mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{}")
    Tokenizer(WordLevel({"a": 0})).save(str(tmp_path / "tokenizer_2" / "tokenizer.json"))
    theirs.save_pretrained(tmp_path / "tokenizer_3")
    return tmp_path


def test_a_tokenizer_json_says_the_same_and_keeps_nothing_of_its_padding(published):
    place = published / "tokenizer_3" / "tokenizer.json"
    table = json.loads(place.read_text())
    table["truncation"] = {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    place.write_text(json.dumps(table))
    for text in RECORDED["t5"]["texts"]:
        assert load(published / "tokenizer_3").ids(text) == shipped().ids(text)


def test_where_a_models_tokenizer_lies(published, tmp_path):
    assert beside(published) == published / "tokenizer_3" / "tokenizer.json"
    assert beside(published / "text_encoder_3") is None
    (published / "tokenizer_3" / "tokenizer.json").unlink()
    assert beside(published) is None
    (published / "tokenizer_3" / "spiece.model").write_bytes(own())
    assert beside(published) == published / "tokenizer_3" / "spiece.model"
    assert load(published).ids("a fox") == shipped().ids("a fox")
    (published / "spiece.model").write_bytes(own())
    assert beside(published / "t5xxl.safetensors") == published / "tokenizer_3" / "spiece.model"


def test_the_tokenizer_of_a_model_is_the_named_the_packed_the_near_or_t5s_own(tmp_path):
    file = tmp_path / "t5.safetensors"
    data = (HERE / "bytes.model").read_bytes()
    words = packed(data, "bytes").size + 28
    assert find(None, file, OWN) is shipped()
    with pytest.raises(FileProblem, match=r"256384 words .* tokenizer.json or spiece.model by --option t5_tokenizer="):
        find(None, file, 256384)
    assert find(None, file, words, data).where == str(file)
    (tmp_path / "spiece.model").write_bytes(data)
    assert find(None, file, words).where == str(tmp_path / "spiece.model")
    assert find(HERE / "bytes.model", file, words, data).where == str(HERE / "bytes.model")
    for other in (100, OWN):
        with pytest.raises(FileProblem, match=rf"tokens, and the text encoder's table {other}: .* another model"):
            find(None, file, other)


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(FileProblem, match="cannot be read"):
        load(tmp_path / "spiece.model")
    with pytest.raises(FileProblem, match="holds neither"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FileProblem, match=r"no tokenizer\.json"):
        load(tmp_path / "tokenizer.json")


def test_rows_end_and_fill_up_as_transformers_fills_them(theirs):
    for text in ("", "a red fox", "a red fox runs " * 9):
        told = row(literal(text), shipped(), 20)
        assert told.padded(20) == theirs(text, padding="max_length", truncation=True, max_length=20).input_ids
        assert len(told.ids) == len(told.weights) <= 20
    assert row(literal("fox"), shipped(), 20).padded(4) == [3, 20400, END, PAD]


def test_what_does_not_fit_is_named_and_never_lost():
    long = "one two three four five six"
    assert row(literal(long), shipped(), 20).cut == ""
    assert row(literal(long), shipped(), 5).cut == "five six"
    assert row(literal(long), shipped(), None).ids == (*shipped().ids(long), END)
    told = row(a1111("one (two:1.3) BREAK (three four five:0.5) six"), shipped(), 5)
    assert told.cut == "five six"
    assert told.weights == (1.0, 1.3, 0.5, 0.5, 1.0)
