"""The wire alone: what is sent again and when, where the key goes, and files that come whole or not at all."""

import asyncio
import logging
import re
import socket
import threading
import time
import traceback
from dataclasses import replace as changed

import pytest
from emulated import VENDORS, Waits, ranged
from loopback import KEY, Loopback, Says, account

from triptych.errors import (
    BadAnswer,
    Expired,
    FileProblem,
    InDoubt,
    KeyRefused,
    NotSetUp,
    ProviderError,
    RateLimited,
    RequestError,
    Unreachable,
)
from triptych.providers.wire import partial
from triptych.providers.wire.account import Account, Secret, Spec, bare, leads
from triptych.providers.wire.http import Pace, Wire, ask_once
from triptych.providers.wire.vendor import Part, Reply, explained, parsed

DATA = bytes(range(256)) * 400


def explain(reply):
    return explained("Somebody", reply, reply.body.decode(errors="replace"))


@pytest.fixture
def there():
    server = Loopback()
    yield server
    server.close()


@pytest.fixture
def stranger():
    server = Loopback()
    server.on("GET", ".*", lambda asked: ranged(asked, DATA))
    yield server
    server.close()


@pytest.fixture
def waits():
    return Waits()


@pytest.fixture
def wired(there, waits):
    """Runs a story with a wire to the server."""

    def run(story, **rest):
        async def told():
            pace = Pace(tries=4, first=0.001, most=0.002, patience=60.0, poll=0.001, wait=waits)
            async with Wire(account("bfl", rest.pop("base_url", there.url), **rest), explain, pace) as wire:
                return await story(wire)

        return asyncio.run(told())

    return run


def pays(wired, **said):
    return wired(lambda wire: wire.pay("make", **{"json": {"prompt": "a fox"}, **said}))


def asks(wired, **rest):
    return wired(lambda wire: wire.ask("job/1"), **rest)


def fetches(wired, url, place, **said):
    wired(lambda wire: wire.fetch(url, place, **said))
    assert place.read_bytes() == DATA
    assert [path for path in place.parent.iterdir() if path != place] == []


# what is sent again


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 408])
def test_a_paid_request_that_may_have_been_taken_in_is_in_doubt(there, wired, waits, status):
    there.on("POST", "/make", Says(status, "oops", {"retry-after": "1"}))
    with pytest.raises(InDoubt, match="may have been made and charged"):
        pays(wired)
    assert (len(there.requests), waits.seconds) == (1, [])


