"""The public interface, end to end over the toy family."""

import asyncio
import io
import threading
import time

import pytest
from PIL import Image

import triptych
from triptych import client
from triptych.errors import FileProblem, InvalidField, NoRecipe, NotFinite, UnknownName
from triptych.service.portal import Once
from triptych.types import Progress


@pytest.fixture
def toy(home):
    return triptych.load("toy")


def opened(path):
    return Image.open(io.BytesIO(path.read_bytes()))


def pixels(path):
    return opened(path).convert("RGB").tobytes()


def test_make_and_save_in_every_format(toy, tmp_path):
    made = toy.make("a fox", seed=7, width=48)
    assert made.seeds == (7,)
    assert (made.cost, made.warnings, made.trace) == (0.0, (), None)
    assert made.seconds > 0
    for suffix in ("png", "webp", "jpg", "jpeg"):
        path = made.media[0].save(tmp_path / f"fox.{suffix}")
        assert opened(path).size == (48, 32)
        assert triptych.recipe(path) == made.media[0].recipe
    assert pixels(tmp_path / "fox.png") == pixels(tmp_path / "fox.webp") == made.media[0].picture().tobytes()


def test_saving_replaces_unless_told_not_to(toy, tmp_path):
    one = toy.make("a fox", seed=7).media[0]
    assert one.save(tmp_path / "a.png") == one.save(str(tmp_path / "a.png"))
    assert one.save(tmp_path / "a.png", replace=False).name == "a-2.png"
    with pytest.raises(FileProblem, match=r"\.webp"):
        one.save(tmp_path / "a.tga")
    with pytest.raises(FileProblem, match="does not exist"):
        one.save(tmp_path / "none" / "a.png")


def test_stream_ends_with_what_make_gives(home):
    slow = triptych.load("slow")
    *told, made = slow.stream("a fox", seed=7, steps=4, preview_every=0.01)
    assert all(isinstance(one, Progress) for one in told)
    assert len({id(one.preview) for one in told if one.preview}) > 1
    assert made.media == slow.make("a fox", seed=7, steps=4).media
    assert list(client.shared().jobs())[-1].kept == ""


def test_leaving_a_stream_stops_the_job(home):
    stream = triptych.load("slow").stream("a fox", steps=1000)
    for one in stream:
        if one.step:
            break
    stream.close()
    [job] = client.shared().jobs()
    assert job.state == "cancelled"


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_again_is_the_same_to_the_last_bit(toy, tmp_path, suffix):
    made = toy.make("a fox", count=2, steps=3, sampler="euler", negative="blur", guidance=3)
    path = made.media[1].save(tmp_path / f"a.{suffix}")
    again = triptych.again(path)
    assert again.media[0].data == made.media[1].data
    assert again.warnings == ()


def test_again_finds_one_of_a_batch(toy):
    made = toy.make("a fox", seed=3, count=5, batch_size=2)
    for one in made.media:
        assert triptych.again(one.data).media == (one,)


def test_again_with_something_changed(toy):
    made = toy.make("a fox", seed=7)
    other = triptych.again(made.media[0].artifact, seed=8, device="cpu")
    assert other.seeds == (8,)
    assert other.media[0].data != made.media[0].data


def test_again_tells_what_is_not_as_it_was(toy, monkeypatch):
    made = toy.make("a fox", seed=7)
    told = {**made.recipe, "versions": {"triptych": "0.0.1"}, "threads": 64}
    found = client.compared(made, told).warnings
    assert [line.split()[0] for line in found] == ["versions", "threads"]


def test_inputs_come_from_anywhere_and_are_found_again(toy, tmp_path):
    path = tmp_path / "init.png"
    Image.new("RGB", (32, 32), "blue").save(path)
    sources = [path, str(path), path.read_bytes(), client.read(path)]
    made = [toy.make("a fox", seed=7, init=source, strength=0.5) for source in sources]
    assert len({one.media[0].picture().tobytes() for one in made}) == 1
    path.unlink()
    assert triptych.again(made[0].media[0].data).media[0].data == made[0].media[0].data


