"""Jobs that cost: what is reserved before, counted after, refused by a budget, and left in doubt."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from emulated import Bfl, CompatibleServer, Fault, OpenAIPictures, after, cut, failing, refused
from household import Household, delivered
from loopback import Says

from triptych.errors import FileProblem, OverBudget, PriceUnknown, Refused, RequestError, Unreachable
from triptych.service.bills import total
from triptych.service.budgets import Budgets
from triptych.service.jobs import Job, Store, identity
from triptych.service.ledger import Ledger
from triptych.service.purse import Purse
from triptych.types import Price, Ticket

EACH = 0.03  # US dollars of one of Bfl's pictures, by its list and by its answers


@pytest.fixture
def bfl():
    vendor = Bfl()
    yield vendor
    vendor.close()


@pytest.fixture
def pictures():
    vendor = OpenAIPictures()
    yield vendor
    vendor.close()


def at_once(house, number, services=1):
    """So many jobs side by side, dealt out to so many services: their ends, and what was raised in their place."""

    async def one(service):
        job = await service.submit(house.vendor.request(), unpriced=True)
        return await house._end(service, job.id, None)

    async def all_of_them():
        able = [house.service() for _ in range(services)]
        return await asyncio.gather(*(one(able[n % services]) for n in range(number)), return_exceptions=True)

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("services", [1, 3])
def test_ten_jobs_side_by_side_do_not_overspend(bfl, tmp_path, services):
    house = Household(bfl, tmp_path, budget=0.10)
    ends = at_once(house, 10, services)
    done = [end for end in ends if isinstance(end, Job)]
    refusals = [end for end in ends if isinstance(end, OverBudget)]
    assert (len(done), len(refusals), bfl.sent) == (3, 7, 3)
    assert {job.state for job in done} == {"done"}
    assert bfl.paid <= 0.10
    assert all("Nothing was sent" in str(one) for one in refusals)
    lines = house.ledger.lines()
    assert [line.state for line in lines] == ["settled"] * 3
    assert total(lines).spent == pytest.approx(0.09)
    assert len(house.service().jobs()) == 3  # what was refused is no job
    house.check()


def test_threads_side_by_side_do_not_overspend_either(bfl, tmp_path):
    """As processes would: nothing is shared but the file."""
    ends = []

    def alone():
        house = Household(bfl, tmp_path, budget=0.10)
        try:
            ends.append(house.make().state)
        except OverBudget:
            ends.append("refused")

    threads = [threading.Thread(target=alone) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["done"] * 3 + ["refused"] * 3
    assert bfl.sent == 3


def test_what_is_reserved_counts_until_it_is_settled_at_less(pictures, tmp_path):
    """A range is reserved at its upper end, and what the answer says frees the rest."""
    house = Household(pictures, tmp_path)
    job = house.make()
    line = house.line(job.id)
    assert line.price is not None
    assert line.price.most > 0
    assert (line.state, line.source) == ("settled", "usage")
    assert line.cost == pytest.approx(10 * 5e-6 + 1000 * 30e-6)  # by the usage in the answer
    assert job.result.cost == line.cost
    assert dict(line.ticket)["id"] == job.id


def test_the_list_stands_where_the_answer_tells_no_cost(bfl, tmp_path):
    house = Household(bfl, tmp_path)
    bfl.faults["submit"] += [after(lambda says: replace(says, body={**says.body, "cost": None}))]
    job = house.make()
    assert (house.line(job.id).cost, house.line(job.id).source) == (EACH, "list")


def test_what_was_refused_is_free_for_others(bfl, tmp_path):
    house = Household(bfl, tmp_path, budget=EACH)
    bfl.faults["submit"] += [refused(400, "no")]
    assert house.line(house.make().id).state == "released"
    job = house.make(bfl.request("something forbidden"))
    assert (job.state, isinstance(job.error, Refused), house.line(job.id).state) == ("moderated", True, "released")
    delivered(house.make(), bfl)
    with pytest.raises(OverBudget):
        house.make()


@pytest.mark.parametrize("fault", [failing(500), cut(), cut(0), after(lambda says: Says(200, "<html>"))])
def test_what_is_in_doubt_counts_until_somebody_says(bfl, tmp_path, fault):
    house = Household(bfl, tmp_path, budget=EACH)
    bfl.faults["submit"] += [fault]
    job = house.make()
    assert house.line(job.id).state == "in_doubt"
    with pytest.raises(OverBudget, match="in doubt"):
        house.make()
    assert bfl.sent == 1
    house.ledger.clear(job.id, 0.0)
    delivered(house.make(), bfl)
    assert total(house.ledger.lines()).spent == pytest.approx(EACH)


def test_a_mistake_of_ours_after_it_was_sent_counts_too(bfl, tmp_path, monkeypatch):
    house = Household(bfl, tmp_path, budget=EACH)
    monkeypatch.setattr("triptych.providers.bfl._dollars", lambda told: told["no such thing"])
    job = house.make()
    assert (job.state, type(job.error), house.line(job.id).state) == ("failed", KeyError, "in_doubt")
    monkeypatch.undo()
    with pytest.raises(OverBudget):
        house.make()


def test_a_mistake_of_ours_while_it_is_watched_loses_nothing(bfl, tmp_path, monkeypatch):
    house = Household(bfl, tmp_path)
    monkeypatch.setattr("triptych.providers.bfl._fraction", lambda told: 1 / 0)
    job = house.make()
    assert (type(job.error), house.line(job.id).state) == (ZeroDivisionError, "in_doubt")
    monkeypatch.undo()
    delivered(house.resume(job.id), bfl)
    assert (bfl.sent, house.line(job.id).state, house.line(job.id).cost) == (1, "settled", EACH)


@pytest.mark.parametrize(
    ("error", "kept", "state"),
    [
        (Unreachable("no answer"), "", "in_doubt"),  # of what was taken in, and could not be kept on a full disk
        (FileProblem("the disk is full"), "", "in_doubt"),
        (Unreachable("no answer"), "1 at Black Forest Labs", "reserved"),
        (Refused("no"), "", "released"),
    ],
)
def test_what_a_vendor_took_in_is_free_again_only_by_its_own_word(bfl, tmp_path, error, kept, state):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    purse = Purse(ledger, Budgets, lambda: None, str)
    request = bfl.request()
    ticket = Ticket("bfl", request, {"id": "j"})
    job = Job("j", request, "bfl", "failed", error=error, kept=kept, ticket=ticket, price=Price(EACH))
    purse.reserve(job, job.price)
    purse.over(job)
    assert ledger.line("j").state == state


def test_what_is_done_twice_is_settled_once(bfl, tmp_path):
    house = Household(bfl, tmp_path)
    job = house.make()
    line = house.line(job.id)
    for _ in range(2):
        delivered(house.resume(job.id), bfl)
        assert house.line(job.id) == line
    house.ledger.settle(job.id, 99.0, "usage")
    house.ledger.release(job.id)
    house.ledger.doubt(job.id)
    assert house.line(job.id) == line
    assert len(bfl.stranger.requests) == 1  # nor is it fetched again


def test_what_nobody_knows_the_price_of_is_not_sent_unasked(tmp_path):
    vendor = CompatibleServer()
    house = Household(vendor, tmp_path)
    with pytest.raises(PriceUnknown, match="--unpriced"):
        asyncio.run(house.service().submit(vendor.request()))
    assert (vendor.sent, house.ledger.lines(), house.service().jobs()) == (0, [], [])
    job = house.make()
    delivered(job, vendor)
    line = house.line(job.id)
    assert (line.state, line.price, line.cost, line.most) == ("settled", None, None, None)
    assert total([line]).unknown == 1
    budgeted = Household(vendor, tmp_path, budget=5.0)
    with pytest.raises(OverBudget, match="not known"):
        budgeted.make()
    assert vendor.sent == 1
    vendor.close()


def test_what_was_never_counted_stops_a_budget_until_it_is(bfl, tmp_path):
    house = Household(bfl, tmp_path)
    server = CompatibleServer()
    unknown = Household(server, tmp_path).make()
    budgeted = Household(bfl, tmp_path, budget=5.0)
    with pytest.raises(OverBudget, match="costs --clear"):
        budgeted.make()
    house.ledger.clear(unknown.id, 0.5)
    delivered(budgeted.make(), bfl)
    server.close()


def test_a_budget_that_is_used_up_stops_neither_a_look_nor_a_fetch(bfl, tmp_path):
    house = Household(bfl, tmp_path, budget=EACH)
    bfl.faults["poll"] += [Fault(says=Says(503))] * 9
    job = house.make()
    assert house.line(job.id).state == "reserved"
    with pytest.raises(OverBudget, match="reserved by jobs that run"):
        house.make()
    bfl.faults["poll"].clear()
    delivered(house.resume(job.id), bfl)


def test_a_job_without_a_line_cannot_be_sent(bfl, tmp_path):
    house = Household(bfl, tmp_path)
    (tmp_path / "ledger.sqlite").write_bytes(b"no ledger at all, but a file that is long enough to look like one" * 99)
    with pytest.raises(RequestError, match="ledger"):
        house.make()
    assert bfl.sent == 0


def test_a_result_comes_although_the_ledger_is_lost_meanwhile(bfl, tmp_path):
    house = Household(bfl, tmp_path)

    def damages(says):
        for path in tmp_path.glob("ledger.sqlite*"):
            path.write_bytes(b"x" * 9999)
        return says

    bfl.faults["poll"] += [after(damages)]
    job = house.make()
    delivered(job, bfl)
    assert "could not be written down" in job.result.warnings[-1]


# jobs whose process is gone


def gone():
    """A process that was there once."""
    told = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return f"{told.stdout.decode().strip()}@1"


@pytest.mark.parametrize(
    ("state", "found", "line"),
    [
        ("queued", "interrupted", "released"),
        ("sending", "in_doubt", "in_doubt"),
        ("failed", "failed", "reserved"),
    ],
)
def test_what_became_of_a_job_is_in_the_ledger_once_it_is_looked_at(bfl, tmp_path, state, found, line):
    house = Household(bfl, tmp_path)
    job = Job("1", bfl.request(), "bfl", state, process=gone(), created=f"{datetime.now(UTC):%Y}", price=Price(EACH))
    purse = house.service()._purse
    purse.reserve(job, job.price)
    Store(tmp_path / "jobs", tmp_path / "inputs").add(job)
    assert house.line("1").state == "reserved"
    assert [one.state for one in house.service().jobs()] == [found]
    assert house.line("1").state == line


def test_a_job_that_lives_elsewhere_stays_reserved(bfl, tmp_path):
    house = Household(bfl, tmp_path)
    job = Job("1", bfl.request(), "bfl", "sending", process=identity(os.getppid()), price=Price(EACH))
    house.service()._purse.reserve(job, job.price)
    Store(tmp_path / "jobs", tmp_path / "inputs").add(job)
    assert house.found("1").state == "sending"
    assert house.line("1").state == "reserved"


# the command line, in processes of its own


@pytest.fixture
def at_home(home, monkeypatch, bfl):
    """Bfl as the user's own settings reach it; its list holds, and what it is asked for is there at once."""
    from loopback import KEY

    monkeypatch.setenv("BFL_API_KEY", KEY)
    monkeypatch.setenv("BFL_BASE_URL", bfl.there.url)
    monkeypatch.setattr(Bfl, "first", 2)
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text('[bfl]\nprices = "list"\n[budget]\nday = 1\n')
    found = Household(bfl, home / "data")
    found.folder.mkdir(parents=True)
    yield found
    found.check(killed=True)


