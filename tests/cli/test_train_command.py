"""triptych train: the bar, Ctrl-C, going on and beginning anew, over a training loop of a few steps."""

import os
import signal
from pathlib import Path

import pytest

from triptych.train import recipe
from triptych.train.loop import TrainProgress


@pytest.fixture
def work(monkeypatch):
    """A loop of three steps a stage that writes a checkpoint after each; `interrupt` at one sends SIGINT there."""
    told = {"interrupt": None, "closed": False, "began": []}

    def loop(path, folder):
        told["began"].append((path.name, folder))
        try:
            for stage in ("codec", "denoiser"):
                (folder / stage).mkdir(exist_ok=True)
                for step in (1, 2, 3):
                    if told["interrupt"] == (stage, step):
                        os.kill(os.getpid(), signal.SIGINT)
                    (folder / stage / "checkpoint.safetensors").write_text(str(step))
                    yield TrainProgress(stage, step, 3, 1 / step, 100.0)
        finally:
            told["closed"] = True

    monkeypatch.setattr(recipe, "train", loop)
    return told


@pytest.mark.parametrize("name", ["mini-image", "mini-image.toml", "recipes/mini-image.toml"])
def test_recipes_that_ship_are_found_from_everywhere(ask, work, home, name):
    code, told = ask("train", name)
    assert (code, told["steps"]) == (0, 3)
    assert told["folder"] == str(home / "data" / "training" / "mini-image")
    assert work["began"] == [("mini-image.toml", home / "data" / "training" / "mini-image")]


def test_a_recipe_of_ones_own_and_a_folder(call, work):
    Path("mine.toml").write_text("")
    code, out, _ = call("train", "mine.toml", "--folder", "here")
    assert (code, out) == (0, "Done: the weights are in here\n")
    assert work["began"] == [("mine.toml", Path("here"))]


@pytest.mark.parametrize("step", [("codec", 1), ("codec", 2), ("denoiser", 3)])
def test_an_interrupt_says_what_is_kept_and_the_same_command_goes_on(call, work, step):
    work["interrupt"] = step
    code, out, err = call("train", "mini-image", "--folder", "here")
    assert (code, out) == (130, "")
    assert work["closed"]
    if step == ("codec", 1):
        assert "No checkpoint was written yet" in err
    else:
        assert f"Kept: here/{step[0]}/checkpoint.safetensors, 0 minutes old" in err
        assert Path("here", step[0], "checkpoint.safetensors").read_text() == str(step[1])  # the step was finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    work["interrupt"] = None
    assert call("train", "mini-image", "--folder", "here")[0] == 0


def test_resume_wants_a_checkpoint_and_fresh_keeps_the_old(call, work):
    code, _, err = call("train", "mini-image", "--folder", "here", "--resume")
    assert code == 2
    assert "no checkpoint in here" in err
    assert call("train", "mini-image", "--folder", "here")[0] == 0
    assert call("train", "mini-image", "--folder", "here", "--resume")[0] == 0
    assert call("train", "mini-image", "--folder", "here", "--fresh")[0] == 0
    names = sorted(path.name.partition("-2")[0] for path in Path("here").glob("*/*"))
    assert names == ["checkpoint-until"] * 2 + ["checkpoint.safetensors"] * 2


def test_a_folder_that_cannot_be(call, work):
    Path("file").touch()
    code, _, err = call("train", "mini-image", "--folder", "file/here")
    assert code == 2
    assert "--folder" in err


def test_missing_packages_are_named(call, monkeypatch):
    import builtins

    importing = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "triptych.train.recipe":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = call("train", "mini-image")
    assert code == 2
    assert "pip install 'triptych[train]'" in err
