"""triptych calibrate: the table it prints and keeps, and what stops it."""

import json
import signal
import time

import pytest

SMALL = ("--steps", 4, "--size", "64x64", "--prompt", "a red heart")


def kept(home):
    return sorted((home / "data" / "drift").glob("*"))


def test_a_table_is_printed_and_kept(call, home):
    code, out, err = call("calibrate", "mini-image", *SMALL, "--fast", 2, "--fast", 4)
    assert code == 0
    assert all(word in out for word in ("exact", "fast=2", "fast=4", "times faster", "nine in ten keep", " dB"))
    [path] = kept(home)
    assert str(path) in out
    assert "max_drift" in err


def test_in_json_and_then_bounds_go_by_it(ask, home):
    code, told = ask("calibrate", "mini-image", *SMALL, "--prompt", "a frog", "--seed", 3, "--count", 2)
    assert code == 0
    assert [row["fast"] for row in told["rows"]] == [2, 3, 4]
    assert told["settings"]["prompts"] == ["a red heart", "a frog"]
    assert (told["settings"]["seed"], told["settings"]["count"], told["settings"]["steps"]) == (3, 2, 4)
    assert told["warnings"] == []
    assert [told["file"]] == [str(path) for path in kept(home)]
    assert json.loads(kept(home)[0].read_text())["exact"] == told["exact"] > 0
    fitting = [row for row in told["rows"] if row["kept"] >= told["rows"][0]["kept"] and row["times"] > 1]
    expected = max(fitting, key=lambda row: row["times"], default={"fast": 1})["fast"]
    bound = f"max_drift={told['rows'][0]['kept']}"
    code, made = ask("make", "a fox", "--option", bound, "--steps", 4, "--size", "64x64", "-o", "x.png")
    assert (code, made["recipe"]["request"]["options"]["fast"], made["warnings"]) == (0, expected, [])
    code, made = ask("make", "a fox", "--option", "max_drift=0", "--steps", 2, "--size", "64x64", "-o", "x.png")
    assert "triptych calibrate mini-image" in made["warnings"][0]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("toy",), "a model that takes fast"),
        (("nosuch",), "unknown model"),
        (("mini-image", "--fast", 99), "fast: 99 given"),
        (("mini-image", "--option", "fast=2"), "what is being measured"),
        (("mini-image", "--steps", 0), "steps: 0 given"),
        (("mini-image", "--size", "65x64"), "width: 65 given"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(call, home, asked, told):
    code, out, err = call("calibrate", *asked)
    assert (code, out) == (2, "")
    assert told in err
    assert not (home / "data" / "jobs").exists()


def test_what_has_to_be_said_of_the_pictures_is_said_once(call):
    code, _, err = call(
        "calibrate", "mini-image", *SMALL, "--fast", 2, "--guidance", 1, "--option", "negative_prompt=x"
    )
    assert code == 0
    assert err.count("the negative prompt has no effect") == 1


def test_an_interrupt_keeps_no_table(process, home):
    running = process("calibrate", "mini-image", "--steps", 400, "--size", "64x64")
    end = time.monotonic() + 60
    while len(list((home / "data" / "jobs").glob("*/job.json"))) < 2:
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert (running.returncode, out) == (130, "")
    assert "No table was kept" in err
    assert "Traceback" not in err
    assert not kept(home)
