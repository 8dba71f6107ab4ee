"""The ledger: nothing is spent beyond a budget, whoever runs beside; what is not known is never taken for nothing."""

import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta

import pytest

from triptych.errors import FileProblem, InvalidField, OverBudget, RequestError, UnknownName
from triptych.service import bills, ledger
from triptych.service.budgets import Budgets, Electricity, days
from triptych.service.config import config
from triptych.service.ledger import FORMAT, Call, Ledger
from triptych.types import Price

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
TODAY = days(date(2026, 11, 26), date(2026, 11, 26))


class Clock:
    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def kept(tmp_path, clock):
    return Ledger(tmp_path / "data" / "ledger.sqlite", clock)


@pytest.fixture
def zone(monkeypatch):
    """Moves the user to a time zone."""

    def moved(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield moved
    monkeypatch.undo()
    time.tzset()


def call(job, model="fox-1", project="", what="a fox"):
    return Call(job, "vendor", model, what, project)


def reserve(kept, job, most=0.04, budgets=Budgets(), **named):  # noqa: B008
    kept.reserve(call(job, **named), None if most is None else Price(most), budgets)


# What a line goes through


def test_a_call_from_beginning_to_end(kept, tmp_path):
    kept.reserve(
        Call("j1", "google", "banana", "a  fox\n\x1b[2Jin snow " + "x" * 300, "shoes"), Price(0.24, 0.134), Budgets()
    )
    line = kept.line("j1")
    assert (line.state, line.price, line.cost, line.most, line.began) == (
        "reserved",
        Price(0.24, 0.134),
        None,
        0.24,
        NOON,
    )
    assert line.call.what.startswith("a fox [2Jin snow x")
    assert len(line.call.what) == 120
    kept.note_ticket("j1", {"id": "op/7", "poll": ["https://vendor.example/7"]})
    kept.settle("j1", 0.1345, "usage", 12.5)
    kept.filed("j1", [tmp_path / "fox.png"])
    kept.filed("j1", [tmp_path / "fox.png", tmp_path / "fox-2.png"])
    line = kept.line("j1")
    assert (line.state, line.cost, line.source, line.seconds) == ("settled", 0.1345, "usage", 12.5)
    assert line.ticket == {"id": "op/7", "poll": ["https://vendor.example/7"]}
    assert line.files == (str(tmp_path / "fox.png"), str(tmp_path / "fox-2.png"))
    assert kept.lines() == [line]


def test_a_duplicate_completion_changes_nothing(kept):
    reserve(kept, "j1")
    kept.settle("j1", 0.04, "list", 3.0)
    kept.settle("j1", 0.09, "usage", 4.0)
    kept.release("j1")
    kept.doubt("j1")
    line = kept.line("j1")
    assert (line.state, line.cost, line.source, line.seconds) == ("settled", 0.04, "list", 3.0)


def test_a_vendors_word_comes_before_a_persons_and_before_none(kept):
    reserve(kept, "guessed")
    kept.doubt("guessed")
    kept.clear("guessed", 0.0)
    kept.clear("guessed", 0.03)
    assert (kept.line("guessed").cost, kept.line("guessed").source) == (0.03, "estimate")
    kept.settle("guessed", 0.05, None)  # nobody's word is no better
    assert kept.line("guessed").cost == 0.03
    kept.settle("guessed", 0.041, "usage")
    assert (kept.line("guessed").cost, kept.line("guessed").source) == (0.041, "usage")
    reserve(kept, "silent", None)
    kept.settle("silent", None, None, 2.0)
    assert (kept.line("silent").state, kept.line("silent").cost) == ("settled", None)
    kept.settle("silent", 0.02, "usage")
    assert (kept.line("silent").cost, kept.line("silent").seconds) == (0.02, 2.0)
    with pytest.raises(RequestError, match=r"silent is settled at \$0.02, by usage"):
        kept.clear("silent", 0.0)


def test_what_was_paid_after_all_is_paid(kept):
    reserve(kept, "j1")
    kept.release("j1")
    assert kept.line("j1").most == 0.0
    kept.settle("j1", None, None)
    assert kept.line("j1").state == "released"
    kept.settle("j1", 0.04, "usage")
    assert kept.line("j1").cost == 0.04


@pytest.mark.parametrize("end", ["reserved", "in_doubt", "settled", "released"])
def test_nothing_is_reserved_twice_but_what_was_never_paid(kept, clock, end):
    reserve(kept, "j1")
    {
        "reserved": lambda j: None,
        "in_doubt": kept.doubt,
        "settled": lambda j: kept.settle(j, 0.04, "list"),
        "released": kept.release,
    }[end]("j1")
    clock.now += timedelta(hours=1)
    if end == "released":
        reserve(kept, "j1", 0.05)
        assert (kept.line("j1").state, kept.line("j1").most, kept.line("j1").began) == ("reserved", 0.05, clock.now)
    else:
        with pytest.raises(RequestError, match=f"as {end.replace('_', ' ')}; it is not sent again"):
            reserve(kept, "j1")
        assert kept.line("j1").began == NOON


def test_a_job_that_is_not_there(kept):
    reserve(kept, "20261126-1")
    reserve(kept, "done")
    kept.settle("done", 0.04, "list")
    for change in (
        kept.release,
        kept.doubt,
        kept.line,
        lambda job: kept.settle(job, 1.0, "usage"),
        lambda job: kept.clear(job, 0.0),
    ):
        with pytest.raises(UnknownName, match=r"Did you mean '20261126-1'\? Known: 20261126-1\."):
            change("20261126-2")
    kept.filed("a local run", [])
    assert len(kept.lines()) == 2


@pytest.mark.parametrize("wrong", [-0.01, float("nan"), float("inf"), 1e300, True, "1"])
def test_amounts_that_are_none(kept, wrong):
    reserve(kept, "j1")
    for change in (
        lambda: kept.settle("j1", wrong, "usage"),
        lambda: kept.clear("j1", wrong),
        lambda: Budgets(day=wrong),
    ):
        with pytest.raises(InvalidField, match="US dollars, 0 to a billion allowed"):
            change()
    with pytest.raises(InvalidField):
        kept.reserve(call("j2"), Price(wrong), Budgets())
    assert (kept.line("j1").state, len(kept.lines())) == ("reserved", 1)


# Budgets


@pytest.mark.parametrize("name", ["call", "day", "month"])
def test_a_refusal_says_what_which_how_much_and_how_to_go_on(kept, name):
    reserve(kept, "a", 0.5)
    kept.settle("a", 0.3, "usage")
    reserve(kept, "b", 0.2)
    reserve(kept, "c", 0.1)
    kept.doubt("c")
    with pytest.raises(OverBudget) as caught:
        kept.reserve(call("d", "sora-2"), Price(1.2, 0.8, "length"), Budgets(**{name: 1.0}))
    text = str(caught.value)
    assert f"the budget of a {name} is $1.00" in text
    assert "this call of sora-2 could cost up to $1.20" in text
    assert "Nothing was sent" in text
    assert (
        f"`{name}` under [budget] in config.toml (triptych doctor says where), or TRIPTYCH_BUDGET_{name.upper()}"
        in text
    )
    counted = "$0.30 spent, $0.20 reserved by jobs that run, $0.10 in doubt, $0.40 left" in text
    assert counted == (name != "call")
    assert ("triptych costs --clear JOB --cost DOLLARS" in text) == (name != "call")
    assert len(kept.lines()) == 3


def test_a_budget_may_be_used_up_to_the_last_cent(kept):
    """Three tenths make 0.30000000000000004 in floats, and 0.30 here."""
    for job in "abc":
        reserve(kept, job, 0.1, Budgets(day=0.3))
    with pytest.raises(OverBudget, match=r"\$0.30 reserved by jobs that run, \$0.00 left"):
        reserve(kept, "d", 0.000001, Budgets(day=0.3))
    reserve(kept, "free", 0.0, Budgets(call=0.0, day=0.3))


def test_what_a_call_did_not_cost_is_free_again(kept):
    budgets = Budgets(day=0.3)
    reserve(kept, "a", 0.3, budgets)
    with pytest.raises(OverBudget):
        reserve(kept, "b", 0.2, budgets)
    kept.settle("a", 0.1, "usage")
    reserve(kept, "b", 0.2, budgets)
    kept.release("b")
    reserve(kept, "c", 0.2, budgets)


def test_what_is_in_doubt_counts_until_a_person_says_what_it_cost(kept):
    budgets = Budgets(month=0.3)
    reserve(kept, "a", 0.3, budgets)
    kept.doubt("a")
    with pytest.raises(OverBudget, match=r"\$0.30 in doubt, \$0.00 left"):
        reserve(kept, "b", 0.1, budgets)
    kept.clear("a", 0.0)
    reserve(kept, "b", 0.3, budgets)


def test_an_unknown_price_goes_beyond_every_budget(kept):
    for budgets in (Budgets(call=100.0), Budgets(day=100.0), Budgets(month=100.0)):
        with pytest.raises(OverBudget, match="what fox-1 would cost is not known, so that nothing bounds it"):
            reserve(kept, "a", None, budgets)
    assert kept.lines() == []
    reserve(kept, "a", None)
    assert (kept.line("a").price, kept.line("a").most) == (None, None)


@pytest.mark.parametrize("end", ["reserved", "in_doubt", "settled"])
def test_an_unknown_cost_is_never_nothing(kept, end):
    reserve(kept, "odd", None)
    if end == "in_doubt":
        kept.doubt("odd")
    if end == "settled":
        kept.settle("odd", None, None)
    reserve(kept, "b", 0.04, Budgets(call=1.0))  # of a single call that says nothing
    with pytest.raises(OverBudget, match=r"the cost of odd is not known.* triptych costs --clear odd --cost DOLLARS"):
        reserve(kept, "c", 0.04, Budgets(day=1.0))
    kept.clear("odd", 0.9)
    reserve(kept, "c", 0.04, Budgets(day=1.0))
    with pytest.raises(OverBudget, match=r"\$0.90 spent, \$0.08 reserved"):
        reserve(kept, "d", 0.04, Budgets(day=1.0))


def test_a_known_price_bounds_a_cost_that_nobody_told(kept):
    reserve(kept, "a", 0.3)
    kept.settle("a", None, None)
    with pytest.raises(OverBudget, match=r"\$0.30 in doubt"):
        reserve(kept, "b", 0.8, Budgets(day=1.0))


def test_electricity_is_on_no_vendors_bill(kept):
    kept.record(Call("run", "local", "sd15", "a fox"), 0.5, "electricity", 90.0)
    kept.record(Call("run", "local", "sd15", "a fox"), 0.7, "electricity", 91.0)
    assert (kept.line("run").cost, kept.line("run").seconds, kept.line("run").state) == (0.5, 90.0, "settled")
    reserve(kept, "a", 1.0, Budgets(day=1.0))
    assert (kept.standing(TODAY).spent, kept.standing(TODAY).reserved) == (0.0, 1.0)


def test_electricity_by_hand():
    """400 W for 90 s are 0.01 kWh."""
    assert Electricity(400, 0.30).cost(90) == pytest.approx(0.003)
    assert Electricity(0, 0.30).cost(90) == 0
    with pytest.raises(InvalidField, match=r"electricity\.watts: -1 given"):
        Electricity(-1, 0.30)


@pytest.mark.parametrize(
    ("place", "before", "after"),
    [
        ("UTC", "2026-10-31T23:59:59.9", "2026-11-01T00:00:00"),
        ("America/Los_Angeles", "2026-11-01T06:59:59", "2026-11-01T07:00:00"),  # still summer time that morning
        ("America/Los_Angeles", "2026-12-01T07:59:59", "2026-12-01T08:00:00"),
        ("Asia/Kolkata", "2026-10-31T18:29:59", "2026-10-31T18:30:00"),
        ("Europe/Berlin", "2026-12-31T22:59:59", "2026-12-31T23:00:00"),
    ],
)
def test_days_and_months_begin_at_the_users_midnight(kept, clock, zone, place, before, after):
    zone(place)
    budgets = Budgets(day=0.05, month=0.05)
    clock.now = datetime.fromisoformat(before).replace(tzinfo=UTC)
    reserve(kept, "a", 0.04, budgets)
    with pytest.raises(OverBudget, match="budget of a day"):
        reserve(kept, "b", 0.04, budgets)
    clock.now = datetime.fromisoformat(after).replace(tzinfo=UTC)
    reserve(kept, "b", 0.04, budgets)
    kept.settle("a", 0.04, "list")  # it ends in the new month, and counts in the old one
    with pytest.raises(OverBudget, match=r"budget of a day is \$0.05: \$0.00 spent, \$0.04 reserved"):
        reserve(kept, "c", 0.04, budgets)


def test_a_month_is_all_of_its_days_and_no_more(kept, clock):
    clock.now = datetime(2028, 2, 1, 0, 0, tzinfo=UTC)
    reserve(kept, "first", 0.1)
    clock.now = datetime(2028, 2, 29, 23, 59, tzinfo=UTC)
    with pytest.raises(OverBudget, match="budget of a month"):
        reserve(kept, "last", 0.1, Budgets(day=0.1, month=0.1))
    clock.now = datetime(2028, 3, 1, tzinfo=UTC)
    reserve(kept, "next", 0.1, Budgets(day=0.1, month=0.1))


# Side by side


def test_ten_threads_share_a_budget_for_three(kept):
    started, outcomes = threading.Barrier(10), []

    def run(number):
        started.wait()
        try:
            reserve(kept, f"job-{number}", 0.1, Budgets(day=0.3))
            outcomes.append("sent")
        except OverBudget:
            outcomes.append("refused")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["sent"] * 3
    assert len(kept.lines()) == 3


RACER = """
import sys, time
from pathlib import Path
from triptych.errors import OverBudget
from triptych.service.budgets import Budgets
from triptych.service.ledger import Call, Ledger
from triptych.types import Price
path, who, gate = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
print("ready", flush=True)
while not gate.exists():
    time.sleep(0.001)
sent = 0
for turn in range(5):
    try:
        Ledger(path).reserve(Call(f"{who}-{turn}", "vendor", "fox-1"), Price(0.1), Budgets(day=0.3, month=0.3))
        sent += 1
    except OverBudget:
        pass
print(sent)
"""


def test_processes_share_a_budget_for_three(tmp_path):
    """The file does not exist before they race, so that they race for making it, too."""
    gate, path = tmp_path / "gate", tmp_path / "data" / "ledger.sqlite"
    commands = [[sys.executable, "-c", RACER, str(path), f"process-{n}", str(gate)] for n in range(4)]
    racers = [subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for one in commands]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    gate.touch()
    told = [racer.communicate(timeout=120) for racer in racers]
    assert [problem for _, problem in told] == [""] * 4
    assert sum(int(out) for out, _ in told) == 3
    assert Ledger(path).standing(days(date.today(), date.today())).reserved == 0.3


def test_what_a_killed_process_reserved_stays_reserved(tmp_path):
    path = tmp_path / "ledger.sqlite"
    code = RACER.replace("print(sent)", "import os; os.kill(os.getpid(), 9)")
    (tmp_path / "gate").touch()
    assert (
        subprocess.run([sys.executable, "-c", code, path, "gone", tmp_path / "gate"], capture_output=True).returncode
        == -9
    )
    assert [line.state for line in Ledger(path).lines()] == ["reserved"] * 3


# The file


def test_a_ledger_that_nobody_wrote_is_empty_and_stays_so(kept, tmp_path):
    assert kept.lines() == []
    assert kept.standing(TODAY).total == 0
    assert not (tmp_path / "data").exists()
    reserve(kept, "a")
    assert sqlite3.connect(tmp_path / "data" / "ledger.sqlite").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_ledger_is_refused_in_words(kept, tmp_path):
    reserve(kept, "a")
    path = tmp_path / "data" / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    before = path.read_bytes()
    for use in (kept.lines, lambda: reserve(kept, "b"), lambda: kept.settle("a", 0.0, "usage")):
        with pytest.raises(FileProblem, match=rf"of version {FORMAT + 1}, this triptych reads up to {FORMAT}.*upgrade"):
            use()
    assert path.read_bytes() == before


def test_an_older_ledger_is_brought_up_to_date(kept, monkeypatch):
    reserve(kept, "a", 0.25)
    monkeypatch.setattr(
        ledger, "MIGRATIONS", (*ledger.MIGRATIONS, ("ALTER TABLE calls ADD COLUMN note TEXT DEFAULT 'x'",))
    )
    monkeypatch.setattr(ledger, "FORMAT", FORMAT + 1)
    assert [line.most for line in kept.lines()] == [0.25]
    with kept._opened() as connection:
        assert ledger._version(connection) == FORMAT + 1
        assert connection.execute("SELECT note FROM calls").fetchone()["note"] == "x"


@pytest.mark.parametrize("kind", ["text", "folder", "cut"])
def test_a_file_that_is_no_ledger(kept, tmp_path, kind):
    path = tmp_path / "data" / "ledger.sqlite"
    reserve(kept, "a")
    whole = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"a diary, no ledger " * 99 if kind == "text" else whole[:5000])
    for use in (kept.lines, lambda: reserve(kept, "b")):
        with pytest.raises(FileProblem, match=r"the ledger .*ledger.sqlite cannot be used: .*Nothing is paid"):
            use()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileProblem, match="Nothing is paid for that cannot be written down"):
        reserve(Ledger(tmp_path / "file" / "ledger.sqlite"), "a")


