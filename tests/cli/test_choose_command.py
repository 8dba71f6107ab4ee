"""triptych choose, and make --model auto: what is printed, what scripts read, and the exit code."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triptych import client
from triptych.catalogue.points import POINTS
from triptych.cli import choose as command

DOCS = Path(__file__).parents[2] / "docs" / "choose.md"
KEYS = ("OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "BFL_API_KEY", "STABILITY_API_KEY", "ELEVENLABS_API_KEY")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in (*KEYS, "FAL_KEY", "REPLICATE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_a_ranked_list_with_reasons(call, wide):
    code, out, err = call("choose", "brand-consistent product photo of a shoe")
    assert (code, err) == (0, "")
    assert "image: 'photo' means image. About photo, product (brand); asks for reference (brand consistent)." in out
    assert "Prices are of 1024 x 1024 pixels." in out
    assert re.search(r"^ *1 +flux-2-max +bfl +[\d.]+ +\$0\.07 ", out, re.MULTILINE)
    assert "photo 5, product 5 (+10)" in out
    assert re.search(r"\d+ cannot be asked today: .*dall-e-3", out)
    assert "more, and why others are out: --all" in out


def test_names_and_reasons_are_whole_on_a_narrow_screen(call, ask, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = call("choose", "product photo of a shoe", "--all")
    words = " ".join(out.split())
    for line in ask("choose", "product photo of a shoe")[1]["models"]:
        assert f" {line['model']} " in words
        shown = words[words.index(f" {line['model']} ") :]
        for term in line["terms"]:
            assert term["why"] in shown
    listed = out[: out.index("Ruled out:")].splitlines()[3:]
    assert all(len(line) <= 60 for line in listed if line.startswith("     ") and line.strip())


@pytest.mark.parametrize(("flag", "given", "told"), [("--size", "0x64", "0x64"), ("--count", "0", "at least 1")])
def test_no_pixels_and_no_pictures_are_refused(call, flag, given, told):
    code, _, err = call("choose", "a fox", flag, given)
    assert code == 2
    assert told in err


def test_all_of_them(call, wide):
    code, out, _ = call("choose", "a fox", "--all")
    assert code == 0
    assert "dall-e-3: it was shut down on 2026-05-12" in out
    assert "midjourney: it has no public API" in out
    assert "mini-video: it makes video, not image" in out
    assert "--all" not in out
    assert re.search(r"\d+ +mini-image +here +[\d.]+ +free +2 to 5$", out, re.MULTILINE)


def test_what_scripts_read(ask):
    code, told = ask("choose", "a song about the sea", "--budget", 0.1, "--count", 1)
    assert code == 0
    assert (told["medium"], told["advice"], told["prices_of"]) == ("audio", "", "30 s")
    assert told["models"][0]["model"] == "lyria-3.5"
    assert told["models"][0]["price"]["most"] == pytest.approx(0.08)
    assert {term["name"] for one in told["models"] for term in one["terms"]} <= set(POINTS)
    (eleven,) = (one for one in told["ruled_out"] if one["model"] == "eleven-music-v2.5")
    assert eleven["rule"] == "budget"
    assert "not known" in eleven["why"][0]


def test_every_rule_has_its_words():
    from triptych.catalogue.rules import RULES

    assert list(command.OUT) == list(RULES)


def test_nothing_left_is_told_with_advice(call, ask):
    asked = ("choose", "product photo of a shoe", "--local-only", "--needs", "transparent")
    code, out, err = call(*asked)
    assert code == 1
    assert "Ruled out:" in out
    assert err.startswith("triptych: nothing is left. --needs ruled out the most,")
    assert "Without --local-only there would be" in err
    code, told = ask(*asked)
    assert (code, told["models"]) == (1, [])
    assert "Without --local-only" in told["advice"]


def test_the_cheapest_is_named_where_the_budget_is_too_small(call):
    code, _, err = call("choose", "a transparent sticker", "--needs", "transparent", "--budget", 0.0001)
    assert code == 1
    assert re.search(r"Without --budget there would be \d+, the cheapest \S+ at \$0\.\d+", err)


def test_usable_only_leaves_what_ships(ask):
    code, told = ask("choose", "a red heart", "--usable-only", "--max-seconds", 30)
    assert code == 0
    assert told["models"][0]["model"] == "mini-image"
    assert told["models"][0]["seconds"] == [2, 5]
    assert not told["models"][0]["missing"]


def test_what_is_missing_is_said(monkeypatch, ask):
    monkeypatch.setattr(type(client.shared()), "usable", lambda service, name: f"needs a key for {name}")
    _, told = ask("choose", "a fox")
    assert all(one["missing"] == f"needs a key for {one['model']}" for one in told["models"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--kind", "smell"), "image, video or audio"),
        (("--licence", "free"), "commercial"),
        (("--needs", "wings"), "unknown need"),
        (("--needs", "sed"), "Did you mean 'seed'"),
        (("--budget", "-1"), "budget"),
        (("--size", "big"), "WIDTHxHEIGHT"),
        (("--kind", "audio", "--size", "64x64"), "none of a sound"),
        (("--duration", "3"), "none of an image"),
    ],
)
def test_wrong_usage(call, arguments, told):
    code, _, err = call("choose", "a fox", *arguments)
    assert code == 2
    assert told in err


def test_needs_take_blanks_and_hyphens(ask):
    code, told = ask("choose", "a clip", "--needs", "first-frame, last_frame ,audio")
    assert code == 0
    assert told["models"]


def test_auto_takes_what_can_be_used_and_says_why(call):
    code, _, err = call("make", "a red heart", "--model", "auto", "--seed", 1, "--steps", 2, "-o", "heart.png")
    assert code == 0, err
    assert "mini-image" in err
    assert "can be used now" in err
    assert Path("heart.png").exists()


def test_auto_minds_what_else_is_said(call, monkeypatch):
    """Of those that could be asked, the one that takes steps and a negative prompt."""
    from triptych.catalogue import entries

    fitting = {"mini-image", "lyria-3.5", "gemini-3-pro-image"}
    missing = {name: "" if name in fitting else "no key" for name in entries()}
    service = client.shared()
    monkeypatch.setattr(type(service), "usable", lambda service, name: missing[name])
    code, _, err = call("make", "a fox", "-m", "auto", "--steps", 2, "--negative", "red", "--seed", 1, "-o", "fox.png")
    assert code == 0, err
    assert "mini-image" in err


def test_auto_keeps_to_the_budget_of_a_call(call, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_BUDGET_CALL", "0.01")
    monkeypatch.setattr(type(client.shared()), "usable", lambda service, name: "")
    code, _, err = call("make", "a sketch of a fox", "-m", "auto", "--size", "128x128", "--steps", 2, "--dry-run")
    assert code == 0, err
    assert not re.search(r"\$0\.(?!00)", err.splitlines()[0])


def test_auto_says_where_nothing_can(call):
    code, _, err = call("make", "a fox", "-m", "auto", "--size", "4096x4096", "-o", "fox.png")
    assert code == 2
    assert "no model that makes image can be asked for this now" in err


def test_the_choice_itself_is_quick(home):
    """Once the catalogue is read and the service set up."""
    from triptych.catalogue.choose import Wish, ranked

    usable = client.shared().usable
    ranked(Wish("a fox"), lambda entry: usable(entry.name))
    began = time.process_time()
    ranked(Wish("product photo of a shoe", budget=0.05), lambda entry: usable(entry.name))
    assert time.process_time() - began < 0.3


def test_no_tensor_library_is_loaded(home):
    run = "from triptych.cli import run; run(['choose', 'a fox', '--json'])"
    code = f"import sys; {run}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_table_of_points_in_the_docs():
    rows = re.findall(r"^\| `([a-z ]+)` \| (-?[\d.]+) \|", DOCS.read_text(), re.MULTILINE)
    assert {name: float(points) for name, points in rows} == POINTS


def test_the_recommendations_in_the_docs(ask):
    """The first three of each, as the page has them."""
    asked = {
        "product photography": ("brand-consistent product photo of a shoe",),
        "illustration": ("a flat illustration of a fox that reads a book",),
        "open weights, here": ("a red fox in the snow", "--local-only"),
        "video": ("a clip of a horse galloping along a beach",),
        "music": ("a song about the sea",),
    }
    for name, arguments in asked.items():
        row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| {name} |"))
        told = re.findall(r"`([^`]+)`", row.split("|")[2])[:3]
        _, found = ask("choose", *arguments)
        assert [one["model"] for one in found["models"] if not one["model"].startswith("mini")][:3] == told
