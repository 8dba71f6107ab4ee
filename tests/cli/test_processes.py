"""Real processes: Ctrl-C, a full disk, a closed pipe, the same bits in another process."""

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest


def job(home):
    """The one job of this home, as it is on disk."""
    for path in (home / "data" / "jobs").glob("*/job.json"):
        return json.loads(path.read_text())
    return None


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def underway(home):
    return lambda: (job(home) or {"progress": {"step": 0}})["progress"]["step"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_within_a_step(process, home, number):
    running = process("make", "a fox", "-m", "slow", "--steps", 600, "-o", "x.png")
    until(underway(home))
    began = time.monotonic()
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert time.monotonic() - began < 5  # a step takes 0.1 seconds; the rest is the end of the process
    assert out == ""
    assert "stopped on request" in err
    assert "Nothing was kept" in err
    assert "Traceback" not in err
    assert list(Path().iterdir()) == []
    assert job(home)["state"] == "cancelled"


def test_an_interrupt_keeps_what_is_finished_and_resume_goes_on(process, home):
    running = process("make", "a fox", "-m", "slow", "--steps", 12, "--count", 2, "--seed", 1, "-o", "x.png", "--json")
    until(lambda: list((home / "data").glob("latents/*/latents-0-1.safetensors")))
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=20)
    error = json.loads(out)["error"]
    assert (running.returncode, error["kind"], error["exit_code"]) == (130, "Cancelled", 130)
    assert error["notes"][0].startswith("Kept: the latents of 1 of 2. Go on with: triptych resume ")
    again = process("resume", error["notes"][0].split()[-1], "-o", "x.png", "--json")
    assert json.loads(again.communicate(timeout=60)[0])["seeds"] == [1, 2]
    assert sorted(path.name for path in Path().iterdir()) == ["x-1.png", "x-2.png"]


def test_a_second_interrupt_does_not_wait(process, home):
    running = process("make", "a fox", "-m", "slow", "--steps", 3, "-o", "x.png", stdout=subprocess.DEVNULL)
    until(lambda: job(home) is not None)  # the tensor library is still being imported
    running.send_signal(signal.SIGINT)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)
    assert running.returncode == 130
    assert not Path("x.png").exists()


def test_a_killed_job_is_interrupted_and_goes_on(process, home):
    running = process("make", "a fox", "-m", "slow", "--steps", 12, "--count", 2, "--seed", 1, "-o", "x.png")
    until(lambda: list((home / "data").glob("latents/*/latents-0-1.safetensors")))
    running.kill()
    running.communicate()
    listed = json.loads(process("resume", "--json").communicate(timeout=60)[0])["jobs"]
    assert [entry["state"] for entry in listed] == ["interrupted"]
    assert listed[0]["kept"] == "the latents of 1 of 2"


def test_a_disk_that_is_full_leaves_no_half_file(process, home):
    def little():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    running = process("make", "a fox", "-m", "toy", "--size", "256x256", "-o", "x.png", preexec_fn=little)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "cannot write x.png: the file is larger than is allowed here" in err
    assert "Kept: the latents. Go on with: triptych resume" in err
    assert list(Path().iterdir()) == []


def test_another_process_makes_the_same_file(process):
    made = process("make", "a fox", "-m", "toy", "--sampler", "euler", "--json")
    [first] = json.loads(made.communicate(timeout=60)[0])["files"]
    again = process("again", first, "--json")
    [second] = json.loads(again.communicate(timeout=60)[0])["files"]
    assert first != second
    assert Path(first).read_bytes() == Path(second).read_bytes()


def test_a_reader_that_leaves_is_no_crash(process):
    reading, writing = os.pipe()
    os.close(reading)
    running = process("models", "toy", stdout=writing)
    os.close(writing)
    _, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    assert "Exception" not in err
