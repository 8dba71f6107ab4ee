"""CLIP's tokenizer against transformers', built from files that are derived from what ships in the package."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from triptych.engine.text.clip import END, WORDS
from triptych.text.clip_tokens import BEGIN, COMMA, LENGTH, ids, merges, padded, vocabulary


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges()))
    return CLIPTokenizer.from_pretrained(folder)


def same(theirs, text):
    return theirs(text).input_ids == [BEGIN, *ids(text), END]


def test_the_table_is_clips():
    table = vocabulary()
    assert len(table) == WORDS
    assert len(merges()) == 49152 - 256 - 2
    assert table["<|startoftext|>"] == BEGIN
    assert table["<|endoftext|>"] == END
    assert ids(",") == [table[",</w>"]] == [COMMA]
    assert ids("a photo of a cat") == [320, 1125, 539, 320, 2368]  # as CLIP's authors show it
    assert padded([320], 0) == [BEGIN, 320, END] + [0] * 74


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\t\n  a  \r\n photo\u00a0of\u3000it ",
        "It's the CAT'S pyjamas; they'll've said so -- 'twas 3.14159, 1,000 & 50%!",
        "ÀÉÎÕÜ straße İstanbul ŒUVRE Ωmega Ⅷ ½ e\u0301 \u1e9b\u0323",
        "一只红色的狐狸 赤い狐 붉은 여우 рыжая лиса الثعلب الأحمر लोमड़ी",
        "🦊🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️‍🔥 ( ͡° ͜ʖ ͡°)",
        "masterpiece,best quality,1girl,((solo)),[[hat]]|_|,<lora:x:0.8>,__wild__",
        "<|endoftext|> in the middle <|startoftext|> of it <|EndOfText|>",
        "\u0000\u200b\ufeff\ufffd\U0010ffff",
        "a red fox in the snow, " * 200,
        "x" * 3000,
    ],
)
def test_it_is_transformers_tokenizer(theirs, text):
    assert same(theirs, text)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text(max_size=60) | st.text(st.characters(max_codepoint=0x24F), max_size=60))
def test_it_is_transformers_tokenizer_on_any_text(theirs, text):
    assert same(theirs, text)


def test_padding_is_transformers(theirs):
    text = "a red fox"
    assert padded(ids(text), END) == theirs(text, padding="max_length", max_length=LENGTH + 2).input_ids
