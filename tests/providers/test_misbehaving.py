"""Every vendor when it misbehaves: nothing is paid twice, no file is half one, no key goes astray, no job is lost."""

import logging

import pytest
from emulated import (
    FORBIDDEN,
    VENDORS,
    Bfl,
    Fault,
    OpenAIClips,
    OpenAIPictures,
    OpenAIStream,
    after,
    cut,
    failing,
    led_to,
    mistyped,
    nothing,
    refused,
    short_base64,
    shortened,
    slow,
)
from household import Household, delivered
from loopback import KEY, Says

from triptych.errors import (
    BadAnswer,
    Expired,
    InDoubt,
    KeyRefused,
    OutOfCredit,
    ProviderError,
    RateLimited,
    Refused,
    Unreachable,
)


def pytest_generate_tests(metafunc):
    """Every vendor; where a test is about looking again or about fetching, those that have it."""
    asked = metafunc.fixturenames
    if "vendor" in asked:
        kinds = [kind for kind in VENDORS if kind.polls or "polled" not in asked]
        kinds = [kind for kind in kinds if kind.links or "linked" not in asked]
        metafunc.parametrize("vendor", kinds, indirect=True, ids=lambda kind: kind.__name__)


@pytest.fixture
def vendor(request):
    found = request.param()
    yield found
    found.close()


@pytest.fixture
def polled(vendor):
    """One that does not answer at once."""
    return vendor


@pytest.fixture
def linked(vendor):
    """One whose results lie at a URL."""
    return vendor


@pytest.fixture
def house(vendor, tmp_path, caplog):
    """Checked at the end of every test, whatever it was about."""
    caplog.set_level(logging.DEBUG)
    found = Household(vendor, tmp_path)
    yield found
    found.check(caplog.text)
    found.whole()
    assert len(vendor.works) <= 1, "it was taken in twice"


def test_all_goes_well(vendor, house):
    seen = []
    job = house.make(seen=seen)
    delivered(job, vendor)
    assert (vendor.sent, len(vendor.works)) == (1, 1)
    line = house.line(job.id)
    assert line.state == "settled"
    assert line.cost is None or line.source in ("usage", "list")
    assert seen[0][0] == "queued"
    assert seen[-1][1].fraction == 1.0
    again = house.resume(job.id)  # as if it had never been saved
    assert again.result.artifacts[0].data == job.result.artifacts[0].data
    assert vendor.sent == 1
    assert house.line(job.id) == line


NOT_TAKEN = {
    "a wrong key": (refused(401, f"Incorrect API key provided: {KEY}"), KeyRefused, "failed", 1),
    "a key that may not": (refused(403, "this key may not do that"), KeyRefused, "failed", 1),
    "no credit": (Fault(says=lambda vendor: vendor.broke()), OutOfCredit, "failed", 1),
    "rules": (Fault(says=lambda vendor: vendor.refusal()), Refused, "moderated", 1),
    "a retired model": (refused(404, "The model does not exist"), ProviderError, "failed", 1),
    "a conflict": (refused(409, "conflict"), ProviderError, "failed", 1),
    "too much": (refused(429, "slow down"), RateLimited, "failed", 4),
    "too much, for an hour": (refused(429, "slow down", {"retry-after": "3600"}), RateLimited, "failed", 1),
    "led away": (led_to("http://127.0.0.1:1/v1/elsewhere", 307), ProviderError, "failed", 1),
}


@pytest.mark.parametrize("what", NOT_TAKEN)
def test_what_was_not_taken_in_is_not_paid(vendor, house, what):
    fault, error, state, sent = NOT_TAKEN[what]
    vendor.faults["submit"] += [fault] * 9
    job = house.make()
    assert isinstance(job.error, error), repr(job.error)
    assert not isinstance(job.error, BadAnswer | InDoubt | Unreachable)
    assert (job.state, vendor.sent, vendor.works) == (state, sent, {})
    assert house.line(job.id).state == "released"
    assert (house.found(job.id).state, house.found(job.id).kept) == (state, "")


