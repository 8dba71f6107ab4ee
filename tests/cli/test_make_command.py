"""triptych make, again, resume, show, models in this process: files, words, JSON, exit codes."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

import triptych
from triptych import client
from triptych.cli import make as command
from triptych.cli import run
from triptych.media import files


def here():
    return sorted(path.name for path in Path().iterdir())


def size(path):
    with Image.open(path) as image:
        return image.size


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_a_name_of_our_own_is_never_taken_twice(call):
    for _ in range(3):
        code, out, _ = call("make", "A red Heart!", "-m", "toy", "--seed", 7)
        assert code == 0
    assert out == "a-red-heart-7-3.png   seed 7\n"
    assert here() == ["a-red-heart-7-2.png", "a-red-heart-7-3.png", "a-red-heart-7.png"]


def test_every_option_reaches_the_recipe(ask):
    Image.new("RGB", (64, 32), "red").save("init.png")
    Image.new("L", (64, 32), 255).save("mask.png")
    arguments = "--seed 3 --steps 5 --guidance 2.5 --sampler euler --spacing uniform --negative blur --size 64x32"
    more = "--count 1 --init init.png --mask mask.png --strength 0.9 --device cpu --dtype float32 --option batch_size=1"
    code, told = ask("make", "a fox", "-m", "toy", "--image", "-o", "x.png", *arguments.split(), *more.split())
    assert code == 0
    request = told["recipe"]["request"]
    assert request == {
        "model": "toy",
        "prompt": "a fox",
        "negative_prompt": "blur",
        "height": 32,
        "width": 64,
        "count": 1,
        "seed": 3,
        "steps": 5,
        "guidance_scale": 2.5,
        "sampler": "euler",
        "spacing": "uniform",
        "strength": 0.9,
        "options": {"device": "cpu", "dtype": "float32", "batch_size": 1},
    }
    assert told["recipe"]["inputs"].keys() == {"init", "mask"}
    assert size("x.png") == (64, 32)


def test_json_is_one_object(ask):
    code, told = ask("make", "a fox", "-m", "toy", "--count", 3, "--seed", 5, "-o", "x.webp")
    assert code == 0
    assert told["files"] == ["x-1.webp", "x-2.webp", "x-3.webp"] == here()
    assert told["seeds"] == [5, 6, 7]
    assert told["recipe"]["triptych"] == 1
    assert told["seconds"] > 0
    assert told["warnings"] == []


def test_an_explicit_name_is_replaced(call):
    for seed in (1, 2):
        assert call("make", "a fox", "-m", "toy", "-o", "x.png", "--seed", seed)[0] == 0
    assert here() == ["x.png"]
    assert triptych.recipe("x.png")["request"]["seed"] == 2


@pytest.mark.parametrize("folder", ["sub", "sub/"])
def test_a_folder_gets_names_of_our_own(ask, folder):
    Path("sub").mkdir()
    _, told = ask("make", "a fox", "-m", "toy", "--seed", 1, "-o", folder)
    assert told["files"] == ["sub/a-fox-1.png"]


def test_random_seeds_are_told(ask):
    seeds = {ask("make", "a fox", "-m", "toy")[1]["seeds"][0] for _ in range(3)}
    assert len(seeds) == 3


WRONG = [
    (["make"], "prompt"),
    (["make", "x", "--frobnicate"], "frobnicate"),
    (["make", "x", "--steps", "many"], "steps"),
    (["nosuch"], "nosuch"),
    (["make", "x", "-m", "toi"], "Did you mean 'toy'"),
    (["make", "", "-m", "toy"], "prompt"),
    (["make", "fox " * 2500, "-m", "toy"], "at most 500 characters"),
    (["make", "x", "-m", "toy", "--steps", "0"], "steps"),
    (["make", "x", "-m", "toy", "--sampler", "nosuch"], "one of"),
    (["make", "x", "-m", "toy", "--size", "12"], "WIDTHxHEIGHT"),
    (["make", "x", "-m", "toy", "--size", "33x32"], "Nearest: 32"),
    (["make", "x", "-m", "toy", "--strength", "0.5"], "strength"),
    (["make", "x", "-m", "toy", "--init", "none.png"], "cannot read none.png"),
    (["make", "x", "-m", "toy", "--option", "nosuch=1"], "it takes"),
    (["make", "x", "-m", "toy", "--option", "steps"], "name=value"),
    (["make", "x", "-m", "toy", "--option", "batch_size=many"], "batch_size"),
    (["make", "x", "-m", "toy", "--steps", "3", "--option", "steps=4"], "once"),
    (["make", "x", "-m", "toy", "--video"], "a model that makes video"),
    (["make", "x", "--video", "--audio"], "one of them"),
    (["make", "x", "-m", "toy", "-o", "x.bmp"], ".png, .webp, .jpg, .jpeg"),
    (["make", "x", "-m", "toy", "-o", "x"], ".png, .webp, .jpg, .jpeg"),
    (["make", "x", "-m", "toy", "-o", "none/x.png"], "mkdir -p 'none'"),
    (["make", "x", "-m", "toy", "-o", "none/"], "mkdir -p 'none'"),
    (["make", "x", "-m", "toy", "-o", "x" * 300 + ".png"], "cannot write"),
    (["make", "x", "-m", "toy", "--trace", "t.avi"], ".png, .mp4, .gif or .webp"),
    (["make", "x", "-m", "toy", "--device", "cuda:99"], "one of auto, cpu"),
    (["again", "none.png"], "cannot read none.png"),
    (["show", "none.png"], "cannot read none.png"),
    (["resume", "nosuch"], "unknown job 'nosuch'"),
    (["train", "nosuch"], "unknown recipe 'nosuch'"),
    (["train", "mini-image", "--fresh", "--resume"], "one of them"),
    (["models", "nosuch"], "unknown model 'nosuch'"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[" ".join(arguments)[:40] for arguments, _ in WRONG])
def test_wrong_usage_is_two_and_says_why(call, ask, arguments, told):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("triptych: ")
    assert "Traceback" not in err
    assert len(err) < 1500
    code, answer = ask(*arguments)
    assert code == 2
    assert answer["error"]["exit_code"] == 2
    assert told in answer["error"]["message"]
    assert here() == []


def test_places_are_tried_before_anything_is_computed(call, monkeypatch):
    def never(*_):
        raise AssertionError("it was computed")

    monkeypatch.setattr(client.shared(), "submit", never)
    for out in ("x.bmp", "none/x.png"):
        assert call("make", "x", "-m", "toy", "-o", out)[0] == 2


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_again_is_the_same_picture(call, ask, suffix):
    ask("make", "a fox", "-m", "toy", "--count", 2, "--sampler", "euler", "-o", f"x.{suffix}", "--steps", 6)
    code, told = ask("again", f"x-2.{suffix}")
    assert (code, told["warnings"]) == (0, [])
    assert told["files"][0].endswith(f".{suffix}")
    assert pixels(told["files"][0]) == pixels(f"x-2.{suffix}")
    assert Path(told["files"][0]).read_bytes() == Path(f"x-2.{suffix}").read_bytes()


def test_again_of_one_in_a_batch(ask):
    ask("make", "a fox", "-m", "toy", "--count", 3, "--option", "batch_size=3", "-o", "x.png", "--seed", 9)
    code, told = ask("again", "x-2.png", "-o", "y.png")
    assert (code, told["files"], told["seeds"]) == (0, ["y.png"], [10])
    assert pixels("y.png") == pixels("x-2.png")


def test_again_needs_its_inputs(call, ask, home):
    Image.new("RGB", (32, 32), "red").save("init.png")
    ask("make", "a fox", "-m", "toy", "--init", "init.png", "-o", "x.png")
    assert ask("again", "x.png", "-o", "y.png")[0] == 0
    for kept in (home / "data" / "inputs").iterdir():
        kept.unlink()
    code, _, err = call("again", "x.png")
    assert code == 2
    assert "--init FILE" in err
    assert call("again", "x.png", "--init", "init.png", "-o", "z.png")[0] == 0
    assert pixels("x.png") == pixels("y.png") == pixels("z.png")


def test_show(call, ask):
    _, made = ask("make", "a fox", "-m", "toy", "--seed", 7, "-o", "x.jpg")
    code, told = ask("show", "x.jpg")
    assert (code, told) == (0, made["recipe"])
    _, out, _ = call("show", "x.jpg")
    assert re.search(r"^prompt +a fox$", out, re.M)
    assert re.search(r"^seed +7$", out, re.M)
    assert re.search(r"^options\.batch_size +1$", out, re.M)


def test_show_of_other_files(call):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", "somebody's cat")
    Image.new("RGB", (8, 8)).save("other.png", pnginfo=info)
    code, _, err = call("show", "other.png")
    assert code == 2
    assert "somebody's cat" in err
    Path("text.png").write_text("no picture")
    assert "no picture that can be read" in call("show", "text.png")[2]


def test_models(call, ask):
    _, out, _ = call("models")
    assert "mini-image" in out
    assert "toy" in out
    _, out, _ = call("models", "toy")
    assert "guidance_scale" in out
    code, told = ask("models")
    assert code == 0
    toy = next(model for model in told["models"] if model["name"] == "toy")
    assert toy["axes"]["width"]["default"] == 32
    assert toy["fields"]["steps"]["default"] == 8


@pytest.mark.parametrize("how", ["nan", "black", "memory", "bug"])
def test_a_broken_result_is_never_saved_and_can_be_resumed(call, ask, breaks, how):
    breaks(how)
    code, out, err = call("make", "a fox", "-m", "toy", "--seed", 7, "-o", "x.png")
    assert (code, out, here()) == (1, "", [])
    assert "Traceback" not in err
    [job] = re.findall(r"Kept: the latents. Go on with: triptych resume (\S+)", err)
    assert [entry["job"] for entry in ask("resume")[1]["jobs"]] == [job]
    breaks("")
    assert ask("resume", job, "-o", "x.png")[1]["files"] == ["x.png"]
    assert ask("resume")[1]["jobs"] == []
    ask("make", "a fox", "-m", "toy", "--seed", 7, "-o", "y.png")
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()


def test_what_nobody_expected_is_logged(call, breaks, home):
    breaks("bug")
    code, _, err = call("make", "a fox", "-m", "toy")
    assert code == 1
    assert "unexpected ZeroDivisionError: a mistake" in err
    [log] = (home / "data" / "logs").iterdir()
    assert str(log) in err
    assert "in decode" in log.read_text()


def test_a_full_disk_keeps_the_latents(call, ask, monkeypatch):
    saving = files.write

    def full(path, data, **options):
        if path.suffix == ".png":
            monkeypatch.setattr(os, "fsync", fail)
        return saving(path, data, **options)

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        real = os.fsync
        code, out, err = call("make", "a fox", "-m", "toy", "--seed", 7)
    monkeypatch.setattr(os, "fsync", real)
    assert (code, out, here()) == (1, "", [])
    assert "the disk is full" in err
    [job] = re.findall(r"triptych resume (\S+)", err)
    assert ask("resume", job)[1]["files"] == ["a-fox-7.png"]


def test_kept_latents_can_be_thrown_away(call, ask, breaks):
    breaks("nan")
    call("make", "a fox", "-m", "toy")
    [entry] = ask("resume")[1]["jobs"]
    assert entry["prompt"] == "a fox"
    assert entry["job"] in call("resume")[1]
    assert ask("resume", entry["job"], "--discard")[0] == 0
    assert call("resume")[1] == "Nothing to resume.\n"
    code, _, err = call("resume", entry["job"])
    assert code == 2
    assert "has kept nothing" in err


def test_traces_of_every_kind(ask):
    for kind in ("png", "mp4", "gif", "webp"):
        code, told = ask("make", "a fox", "-m", "toy", "--count", 2, "--trace", f"t.{kind}", "-o", "x.png")
        assert (code, told["trace"], told["files"]) == (0, f"t.{kind}", ["x-1.png", "x-2.png"])
        assert Path(f"t.{kind}").stat().st_size > 1000
    assert triptych.recipe("t.png")["role"] == "trace"


def test_previews_without_a_terminal_go_to_a_file_that_does_not_stay(call, monkeypatch):
    seen = []
    saving = files.write

    def watched(path, data, **options):
        seen.append(path.name)
        return saving(path, data, **options)

    Path("x.preview.png").write_text("mine")
    monkeypatch.setattr(command, "PREVIEW", 0.01)
    monkeypatch.setattr(files, "write", watched)
    assert call("make", "a fox", "-m", "slow", "--steps", 4, "--preview", "-o", "x.png")[0] == 0
    assert "x.preview.png" in seen
    assert here() == ["x.png", "x.preview.png"]
    assert Path("x.preview.png").read_text() == "mine"


def test_warnings_are_told(call, ask):
    code, _, err = call("make", "x", "-m", "toy", "--negative", "blur", "--guidance", 1)
    assert code == 0
    assert "warning: the negative prompt has no effect" in err
    assert len(ask("make", "x", "-m", "toy", "--negative", "blur", "--guidance", 1)[1]["warnings"]) == 1


def test_missing_weights_are_an_error_that_says_what_to_do(call, monkeypatch, tmp_path):
    from triptych import families

    monkeypatch.setattr(families, "HERE", tmp_path)
    code, _, err = call("make", "x", "-m", "mini-image")
    assert code == 1
    assert "mini-image.safetensors" in err
    assert "triptych train" in err


@pytest.mark.parametrize("arguments", [["--help"], ["make", "--help"], ["make", "-h"], ["train", "--help"], []])
def test_help(capsys, arguments):
    code = run(arguments)
    out, err = capsys.readouterr()
    assert code == (0 if arguments else 2)
    assert "triptych" in out + err


OPTIONS = """model image video audio out seed steps guidance sampler spacing negative size duration fps count init
strength reference last mask extend hires lora profile fast memory device dtype preview json trace option dry successor
unpriced"""


def test_every_option_is_explained(capsys):
    run(["make", "--help"])
    out, _ = capsys.readouterr()
    explained = re.findall(r"--(\w+)[^\n]{3,}\S", out)
    assert set(explained) - {"help"} == set(re.findall(r"\w+", OPTIONS))


def test_odd_bytes_in_a_prompt_survive(ask):
    code, told = ask("make", "caf\udce9 🦊", "-m", "toy", "--seed", 1)
    assert (code, told["files"]) == (0, ["caf-1.png"])
    assert triptych.recipe("caf-1.png")["request"]["prompt"] == "caf\udce9 🦊"
    assert ask("again", "caf-1.png")[0] == 0
    assert json.dumps(told)
