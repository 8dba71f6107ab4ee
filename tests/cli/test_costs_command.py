"""triptych costs: what people and scripts are told of what was paid, and the picture of it."""

import re
from datetime import UTC, datetime, timedelta

import numpy
import pytest
from PIL import Image

from triptych.media.bars import COLOURS
from triptych.service.budgets import Budgets
from triptych.service.config import config
from triptych.service.ledger import Call, Ledger
from triptych.types import Price


@pytest.fixture
def ledger(home, monkeypatch):
    """Calls of today and of some days before, written at noon of the user."""
    monkeypatch.setenv("COLUMNS", "120")
    now = [datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0)]
    kept = Ledger(config().ledger, lambda: now[0])

    def add(job, model, most, days=0, project="", vendor="acme"):
        now[0] = datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=days)
        kept.reserve(
            Call(job, vendor, model, "a [bold]fox[/bold]", project), None if most is None else Price(most), Budgets()
        )
        return job

    kept.settle(add("old", "owl-2", 0.2, 40), 0.15, "usage", 9.0)
    kept.settle(add("week", "fox-1", 0.04, 6, "shoes"), 0.04, "list")
    kept.doubt(add("lost", "fox-1", 0.04, 3, "shoes"))
    kept.release(add("refused", "fox-1", 0.04, 1))
    add("running", "owl-2", 0.5, 0, vendor="zoo")
    kept.record(Call("local", "local", "sd15", "a fox"), 0.0004, "electricity", 80.0)
    return kept


