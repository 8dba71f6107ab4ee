"""What a person sees: steps, speed, time left, and a picture made of half blocks."""

import io
import re

import numpy
import pytest
from PIL import Image
from rich.console import Console

from triptych.cli import bar as bars
from triptych.cli.bar import Bar, halfblocks
from triptych.media import image
from triptych.service import Job
from triptych.types import Artifact, Progress, Request


def artifact(picture):
    return Artifact("image/png", image.encode(picture, "image/png", {}))


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor", legacy_windows=False)


def test_half_blocks_are_the_pixels():
    levels = numpy.zeros((4, 2, 3), dtype=numpy.uint8)
    levels[0, 0], levels[1, 0], levels[3, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    text = halfblocks(artifact(Image.fromarray(levels)), 2)
    assert text.plain == "▀▀\n▀▀\n"
    assert str(text.spans[0].style) == "rgb(255,0,0) on rgb(0,255,0)"
    assert str(text.spans[3].style) == "rgb(0,0,0) on rgb(0,0,255)"


def test_the_bar_tells_step_speed_and_time(terminal, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(clock))
    request = Request("toy", "x", count=2)
    with Bar(terminal) as bar:
        for step in range(1, 11):
            progress = Progress(step / 20, "denoising 1 of 2", step, 10)
            bar.show(Job("1", request, "local", "running", progress=progress))
    shown = terminal.file.getvalue()
    assert "denoising 1 of 2" in shown
    assert re.search(r"step 10/20, [\d.]+ steps/s, 0:\d\d left", shown)


def fetched(share):
    progress = Progress(share, "fetching unet 1.2 of 4.3 GB, 85.0 MB/s")
    return Job("1", Request("toy", "x"), "local", "running", progress=progress)


def test_a_fetch_has_a_bar_of_its_own(terminal, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(bars.time, "monotonic", lambda: next(clock))

    def seen():
        task = bar._bar.tasks[0]
        return task.description, task.completed, task.fields["told"]

    with Bar(terminal) as bar:
        for tenth in range(3, 9):  # the rest had come before
            bar.show(fetched(tenth / 10), cell=2, cells=4)
        told = "3 of 4: fetching unet 1.2 of 4.3 GB, 85.0 MB/s"
        assert seen() == (told, 0.8, "0:02 left")  # two tenths, at a tenth each second
        bar.show(Job("1", Request("toy", "x"), "local", "running", progress=Progress(0.0, "loading")))
        assert seen() == ("loading", 0.0, "")
        bar.show(fetched(0.85))  # of another source: its time is its own
        assert seen()[1:] == (0.85, "")
    assert "fetching unet 1.2 of 4.3 GB, 85.0 MB/s" in terminal.file.getvalue()


def test_the_preview_is_drawn(terminal):
    progress = Progress(0.5, "denoising", 1, 2, artifact(Image.new("RGB", (8, 8), (1, 2, 3))))
    with Bar(terminal) as bar:
        bar.show(Job("1", Request("toy", "x"), "local", "running", progress=progress))
    assert "38;2;1;2;3" in terminal.file.getvalue()


def test_nothing_is_written_where_there_is_no_terminal():
    console = Console(file=io.StringIO())
    with Bar(console) as bar:
        bar.show(Job("1", Request("toy", "x"), "local", "running", progress=Progress(0.5, "denoising", 1, 2)))
    assert console.file.getvalue() == ""
