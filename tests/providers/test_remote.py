"""Tickets: several samples of which one fails, processes that die, jobs that are stopped, books that are lost."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from emulated import (
    Bfl,
    CompatibleServer,
    FalQueue,
    Fault,
    GoogleInteractions,
    OpenAIPictures,
    OpenAIStream,
    ReplicateHost,
    StabilitySounds,
    after,
    failing,
    refused,
)
from household import Household, delivered
from loopback import KEY, Says, account, remote
from PIL import Image
from wares import again, picture

from triptych.errors import BadAnswer, Cancelled, FileProblem, InDoubt, InvalidField, ProviderError, Unreachable
from triptych.media import files
from triptych.media.image import encode
from triptych.providers.bfl import BFL
from triptych.providers.remote import Remote
from triptych.providers.wire.book import Book, Leaf
from triptych.providers.wire.vendor import Answer, Data, Link
from triptych.types import Request

STORED = 0.03  # US dollars of one picture of Bfl's, by its answers and by the list


@pytest.fixture
def opened():
    """Vendors that are closed at the end."""
    made = []

    def kind(one):
        made.append(one())
        return made[-1]

    yield kind
    for one in made:
        one.close()


@pytest.fixture
def bfl(opened):
    return opened(Bfl)


@pytest.fixture
def house(bfl, tmp_path):
    found = Household(bfl, tmp_path)
    yield found
    found.check()
    found.whole()


def places(job):
    return [artifact.recipe["index"] for artifact in job.result.artifacts]


# several samples


def test_every_sample_is_a_request_of_its_own(bfl, house):
    job = house.make(bfl.request(count=3, seed=5))
    assert (job.state, places(job), bfl.sent) == ("done", [0, 1, 2], 3)
    assert [one.json["seed"] for one in bfl.there.asked("POST")] == [5, 6, 7]
    assert (job.result.cost_from, house.line(job.id).cost) == ("usage", pytest.approx(3 * STORED))


def test_a_later_one_that_is_turned_away_ends_the_sending(bfl, house):
    bfl.faults["submit"] += [Fault(), refused(400, "not this one")]
    job = house.make(bfl.request(count=4))
    assert (job.state, places(job), bfl.sent) == ("done", [0], 2)
    assert "not this one" in job.result.warnings[0]
    assert ["it was not asked for" in told for told in job.result.warnings] == [False, True, True]
    assert house.line(job.id).cost == pytest.approx(STORED)


def test_a_later_one_in_doubt_is_counted_and_not_sent_again(bfl, house):
    bfl.faults["submit"] += [Fault(), failing(500)]
    job = house.make(bfl.request(count=3))
    assert (job.state, places(job), bfl.sent) == ("done", [0], 2)
    assert "may have been made and charged" in job.result.warnings[0]
    assert (job.result.cost_from, house.line(job.id).cost) == ("list", pytest.approx(2 * STORED))


def test_a_mistake_of_ours_while_a_later_one_is_sent_loses_nothing(bfl, house, monkeypatch):
    from triptych.providers.bfl import BFL

    whole = BFL.submit

    async def mistaken(self, wire, card, request):
        answer = await whole(self, wire, card, request)
        if bfl.sent == 2:
            raise KeyError("a mistake of ours")
        return answer

    monkeypatch.setattr(BFL, "submit", mistaken)
    job = house.make(bfl.request(count=3))
    assert (job.state, type(job.error), bfl.sent) == ("failed", KeyError, 2)
    assert house.line(job.id).state == "in_doubt"
    found = house.found(job.id)
    assert found.kept == "1 at Black Forest Labs"
    monkeypatch.undo()
    job = house.resume(job.id)
    assert (job.state, places(job), bfl.sent) == ("done", [0], 2)
    doubtful, unsent = job.result.warnings
    assert "before you ask again" in doubtful
    assert "before it was sent" in unsent
    assert house.line(job.id).cost == pytest.approx(2 * STORED)


def test_a_mistake_of_ours_with_the_first_is_in_doubt(bfl, house, monkeypatch):
    monkeypatch.setattr("triptych.providers.bfl.state_of", lambda *_: 1 / 0)
    job = house.make()
    assert (type(job.error), bfl.sent, house.line(job.id).state) == (ZeroDivisionError, 1, "in_doubt")
    assert house.found(job.id).state == "failed"


def test_what_is_in_doubt_is_written_down_and_what_was_turned_away_is_not(bfl, house):
    bfl.faults["submit"] += [refused(400, "no"), failing(500)]
    house.make()
    assert list(house.folder.glob("remote/*")) == []
    job = house.make()
    [written] = Book.opened(house.folder / "remote" / job.id).leaves
    assert (written.sent, written.state, written.kind) == ("doubt", "failed", "InDoubt")


def test_one_that_the_rules_forbid_leaves_the_others(bfl, house):
    said = after(lambda says: Says(200, {"id": "w1", "status": "Content Moderated", "details": {"reasons": ["gore"]}}))
    bfl.faults["poll"] += [said]
    job = house.make(bfl.request(count=3))
    assert (job.state, places(job)) == ("done", [1, 2])
    assert "gore" in job.result.warnings[0]
    assert house.line(job.id).cost == pytest.approx(2 * STORED)


def refuses_one(vendor, says):
    """Looks at the second work go wrong."""
    right = vendor.stands
    vendor.stands = lambda work, asked: says if work.id == "w2" else right(work, asked)


def test_one_that_is_no_longer_known_leaves_the_others(bfl, house):
    refuses_one(bfl, bfl.error(404, "no such task"))
    job = house.make(bfl.request(count=3))
    assert (job.state, places(job)) == ("done", [0, 2])
    assert "no such task" in job.result.warnings[0]
    assert house.line(job.id).cost == pytest.approx(3 * STORED)  # nobody says that it was not charged


def test_one_that_cannot_be_looked_at_now_is_waited_for_by_all(bfl, house):
    refuses_one(bfl, Says(503, "later"))
    job = house.make(bfl.request(count=3))
    assert (job.state, type(job.error)) == ("failed", Unreachable)
    assert house.found(job.id).kept == "2 fetched and 1 at Black Forest Labs"
    del bfl.stands
    job = house.resume(job.id)
    assert (job.state, places(job), bfl.sent) == ("done", [0, 1, 2], 3)
    assert house.line(job.id).cost == pytest.approx(3 * STORED)


def test_one_that_is_no_picture_leaves_the_others(bfl, tmp_path):
    house = Household(bfl, tmp_path)
    page = after(lambda says: Says(200, "<html>", {"content-type": "text/html"}))
    bfl.faults["fetch"] += [Fault(change=lambda says: says), page]
    job = house.make(bfl.request(count=3))
    assert (job.state, len(job.result.artifacts)) == ("done", 2)
    assert "is lost" in job.result.warnings[-1]


def test_all_that_fail_are_a_failure_and_doubt_comes_first(bfl, house):
    bfl.faults["poll"] += [after(lambda says: Says(200, {"id": "w1", "status": "Error"}))]
    bfl.faults["submit"] += [Fault(), failing(500)]
    job = house.make(bfl.request(count=2))
    assert (job.state, type(job.error), house.line(job.id).state) == ("in_doubt", InDoubt, "in_doubt")


# what is in a book


def leaf(book):
    return book.leaves[0]


def test_results_keep_their_order_whatever_came_first(tmp_path):
    book = Book.begun(tmp_path / "t", Request("m", "a fox", count=4), 4, {"family": "f"})
    urls = [f"http://h/{n}" for n in range(4)]
    told = book.take(0, Answer("succeeded", {"id": 1}, (Link(urls[0]), Data(b"1"), Link(urls[2], True), Link(urls[3]))))
    assert (told.files, told.links) == (("000-1",), ((urls[0], False), (urls[2], True), (urls[3], False)))
    (book.folder / "000-2").write_bytes(b"2")  # fetched, and the process died before that was written down
    book = Book.opened(book.folder)
    told = book.take(0, Answer("succeeded", {"id": 1}, (Link("a"), Data(b"1"), Link("c"), Link("d"))))
    assert (told.files, told.links) == (("000-1", "000-2"), (("a", False), ("d", False)))
    assert Book.opened(book.folder).leaves == book.leaves
    assert not leaf(book).over


def test_samples_are_fetched_into_the_gaps(opened, tmp_path):
    vendor = opened(ReplicateHost)
    shades = {f"/signed/w1/{n}.bin": picture(16 + 16 * n, 16) for n in range(4)}
    vendor.stranger._rules.clear()
    vendor.stranger.on("GET", ".*", lambda asked: Says(200, shades[asked.path]))
    vendor.url = lambda work: [f"{vendor.stranger.url}{path}" for path in shades]
    right = vendor._told
    vendor._told = lambda work: {**right(work), "output": vendor.url(work)} if work.stage == "done" else right(work)
    house = Household(vendor, tmp_path)
    ticket = asyncio.run(_submitted(house, vendor.request(count=4)))
    folder = next((tmp_path / "remote").iterdir())
    (folder / "000-1").write_bytes(shades["/signed/w1/1.bin"])
    result = asyncio.run(_watched(house, ticket))
    assert [one.recipe["index"] for one in result.artifacts] == [0, 1, 2, 3]
    from triptych.media.image import opened as shown

    assert [shown(one.data).size[0] for one in result.artifacts] == [16, 32, 48, 64]
    assert "/signed/w1/1.bin" not in [one.path for one in vendor.stranger.requests]


async def _submitted(house, request):
    provider = next(iter(house.service()._providers.values()))
    return await provider.submit((await provider.resolve(request)).request)


async def _watched(house, ticket):
    provider = next(iter(house.service()._providers.values()))
    return [event async for event in provider.watch(again(ticket))][-1]


@pytest.mark.parametrize("damage", ["lost", "broken", "of another version", "empty"])
def test_a_ticket_is_enough_to_go_on_with(bfl, house, damage):
    ticket = asyncio.run(_submitted(house, bfl.request(count=2)))
    [place] = (house.folder / "remote").glob("*/ticket.json")
    match damage:
        case "lost":
            place.unlink()
            place.parent.rmdir()
        case "of another version":
            place.write_text(json.dumps({**json.loads(place.read_text()), "ticket": 99}))
        case _:
            place.write_text("" if damage == "empty" else '{"ticket": 1, "model": ')
    result = asyncio.run(_watched(house, ticket))
    assert len(result.artifacts) == 2
    assert bfl.sent == 2


def test_a_job_whose_book_cannot_be_read_is_listed_and_goes_on(bfl, house):
    bfl.faults["poll"] += [Fault(says=Says(503))] * 9
    job = house.make()
    [place] = (house.folder / "remote").glob("*/ticket.json")
    place.write_text("{")
    assert [one.id for one in house.service().jobs()] == [job.id]
    assert house.found(job.id).kept == "1 at Black Forest Labs"
    bfl.faults["poll"].clear()
    delivered(house.resume(job.id), bfl)
    assert bfl.sent == 1


@pytest.mark.parametrize("left", ["files", "nothing"])
def test_what_came_with_the_answer_is_found_without_a_book(opened, tmp_path, left):
    vendor = opened(OpenAIPictures)
    house = Household(vendor, tmp_path)
    ticket = asyncio.run(_submitted(house, vendor.request()))
    [folder] = (tmp_path / "remote").iterdir()
    for path in folder.iterdir():
        if path.name == "ticket.json" or left == "nothing":
            path.unlink()
    if left == "files":
        assert len(asyncio.run(_watched(house, ticket)).artifacts) == 1
    else:
        with pytest.raises(InDoubt, match="is gone"):
            asyncio.run(_watched(house, ticket))
    assert vendor.sent == 1


def full(*_, **__):
    raise FileProblem("the disk is full")


@pytest.mark.parametrize("kind", [OpenAIPictures, OpenAIStream, Bfl, StabilitySounds, CompatibleServer])
def test_what_is_paid_for_comes_although_the_disk_is_full(opened, tmp_path, monkeypatch, kind):
    vendor = opened(kind)
    house = Household(vendor, tmp_path)
    write, taken = files.write, vendor.taken

    def fills(work, asked):
        monkeypatch.setattr(files, "write", full)  # while it is being answered
        return taken(work, asked)

    vendor.taken = fills
    job = house.make()
    monkeypatch.setattr(files, "write", write)
    assert job.state == "done", repr(job.error)
    delivered(job, vendor)
    assert vendor.sent == 1
    assert house.line(job.id).state == "settled"


@pytest.mark.parametrize("kind", [OpenAIPictures, Bfl])
def test_what_cannot_be_written_down_is_not_sent(opened, tmp_path, monkeypatch, kind):
    vendor = opened(kind)
    house = Household(vendor, tmp_path)
    put = Book.put

    def put_down(self, number, **changes):
        if changes.get("sent") == "sending":
            full()
        return put(self, number, **changes)

    monkeypatch.setattr(Book, "put", put_down)
    job = house.make()
    assert (job.state, type(job.error), vendor.sent) == ("failed", FileProblem, 0)
    assert house.line(job.id).state == "released"


def test_a_later_one_that_cannot_be_written_down_ends_the_sending(bfl, house, monkeypatch):
    put = Book.put

    def put_down(self, number, **changes):
        if changes.get("sent") == "sending" and number == 1:
            full()
        return put(self, number, **changes)

    monkeypatch.setattr(Book, "put", put_down)
    job = house.make(bfl.request(count=3))
    assert (job.state, places(job), bfl.sent) == ("done", [0], 1)
    assert "the disk is full" in job.result.warnings[0]


def test_a_result_that_cannot_be_written_waits_with_the_vendor(bfl, house, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("triptych.providers.wire.partial.os.fsync", fails)
    monkeypatch.setattr(files, "_write", lambda path, data, sync: path.write_bytes(data))
    job = house.make()
    monkeypatch.undo()
    assert isinstance(job.error, FileProblem)
    assert "No space left" in str(job.error)
    assert house.line(job.id).state == "reserved"
    delivered(house.resume(job.id), bfl)
    assert bfl.sent == 1


# processes that die

CHILD = """
import asyncio, sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
import emulated, household
vendor = getattr(emulated, sys.argv[2]).at(sys.argv[3])
household.Household(vendor, Path(sys.argv[4])).make(vendor.request(count=int(sys.argv[5])))
"""


def dies(vendor, folder, when, count=1):
    """A process that makes something is killed as soon as `when` is true."""
    paths = ":".join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", CHILD, paths, type(vendor).__name__, vendor.there.url, str(folder), str(count)]
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not when():
        assert time.monotonic() < end
        assert child.poll() is None, child.stderr.read().decode()
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()


def only(house):
    [job] = house.service().jobs()
    return job


@pytest.mark.parametrize("kind", [OpenAIPictures, Bfl])
def test_killed_between_request_and_answer(opened, tmp_path, kind):
    vendor = opened(kind)
    house = Household(vendor, tmp_path)
    vendor.faults["submit"] += [after(lambda says: replace(says, slow=30))]
    dies(vendor, tmp_path, lambda: vendor.sent == 1)
    job = only(house)
    assert (job.state, job.kept) == ("in_doubt", "")
    assert house.line(job.id).state == "in_doubt"  # since it was looked at
    with pytest.raises(Exception, match="kept nothing"):
        house.resume(job.id)
    assert vendor.sent == 1
    house.check()


def test_killed_between_answer_and_result(bfl, house):
    bfl.faults["poll"] += [after(lambda says: replace(says, slow=30))]
    dies(bfl, house.folder, lambda: len(bfl.there.asked("GET")) == 1)
    job = only(house)
    assert (job.state, job.kept, house.line(job.id).state) == ("interrupted", "1 at Black Forest Labs", "reserved")
    delivered(house.resume(job.id), bfl)
    assert (bfl.sent, house.line(job.id).state) == (1, "settled")


def test_killed_while_the_result_comes(bfl, house):
    noise = numpy.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype("uint8")
    bfl.file = encode(Image.fromarray(noise), "image/png", {})
    bfl.faults["fetch"] += [after(lambda says: replace(says, cut=len(bfl.data) // 2, hold=30))]

    def here():
        return sum(part.stat().st_size for part in house.folder.glob("remote/*/[0-9]*.part"))

    dies(bfl, house.folder, lambda: here() > 100_000)
    job = only(house)
    assert (job.state, job.kept) == ("interrupted", "1 at Black Forest Labs")
    house.whole()
    begun = here()
    delivered(house.resume(job.id), bfl)
    assert bfl.stranger.requests[-1].headers["range"] == f"bytes={begun}-"
    assert bfl.sent == 1


def test_killed_between_two_requests_of_one_job(bfl, house):
    bfl.faults["submit"] += [Fault(), after(lambda says: replace(says, slow=30))]
    dies(bfl, house.folder, lambda: bfl.sent == 2, count=3)
    job = only(house)
    assert (job.state, job.kept) == ("in_doubt", "1 at Black Forest Labs")
    assert house.line(job.id).state == "in_doubt"
    job = house.resume(job.id)
    assert (job.state, places(job), bfl.sent) == ("done", [0], 2)
    assert "before you ask again" in job.result.warnings[0]
    assert "before it was sent" in job.result.warnings[1]
    line = house.line(job.id)
    assert (line.state, line.cost) == ("settled", pytest.approx(2 * STORED))


# jobs that are stopped


def stopped(house, when, request=None):
    """A job that is asked to stop as soon as `when` is true; at its end."""

    async def told():
        service = house.service()
        job = await service.submit(request or house.vendor.request(), unpriced=True)
        watching = asyncio.ensure_future(house._end(service, job.id, None))
        while not when() and not watching.done():
            await asyncio.sleep(0.002)
        await service.cancel(job.id)
        return await watching

    return house._noted(asyncio.run(told()))


def test_stopped_before_it_is_sent(bfl, house):
    job = stopped(house, lambda: True)
    assert (job.state, bfl.sent, house.line(job.id).state) == ("cancelled", 0, "released")
    assert "nothing was sent" in str(job.error)


@pytest.mark.parametrize("kind", [FalQueue, ReplicateHost, GoogleInteractions])
def test_stopped_where_the_vendor_can_stop(opened, tmp_path, kind):
    vendor = opened(kind)
    vendor.endless = True
    house = Household(vendor, tmp_path)
    job = stopped(house, lambda: len(vendor.there.requests) > 4)
    assert (job.state, type(job.error)) == ("cancelled", Cancelled)
    assert vendor.works["w1"].stopped
    assert house.line(job.id).state == "in_doubt"  # nobody says what a part of it costs
    assert house.found(job.id).kept == ""
    house.check()


@pytest.mark.parametrize("kind", [FalQueue, ReplicateHost, GoogleInteractions])
def test_stopped_while_it_is_being_sent(opened, tmp_path, kind):
    vendor = opened(kind)
    vendor.faults["submit"] += [after(lambda says: replace(says, slow=0.1))]
    house = Household(vendor, tmp_path)
    job = stopped(house, lambda: vendor.sent == 1)
    assert (job.state, vendor.sent, vendor.works["w1"].stopped) == ("cancelled", 1, True)
    house.check()


def test_stopped_where_the_vendor_cannot_stop_it_goes_on_there(bfl, house):
    bfl.endless = True
    job = stopped(house, lambda: len(bfl.there.requests) > 3)
    assert job.state == "cancelled"
    assert "goes on there, and is charged" in str(job.error)
    assert (house.found(job.id).kept, house.line(job.id).state) == ("1 at Black Forest Labs", "in_doubt")
    bfl.endless = False
    delivered(house.resume(job.id), bfl)
    assert (bfl.sent, house.line(job.id).state) == (1, "settled")


@pytest.mark.parametrize("kind", [FalQueue, ReplicateHost])
def test_stopped_where_stopping_fails(opened, tmp_path, kind):
    vendor = opened(kind)
    vendor.endless = True
    vendor.faults["cancel"] += [refused(400, "ALREADY_COMPLETED")] * 9
    house = Household(vendor, tmp_path)
    job = stopped(house, lambda: len(vendor.there.requests) > 4)
    assert job.state == "cancelled"
    assert "ALREADY_COMPLETED" in str(job.error)
    vendor.endless = False
    delivered(house.resume(job.id), vendor)
    assert vendor.sent == 1
    house.check()


def test_stopped_while_a_synchronous_answer_is_on_its_way_it_still_comes(opened, tmp_path):
    vendor = opened(OpenAIPictures)
    vendor.faults["submit"] += [after(lambda says: replace(says, slow=0.1))]
    house = Household(vendor, tmp_path)
    job = stopped(house, lambda: vendor.sent == 1)
    delivered(job, vendor)
    assert house.line(job.id).state == "settled"


def test_stopped_while_one_is_fetched_the_others_are_not_lost(bfl, house):
    bfl.first = 2  # done at once
    right = Fault(change=lambda says: says)
    bfl.faults["fetch"] += [right, after(lambda says: replace(says, slow=0.2))]
    job = stopped(house, lambda: len(bfl.stranger.requests) == 2, bfl.request(count=3))
    assert (job.state, house.found(job.id).kept) == ("cancelled", "2 fetched and 1 at Black Forest Labs")
    job = house.resume(job.id)
    assert (job.state, places(job), bfl.sent) == ("done", [0, 1, 2], 3)


@pytest.mark.parametrize("kind", [Bfl, FalQueue, ReplicateHost])
def test_stopped_when_it_is_made_it_can_still_be_fetched(opened, tmp_path, kind):
    vendor = opened(kind)
    house = Household(vendor, tmp_path)
    vendor.faults["fetch"] += [Fault(says=Says(503))] * 4
    job = house.make()
    assert isinstance(job.error, Unreachable)

    async def at_once():
        provider = next(iter(house.service()._providers.values()))
        await provider.cancel(job.ticket)
        with pytest.raises(Cancelled, match="has made waits there"):
            [event async for event in provider.watch(job.ticket)]

    asyncio.run(at_once())
    assert not any(work.stopped for work in vendor.works.values())
    delivered(house.resume(job.id), vendor)
    assert vendor.sent == 1


def test_what_the_rules_forbid_stays_so_although_it_was_stopped(opened, tmp_path):
    vendor = opened(OpenAIPictures)
    house = Household(vendor, tmp_path)
    said = {"data": [], "error": {"code": "moderation_blocked", "message": "no"}}
    vendor.faults["submit"] += [after(lambda says: Says(200, said, slow=0.1))]
    job = stopped(house, lambda: vendor.sent == 1)
    assert (job.state, house.line(job.id).state) == ("moderated", "released")


# URLs that expire


def two_links(vendor):
    right = vendor._told

    def told(work):
        found = right(work)
        return {**found, "output": [*found["output"], vendor.url(work)]} if found["output"] else found

    vendor._told = told


def test_a_url_that_expires_while_the_vendor_is_away_is_no_loss(opened, tmp_path):
    vendor = opened(ReplicateHost)
    two_links(vendor)
    vendor.first = 2
    gone = Fault(says=Says(403, "Request has expired"))
    vendor.faults["fetch"] += [Fault(change=lambda says: says), gone]
    vendor.faults["poll"] += [Fault(says=Says(503))] * 4
    house = Household(vendor, tmp_path)
    job = house.make(vendor.request(count=2))
    assert (job.state, type(job.error)) == ("failed", Unreachable)
    assert house.found(job.id).kept == "1 fetched and 1 at Replicate"
    job = house.resume(job.id)
    assert (job.state, places(job), vendor.sent) == ("done", [0, 1], 1)
    house.check()
    house.whole()


def test_what_was_fetched_before_the_rest_expired_is_a_result(opened, tmp_path):
    vendor = opened(ReplicateHost)
    two_links(vendor)
    vendor.faults["fetch"] += [Fault(change=lambda says: says)] + [Fault(says=Says(410, "gone"))] * 9
    house = Household(vendor, tmp_path)
    job = house.make(vendor.request(count=2))
    assert (job.state, places(job)) == ("done", [0])
    assert "no longer keeps" in job.result.warnings[0]
    assert house.line(job.id).state == "settled"


# small things


def test_a_ticket_carries_all_its_leaves_and_no_key(bfl, house):
    ticket = asyncio.run(_submitted(house, bfl.request(count=2)))
    assert json.loads(json.dumps(ticket.handle)) == ticket.handle
    assert [one["first"] for one in ticket.handle["leaves"]] == [0, 1]
    assert KEY not in json.dumps(ticket.handle)


def test_what_a_vendor_asks_to_wait_is_waited_for_but_not_beyond_the_end(bfl, tmp_path):
    bfl.endless = True
    house = Household(bfl, tmp_path, deadline=0.5)
    later = after(lambda says: replace(says, headers={"retry-after": "0.25"}))
    much_later = after(lambda says: replace(says, headers={"retry-after": "1e9"}))
    bfl.faults["poll"] += [later, much_later]
    job = house.make()
    assert house.waits.seconds[0] == 0.25
    assert house.waits.seconds[1] <= 0.5
    assert "not done after" in str(job.error)


@pytest.mark.parametrize(
    "told",
    [
        {"status": "Ready", "result": {"sample": "x", "seed": float("nan")}, "progress": float("inf")},
        {"status": "Pending", "progress": 10**400},
        {"status": "Pending", "progress": float("nan")},
        {"status": 5, "progress": "half"},
        {"status": "Thinking about it"},
        {"status": "Ready", "result": [1]},
        {"status": "Ready", "result": {"sample": 5}},
    ],
)
def test_odd_looks_are_no_mistakes_of_ours(bfl, house, told):
    bfl.faults["poll"] += [after(lambda says: Says(200, json.dumps({"id": "w1", **told})))]
    job = house.make()
    assert job.error is None or isinstance(job.error, ProviderError | BadAnswer), repr(job.error)
    assert job.state in ("done", "failed", "expired")


def test_costs_that_nobody_can_count_with_are_not_counted(bfl, house):
    for cost in ("NaN", "Infinity", "1e999", "-3", '"3"', "true", "null", "[3]"):
        head = f'"cost": {cost}'.encode()
        change = lambda says, head=head: replace(says, body=says.bytes().replace(b'"cost": 3.0', head))  # noqa: E731
        bfl.faults["submit"] += [after(change)]
        job = house.make()
        assert job.state == "done", (cost, repr(job.error))
        assert job.result.cost == pytest.approx(STORED), cost
        assert (house.line(job.id).state, house.line(job.id).source) == ("settled", "list")


def test_a_link_that_leads_nowhere_is_told(bfl, house):
    for url in ("http://[::1", "ftp://127.0.0.1/a", "file:///etc/passwd", "http://127.0.0.1:99999/", "data:,x"):
        ready = {"id": "w1", "status": "Ready", "result": {"sample": url}}
        bfl.faults["poll"] += [after(lambda says, ready=ready: Says(200, ready))] * 3
        job = house.make()
        bfl.faults["poll"].clear()
        assert isinstance(job.error, ProviderError), (url, repr(job.error))
        delivered(house.resume(job.id), bfl)


def test_a_leaf_is_over_when_all_of_it_is_here():
    assert not Leaf(0, 1, "yes", "succeeded", links=(("u", False),)).over
    assert Leaf(0, 1, "yes", "succeeded", files=("000-0",)).made


def test_without_a_key_nothing_is_written_or_sent(bfl, tmp_path):
    from triptych.errors import NotSetUp
    from triptych.providers.bfl import BFL

    provider = remote(BFL(), bfl.there.url, tmp_path / "remote", key=None)
    with pytest.raises(NotSetUp, match="BFL_API_KEY"):
        asyncio.run(provider.submit(bfl.request()))
    assert not (tmp_path / "remote").exists()
    assert account("bfl", "http://x").hide(KEY) == "[key]"


# what it needs


def test_a_setting_that_cannot_be_is_a_finding(tmp_path):
    def broken():
        raise InvalidField("bfl.timeout", "soon", "seconds, up to a week")

    [found] = asyncio.run(Remote(BFL(), broken, tmp_path).check())
    assert found.good is False
    assert "bfl.timeout" in found.told