def ends(running):
    out, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    for told in (out, err):
        assert "sk-loopback" not in told
    return running.returncode, out, err


MAKE = ("make", "a red fox", "-m", "flux-2-pro", "-o", "fox.png")


def test_a_command_that_is_killed_is_gone_on_with(at_home, process, bfl):
    bfl.faults["poll"] += [after(lambda says: replace(says, slow=30))]
    running = process(*MAKE)
    while len(bfl.there.asked("GET")) < 1:
        assert running.poll() is None, running.communicate()
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not list(Path().iterdir())
    code, out, _ = ends(process("resume", "--json"))
    [found] = json.loads(out)["jobs"]
    assert (code, found["state"], found["kept"]) == (0, "interrupted", "1 at Black Forest Labs")
    code, out, err = ends(process("resume", found["job"], "-o", "fox.png"))
    assert code == 0, err
    assert [path.name for path in Path().iterdir()] == ["fox.png"]
    assert bfl.sent == 1
    assert (at_home.line(found["job"]).state, at_home.line(found["job"]).cost) == ("settled", EACH)
    assert not list(at_home.folder.glob("remote/*"))  # it is safe now


def test_a_command_in_doubt_says_so_and_so_do_the_costs(at_home, process, bfl):
    bfl.faults["submit"] += [after(lambda says: replace(says, slow=30)), failing(502)]
    running = process(*MAKE)
    while bfl.sent < 1:
        assert running.poll() is None, running.communicate()
    running.send_signal(signal.SIGKILL)
    running.communicate()
    code, out, err = ends(process(*MAKE))
    assert (code, out) == (1, "")
    assert "may have been made and charged" in err
    code, out, _ = ends(process("costs", "--json"))
    assert [line["state"] for line in json.loads(out)["calls"]] == ["in_doubt"] * 2
    assert bfl.sent == 2  # one a command
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (refused(401, "Incorrect API key provided: sk-loopback-0123456789abcdef"), 1, "KeyRefused"),
        (refused(402, "no credits"), 1, "OutOfCredit"),
        (Fault(says=lambda vendor: vendor.refusal()), 1, "Refused"),
        (cut(), 1, "InDoubt"),
        (after(lambda says: Says(200, "<html>")), 1, "BadAnswer"),
    ],
)
def test_a_command_that_fails_says_why_and_leaves_nothing(at_home, ask, bfl, fault, code, words):
    bfl.faults["submit"] += [fault]
    got, told = ask(*MAKE)
    assert (got, told["error"]["kind"], told["error"]["exit_code"]) == (code, words, code)
    assert "sk-loopback" not in str(told)
    assert not list(Path().iterdir())
    assert bfl.sent == 1


def test_a_command_beyond_the_budget_sends_nothing(at_home, ask, bfl, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_BUDGET_DAY", "0.02")
    code, told = ask(*MAKE)
    assert (code, told["error"]["kind"]) == (2, "OverBudget")
    assert bfl.there.requests == []