def rows(text):
    """The table's lines as lists of words that two blanks part."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip() and "──" not in line]


def test_the_last_calls_one_by_one(ledger, call):
    code, out, err = call("costs")
    assert code == 0
    head, *lines = rows(out)
    assert head == ["when", "job", "cost", "from", "model", "what"]
    assert [line[1:5] for line in lines] == [
        ["old", "$0.15", "usage", "owl-2"],
        ["week", "$0.04", "list price", "fox-1"],
        ["lost", "$0.04", "in doubt", "fox-1"],
        ["refused", "$0.00", "not paid", "fox-1"],
        ["local", "$0.0004", "electricity", "sd15"],
        ["running", "$0.50", "reserved", "owl-2"],
    ]
    assert lines[0][5] == "a [bold]fox[/bold]"
    assert "triptych costs --clear JOB --cost DOLLARS" in err


def test_the_same_for_scripts(ledger, ask):
    code, told = ask("costs")
    assert code == 0
    first = told["calls"][0]
    assert first["job"] == "old"
    assert datetime.fromisoformat(first["when"]).tzinfo is not None
    assert {
        name: first[name] for name in ("provider", "model", "state", "price", "cost", "source", "seconds", "files")
    } == {
        "provider": "acme",
        "model": "owl-2",
        "state": "settled",
        "price": {"least": 0.2, "most": 0.2},
        "cost": 0.15,
        "source": "usage",
        "seconds": 9.0,
        "files": [],
    }
    assert told["calls"][-1]["cost"] is None


@pytest.mark.parametrize(
    ("asked", "jobs"),
    [
        (["--since", "today"], "local running"),
        (["--since", "1d"], "local running"),
        (["--since", "2d"], "refused local running"),
        (["--since", "7d"], "week lost refused local running"),
        (["--since", "6d"], "lost refused local running"),
        (["--since", "7d", "--until", "{3}"], "week lost"),
        (["--until", "{6}"], "old week"),
        (["--since", "{40}", "--until", "{40}"], "old"),
        (["--since", "{39}", "--until", "today"], "week lost refused local running"),
        (["--since", "99999d"], "old week lost refused local running"),
    ],
)
def test_days_that_are_asked_about(ledger, ask, asked, jobs):
    def day(found):
        return (datetime.now().astimezone() - timedelta(days=int(found[1]))).date().isoformat()

    _, told = ask("costs", *(re.sub(r"\{(\d+)\}", day, word) for word in asked))
    assert [one["job"] for one in told["calls"]] == jobs.split()


def test_the_month_is_the_calendars(ledger, ask):
    _, told = ask("costs", "--since", "month")
    month = datetime.now().astimezone().strftime("%Y-%m")
    days = {"old": 40, "week": 6, "lost": 3, "refused": 1, "local": 0, "running": 0}
    began = {job: (datetime.now().astimezone() - timedelta(days=n)).strftime("%Y-%m") for job, n in days.items()}
    assert [one["job"] for one in told["calls"]] == [job for job in days if began[job] == month]


def test_no_more_than_the_last_twenty_unless_asked(ledger, call, ask):
    for number in range(30):
        ledger.record(Call(f"j{number:02}", "acme", "fox-1"), 0.01, "usage")
    assert len(ask("costs")[1]["calls"]) == 20
    assert "The last 20 of 36." in call("costs")[2]
    assert len(ask("costs", "--since", "today")[1]["calls"]) == 32


def test_sums_say_who_says_so(ledger, call, ask):
    code, out, _ = call("costs", "--by", "model")
    assert code == 0
    assert [line for line in rows(out) if line[0] in ("owl-2", "fox-1", "sd15", "all")] == [
        ["owl-2", "2", "$0.15", "$0.15", "$0.50"],
        ["fox-1", "2", "$0.04", "$0.04", "$0.04"],
        ["sd15", "1", "$0.0004", "$0.0004"],
        ["all", "5", "$0.19", "$0.15", "$0.04", "$0.0004", "$0.50", "$0.04"],
    ]
    _, told = ask("costs", "--by", "project")
    assert told["by"] == "project"
    assert told["sums"][1] == {"name": "shoes", "calls": 2, "spent": 0.04, "unknown": 0, "list": 0.04, "in_doubt": 0.04}
    assert told["total"]["spent"] == 0.1904
    assert [one["name"] for one in ask("costs", "--by", "provider")[1]["sums"]] == ["zoo", "acme", "local"]


def test_an_unknown_cost_is_said(ledger, call):
    ledger.reserve(Call("odd", "fal", "new-model"), None, Budgets())
    assert ["odd", "unknown", "reserved", "new-model"] in [line[1:5] for line in rows(call("costs")[1])]
    ledger.settle("odd", None, None)
    assert ["odd", "unknown", "in doubt", "new-model"] in [line[1:5] for line in rows(call("costs")[1])]
    assert ["new-model", "1", "unknown", "1"] in rows(call("costs", "--by", "model")[1])


def test_a_narrow_terminal_cuts_names_and_no_numbers(ledger, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ledger.record(
        Call("20261126-101112-abcd", "acme", "acme/" + "very-" * 20 + "long", "a fox " * 20), 0.012345, "usage"
    )
    out = call("costs", "--since", "today")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert "20261126-101112-abcd" in out
    assert "$0.0123" in out
    assert "…" in out


def test_bars_as_a_picture(ledger, call, ask, home):
    code, told = ask("costs", "--by", "model", "-o", "bars.png")
    assert (code, told["files"]) == (0, ["bars.png"])
    with Image.open("bars.png") as bars:
        pixels = numpy.asarray(bars.convert("RGB"))[58:]
    usage, listed = ((pixels == COLOURS[part]).all(-1).sum() for part in (0, 1))
    assert usage / listed == pytest.approx(0.15 / 0.04, rel=0.05)
    code, out, _ = call("costs", "--since", "7d", "-o", "days.webp")
    assert code == 0
    assert rows(out)[-1] == ["days.webp"]
    with Image.open("days.webp") as days:
        assert (days.format, days.width) == ("WEBP", 800)
    assert call("costs", "-o", "./")[1].splitlines()[-1] == "costs-by-day.png"
    assert call("costs", "-o", "./")[1].splitlines()[-1] == "costs-by-day-2.png"


def test_where_nothing_was_ever_paid(call, ask, home):
    assert call("costs")[:2] == (0, "No calls.\n")
    assert ask("costs") == (0, {"calls": []})
    assert call("costs", "--by", "day", "-o", "none.png")[:2] == (0, "No calls.\nnone.png\n")
    assert ask("costs", "--by", "day")[1]["sums"] == []
    assert not config().ledger.exists()


def test_a_person_says_what_a_call_cost(ledger, call, ask):
    assert call("costs", "--clear", "lost", "--cost", "0")[:2] == (0, "lost: settled at $0.00, as you say\n")
    code, told = ask("costs", "--clear", "running", "--cost", "0.123")
    assert (code, told["state"], told["cost"], told["source"]) == (0, "settled", 0.123, "estimate")
    code, _, err = call("costs", "--clear", "old", "--cost", "0")
    assert (code, "old is settled at $0.15, by usage" in err) == (2, True)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--by", "colour"], "by: 'colour' given, model, day, project, provider allowed"),
        (["--since", "yesterday"], "since: 'yesterday' given, today, month, a number of days like 7d, or a date like"),
        (["--since", "0d"], "since: '0d' given"),
        (["--until", "7d"], "until: '7d' given, today, or a date like 2026-11-30 allowed"),
        (["--since", "1066-10-14"], "since: '1066-10-14' given"),
        (
            ["--since", "2026-11-20", "--until", "2026-11-19"],
            "until: '2026-11-19' given, a day from 2026-11-20 on allowed",
        ),
        (["--since", "2026-11-20", "-o", "costs.pdf"], "extension '.pdf' given"),
        (["--clear", "lost"], "clear: 'lost' given, only with --cost DOLLARS"),
        (["--cost", "1"], "cost: 1.0 given, only with --clear JOB"),
        (["--clear", "lots", "--cost", "1"], "Did you mean 'lost'?"),
        (["--clear", "lost", "--cost", "nan"], "cost: nan given, US dollars, 0 to a billion allowed"),
    ],
)
def test_what_cannot_be_asked(ledger, call, asked, words):
    code, out, err = call("costs", *asked)
    assert (code, out) == (2, "")
    assert words in err


def test_moments_are_shown_where_the_user_is(home, call, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        kept = Ledger(config().ledger, lambda: datetime(2026, 11, 26, 20, 30, tzinfo=UTC))
        kept.record(Call("j", "acme", "fox-1"), 0.01, "usage")
        assert "11-27 05:30" in call("costs")[1]
        assert "2026-11-27" in call("costs", "--by", "day")[1]
    finally:
        monkeypatch.undo()
        time.tzset()