IN_DOUBT = {
    "500": (failing(500), InDoubt),
    "503, to be asked again": (failing(503, {"retry-after": "1"}), InDoubt),
    "408": (failing(408), InDoubt),
    "cut": (cut(), InDoubt),
    "cut before the first byte": (cut(0), InDoubt),
    "a page": (mistyped(), BadAnswer),
    "nothing": (nothing(), (BadAnswer, ProviderError)),
}


@pytest.mark.parametrize("what", IN_DOUBT)
def test_what_may_have_been_taken_in_is_not_sent_again(vendor, house, what):
    fault, error = IN_DOUBT[what]
    vendor.faults["submit"] += [fault] * 9
    job = house.make()
    assert isinstance(job.error, error), repr(job.error)
    assert (vendor.sent, len(vendor.works)) == (1, 1)
    if type(job.error) is not ProviderError:  # which is the vendor's own word that there is nothing
        assert house.line(job.id).state == "in_doubt"
        assert house.line(job.id).most == (house.line(job.id).price.most if house.line(job.id).price else None)
    if isinstance(job.error, InDoubt):
        assert (job.state, house.found(job.id).state) == ("in_doubt", "in_doubt")
        assert "before you ask again" in str(job.error)


def test_an_answer_that_does_not_come_is_in_doubt(vendor, tmp_path):
    vendor.faults["submit"] += [slow()]
    house = Household(vendor, tmp_path, timeout=0.3)
    job = house.make()
    assert (job.state, vendor.sent, house.line(job.id).state) == ("in_doubt", 1, "in_doubt")
    house.check()


@pytest.mark.parametrize("fault", [short_base64(), shortened()], ids=["base64", "body"])
def test_an_answer_that_is_cut_and_does_not_say_so(vendor, house, fault):
    vendor.faults["submit"] += [fault]
    job = house.make()
    assert (vendor.sent, len(vendor.works)) == (1, 1)
    if job.state != "done":  # what has no base64 in it, or a sound that may as well be shorter
        assert isinstance(job.error, BadAnswer | InDoubt), repr(job.error)
        assert house.line(job.id).state == "in_doubt"
    for path in house.folder.glob("remote/*/[0-9]*"):  # the half that they say is the whole
        path.unlink()


def test_too_much_at_once_is_sent_again_when_it_is_time(vendor, house):
    later = {"retry-after": "Fri, 01 Jan 2123 00:00:30 GMT", "date": "Fri, 01 Jan 2123 00:00:00 GMT"}  # by its clock
    for headers in ({"retry-after": "3"}, {"retry-after-ms": "2500"}, later):
        vendor.faults["submit"].append(refused(429, "slow down", headers))
    delivered(house.make(), vendor)
    assert (vendor.sent, len(vendor.works)) == (4, 1)
    assert house.waits.seconds[:3] == [3.0, 2.5, 30.0]


@pytest.mark.parametrize(
    "fault",
    [
        after(lambda says: Says(200, {"error": {"message": "it broke", "code": "oops"}})),
        after(lambda says: Says(200, {"error": "it broke"})),
        after(lambda says: Says(200, {"status": "failed", "errors": [{"code": "x", "message": "no"}]})),
    ],
    ids=["an object", "a text", "a list"],
)
def test_a_success_with_an_error_inside_is_none(vendor, house, fault):
    vendor.faults["submit"] += [fault]
    job = house.make()
    assert job.state != "done"
    assert isinstance(job.error, ProviderError), repr(job.error)
    assert (vendor.sent, len(vendor.works)) == (1, 1)
    assert house.line(job.id).state in ("released", "in_doubt")


def test_what_the_rules_forbid_is_told_and_not_paid(vendor, house):
    job = house.make(vendor.request(f"something {FORBIDDEN}"))
    assert (job.state, house.line(job.id).state) == ("moderated", "released")
    assert isinstance(job.error, Refused)
    assert vendor.sent == 1


def test_an_account_that_is_empty(vendor, house):
    vendor.balance = 0.5
    job = house.make()
    assert isinstance(job.error, OutOfCredit), repr(job.error)
    assert (vendor.sent, house.line(job.id).state) == (1, "released")


