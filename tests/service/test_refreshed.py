"""`models --refresh` against lists on this machine: what is asked, with whose key, and what stays without an answer."""

import json
import threading
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from triptych.catalogue import entries, use
from triptych.providers.wire.account import Account, Secret, Spec
from triptych.providers.wire.http import Pace
from triptych.providers.wire.lists import PRICES
from triptych.service.refresh import refreshed

TODAY = date(2026, 12, 20)
ONCE = Pace(tries=1)
LISTS = {
    "/v1/models": {"data": [{"id": "gpt-image-2", "shutdown_date": "2027-06-01"}, {"id": "gpt-image-3"}]},
    "/v1/models?pageSize=1000": {"models": [{"name": "models/lyria-3.5"}], "nextPageToken": "more"},
    "/v1/models?pageSize=1000&pageToken=more": {"models": [{"name": "models/gemini-3-pro-image"}]},
    "/map.json": {"gemini/lyria-3.5": {"output_cost_per_image": 0.09}},
}


@pytest.fixture
def lists():
    """A server with three lists: (its address, what it answers, what was asked)."""
    answers, asked = dict(LISTS), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            answer = answers.get(self.path)
            status = answer if isinstance(answer, int) else 200
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, asked
    server.shutdown()
    thread.join()
    server.server_close()
    use(None)


def accounts(address):
    openai = Spec("openai", "OpenAI", f"{address}/v1", ("openai.com",), ("OPENAI_API_KEY",))
    google = Spec(
        "google", "Google", address, ("googleapis.com",), ("GEMINI_API_KEY",), header="x-goog-api-key", prefix=""
    )
    prices = replace(PRICES, base_url=f"{address}/map.json")
    keyed = [Account(spec, Secret(f"key-of-{spec.name}"), spec.base_url) for spec in (openai, google)]
    return [*keyed, Account(prices, None, prices.base_url)]


def test_all_lists_are_asked_and_kept(lists, tmp_path):
    address, _, asked = lists
    place = tmp_path / "data" / "catalogue.json"
    report = refreshed(place, accounts(address), TODAY, ONCE)
    assert (report.failed, report.left) == ({}, {})
    assert report.asked == {"openai": 1, "google": 2, "prices": 1}
    told = {str(change) for change in report.changes if change.what != "missing"}
    assert told == {
        "gpt-image-2: shut down on 2027-06-01 (no date before)",
        "gpt-image-3: new in the list of openai; nothing else is known of it yet",
        "lyria-3.5: song $0.09 ($0.08 before)",
    }
    keys = {path: headers.get("authorization") or headers.get("x-goog-api-key") for path, headers in asked}
    small = {path: {name.lower(): value for name, value in headers.items()} for path, headers in asked}
    assert set(keys) == set(LISTS)
    assert small["/v1/models"]["authorization"] == "Bearer key-of-openai"
    assert small["/v1/models?pageSize=1000"]["x-goog-api-key"] == "key-of-google"
    assert not {"authorization", "x-goog-api-key"} & set(small["/map.json"])
    assert entries()["gpt-image-2"].lifecycle.ends == date(2027, 6, 1)
    assert entries()["lyria-3.5"].prices[0].dollars == 0.09
    assert entries()["gemini-3-pro-image"].lifecycle.checked == TODAY
    assert json.loads(place.read_text())["version"] == 1
    assert "key-of" not in place.read_text()
    assert [path.name for path in place.parent.iterdir()] == ["catalogue.json"]


def test_the_second_time_nothing_is_new_but_what_is_unknown(lists, tmp_path):
    place = tmp_path / "catalogue.json"
    refreshed(place, accounts(lists[0]), TODAY, ONCE)
    again = refreshed(place, accounts(lists[0]), TODAY, ONCE)
    assert {change.what for change in again.changes} == {"new", "missing"}
    assert entries()["lyria-3.5"].prices[0].dollars == 0.09


def test_without_keys_the_price_map_alone_is_asked(lists, tmp_path):
    address, _, asked = lists
    without = [replace(account, key=None) for account in accounts(address)]
    report = refreshed(tmp_path / "catalogue.json", without, TODAY, ONCE)
    assert report.left == {"openai": "no key: set OPENAI_API_KEY", "google": "no key: set GEMINI_API_KEY"}
    assert (report.asked, report.failed) == ({"prices": 1}, {})
    assert [path for path, _ in asked] == ["/map.json"]


def test_a_gateways_list_is_not_the_vendors(lists, tmp_path):
    address, _, asked = lists
    openai, *_ = accounts(address)
    report = refreshed(tmp_path / "c.json", [replace(openai, base_url="http://127.0.0.1:1/v1")], TODAY, ONCE)
    assert "gateway" in report.left["openai"]
    assert asked == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (500, "answered 500"),
        (401, "key is not taken"),
        (b"<html>", "not whole JSON"),
        ({"error": "x"}, "something else than its list"),
        ({"data": [{"id": "gpt-6"}]}, "without a single model"),
        ({"data": [{"id": "gpt-image-2", "shutdown_date": "soon"}]}, "something else than its list"),
    ],
)
def test_one_that_fails_leaves_what_the_others_say(lists, tmp_path, answer, told):
    address, answers, _ = lists
    answers["/v1/models"] = answer
    place = tmp_path / "catalogue.json"
    report = refreshed(place, accounts(address), TODAY, ONCE)
    assert told in report.failed["openai"]
    assert "key-of" not in report.failed["openai"]
    assert report.asked == {"google": 2, "prices": 1}
    assert entries()["lyria-3.5"].prices[0].dollars == 0.09
    assert entries()["gpt-image-2"].lifecycle.ends is None


def test_without_a_network_nothing_is_written_and_what_was_found_stays(lists, tmp_path):
    place = tmp_path / "catalogue.json"
    refreshed(place, accounts(lists[0]), TODAY, ONCE)
    before = place.read_bytes()
    nowhere = accounts("http://127.0.0.1:1")
    report = refreshed(place, nowhere, TODAY, ONCE)
    assert set(report.failed) == {"openai", "google", "prices"}
    assert all("no connection" in problem for problem in report.failed.values())
    assert (report.asked, report.changes) == ({}, ())
    assert place.read_bytes() == before
    empty = tmp_path / "never.json"
    refreshed(empty, nowhere, TODAY, ONCE)
    assert not empty.exists()


def test_a_broken_file_is_made_anew(lists, tmp_path):
    place = tmp_path / "catalogue.json"
    place.write_text("{")
    refreshed(place, accounts(lists[0]), TODAY, ONCE)
    assert json.loads(place.read_text())["models"]["lyria-3.5"]["prices"] == {"song": 0.09}
