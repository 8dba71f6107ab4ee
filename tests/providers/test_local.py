"""The local machine: what is drawn is what the seeds say, it stops when asked, and latents outlive a failure."""

import asyncio
import hashlib
import io
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy
import pytest
import torch
from PIL import Image

from triptych import families
from triptych.errors import BrokenResult, Cancelled, FileProblem, GenerationError, InvalidField, NotFinite, UnknownName
from triptych.media import image, read_recipe
from triptych.providers.here import work
from triptych.providers.local import OPTIONS, Local
from triptych.types import Artifact, Progress, Request, Result


@pytest.fixture
def local(tmp_path):
    return Local(tmp_path / "latents")


def make(local, prompt="a fox", model="toy", **fields):
    """The events of one request."""
    return asyncio.run(events(local, Request(model, prompt, **{"seed": 7, **fields})))


async def events(local, request):
    return [event async for event in local.watch(await local.submit(request))]


async def cancelling(local, ticket, when):
    """Watches, and cancels at the first event of which `when` is true."""
    async for event in local.watch(ticket):
        if when(event):
            await local.cancel(ticket)


def artifacts(local, *args, **fields):
    return make(local, *args, **fields)[-1].artifacts


def pixels(artifact):
    return image.picture(artifact.data).tobytes()


def file(colour="red", size=(32, 32), mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return Artifact("image/png", out.getvalue(), {"file": "mine.png"})


def test_progress_goes_up_and_ends_in_one_result(local):
    *told, last = make(local, steps=5, count=2)
    assert isinstance(last, Result)
    assert all(isinstance(event, Progress) for event in told)
    assert all(0 <= a.fraction <= b.fraction <= 1 for a, b in pairwise(told))
    steps = [event.step for event in told if event.stage.startswith("denoising")]
    assert steps == [1, 2, 3, 4, 5] * 2
    assert all(event.steps == 5 for event in told if event.stage.startswith("denoising"))


def test_the_same_request_gives_the_same_file(local, tmp_path):
    assert artifacts(local) == artifacts(Local(tmp_path / "elsewhere"))


def test_four_samples_are_four_seeds(local):
    together = artifacts(local, count=4)
    alone = [artifacts(local, seed=seed)[0] for seed in range(7, 11)]
    assert list(together) == alone  # the whole file, and so the recipe too


def test_every_recipe_makes_its_own_sample(local):
    for one in artifacts(local, count=3, sampler="euler", options={"batch_size": 1}):
        told = read_recipe(one.data, "x")
        assert told == one.recipe
        assert told["request"]["count"] == 1
        again = artifacts(local, **{**told["request"], "seed": told["request"]["seed"]})
        assert pixels(again[0]) == pixels(one)


def test_samples_drawn_at_once_name_their_batch(local):
    found = artifacts(local, count=5, options={"batch_size": 2})
    assert [one.recipe["request"]["seed"] for one in found] == [7, 7, 9, 9, 11]
    assert [one.recipe["request"]["count"] for one in found] == [2, 2, 2, 2, 1]
    assert [one.recipe.get("index") for one in found] == [0, 1, 0, 1, None]
    alone = artifacts(local, count=5)
    for a, b in zip(found, alone, strict=True):
        apart = numpy.frombuffer(pixels(a), numpy.uint8).astype(int) - numpy.frombuffer(pixels(b), numpy.uint8)
        assert abs(apart).max() <= 1


def test_the_recipe_holds_everything(local):
    [one] = artifacts(local, inputs={"init": file()})
    told = one.recipe
    assert told["triptych"] == 1
    assert told["profile"] == "native"
    assert told["device"] == told["request"]["options"]["device"] == "cpu"
    assert told["dtype"] == told["request"]["options"]["dtype"] == "float32"
    assert told["versions"].keys() == {"triptych", "torch"}
    assert told["model"]["name"] == "toy"
    assert told["request"]["sampler"] == "euler"
    digest = hashlib.sha256(file().data).hexdigest()
    assert told["inputs"] == {"init": {"sha256": digest, "mime": "image/png", "file": "mine.png"}}
    assert not {"trace", "preview_every"} & told["request"]["options"].keys()


def test_nothing_of_this_machine_is_in_the_recipe(local, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush-hush")
    text = str(artifacts(local, inputs={"init": file()})[0].recipe)
    for private in ("hush-hush", str(tmp_path), "/home", "/root"):
        assert private not in text


def test_a_random_seed_is_told(local):
    first, second = (artifacts(local, seed=None)[0].recipe["request"]["seed"] for _ in range(2))
    assert first != second
    assert all(0 <= seed < 2**32 for seed in (first, second))


def test_the_largest_seed(local):
    assert artifacts(local, seed=2**32 - 1)
    with pytest.raises(InvalidField, match="0 to 4294967292 with count 4"):
        make(local, seed=2**32 - 1, count=4)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"steps": 0}, "steps"),
        ({"count": 0}, "count"),
        ({"seed": -1}, "seed"),
        ({"width": 33}, "Nearest: 32"),
        ({"sampler": "nosuch"}, "one of"),
        ({"strength": 0.5}, "strength"),
        ({"duration": 3.0}, "does not take it"),
        ({"inputs": {"mask": file()}}, "only beside an init"),
        ({"inputs": {"voice": file()}}, "does not take it"),
        ({"options": {"device": "cuda:99"}}, "one of auto, cpu"),
        ({"options": {"dtype": "int8"}}, "float32"),
        ({"options": {"nosuch": 1}}, "it takes"),
        ({"inputs": {"init": file()}, "strength": 0.05, "steps": 3}, "strength"),
    ],
)
def test_wrong_requests_are_refused(local, fields, told):
    with pytest.raises(InvalidField, match=told):
        make(local, **fields)