PASSING = {
    "409": [refused(409)],
    "429": [refused(429, "slow down")] * 3,
    "429, in a second": [refused(429, "slow down", {"retry-after": "1"})],
    "500": [failing(500)],
    "503": [failing(503)] * 2,
    "cut": [cut()] * 2,
    "cut at once": [cut(0)] * 3,
}


@pytest.mark.parametrize("what", PASSING)
def test_a_look_is_taken_again(polled, house, what):
    polled.faults["poll"] += PASSING[what]
    delivered(house.make(), polled)
    assert (polled.sent, len(polled.works)) == (1, 1)


@pytest.mark.parametrize("kind", [Bfl, OpenAIClips])
def test_a_look_that_is_not_answered_is_taken_again(kind, tmp_path):
    vendor = kind()
    vendor.faults["poll"] += [slow()]
    house = Household(vendor, tmp_path, timeout=0.5)
    delivered(house.make(), vendor)
    assert vendor.sent == 1
    house.check()
    vendor.close()


LASTING = {
    "401": refused(401, f"Incorrect API key provided: {KEY}"),
    "403": refused(403, "this key may not look"),
    "429": refused(429, "slow down"),
    "429, for an hour": refused(429, "slow down", {"retry-after": "3600"}),
    "500": failing(500),
    "503": failing(503),
    "404": refused(404, "no such job"),
    "cut": cut(),
    "a page": mistyped(),
    "nothing": nothing(),
    "shortened": after(lambda says: Says(200, says.bytes()[:10])),
    "a foreign host": led_to("http://localhost:1/v1/elsewhere"),
    "a host that looks like theirs": led_to("https://api.bfl.ai.evil.example/"),
    "no URL": led_to("http://[::1"),
    "in circles": led_to("?again"),
}


@pytest.mark.parametrize("what", LASTING)
def test_a_job_that_cannot_be_looked_at_is_not_lost(polled, house, what):
    polled.faults["poll"] += [LASTING[what]] * 40
    job = house.make()
    assert job.state == "failed"
    assert isinstance(job.error, ProviderError), repr(job.error)
    assert (polled.sent, len(polled.works)) == (1, 1)
    assert house.found(job.id).kept.startswith("1 at ")
    assert house.line(job.id).state in ("reserved", "in_doubt")
    polled.faults["poll"].clear()
    delivered(house.resume(job.id), polled)
    assert polled.sent == 1
    assert house.line(job.id).state == "settled"


def test_a_redirect_to_a_stranger_is_not_followed(polled, house):
    polled.faults["poll"] += [led_to(f"{polled.stranger.url}/v1/steal")] * 9
    job = house.make()
    assert isinstance(job.error, BadAnswer)
    assert "not its own" in str(job.error)
    assert polled.stranger.requests == []
    polled.faults["poll"].clear()
    delivered(house.resume(job.id), polled)


def test_what_never_ends_is_left_with_the_vendor(polled, tmp_path, caplog):
    polled.endless = True
    house = Household(polled, tmp_path, deadline=0.3)
    job = house.make()
    assert (job.state, type(job.error)) == ("failed", ProviderError)
    assert "not done after" in str(job.error)
    assert house.line(job.id).state == "reserved"
    polled.endless = False
    delivered(house.resume(job.id), polled)
    assert polled.sent == 1
    house.check(caplog.text)


def test_a_job_that_is_done_twice_is_paid_once(polled, house):
    job = house.make()
    delivered(job, polled)
    before = house.line(job.id)
    again = house.resume(job.id)
    delivered(again, polled)
    assert house.line(job.id) == before
    assert polled.sent == 1


FETCHES = {
    "cut twice": [cut(0.4), cut(0.7)],
    "cut at once": [cut(0)] * 2,
    "503": [failing(503, {"retry-after": "2"})] * 2,
    "429": [refused(429)] * 2,
}


