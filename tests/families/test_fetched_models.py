"""Models of a hub from their name to a picture: fetched within the job, told as progress, stopped and gone on with."""

import asyncio
import signal
import threading
import time
from pathlib import Path

import diffusers
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save
from test_sd import quiet, sd15

from triptych import client, families
from triptych.errors import Cancelled, InvalidField, WeightsError
from triptych.media import read_recipe
from triptych.providers.local import Local
from triptych.types import Progress, Request, Result

ASKED = ("--size", "64x64", "--steps", 2, "--seed", 7)
FIELDS = {"height": 64, "width": 64, "steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Stable Diffusion 1.5 as diffusers writes it."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("tiny")
    with quiet():
        diffusers.StableDiffusionPipeline(**sd15()).save_pretrained(place)
    return place


@pytest.fixture
def tiny(folder, server):
    """The same on the hub, as owner/tiny."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    server.repositories["owner/tiny"] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return server


def weights(names):
    return {name for name in names if name.endswith(".safetensors")}


def pixels(path):
    return Image.open(path).tobytes()


def test_the_hub_gives_the_picture_of_the_folder(tiny, folder, ask):
    code, told = ask("make", "a red fox", "--model", "owner/tiny", *ASKED, "-o", "hub.png")
    assert (code, told["files"]) == (0, ["hub.png"])
    assert ask("make", "a red fox", "--model", folder, *ASKED, "-o", "folder.png")[0] == 0
    assert pixels("hub.png") == pixels("folder.png")
    assert weights_in("hub.png") == weights_in("folder.png")
    assert len(weights(tiny.fetched())) == 3


def weights_in(file):
    return read_recipe(Path(file).read_bytes(), file)["model"]["weights"]


def test_without_a_network_the_cache_gives_it_too(tiny, ask, monkeypatch):
    made = ("make", "a red fox", "--model", "owner/tiny", *ASKED, "-o")
    assert ask(*made, "before.png")[0] == 0
    for known in (families._listed, families._fetched, families._kind_there, families._seen):
        known.cache_clear()  # as in another process
    tiny.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ask(*made, "offline.png")[0] == 0
    assert pixels("offline.png") == pixels("before.png")
    assert tiny.asked == []


def test_asking_about_a_model_fetches_no_weights(tiny, call):
    code, out, _ = call("models", "owner/tiny")
    assert (code, out.startswith("owner/tiny: image")) == (0, True)
    assert client.load("owner/tiny").price("a red fox").most == 0
    assert weights(tiny.fetched()) == set()
    assert len(tiny.looked()) == 3


def test_what_was_measured_of_others_is_looked_for_without_fetching(tiny, tmp_path):
    (tmp_path / "another.json").write_text("{}")
    local = Local(tmp_path / "latents", tmp_path)
    request = Request("owner/tiny", "a red fox", **FIELDS, options={"max_drift": 30.0})
    with pytest.raises(InvalidField, match="triptych calibrate owner/tiny"):
        local.price(request)
    assert weights(tiny.fetched()) == set()


def events(local, request, when=lambda event: False):
    """What a job tells; it is cancelled at the first event of which `when` is true."""

    async def watched():
        found = []
        ticket = await local.submit(request)
        async for event in local.watch(ticket):
            found.append(event)
            if when(event):
                await local.cancel(ticket)
        return found

    return asyncio.run(watched())


def test_progress_tells_what_comes_and_then_goes_on(tiny, tmp_path):
    *told, last = events(Local(tmp_path), Request("owner/tiny", "a red fox", **FIELDS))
    assert isinstance(last, Result)
    stages = [event.stage for event in told]
    fetched = [event for event in told if event.stage.startswith("fetching")]
    assert stages[: len(fetched) + 2] == [event.stage for event in fetched] + ["waiting for cpu", "loading"]
    assert {event.stage.split()[1] for event in fetched} == {"unet", "vae", "text_encoder"}
    assert all(isinstance(event, Progress) and event.steps == 0 and 0 <= event.fraction <= 1 for event in fetched)
    size = sum(len(data) for name, data in tiny.repositories["owner/tiny"].items() if name.endswith(".safetensors"))
    assert f"of {size / 1e6:.1f} MB, " in fetched[-1].stage
    again = [event.stage for event in events(Local(tmp_path), Request("owner/tiny", "a red fox", **FIELDS))[:-1]]
    assert again[0] == "waiting for cpu"


def test_what_a_request_adds_is_fetched_within_the_job_too(tiny, folder, tmp_path):
    tiny.repositories["o/vae"] = {
        name.removeprefix("vae/"): data
        for name, data in tiny.repositories["owner/tiny"].items()
        if name.startswith("vae/")
    }
    kept = "vae/diffusion_pytorch_model.safetensors"
    other = {name: value * 0.9 for name, value in load_file(folder / kept).items()}
    tiny.repositories["o/vae"][kept.removeprefix("vae/")] = save(other)
    request = Request("owner/tiny", "a red fox", **FIELDS, options={"vae": "o/vae"})
    *told, last = events(Local(tmp_path), request)
    assert "diffusion_pytorch_model.safetensors" in {event.stage.split()[1] for event in told if " " in event.stage}
    plain = events(Local(tmp_path), Request("owner/tiny", "a red fox", **FIELDS))[-1]
    assert len(last.recipe["model"]["weights"]) == len(plain.recipe["model"]["weights"]) + 1
    assert plain.artifacts[0].data != last.artifacts[0].data


def test_what_is_not_there_is_told_at_once_or_by_the_job(tiny, tmp_path):
    with pytest.raises(WeightsError, match="the hub has no model owner/none"):
        Local(tmp_path).price(Request("owner/none", "a red fox"))
    with pytest.raises(WeightsError, match="the hub has no model o/none"):
        events(Local(tmp_path), Request("owner/tiny", "a red fox", **FIELDS, options={"loras": "o/none:0.5"}))


def test_a_job_is_stopped_though_the_network_is_silent(tiny, tmp_path):
    tiny.most = 2_000_000
    local, began = Local(tmp_path), []

    def when(event):
        begun = isinstance(event, Progress) and event.stage.startswith("fetching") and event.fraction > 0.05
        began.extend([time.monotonic()] * begun)
        return begun

    with pytest.raises(Cancelled):
        events(local, Request("owner/tiny", "a red fox", **FIELDS), when)
    assert time.monotonic() - began[0] < 3
    tiny.go.set()
    assert isinstance(events(local, Request("owner/tiny", "a red fox", **FIELDS))[-1], Result)


def test_an_interrupt_keeps_what_has_come(tiny, process, call, tmp_path, monkeypatch):
    for name, value in {"ENDPOINT": tiny.url, "HUB_CACHE": str(tmp_path / "cache"), "HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(f"HF_{name}", value)
    tiny.most = 3_000_000
    running = process("make", "a red fox", "--model", "owner/tiny", *ASKED, "-o", "hub.png")
    end = threading.Event()
    while sum(tiny.sent.values()) < tiny.most:
        assert not end.wait(0.05)
        assert running.poll() is None, running.communicate()
    end.wait(1)
    running.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = running.communicate(timeout=20)
    assert (running.returncode, out) == (130, "")
    assert time.monotonic() - began < 5
    assert "stopped on request; what has come of the weights stays in the cache" in " ".join(err.split())
    assert "Traceback" not in err
    parts = list(tmp_path.rglob("*.triptych.incomplete"))
    assert sum(part.stat().st_size for part in parts) > 0
    assert not Path("hub.png").exists()
    tiny.go.set()
    tiny.asked.clear()
    assert call("make", "a red fox", "--model", "owner/tiny", *ASKED, "-o", "hub.png")[0] == 0
    assert any(span and span.endswith("-") and span != "bytes=0-" for _, _, span in tiny.asked)
    assert not list(tmp_path.rglob("*.incomplete"))
