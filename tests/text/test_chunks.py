"""Chunks: nothing is lost, whatever the length, and a full one ends where a reader would pause."""

from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.engine.text.clip import END
from triptych.text.chunks import Chunk, chunked, framed, level
from triptych.text.clip_tokens import BEGIN, COMMA, LENGTH, ids
from triptych.text.prompts import Piece, a1111

A, CAT = 320, 2368


def items(text):
    return [(token,) for token in ids(text)]


def lengths(chunks):
    return [len(chunk.ids) for chunk in chunks]


def test_short_and_empty_texts_are_one_chunk():
    assert chunked(a1111("a cat"), items) == (Chunk((A, CAT), (1.0, 1.0)),)
    assert chunked(a1111(""), items) == (Chunk(),)
    assert chunked((), items) == (Chunk(),)


def test_long_texts_fill_their_chunks():
    assert lengths(chunked(a1111("cat " * 75), items)) == [75]
    assert lengths(chunked(a1111("cat " * 76), items)) == [75, 1]
    assert lengths(chunked(a1111("cat " * 200), items)) == [75, 75, 50]


def test_what_follows_the_last_comma_moves_on():
    text = "cat " * 59 + ", " + "a " * 20
    assert lengths(chunked(a1111(text), items, backtrack=20)) == [60, 20]
    assert lengths(chunked(a1111(text), items, backtrack=14)) == [75, 5]  # the comma is 15 tokens before the end
    assert lengths(chunked(a1111(text), items)) == [75, 5]
    assert chunked(a1111(text), items, backtrack=20)[0].ids[-1] == COMMA


def test_a_comma_that_no_longer_fits_begins_the_next():
    chunks = chunked(a1111("cat " * 70 + ", cat cat cat cat, a"), items, backtrack=20)
    assert lengths(chunks) == [75, 2]
    assert chunks[1].ids == (COMMA, A)


def test_breaks_begin_chunks():
    assert [chunk.ids for chunk in chunked(a1111("a BREAK cat"), items)] == [(A,), (CAT,)]
    assert lengths(chunked(a1111("a BREAK"), items)) == [1]
    assert lengths(chunked(a1111("BREAK BREAK a"), items)) == [0, 0, 1]


def test_weights_go_with_their_tokens():
    chunks = chunked(a1111("cat " * 74 + "(a a:1.5)"), items)
    assert chunks[0].weights[-1] == chunks[1].weights[0] == 1.5
    tokens, weights = framed(chunks, END)
    assert tokens.shape == weights.shape == (2, LENGTH + 2)
    assert weights[0, 75] == weights[1, 1] == 1.5
    assert weights[1].sum() == LENGTH + 2 + 0.5
    assert tokens[1].tolist() == [BEGIN, A] + [END] * 75
    assert framed(chunks, 0)[0][1].tolist() == [BEGIN, A, END] + [0] * 74


def test_what_belongs_together_is_not_cut():
    together = chunked(((Piece("x"),),), lambda text: [(CAT,)] * 70 + [(A,) * 10])
    assert lengths(together) == [70, 10]
    short = (Piece("cat " * 72), Piece("a a a a", 1.2))
    assert lengths(chunked((short,), items, whole=8)) == [72, 4]
    assert lengths(chunked((short,), items)) == [75, 1]


def test_level():
    assert [len(row) for row in level([(Chunk(),), (Chunk(),) * 3])] == [3, 3]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["cat", ",", "a", "(dog:1.2)", "[x, y]"]), max_size=300), st.integers(0, 30))
def test_nothing_is_lost(words, backtrack):
    sections = a1111(" ".join(words))
    chunks = chunked(sections, items, backtrack=backtrack)
    whole = [(token, piece.weight) for piece in sections[0] for token in ids(piece.text)] if sections else []
    assert [pair for chunk in chunks for pair in zip(chunk.ids, chunk.weights, strict=True)] == whole
    assert all(len(chunk.ids) <= LENGTH for chunk in chunks)