@pytest.mark.parametrize("what", FETCHES)
def test_a_result_is_fetched_whole(linked, house, what):
    linked.faults["fetch"] += [
        Fault(says=Says(429, "slow down")) if not fault.taken else fault for fault in FETCHES[what]
    ]
    delivered(house.make(), linked)
    places = [*linked.stranger.requests, *linked.there.asked("GET", ".*/content")]
    ranges = [one.headers.get("range") for one in places]
    assert len(ranges) == 3
    if what == "cut twice":
        begun = int(len(linked.data) * 0.4)
        assert ranges[:2] == [None, f"bytes={begun}-"]
        assert int(ranges[2].removeprefix("bytes=").rstrip("-")) > begun


def test_a_result_that_does_not_come_waits(linked, tmp_path, caplog):
    linked.faults["fetch"] += [cut()] * 20
    house = Household(linked, tmp_path)
    job = house.make()
    assert isinstance(job.error, Unreachable)
    assert house.found(job.id).kept.startswith("1 at ")
    assert house.line(job.id).state == "reserved"
    house.whole()
    linked.faults["fetch"].clear()
    delivered(house.resume(job.id), linked)
    place = [*linked.stranger.requests, *linked.there.asked("GET", ".*/content")][-1]
    assert int(place.headers["range"].removeprefix("bytes=").rstrip("-")) > 0  # what had come need not come again
    assert linked.sent == 1
    house.check(caplog.text)


def test_a_result_that_is_a_page_is_none(linked, house):
    linked.faults["fetch"] += [mistyped()]
    job = house.make()
    assert isinstance(job.error, BadAnswer)
    assert house.line(job.id).state == "in_doubt"
    for path in house.folder.glob("remote/*/[0-9]*"):  # it is kept for a look, and is no result
        path.unlink()


def test_a_url_that_has_expired_is_asked_for_anew(linked, house):
    gone = Fault(says=Says(403, "<Error><Code>AccessDenied</Code></Error>"))
    if linked.name == "openai":
        gone = Fault(says=Says(404, {"error": {"message": "expired"}}))
    linked.faults["fetch"] += [gone]
    job = house.make()
    if linked.polls:
        delivered(job, linked)
        assert house.line(job.id).state == "settled"
    else:
        assert (job.state, type(job.error)) == ("expired", Expired)
    assert linked.sent == 1


def test_a_result_that_is_gone_was_paid_for(linked, house):
    linked.faults["fetch"] += [Fault(says=Says(410, "gone"))] * 9
    job = house.make()
    assert (job.state, type(job.error)) == ("expired", Expired)
    line = house.line(job.id)
    assert line.state == "settled"
    assert line.cost == (line.price.most if line.price else None)
    assert house.found(job.id).kept == ""


@pytest.mark.parametrize("kind", [OpenAIStream])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.99])
def test_a_stream_that_is_cut_is_in_doubt(kind, share, tmp_path, caplog):
    vendor = kind()
    vendor.faults["submit"] += [cut(share)]
    house = Household(vendor, tmp_path)
    job = house.make()
    if job.state == "done":  # the picture was there when it was cut
        assert share > 0.5
    else:
        assert (job.state, vendor.sent, house.line(job.id).state) == ("in_doubt", 1, "in_doubt")
    house.check(caplog.text)
    vendor.close()


def test_without_a_connection_nothing_is_sent(tmp_path, caplog):
    vendor = OpenAIPictures()
    vendor.close()
    house = Household(vendor, tmp_path)
    job = house.make()
    assert (job.state, type(job.error), house.line(job.id).state) == ("failed", Unreachable, "released")
    assert len(house.waits.seconds) == 3
    house.check(caplog.text)


@pytest.mark.parametrize("status", [200, 500])
def test_a_key_that_is_said_back_is_hidden(polled, house, status):
    """In the words of a failure, in a status and in what a recipe would keep."""
    said = after(lambda says: Says(status, {"error": {"message": KEY}, "status": f"failed {KEY}", "id": "w1"}))
    polled.faults["poll"] += [said] * (1 if status == 500 else 3)
    house.make()