def test_other_refusals(local):
    with pytest.raises(UnknownName, match="Did you mean 'toy'"):
        make(local, model="toi")
    with pytest.raises(FileProblem, match="the init is no picture"):
        make(local, inputs={"init": Artifact("image/png", b"no")})
    assert local.price(Request("toy", "x")).most == 0
    with pytest.raises(InvalidField):
        local.price(Request("toy", "x", steps=0))


def test_an_init_gives_its_size_where_none_is_asked_for(local):
    small = artifacts(local, inputs={"init": file(size=(48, 24))})[0]
    assert image.opened(small.data).size == (48, 24)
    asked = make(local, inputs={"init": file(size=(48, 24))}, width=32, height=32)[-1]
    assert image.opened(asked.artifacts[0].data).size == (32, 32)
    assert asked.warnings == ("the init of 48 x 24 was scaled and cropped to 32 x 32",)
    odd = make(local, inputs={"init": file(size=(50, 21))})[-1]
    assert image.opened(odd.artifacts[0].data).size == (32, 32)
    assert len(odd.warnings) == 1


def test_little_strength_stays_near_the_init_and_a_mask_keeps_what_is_black(local):
    def distance(artifact, part=slice(None)):
        return abs(numpy.asarray(image.picture(artifact.data)).astype(int)[:, part] - (255, 0, 0)).mean()

    init = file()
    near, far = (artifacts(local, inputs={"init": init}, strength=s, steps=20)[0] for s in (0.1, 1.0))
    assert distance(near) < distance(far) / 2
    half = Image.new("L", (32, 32))
    half.paste(255, (16, 0, 32, 32))
    out = io.BytesIO()
    half.save(out, "PNG")
    inputs = {"init": init, "mask": Artifact("image/png", out.getvalue())}
    kept = artifacts(local, inputs=inputs, strength=1.0, steps=20)[0]
    assert distance(kept, slice(0, 8)) < 2 < 20 < distance(kept, slice(24, 32))


def test_what_has_no_effect_is_told(local):
    assert make(local, negative_prompt="blur", guidance_scale=1)[-1].warnings == (
        "the negative prompt has no effect: guidance_scale 1 means no guidance",
    )


@pytest.mark.parametrize(("how", "error"), [("nan", NotFinite), ("black", BrokenResult), ("memory", GenerationError)])
def test_latents_outlive_a_failed_decoding(local, breaks, how, error):
    async def story():
        ticket = await local.submit(Request("toy", "a fox", seed=7))
        assert local.kept(ticket) == ""
        breaks(how)
        with pytest.raises(error) as raised:
            [event async for event in local.watch(ticket)]
        assert local.kept(ticket) == "the latents"
        breaks("")
        *told, last = [event async for event in Local(local._folder).watch(ticket)]  # as another process would
        await local.forget(ticket)
        assert local.kept(ticket) == ""
        return raised.value, told, last

    problem, told, last = asyncio.run(story())
    assert not any(event.stage.startswith("denoising") for event in told)
    assert last.artifacts == artifacts(local)
    assert how != "memory" or "--device cpu" in str(problem)


def test_finished_samples_outlive_a_stop(local):
    async def story():
        ticket = await local.submit(Request("slow", "a fox", seed=7, count=3, steps=3))
        with pytest.raises(Cancelled):
            await cancelling(local, ticket, lambda event: event.stage == "denoising 3 of 3")
        kept = local.kept(ticket)
        *told, last = [event async for event in local.watch(ticket)]
        return kept, told, last

    kept, told, last = asyncio.run(story())
    assert kept == "the latents of 2 of 3"
    assert {event.stage for event in told if "denoising" in event.stage} == {"denoising 3 of 3"}
    assert last.artifacts == artifacts(local, model="slow", count=3, steps=3)