def test_a_full_disk_keeps_what_was_there(kept):
    """SQLite's own limit of pages stands for the disk."""
    reserve(kept, "a")

    def fill():
        with kept._opened() as connection:
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
            with ledger._transaction(connection):
                for number in range(1000):
                    ledger._add(connection, call(f"b{number}", what="x" * 100), NOON, {"state": "reserved"})

    with pytest.raises(FileProblem, match="full"):
        fill()
    assert [line.call.job for line in kept.lines()] == ["a"]


def test_it_lies_in_the_data_folder(home):
    assert config().ledger == home / "data" / "ledger.sqlite"


# Sums


def some(kept, clock):
    """Calls of three days: what each cost is in its name."""
    for day, (job, model, project, end) in enumerate(
        [
            ("a", "fox-1", "shoes", "usage"),
            ("b", "fox-1", "", "list"),
            ("c", "owl-2", "shoes", "in_doubt"),
            ("d", "owl-2", "shoes", "reserved"),
            ("e", "owl-2", "shoes", "released"),
            ("f", "elk", "", "unknown"),
        ]
    ):
        clock.now = NOON + timedelta(days=day // 2)
        reserve(kept, job, None if end == "unknown" else 0.1 * (day + 1), model=model, project=project)
        {
            "in_doubt": lambda job: kept.doubt(job),
            "released": lambda job: kept.release(job),
            "usage": lambda job: kept.settle(job, 0.07, "usage"),
            "list": lambda job: kept.settle(job, 0.2, "list"),
        }.get(end, lambda job: None)(job)
    kept.record(Call("g", "local", "sd15"), 0.004, "electricity", 48.0)
    reserve(kept, "h", 0.1, model="lynx")
    kept.release("h")


def test_sums_by_model_project_provider_and_day(kept, clock, zone):
    zone("UTC")
    some(kept, clock)
    lines = kept.lines()
    by = {name: {one.name: (one.calls, one.parts, one.unknown) for one in bills.sums(lines, name)} for name in bills.BY}
    assert by["model"] == {
        "owl-2": (2, {"in_doubt": 0.3, "reserved": 0.4}, 0),
        "fox-1": (2, {"usage": 0.07, "list": 0.2}, 0),
        "sd15": (1, {"electricity": 0.004}, 0),
        "elk": (1, {}, 1),
    }
    assert [one.name for one in bills.sums(lines, "model")] == ["owl-2", "fox-1", "sd15", "elk"]
    assert by["project"]["shoes"] == (3, {"usage": 0.07, "in_doubt": 0.3, "reserved": 0.4}, 0)
    assert by["project"]["(none)"] == (3, {"list": 0.2, "electricity": 0.004}, 1)
    assert by["provider"]["vendor"][0] == 5
    assert [one.name for one in bills.sums(lines, "day")] == ["2026-11-26", "2026-11-27", "2026-11-28"]
    whole = bills.total(lines)
    assert (whole.calls, whole.spent, whole.total, whole.unknown) == (6, 0.274, 0.974, 1)


def test_days_are_the_users(kept, clock, zone):
    zone("Asia/Tokyo")
    clock.now = datetime(2026, 11, 26, 14, 59, tzinfo=UTC)
    reserve(kept, "a")
    clock.now = datetime(2026, 11, 26, 15, 0, tzinfo=UTC)
    reserve(kept, "b")
    assert [one.name for one in bills.sums(kept.lines(), "day")] == ["2026-11-26", "2026-11-27"]
    assert [line.call.job for line in kept.lines(days(date(2026, 11, 27), date(2026, 11, 27)))] == ["b"]


def test_days_without_calls_are_filled_in(kept, clock):
    reserve(kept, "a")
    clock.now += timedelta(days=40)
    reserve(kept, "b")
    filled = bills.filled(bills.sums(kept.lines(), "day"))
    assert len(filled) == 41
    assert [one.calls for one in filled] == [1, *[0] * 39, 1]
    assert bills.filled([]) == []


def test_sums_of_many_are_exact(kept):
    """Against whole numbers of a tenth of a cent, which no float can blur."""
    drawn = random.Random(0)
    with kept._writing() as connection:
        amounts = [drawn.randrange(1, 5000) for _ in range(2000)]
        for number, amount in enumerate(amounts):
            values = {"state": "settled", "cost": amount * 10**6, "source": "usage"}
            ledger._add(connection, call(f"j{number}"), NOON, values)
    assert bills.total(kept.lines()).spent == sum(amounts) / 1000
    assert kept.standing(TODAY).spent == sum(amounts) / 1000


def test_what_it_keeps_is_plain_text(kept, tmp_path):
    """So that other programs can read it: one table, ISO moments, JSON."""
    reserve(kept, "a")
    kept.note_ticket("a", {"id": "ä"})
    connection = sqlite3.connect(tmp_path / "data" / "ledger.sqlite")
    began, ticket = connection.execute("SELECT began, ticket FROM calls").fetchone()
    connection.close()
    assert began == "2026-11-26T12:00:00.000000+00:00"
    assert json.loads(ticket) == {"id": "ä"}
    assert [one.name for one in (tmp_path / "data").iterdir()] == [
        "ledger.sqlite"
    ]  # nothing beside it when nobody has it open