@pytest.mark.parametrize("status", [300, 302, 307, 400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422, 425, 451])
def test_a_paid_request_that_was_turned_away_is_not_repeated(there, wired, status):
    there.on("POST", "/make", Says(status, "no", {"location": "/elsewhere"}))
    with pytest.raises(ProviderError) as caught:
        pays(wired)
    assert not isinstance(caught.value, InDoubt)
    assert len(there.requests) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "2500"}, 2.5),
        ({"retry-after-ms": "2500", "retry-after": "9"}, 2.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 9.0),
        ({"retry-after": "Fri, 01 Jan 2123 00:00:30 GMT", "date": "Fri, 01 Jan 2123 00:00:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:28:09 GMT"}, 0.0),
        ({"retry-after": "Wednesday, 21-Oct-15 07:28:09 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 9.0),
        ({"retry-after": "Wed Oct 21 07:28:09 2015", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:09 GMT", "date": "yesterday"}, 0.0),  # by our clock, long ago
    ],
)
def test_how_long_to_wait_is_the_vendors_word_by_its_own_clock(there, wired, waits, monkeypatch, headers, seconds):
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # where a date without a zone would be nine hours off
    time.tzset()
    there.on("POST", "/make", Says(429, "slow down", headers), Says(body={"id": 1}))
    assert pays(wired).json() == {"id": 1}
    assert waits.seconds == [seconds]
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "word",
    ["", "nan", "inf", "-inf", "soon", "1e999", "Wed, 99 Oct 2015 99:28:09 GMT", "Wed, 21 Oct 99999 07:28:09 GMT"],
)
def test_a_word_that_says_no_time_is_none(there, wired, waits, word):
    there.on("POST", "/make", Says(429, "slow down", {"retry-after": word}), Says(body={"id": 1}))
    pays(wired)
    assert len(waits.seconds) == 1
    assert 0.0004 < waits.seconds[0] <= 0.001  # the wire's own pace, jittered


def test_too_long_is_not_waited_for(there, wired, waits):
    there.on("POST", "/make", Says(429, "slow down", {"retry-after": "61"}))
    with pytest.raises(RateLimited, match="in 61 s"):
        pays(wired)
    assert (len(there.requests), waits.seconds) == (1, [])


def test_at_some_time_one_gives_up(there, wired, waits):
    there.on("POST", "/make", Says(429, "slow down"))
    with pytest.raises(RateLimited):
        pays(wired)
    assert len(there.requests) == 4
    assert len(waits.seconds) == 3


def test_pauses_grow_and_are_jittered():
    pace = Pace(first=1.0, most=8.0)
    for attempt, longest in enumerate([1.0, 2.0, 4.0, 8.0, 8.0]):
        found = [pace.between(attempt) for _ in range(200)]
        assert longest / 2 <= min(found) < longest * 0.6
        assert longest * 0.9 < max(found) <= longest


def test_a_connection_that_is_refused_is_tried_again(wired, waits):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="Nothing was sent"):
            wired(lambda wire: wire.pay("make", json={}), base_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert len(waits.seconds) == 3


@pytest.mark.parametrize(
    "says",
    [
        Says(body={"id": 1}, cut=3),
        Says(body=b"123", cut=0),
        Says(slow=30),
        Says(body=b"gzip", headers={"content-encoding": "gzip"}),
    ],
)
def test_an_answer_that_does_not_come_whole_is_in_doubt(there, wired, says):
    there.on("POST", "/make", says)
    with pytest.raises(InDoubt):
        wired(lambda wire: wire.pay("make", json={}), timeout=0.3)
    assert len(there.requests) == 1


def raw(answer):
    """A server that answers the first request with these bytes and hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listening, listening.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"\0" * 99,
        b"HTTP/1.1 999999 ?\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_in_doubt(wired, answer):
    with pytest.raises(InDoubt):
        wired(lambda wire: wire.pay("make", json={}), base_url=raw(answer))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_what_costs_nothing_is_asked_again(there, wired, status):
    there.on("GET", "/job/1", Says(status, "later", {"retry-after": "2"}), Says(status), Says(body={"id": 1}))
    assert asks(wired).json() == {"id": 1}
    assert len(there.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 501])
def test_what_will_not_change_is_not_asked_again(there, wired, status):
    there.on("GET", "/job/1", Says(status, "no"))
    with pytest.raises(ProviderError):
        asks(wired)
    assert len(there.requests) == 1


def test_what_is_cut_or_does_not_come_is_asked_again(there, wired):
    there.on(
        "GET", "/job/1", Says(body={"id": 1}, cut=2), Says(slow=30), Says(body=b"123", cut=0), Says(body={"id": 1})
    )
    assert asks(wired, timeout=0.3).json() == {"id": 1}


# what cannot be sent


@pytest.mark.parametrize(
    "said",
    [
        {"json": {"prompt": "a \udce9 fox"}},
        {"json": {"strength": float("nan")}},
        {"json": {"strength": object()}},
        {"json": None, "parts": [Part("prompt", "a \udce9 fox")]},
        {"params": {"format": "\udce9"}},
        {"headers": {"x-priority": "höher"}},
        {"headers": {"x-priority": "a\r\nx-key: b"}},
        {"headers": {"x-priority": "a\0b"}},
    ],
)
def test_what_cannot_be_written_is_not_sent(there, wired, said):
    with pytest.raises(RequestError, match="Nothing was sent") as caught:
        pays(wired, **said)
    assert there.requests == []
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "socks9://a", "http://:x", "::::"])
def test_a_proxy_that_cannot_be_is_told_without_its_password(there, wired, proxy):
    secret = proxy.replace("://", "://me:pa55word@")
    with pytest.raises(NotSetUp, match="proxy") as caught:
        wired(lambda wire: wire.pay("make", json={}), proxy=secret)
    assert "pa55word" not in "".join(traceback.format_exception(caught.value))
    assert there.requests == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://me:pw@host:1/path", "http://host:1/path"), ("http://host/a@b", "http://host/a@b"), ("host", "host")],
)
def test_urls_are_shown_without_passwords(url, shown):
    assert bare(url) == shown


def test_a_proxy_is_gone_through(there, wired, stranger):
    """Of plain http, as a gateway in the house may speak it, the proxy sees all; nothing goes around it."""
    proxy = Loopback()
    proxy.on("POST", ".*", Says(body={"by": "proxy"}))
    assert wired(lambda wire: wire.pay("make", json={}), proxy=proxy.url).json() == {"by": "proxy"}
    assert proxy.requests[0].path == f"{there.url}/make"
    assert there.requests == []
    proxy.close()


def test_of_https_a_proxy_sees_no_key(wired):
    proxy = Loopback()
    proxy.on("CONNECT", ".*", Says(403, "not through here"))
    with pytest.raises(Unreachable, match="Nothing was sent"):
        wired(lambda wire: wire.pay("make", json={}), base_url="https://api.bfl.ai", proxy=proxy.url)
    assert not any(KEY in f"{one.path}{one.headers}{one.body}" for one in proxy.requests)
    proxy.close()


# where the key goes


SPEC = Spec("bfl", "Somebody", "https://api.bfl.ai", ("bfl.ai", "queue.fal.run"), ("BFL_API_KEY",), "x-key", "")


@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("https://api.bfl.ai/v1", True),
        ("https://bfl.ai", True),
        ("https://delivery.eu.bfl.ai/a?b", True),
        ("HTTPS://API.BFL.AI/v1", True),
        ("https://api.bfl.ai:8443/v1", True),
        ("https://queue.fal.run/x", True),
        ("http://api.bfl.ai/v1", False),  # in the open
        ("https://api.bfl.ai.evil.com/", False),
        ("https://evilbfl.ai/", False),
        ("https://evil.com/api.bfl.ai", False),
        ("https://evil.com?api.bfl.ai", False),
        ("https://evil.com#@api.bfl.ai", False),
        ("https://api.bfl.ai@evil.com/", False),
        ("https://api.bfl.ai%2eevil.com/", False),
        ("https://api.bfl.ai\uff0eevil.com/", False),
        ("https://fal.run/x", False),
        ("//api.bfl.ai/v1", False),
        ("https:api.bfl.ai", False),
        ("https:///api.bfl.ai", False),
        ("https://[::1", False),
        ("https://api.bfl.ai:99999/", False),
        ("https://api.bfl.ai:x/", False),
        ("ftp://api.bfl.ai/", False),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("https://api.bfl.ai/\r\nx-key: 1", False),
        ("", False),
    ],
)
def test_where_the_key_may_go(url, home):
    found = Account(SPEC, Secret(KEY), "https://api.bfl.ai")
    assert found.belongs(url) is home
    assert not home or leads(url)


@pytest.mark.parametrize(("base", "url", "home"), [
    ("http://localhost:8000/v1", "http://localhost:8000/x", True),
    ("http://localhost:8000/v1", "http://localhost:8001/x", False),
    ("http://localhost:8000/v1", "https://localhost:8000/x", False),
    ("http://localhost/v1", "http://localhost:80/x", True),
    ("http://localhost:8000/v1", "http://LOCALHOST:8000/x", True),
    ("http://localhost:8000/v1", "http://localhost.evil.com:8000/x", False),
    ("https://gateway.example/v1", "http://gateway.example/v1", False),
    ("https://gateway.example/v1", "https://sub.gateway.example/v1", False),
    ("https://gateway.example/v1", "https://api.bfl.ai/v1", True),
])  # fmt: skip
def test_at_a_gateway_the_key_stays_with_its_origin(base, url, home):
    assert Account(SPEC, Secret(KEY), base).belongs(url) is home


def test_redirects_of_a_look_are_followed_at_home_only(there, stranger, wired):
    there.on("GET", "/job/1", Says(307, headers={"location": "/job/2"}))
    there.on("GET", "/job/2", Says(301, headers={"location": f"{there.url}/job/3"}))
    there.on("GET", "/job/3", Says(body={"id": 3}))
    assert asks(wired).json() == {"id": 3}
    assert [one.headers["x-key"] for one in there.requests] == [KEY] * 3
    there.on("GET", "/away", Says(302, headers={"location": f"{stranger.url}/job"}))
    there.on("GET", "/near", Says(302, headers={"location": there.url.replace("127.0.0.1", "localhost") + "/job/3"}))
    there.on("GET", "/round", Says(302, headers={"location": "/round"}))
    there.on("GET", "/odd", Says(302, headers={"location": "http://127.0.0.1:99999/"}))
    there.on("GET", "/bare", Says(302))
    for path in ("away", "near", "round", "odd", "bare"):
        with pytest.raises(ProviderError) as caught:
            wired(lambda wire, path=path: wire.ask(path))
        assert isinstance(caught.value, BadAnswer | Unreachable)
    assert stranger.requests == []


def test_a_url_out_of_an_answer_gets_the_key_at_home_only(there, stranger, wired):
    for url in (stranger.url, "http://[::1", "https://evil.example/a", "http://127.0.0.1:x/", "ftp://127.0.0.1/"):
        with pytest.raises(BadAnswer, match="the key was not sent"):
            wired(lambda wire, url=url: wire.ask(url))
        with pytest.raises(BadAnswer, match="the key was not sent"):
            wired(lambda wire, url=url: wire.pay(url, json={}))
    assert stranger.requests == there.requests == []


def test_a_result_is_fetched_from_anywhere_and_the_key_from_home_only(there, stranger, wired, tmp_path):
    there.on("GET", "/mine", lambda asked: ranged(asked, DATA))
    there.on("GET", "/led", Says(302, headers={"location": f"{stranger.url}/signed"}))
    stranger._rules.insert(0, ("GET", re.compile("/back"), [Says(302, headers={"location": f"{there.url}/mine"})]))
    fetches(wired, f"{stranger.url}/signed", tmp_path / "a", keyed=True)
    (tmp_path / "a").unlink()
    fetches(wired, "led", tmp_path / "a", keyed=True)
    assert not any(KEY in str(one.headers) for one in stranger.requests)
    assert [one.headers.get("x-key") for one in there.requests] == [KEY]
    (tmp_path / "a").unlink()
    fetches(wired, f"{stranger.url}/back", tmp_path / "a", keyed=True)
    assert there.requests[-1].headers.get("x-key") == KEY
    (tmp_path / "a").unlink()
    fetches(wired, "mine", tmp_path / "a", keyed=False)
    assert there.requests[-1].headers.get("x-key") is None


def test_a_result_does_not_lead_from_https_into_the_open(wired, tmp_path):
    """Told by the answer alone: there is no certificate for a server in a test."""
    import httpx

    def answer(request):
        return httpx.Response(302, headers={"location": "http://127.0.0.1:1/signed"})

    async def story(wire):
        wire._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        await wire.fetch("https://cdn.example/a", tmp_path / "a")

    with pytest.raises(BadAnswer, match="from https to something else"):
        wired(story)


def test_what_is_asked_before_anything_is_sent_keeps_the_key_at_home(there, stranger):
    there.on("GET", "/led", Says(302, headers={"location": f"{stranger.url}/x"}))
    assert ask_once(account("bfl", there.url), f"{there.url}/led").status == 200
    assert there.requests[0].headers["x-key"] == KEY
    assert "x-key" not in stranger.requests[0].headers
    for url in ("http://[::1", "http://127.0.0.1:99999/", f"{there.url}/\udce9", "nowhere"):
        with pytest.raises(Unreachable):
            ask_once(account("bfl", there.url), url)


def test_a_key_that_is_said_back_is_hidden_however_long_the_words(there, wired, caplog):
    caplog.set_level(logging.DEBUG)
    for place in range(470, 500):  # where the words are cut
        there.on("GET", f"/job/{place}", Says(400, "x" * place + KEY + "y" * 99))
        with pytest.raises(ProviderError) as caught:
            wired(lambda wire, place=place: wire.ask(f"job/{place}"))
        assert "sk-l" not in str(caught.value)
    assert "sk-l" not in caplog.text
    there.on("POST", "/make", Says(500, KEY))
    with pytest.raises(InDoubt) as caught:
        pays(wired)
    assert "sk-l" not in "".join(traceback.format_exception(caught.value))


# files that come


def test_a_cut_result_is_gone_on_from(stranger, there, wired, tmp_path):
    there.on(
        "GET",
        "/file",
        lambda a: changed(ranged(a, DATA), cut=30_000),
        lambda a: changed(ranged(a, DATA), cut=9),
        lambda a: ranged(a, DATA),
    )
    fetches(wired, "file", tmp_path / "a")
    assert [one.headers.get("range") for one in there.requests] == [None, "bytes=30000-", "bytes=30009-"]
    assert {one.headers["accept-encoding"] for one in there.requests} == {"identity"}


def ignores(asked):
    return Says(200, DATA, {"etag": '"v1"'})


def anew(asked):
    """Another file of the same length lies there now."""
    return ranged(asked, DATA, '"v2"')


def shifted(asked):
    return Says(206, DATA[99:], {"etag": '"v1"', "content-range": f"bytes 99-{len(DATA) - 1}/{len(DATA)}"})


def unsaid(asked):
    return Says(206, DATA[30_000:], {"etag": '"v1"'})


def odd(asked):
    return Says(206, DATA[30_000:], {"etag": '"v1"', "content-range": "bytes */5"})


def none(asked):
    return Says(416, b"", {"content-range": "bytes */5"})


@pytest.mark.parametrize("second", [ignores, anew, shifted, unsaid, odd, none])
@pytest.mark.parametrize(
    "tag", [{"etag": '"v1"'}, {"last-modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"etag": 'W/"v1"'}, {}]
)
def test_what_is_not_more_of_the_same_begins_anew(there, wired, tmp_path, second, tag):
    other = bytes(len(DATA))
    first = Says(200, other, tag, cut=30_000)  # of what lay there before
    there.on("GET", "/file", first, second if second is not ignores or "etag" in tag else anew, ignores)
    wired(lambda wire: wire.fetch("file", tmp_path / "a"))
    assert len((tmp_path / "a").read_bytes()) == len(DATA)
    if tag != {"etag": '"v1"'} or second in (anew, ignores):
        assert (tmp_path / "a").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_after_a_restart_it_is_gone_on_from_the_same_only(there, wired, tmp_path):
    there.on("GET", "/file", lambda a: changed(ranged(a, DATA), cut=30_000 if "range" not in a.headers else 5))
    with pytest.raises(Unreachable, match="triptych resume"):
        wired(lambda wire: wire.fetch("file", tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    [part] = tmp_path.iterdir()
    assert DATA.startswith(part.read_bytes())
    assert partial.here(tmp_path / "a") == part.stat().st_size > 30_000
    second = Loopback()
    second.on("GET", "/file", lambda asked: ranged(asked, DATA))
    fetches(wired, f"{second.url}/file", tmp_path / "a")  # under another URL, by its mark
    assert second.requests[0].headers["range"] == f"bytes={30_015}-"
    second.close()


def test_a_server_that_gives_a_piece_at_a_time(there, wired, tmp_path):
    def piece(asked):
        begin = int(asked.headers.get("range", "bytes=0-")[6:-1])
        end = min(begin + 40_000, len(DATA))
        return Says(206, DATA[begin:end], {"etag": '"v1"', "content-range": f"bytes {begin}-{end - 1}/{len(DATA)}"})

    there.on("GET", "/file", piece)
    fetches(wired, "file", tmp_path / "a")
    assert len(there.requests) == 3


def test_what_is_packed_is_unpacked_and_begun_anew_where_it_is_cut(there, wired, tmp_path):
    import gzip

    packed = Says(200, gzip.compress(DATA), {"content-encoding": "gzip", "etag": '"v1"'})
    there.on("GET", "/file", changed(packed, cut=50), packed)
    fetches(wired, "file", tmp_path / "a")
    assert "range" not in there.requests[1].headers


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_what_is_gone_leaves_nothing_behind(there, wired, tmp_path, status):
    there.on("GET", "/file", lambda a: changed(ranged(a, DATA), cut=30_000), Says(status, "gone"))
    with pytest.raises(Expired, match="is paid for"):
        wired(lambda wire: wire.fetch("file", tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403])
def test_where_the_key_is_not_taken_the_result_still_waits(there, wired, tmp_path, status):
    there.on("GET", "/file", lambda a: changed(ranged(a, DATA), cut=30_000), Says(status, f"no {KEY}"))
    with pytest.raises(KeyRefused) as caught:
        wired(lambda wire: wire.fetch("file", tmp_path / "a", keyed=True))
    assert KEY not in str(caught.value)
    assert partial.here(tmp_path / "a") == 30_000


def test_fetches_wait_as_they_are_told(there, wired, waits, tmp_path):
    there.on(
        "GET",
        "/file",
        Says(503, headers={"retry-after": "7"}),
        Says(429, headers={"retry-after-ms": "1500"}),
        lambda a: ranged(a, DATA),
    )
    fetches(wired, "file", tmp_path / "a")
    assert waits.seconds == [7.0, 1.5]
    there.on("GET", "/later", Says(503, headers={"retry-after": "3600"}))
    with pytest.raises(Unreachable, match="in 3600 s"):
        wired(lambda wire: wire.fetch("later", tmp_path / "b"))
    assert len(there.asked("GET", "/later")) == 1


def test_a_full_disk_is_told_and_leaves_no_file(there, wired, tmp_path, monkeypatch):
    there.on("GET", "/file", lambda a: ranged(a, DATA))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileProblem, match="No space left"):
        wired(lambda wire: wire.fetch("file", tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    monkeypatch.undo()
    fetches(wired, "file", tmp_path / "a")


def test_what_is_larger_than_anything_is_not_fetched(there, wired, tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "LARGEST", 1000)
    there.on("GET", "/file", lambda a: ranged(a, DATA))
    with pytest.raises(BadAnswer, match="larger than"):
        wired(lambda wire: wire.fetch("file", tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


# answers that stream


def sse(*events, end=b""):
    return Says(
        200, b"".join(b"event: %s\ndata: %s\n\n" % one for one in events) + end, {"content-type": "text/event-stream"}
    )


async def heard(wire):
    return [event async for event in wire.events("make", json={})]


def test_events_are_read_one_by_one(there, wired):
    there.on(
        "POST",
        "/make",
        sse(
            (b"a", b'{"x": 1}'),
            (b"b", b"[1]"),
            (b"c", b"{"),
            (b"d", b"[" * 9999),
            (b"e", b'{"x": NaN}'),
            (b"", b"[DONE]"),
        ),
    )
    assert wired(heard) == [("a", {"x": 1}), ("e", {"x": None})]


def test_the_last_event_needs_no_blank_line(there, wired):
    there.on("POST", "/make", sse((b"a", b"{}"), end=b'event: b\ndata: {"x": 2}'))
    assert wired(heard) == [("a", {}), ("b", {"x": 2})]


def test_a_program_that_prints_the_key_holds_up_nothing_else(there):
    there.on("GET", "/job/1", Says(200, {}))
    began = threading.Event()

    def printing():
        assert began.wait(30)
        return "printed"

    async def asked():
        slow = changed(account("bfl", there.url), key=Secret(printing))
        async with Wire(slow, explain) as wire:
            asking = asyncio.create_task(wire.ask("job/1"))
            await asyncio.sleep(0.05)
            began.set()  # which no task could do, were the loop to wait
            await asking

    asyncio.run(asked())
    assert there.asked("GET")[0].headers["x-key"] == "printed"


@pytest.mark.parametrize(
    "says", [changed(sse((b"a", b"{}"), (b"b", b"{}")), cut=30), Says(500), Says(slow=30), Says(408)]
)
def test_a_stream_that_breaks_is_in_doubt(there, wired, says):
    there.on("POST", "/make", says)
    with pytest.raises(InDoubt):
        wired(heard, timeout=0.3)
    assert len(there.requests) == 1


def test_a_stream_is_asked_for_again_where_it_was_turned_away(there, wired, waits):
    there.on("POST", "/make", Says(429, headers={"retry-after": "2"}), sse((b"a", b"{}")))
    assert wired(heard) == [("a", {})]
    assert waits.seconds == [2.0]


# what comes is read with care


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": NaN, "b": [Infinity, -Infinity, 1e999, 1.5]}', {"a": None, "b": [None, None, None, 1.5]}),
        ('{"seed": 18446744073709551615}', {"seed": 2**64 - 1}),
        ('{"seed": ' + "9" * 99 + "}", {"seed": None}),
        ('"\\ud800"', "\ud800"),
    ],
)
def test_numbers_that_nobody_can_count_with_are_none(text, value):
    assert parsed(text) == value
    assert parsed(text.encode()) == value


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 10**5, b"\xff\xfe\xfd", b"null", b"[]", b"1", b'"x"', b"<html>"])
def test_what_is_no_object_is_a_bad_answer(body):
    with pytest.raises(BadAnswer):
        Reply(200, {}, body).json()


ODD = (
    b"",
    b"null",
    b"1",
    b'"text"',
    b"[]",
    b"[[1], null]",
    b"{}",
    b'{"error": null, "detail": null, "errors": null, "message": null}',
    b'{"error": 1, "detail": 2, "errors": 3, "message": 4, "status": 5, "name": 6, "title": 7}',
    b'{"error": [], "detail": [], "errors": {}, "message": {}}',
    b'{"error": {"message": {"a": [1]}, "code": ["x"], "status": {}, "details": 5, "type": null}}',
    b'{"detail": [1, null, {"loc": 5, "msg": null, "type": 7}, {"loc": [1, null]}, []]}',
    b'{"detail": {"status": 1, "message": null, "data": 5, "code": {}}}',
    b'[{"error": {"message": "x", "details": [1, {"violations": [2], "reason": 3}]}}]',
    b'{"error": "\\ud800", "detail": "\\ud800"}',
    b"[" * 10**5,
    b"<html><body>" + b"x" * 10**5,
    bytes(range(256)),
)


@pytest.mark.parametrize("kind", VENDORS, ids=lambda kind: kind.__name__)
def test_odd_words_of_a_failure_are_a_failure(kind):
    told = kind()
    vendor = told.vendor(lambda: account(told.name, told.there.url))
    told.close()
    for body in ODD:
        for status in (400, 401, 402, 403, 404, 409, 422, 429, 500):
            for headers in ({}, {"content-type": "text/plain", "x-fal-error-type": "odd"}):
                problem = vendor.explain(Reply(status, headers, body))
                assert isinstance(problem, ProviderError)
                assert not isinstance(problem, InDoubt | Unreachable)
                assert len(str(problem)) < 1000