def test_it_stops_within_one_step(local):
    async def story():
        ticket = await local.submit(Request("slow", "a fox", steps=1000))
        seen = []
        with pytest.raises(Cancelled):
            await cancelling(
                local, ticket, lambda event: seen.append((event.step, time.monotonic())) or event.step == 2
            )
        return seen, time.monotonic()

    seen, end = asyncio.run(story())
    assert end - next(when for step, when in seen if step == 2) < 1  # a step takes 0.1
    assert seen[-1][0] <= 3


def test_cancelling_before_it_begins(local):
    async def story():
        ticket = await local.submit(Request("slow", "a fox"))
        await local.cancel(ticket)
        with pytest.raises(Cancelled):
            [event async for event in local.watch(ticket)]

    asyncio.run(story())


def test_walking_away_stops_the_work(local):
    async def story():
        watching = local.watch(await local.submit(Request("slow", "a fox", steps=1000)))
        async for event in watching:
            if event.step:
                break
        await watching.aclose()

    before = threading.active_count()
    asyncio.run(story())
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_one_job_at_a_time_on_a_device(local):
    running = []

    async def one(prompt):
        async for event in local.watch(await local.submit(Request("slow", prompt, steps=3, seed=1))):
            if isinstance(event, Progress) and event.stage.startswith("denoising"):
                running.append(prompt)

    async def both():
        await asyncio.gather(one("a"), one("b"))

    asyncio.run(both())
    assert running in (list("aaabbb"), list("bbbaaa"))


def test_waiting_for_the_device_can_be_cancelled(local):
    async def story():
        first = await local.submit(Request("slow", "a", steps=1000))
        second = await local.submit(Request("slow", "b", steps=1000))
        watching = local.watch(first)
        async for event in watching:
            if event.step:
                break
        stages = []
        with pytest.raises(Cancelled):
            await cancelling(local, second, lambda event: stages.append(event.stage) or True)
        await watching.aclose()
        assert stages == ["waiting for cpu"]

    asyncio.run(story())


def test_previews_of_large_pictures_are_decoded_from_averaged_latents():
    latents = torch.arange(2 * 8 * 12.0).reshape(1, 2, 8, 12)
    assert torch.equal(work.coarse(latents, 12), latents)
    assert torch.equal(work.coarse(latents, 6), torch.nn.functional.avg_pool2d(latents, 2))
    assert work.coarse(torch.ones(1, 3, 1, 4, 64), 8).shape == (1, 3, 1, 1, 8)


def test_previews_come_when_asked_for_and_not_otherwise(local):
    def previews(**options):
        return [e.preview for e in make(local, steps=20, options=options)[:-1] if e.preview is not None]

    assert previews() == []
    found = previews(preview_every=1e-6)
    assert found
    assert image.opened(found[0].data).size == (32, 32)


@pytest.mark.parametrize("kind", ["png", "mp4"])
def test_a_trace_comes_beside_the_samples(local, kind):
    *samples, trace = artifacts(local, count=2, options={"trace": kind})
    assert len(samples) == 2
    assert trace.recipe["role"] == "trace"
    assert trace.mime == {"png": "image/png", "mp4": "video/mp4"}[kind]
    assert samples == list(artifacts(local, count=2))


def test_a_resumed_job_has_no_trace_and_says_so(local, breaks):
    async def story():
        ticket = await local.submit(Request("toy", "a fox", seed=7, options={"trace": "png"}))
        breaks("nan")
        with pytest.raises(NotFinite):
            [event async for event in local.watch(ticket)]
        breaks("")
        fresh = replace(ticket, handle=dict(ticket.handle))
        return [event async for event in local.watch(fresh)][-1]

    last = asyncio.run(story())
    assert len(last.artifacts) == 1
    assert "no trace" in last.warnings[0]


def test_one_model_is_held_and_the_next_takes_its_place(local, monkeypatch):
    loads = []
    loading = families.load
    monkeypatch.setattr(families, "load", lambda card, *rest: loads.append(card.name) or loading(card, *rest))
    for model in ("toy", "toy", "slow", "slow", "toy"):
        make(local, model=model, steps=1)
    make(local, steps=1, options={"dtype": "bfloat16"})
    assert loads == ["toy", "slow", "toy", "toy"]


def test_every_card_offers_what_the_machine_offers(local):
    for card in local.cards().values():
        assert OPTIONS.keys() <= card.fields.keys()
