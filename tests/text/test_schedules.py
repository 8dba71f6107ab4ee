"""Prompts that change: the examples that AUTOMATIC1111's web UI publishes, and what may never raise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.text.schedules import Alternate, Prompt, Switch, read

PUBLISHED = {
    "test": [(10, "test")],
    "a [b:3]": [(3, "a "), (10, "a b")],
    "a [b: 3]": [(3, "a "), (10, "a b")],
    "a [[[b]]:2]": [(2, "a "), (10, "a [[b]]")],
    "[(a:2):3]": [(3, ""), (10, "(a:2)")],
    "a [b : c : 1] d": [(1, "a b  d"), (10, "a  c  d")],
    "a[b:[c:d:2]:1]e": [(1, "abe"), (2, "ace"), (10, "ade")],
    "a [unbalanced": [(10, "a [unbalanced")],
    "a [b:.5] c": [(5, "a  c"), (10, "a b c")],
    "((a][:b:c [d:3]": [(3, "((a][:b:c "), (10, "((a][:b:c d")],
    "[a|(b:1.1)]": [(n, "(b:1.1)" if n % 2 == 0 else "a") for n in range(1, 11)],
    "[fe|]male": [(n, "male" if n % 2 == 0 else "female") for n in range(1, 11)],
}


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_examples_in_ten_steps(text):
    assert read(text).schedule(10) == tuple(PUBLISHED[text])


def test_options_that_are_empty_have_their_turn():
    prompt = read("[fe|||]male")
    assert [prompt.at(step, 5) for step in range(1, 6)] == ["female", "male", "male", "male", "female"]


def test_published_landscape_in_a_hundred_steps():
    text = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
        "[: in background:0.25] [shoddy:masterful:0.5]"
    )
    start = "fantasy landscape with a"
    assert read(text).schedule(100) == (
        (25, f"{start} mountain and an oak in foreground shoddy"),
        (50, f"{start} lake and an oak in foreground in background shoddy"),
        (60, f"{start} lake and an oak in foreground in background masterful"),
        (75, f"{start} lake and an oak in background masterful"),
        (100, f"{start} lake and a christmas tree in background masterful"),
    )


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("[a:b:0]", "bbbb"),
        ("[a:b:-1]", "bbbb"),
        ("[a:b:99]", "aaaa"),
        ("[a:b:1.0]", "aaaa"),  # with a point it is a share, as in the web UI
        ("[a:b:1]", "abbb"),
        ("[a:b:1e0]", "abbb"),
        ("[a:b:1e999]", "aaaa"),
        ("[[a|b]:c:.5]", "abcc"),
        ("[[a:b:1]|c]", "acbc"),
        (r"[\[:\::2]", ("\\[", "\\[", "\\:", "\\:")),
    ],
)
def test_what_holds_at_each_of_four_steps(text, texts):
    assert [read(text).at(step, 4) for step in range(1, 5)] == list(texts)


@pytest.mark.parametrize(
    "text",
    [
        "[a:b]",
        "[a:b:c:3]",
        "[a:b:x]",
        "(a:b:c)",
        "[a:(b]:3)",
        "[a:b|c]",
        "a | [b:3]",
        "[b:3] \\",
        "[x [a:b] :3]",
        "[" * 2000,
        "(" * 2000 + "a" + ")" * 2000,
        ":)",
    ],
)
def test_what_means_nothing_is_text(text):
    assert read(text).schedule(4) == ((4, text),)


def test_the_tree_is_data():
    assert read("a [b:c:3][d|e]") == Prompt(("a ", Switch(("b",), ("c",), 3.0, False), Alternate((("d",), ("e",)))))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"ab ()[]:|\\\n", "[a:b:2]", ":.5]", "[a|b]", "(c:1.2)"]), max_size=20).map("".join))
def test_nothing_raises_and_letters_are_never_made_up(text):
    for step in (1, 2, 3):
        assert not set(read(text).at(step, 3)) - set(text)
