"""triptych grid: cells, sheet, recipe, what is refused before anything is made, and what stays when it is stopped."""

import io
import signal
import time
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import triptych
from triptych import client, grids
from triptych.cli import bar as bars
from triptych.errors import Cancelled, InvalidField, UnknownName
from triptych.service import Job
from triptych.sweeps import sweep
from triptych.types import Progress, Request


def here():
    return sorted(path.name for path in Path().iterdir())


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_every_cell_is_what_make_makes(ask):
    Path("cells").mkdir()
    arguments = ["--x", "steps=4,6", "--y", "guidance=1,3.5", "--z", "seed=1,2", "-m", "toy", "--cells", "cells"]
    code, told = ask("grid", "a fox", *arguments, "--sampler", "heun", "-o", "grid.png")
    assert (code, told["files"], len(told["cells"])) == (0, ["grid.png"], 8)
    assert told["axes"] == {"x": ["steps", 4, 6], "y": ["guidance", 1.0, 3.5], "z": ["seed", 1, 2]}
    for cell in told["cells"]:
        values = [f"--{name}={value}" for name, value in cell["values"].items()]
        assert ask("make", "a fox", "-m", "toy", "--sampler", "heun", "-o", "one.png", *values)[0] == 0
        assert Path(cell["file"]).read_bytes() == Path("one.png").read_bytes()
    assert [cell["at"] for cell in told["cells"]][:3] == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert Path("cells/steps-4_guidance-3.5_seed-1.png").exists()


def test_the_sheet_makes_itself_again(ask, call):
    Image.new("RGB", (32, 32), "red").save("init.png")
    axes = ["--x", "strength=0.5,0.9", "--y", "prompt=fox|hen, with an egg"]
    assert ask("grid", "a fox", *axes, "-m", "toy", "--init", "init.png", "-o", "grid.png")[0] == 0
    assert call("grid", "--again", "grid.png", "-o", "again.png")[0] == 0
    assert Path("grid.png").read_bytes() == Path("again.png").read_bytes()
    code, out, _ = call("show", "grid.png")
    assert code == 0
    assert "['prompt', 'fox', 'hen, with an egg']" in out
    code, _, err = call("again", "grid.png")
    assert code == 2
    assert "triptych grid --again" in err
    code, _, err = call("grid", "--again", "grid.png", "--steps", 3)
    assert (code, "steps given" in err) == (2, True)
    call("make", "a fox", "-m", "toy", "-o", "one.png")
    assert "triptych again" in call("grid", "--again", "one.png")[2]


def test_names_of_our_own_are_never_taken_twice(ask):
    for name in ("a-fox-grid.png", "a-fox-grid-2.png"):
        assert ask("grid", "a fox", "--x", "steps=2,3", "-m", "toy")[1]["files"] == [name]


def test_one_seed_is_drawn_for_all_cells(ask):
    _, told = ask("grid", "a fox", "--x", "steps=2,3", "-m", "toy")
    assert len({cell["seed"] for cell in told["cells"]}) == 1


