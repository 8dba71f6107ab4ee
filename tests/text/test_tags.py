"""Networks named in prompts, against what the web UI's own rules make of the same text."""

import re
import subprocess
import sys
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.text.tags import Tag, apart


def web_ui(text):
    """The rules of AUTOMATIC1111's web UI 1.10 (modules/extra_networks.py, extra_networks_lora.py), written anew:
    (text, [(name, weight of the network, weight of the text towers)])."""
    found = []

    def one(match):
        positional, named = [], defaultdict(str)
        for item in match[2].split(":"):
            if "=" in item:
                named[item.split("=", 1)[0]] = item.split("=", 1)[1]
            else:
                positional.append(item)
        text_weight = float(positional[1]) if len(positional) > 1 else 1.0
        text_weight = float(named.get("te", text_weight))
        weight = float(positional[2]) if len(positional) > 2 else text_weight
        found.append((positional[0], float(named.get("unet", weight)), text_weight))
        return ""

    return re.sub(r"<(\w+):([^>]+)>", one, text), found


NUMBERS = st.sampled_from(["1", "0.8", "-0.5", ".3", "0"])
TAGS = st.builds(
    lambda name, rest: f"<lora:{':'.join([name, *rest])}>",
    st.sampled_from(["ink", "a b-c.v2", "Übung_1"]),
    st.lists(NUMBERS | NUMBERS.map("te={}".format) | NUMBERS.map("unet={}".format), max_size=3),
)


@given(st.lists(TAGS | st.sampled_from(["a (red:1.3) fox", ", ", "<", ">", "[a|b]", "\n", "a < b"]), max_size=6))
def test_names_weights_and_what_is_left_are_the_web_ui_s(parts):
    text = "".join(parts)
    if "<<" in text or re.search(r"<[^<>]*$|<[^>]*<", text):  # there it takes an opening bracket into a name
        return
    left, found = apart(text)
    expected, theirs = web_ui(text)
    assert left == expected
    assert [(tag.name, *tag.weights()) for tag in found] == theirs


def test_kinds_are_told_apart_and_a_tag_is_written_as_it_was():
    left, found = apart("a <lora:ink:0.5>, <hypernet:x:1>b <LyCo: y >")
    assert left == "a , b "
    assert found == (Tag("lora", ("ink", "0.5")), Tag("hypernet", ("x", "1")), Tag("lyco", ("y",)))
    assert [str(tag) for tag in found] == ["<lora:ink:0.5>", "<hypernet:x:1>", "<lyco:y>"]


@pytest.mark.parametrize("text", ["a < b", "<lora>", "<lora:>", "a:b>", "(a:1.2)", "<a b:c>"])
def test_what_is_no_tag_stays(text):
    assert apart(text) == (text, ())


@pytest.mark.parametrize("tag", ["<lora:a:b>", "<lora:a:te=>", "<lora:a:1:x>", "<lora:a:nan>", "<lora:a:unet=inf>"])
def test_a_weight_that_is_no_number_is_an_error(tag):
    [found] = apart(tag)[1]
    with pytest.raises(ValueError, match=r"."):
        found.weights()


def test_it_needs_no_tensor_library():
    code = "import sys, triptych.text.tags; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