def test_inputs_that_are_gone_or_changed_are_told(toy, home, tmp_path):
    path = tmp_path / "init.png"
    Image.new("RGB", (32, 32), "blue").save(path)
    made = toy.make("a fox", seed=7, init=path)
    for kept in (home / "data" / "inputs").iterdir():
        kept.unlink()
    with pytest.raises(FileProblem, match=r"the init \(init\.png with sha256 .*\) is not kept.*--init FILE"):
        triptych.again(made.media[0].data)
    assert triptych.again(made.media[0].data, init=path).media == made.media
    for kept in (home / "data" / "inputs").iterdir():
        kept.unlink()
    Image.new("RGB", (32, 32), "green").save(path)
    with pytest.raises(FileProblem, match="the init has changed"):
        triptych.again(made.media[0].data, init=path)


def test_failures_come_out_as_they_are_and_can_be_resumed(toy, breaks):
    breaks("nan")
    with pytest.raises(NotFinite):
        toy.make("a fox", seed=7)
    breaks("")
    service = client.shared()
    [job] = service.jobs()
    assert (job.state, job.kept) == ("failed", "the latents")
    job = client.portal().call(service.resume(job.id))
    *_, last = client.follow(service, job.id)
    assert client.Made.of(last).media == toy.make("a fox", seed=7).media


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"colour": "red"}, "colour"),
        ({"steps": "many"}, "steps"),
        ({"width": 33}, "width"),
        ({"duration": 2}, "duration"),
    ],
)
def test_wrong_fields_are_refused_before_anything_is_kept(toy, home, fields, told):
    with pytest.raises(InvalidField, match=told):
        toy.make("a fox", **fields)
    with pytest.raises(InvalidField, match=told):
        toy.price("a fox", **fields)
    assert not home.exists()


def test_models_and_prices(home):
    assert {"mini-image", "toy", "slow"} <= triptych.models().keys()
    assert triptych.load().card.name == "mini-image"
    assert triptych.load("toy").price("x").most == 0
    with pytest.raises(UnknownName, match="Did you mean 'toy'"):
        triptych.load("tooy")


def test_media_nobody_makes_are_told(home):
    cards = {name: card for name, card in triptych.models().items() if card.media == "image"}
    with pytest.raises(UnknownName, match=r"unknown medium 'video'.*image"):
        client.default_model(cards, "video")
    with pytest.raises(InvalidField, match="a model that makes video"):
        client.choose(client.shared(), "toy", "video")


def test_files_without_a_recipe(home, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(NoRecipe, match=r"a\.png does not say"):
        triptych.again(tmp_path / "a.png")
    with pytest.raises(FileProblem, match="No such file"):
        triptych.recipe(tmp_path / "b.png")


def test_it_works_beside_a_running_loop_and_from_threads(toy):
    async def notebook():
        return toy.make("a fox", seed=7)

    inside = asyncio.run(notebook())
    found = []
    workers = [threading.Thread(target=lambda: found.append(toy.make("a fox", seed=7).media)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [inside.media] * 3


def test_traces_are_saved_as_what_they_are(toy, tmp_path):
    made = toy.make("a fox", seed=7, trace="gif")
    assert len(made.media) == 1
    path = made.trace.save(tmp_path / "t.gif")
    assert opened(path).n_frames > 8
    with pytest.raises(FileProblem, match=r"name it \.gif"):
        made.trace.save(tmp_path / "t.png")


def test_notebooks_show_pictures(toy):
    bundle = toy.make("a fox", seed=7).media[0]._repr_mimebundle_(include=None)
    assert Image.open(io.BytesIO(bundle["image/png"])).size == (32, 32)


def test_threads_that_begin_together_share_one_event_loop_and_one_service():
    built = []

    def slowly():
        built.append(threading.get_ident())
        time.sleep(0.02)  # in which the others ask, too
        return object()

    once = Once(slowly)
    found = []
    start = threading.Barrier(8)

    def asks():
        start.wait()
        found.append(once())

    workers = [threading.Thread(target=asks) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(built) == 1
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert {type(one) for one in (client.portal, client.shared)} == {Once}


def test_what_is_printed_is_short(toy):
    made = toy.make("a fox", seed=7)
    assert repr(toy) == "Handle('toy')"
    assert repr(made.media[0].artifact) == f"Artifact('image/png', {len(made.media[0].data)} bytes)"
    assert len(repr(made)) < 3000
