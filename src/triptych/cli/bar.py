"""What a person sees meanwhile: a bar with step, speed and time left, and the picture as it leaves the noise."""

import io
import time
from types import TracebackType
from typing import Self, final

from PIL import Image
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Columns
from rich.text import Text

from triptych.service import Job
from triptych.types import Artifact, Progress

__all__ = ["Bar", "halfblocks"]

WIDTH = 48  # columns of a preview at most


@final
class Bar:
    """A bar on a terminal; nothing at all where there is none."""

    def __init__(self, console: Console) -> None:
        self._console, self._began, self._first = console, 0.0, 0
        self._stage: tuple[float, float] | None = None  # without steps: when it was first seen, and how far it was
        self._bar = Columns(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("starting", total=1.0, told="")
        self._picture: RenderableType = Text()
        self._preview: Artifact | None = None
        self._live = Live(self._shown(), console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, job: Job, cell: int = 0, cells: int = 1) -> None:
        """The job as it is now; of a grid, which cell it makes, counted from 0, of how many."""
        if not self._console.is_terminal:
            return
        now = job.progress
        if now.preview is not None and now.preview is not self._preview:
            self._preview = now.preview
            self._picture = halfblocks(now.preview, min(WIDTH, self._console.width))
        done, total = round(now.fraction * now.steps * job.request.count), now.steps * job.request.count
        alone = now.fraction > 0 and not now.steps  # of a stage before the first step, which is no part of the whole
        fraction = now.fraction if alone else (cell + now.fraction) / cells
        self._stage = self._stage if alone else None
        told = self._alone(now) if alone else self._told(done, total) if cells == 1 else self._share(fraction)
        if not told and job.seconds >= 1 and not total:  # a vendor's, which does not say how far it is
            told = f"{job.seconds:.0f} s"
        stage = now.stage if cells == 1 else f"{cell + 1} of {cells}: {now.stage}"
        self._bar.update(self._task, completed=fraction, description=stage, told=told)
        self._live.update(self._shown())

    def _told(self, done: int, total: int) -> str:
        """Step, speed, time left."""
        if not total or not done:
            return ""
        if not self._began:
            self._began, self._first = time.monotonic(), done
        passed = time.monotonic() - self._began
        if done == self._first or not passed:
            return f"step {done}/{total}"
        speed = (done - self._first) / passed
        return f"step {done}/{total}, {speed:.3g} steps/s, {_left((total - done) / speed)}"

    def _alone(self, now: Progress) -> str:
        """Time left of a stage without steps, by how it went since it was first seen."""
        self._stage = self._stage or (time.monotonic(), now.fraction)
        began, first = self._stage
        if now.fraction <= first:
            return ""
        return _left((time.monotonic() - began) * (1 - now.fraction) / (now.fraction - first))

    def _share(self, fraction: float) -> str:
        """Time left, by the share of a grid that is done."""
        self._began = self._began or time.monotonic()
        if not fraction:
            return ""
        return _left((time.monotonic() - self._began) * (1 - fraction) / fraction)

    def _shown(self) -> RenderableType:
        return Group(self._picture, self._bar)


def _left(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02} left"


def halfblocks(preview: Artifact, columns: int) -> Text:
    """A picture in a terminal: two pixels a character, one above the other."""
    image = Image.open(io.BytesIO(preview.data)).convert("RGB")
    rows = max(1, round(columns * image.height / image.width / 2))
    pixels = image.resize((columns, 2 * rows)).tobytes()
    text = Text(no_wrap=True, end="")
    for row in range(rows):
        for column in range(columns):
            upper, lower = (tuple(pixels[3 * (line * columns + column) :][:3]) for line in (2 * row, 2 * row + 1))
            text.append("▀", "rgb({},{},{}) on rgb({},{},{})".format(*upper, *lower))
        text.append("\n")
    return text
