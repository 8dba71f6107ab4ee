"""What parts of a text weigh: published examples, and the quirks that people's prompts rely on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.text.prompts import Piece, a1111, comfy, literal

A1111 = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
}


@pytest.mark.parametrize("text", A1111)
def test_published_examples(text):
    (pieces,) = a1111(text)
    assert [piece.text for piece in pieces] == [said for said, _ in A1111[text]]
    assert [piece.weight for piece in pieces] == pytest.approx([weight for _, weight in A1111[text]], rel=1e-12)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("[less]", [("less", 1 / 1.1)]),
        ("[[less", [("less", 1 / 1.21)]),
        ("(a: 0.5 )", [("a", 0.5)]),
        ("(a:-1)(b:+.5)", [("a", -1.0), ("b", 0.5)]),
        ("[a:1.3]", [("a:1.3", 1 / 1.1)]),
        ("a:1.3)", [("a:1.3)", 1.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)]),
        ("back\\slash \\\\", [("backslash \\", 1.0)]),
    ],
)
def test_a1111(text, pieces):
    (found,) = a1111(text)
    assert [piece.text for piece in found] == [said for said, _ in pieces]
    assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in pieces], rel=1e-12)


def test_a_break_parts_sections():
    assert a1111("a BREAK\n b BREAKfast") == ((Piece("a"),), (Piece("b BREAKfast"),))
    assert a1111("(a BREAK b:1.2)") == ((Piece("a", 1.2),), (Piece("b", 1.2),))
    assert [[piece.text for piece in section] for section in a1111("BREAK BREAK a")] == [[""], [""], ["a"]]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("((a) b:1.5)", [("a", 1.5 * 1.1), (" b", 1.5)]),
        ("((a:1.5))", [("a", 1.5)]),  # what is said outright is not multiplied
        ("(a:b)", [("a:b", 1.1)]),
        ("(:1.5)", [(":1.5", 1.1)]),
        ("(a:nan)", [("a:nan", 1.1)]),
        (r"\(a\) [b] BREAK", [("(a) [b] BREAK", 1.0)]),
        ("(open", [("(open", 1.0)]),
        ("a) (b)", [("a) (b)", 1.0)]),
        ("", []),
        ("()", []),
    ],
)
def test_comfy(text, pieces):
    (found,) = comfy(text)
    assert [(piece.text, pytest.approx(piece.weight)) for piece in found] == pieces


def test_literal():
    assert literal("(a:1.3) [b] BREAK \\(") == ((Piece("(a:1.3) [b] BREAK \\("),),)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"ab ()[]:\\", ":1.3)", ":..)", " BREAK ", "\\("]), max_size=20).map("".join))
def test_nothing_raises_and_letters_stay(text):
    said = "".join(piece.text for section in a1111(text) for piece in section)
    assert [letter for letter in said if letter in "ab"] == [letter for letter in text if letter in "ab"]
    assert "".join(piece.text for piece in comfy(text)[0]).count("a") == text.count("a")