WRONG = [
    (["a fox"], "--x"),
    (["--x", "steps=4,8"], "prompt"),
    (["a fox", "--x", "steps"], "NAME=VALUE"),
    (["a fox", "--x", "steps=4,many"], "a whole number"),
    (["a fox", "--x", "steps=4,4"], "each once"),
    (["a fox", "--x", "steps=0,4"], "at least 1"),
    (["a fox", "--x", "nosuch=0,4"], "unknown axis of a grid by toy 'nosuch'"),
    (["a fox", "--x", "count=1,4"], "unknown axis"),
    (["a fox", "--x", "init=a.png,b.png"], "unknown axis"),
    (["a fox", "--x", "sampler=euler,nosuch"], "one of"),
    (["a fox", "--x", "size=32x32,33x32"], "Nearest: 32"),
    (["a fox", "--x", "size=32"], "WIDTHxHEIGHT"),
    (["a fox", "--x", "width=32,8000"], "8 to 256 pixels"),
    (["a fox", "--x", "strength=0.5,0.7"], "none without an in"),
    (["a fox", "--x", "prompt=hen|cat"], "a part of the prompt"),
    (["a fox", "--x", "steps=4,8", "--y", "steps=5,6"], "along one axis"),
    (["a fox", "--x", "steps=4,8", "--steps", "5"], "once"),
    (["a fox", "--x", "steps=" + ",".join(map(str, range(1, 1001))), "--y", "seed=1,2"], "at most 1000"),
    (["a fox", "--x", "steps=4,8", "-o", "none/x.png"], "mkdir"),
    (["a fox", "--x", "steps=4,8", "--cells", "none"], "mkdir"),
    (["a fox", "--x", "steps=4,8", "-m", "mini-video"], "a model that makes image"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[" ".join(arguments)[:40] for arguments, _ in WRONG])
def test_what_cannot_be_is_refused_before_anything_is_made(call, monkeypatch, arguments, told):
    def never(*_):
        raise AssertionError("it was made")

    monkeypatch.setattr(client.shared(), "submit", never)
    code, out, err = call("grid", *([] if "-m" in arguments else ["-m", "toy"]), *arguments)
    assert (code, out, here()) == (2, "", [])
    assert told in err


def test_what_fails_leaves_what_is_done(call, home, monkeypatch):
    submit, service = client.shared().submit, client.shared()
    monkeypatch.setattr(service, "submit", lambda asked, **_: submit(asked) if asked.steps < 4 else failing())

    async def failing():
        raise Cancelled("stopped on request.")

    code, _, err = call("grid", "a fox", "--x", "steps=2,3,4", "-m", "toy", "-o", "grid.png")
    assert (code, here()) == (130, ["grid.png"])
    assert "Kept: 2 of 3 cells, in grid.png" in err
    assert triptych.recipe("grid.png")["grid"] == {"x": ["steps", 2, 3, 4]}


def test_ctrl_c_keeps_what_is_done(process, home):
    Path("cells").mkdir()
    started = process("grid", "a fox", "--x", "steps=2,300", "-m", "slow", "-o", "grid.png", "--cells", "cells")
    while not list(Path("cells").iterdir()) and started.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "Kept: 1 of 2 cells, in grid.png" in err
    assert here() == ["cells", "grid.png"]


def test_python(home, tmp_path):
    made = triptych.grid("a fox", x="steps=2,3", y=("guidance", 1, 2.5), model="toy", seed=7)
    assert set(made.cells) == {(2, 1.0), (3, 1.0), (2, 2.5), (3, 2.5)}
    one = triptych.load("toy").make("a fox", steps=3, guidance=2.5, seed=7)
    assert made.cells[3, 2.5].data == one.media[0].data
    path = made.sheet.save(tmp_path / "grid.png")
    assert grids.again(path).sheet.data == made.sheet.data
    with pytest.raises(InvalidField, match=r"grids\.again"):
        triptych.again(path)
    with pytest.raises(InvalidField, match="count"):
        triptych.grid("a fox", x="steps=2,3", model="toy", count=2)


def test_axes_are_read_as_the_card_says():
    card = triptych.models()["mini-image"]
    read = {
        "steps=10, 20": ("steps", (10, 20)),
        "guidance=1,4.5": ("guidance_scale", (1.0, 4.5)),
        "guidance=cfg,apg": ("guidance", ("cfg", "apg")),
        "negative=|red, or blue": ("negative_prompt", ("", "red, or blue")),
        "size=128x64|64x128": ("size", ("128x64", "64x128")),
        "eta=0,1": ("eta", (0.0, 1.0)),
        "prompt=cat|dog": ("prompt", ("cat", "dog")),
    }
    for text, (field, values) in read.items():
        found = sweep(text, card, "a cat")
        assert (found.field, found.values) == (field, values)
        assert sweep([found.name, *found.values], card, "a cat") == found
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        sweep("step=1,2", card, "a cat")


def test_the_embedded_model(ask):
    arguments = ["--x", "steps=2,3", "--y", "prompt=apple|heart", "--seed", 1, "-o", "grid.webp"]
    code, told = ask("grid", "a red apple", *arguments)
    assert (code, told["recipe"]["role"]) == (0, "grid")
    with Image.open("grid.webp") as sheet:
        assert sheet.width > 2 * 128
        assert sheet.height > 2 * 128


def test_the_bar_counts_cells(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(clock))
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    with bars.Bar(terminal) as bar:
        for cell in range(3):
            bar.show(Job("id", Request("toy", "x"), "local", progress=Progress(0.5, "denoising", 4, 8)), cell, 4)
    told = terminal.file.getvalue()
    assert "3 of 4: denoising" in told
    assert "left" in told
    assert "step" not in told
