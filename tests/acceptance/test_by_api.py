"""Every command that takes --api prints the same by it as from the database, and changes the same."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from relay.__main__ import run_command
from relay.cli import erase
from relay.operations import tokens
from relay.operations.erase.erasure import run_erasure
from relay.operations.tokens import RIGHTS
from tests.support import seeding
from tests.support.dashboard import served

Ran = tuple[int, str, str]
NOBODY = "http://127.0.0.1:9/hooks"  # where nothing listens
FILTER = '{"payload": {"n": {"$gte": 12345678901234567890.10}}}'


def relay(*words: object) -> Ran:
    """Run a command in this process as the console script does; return its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def still(printed: str) -> str:
    """Return what was printed without how long a connection took."""
    return re.sub(r'(?<=ms": )[0-9]+|(?<="milliseconds": )[0-9]+|[0-9]+(?= ms)', "N", printed)


def alike(printed: str) -> str:
    """Return what was printed without what differs by nature: ids, times, secrets, and the way that made it."""
    for pattern, word in (
        (r"(sub|dlv|evt|bulk|ers|tok|lnk)_[0-9a-z]{26}", r"\1"),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+Z", "TIME"),
        (r"(whsec|rtk|ptl)_[A-Za-z0-9+/=_-]+", r"\1"),
        (r"[0-9a-f]{64}|(?<=salt\": \")[0-9a-f]+", "HASH"),
        (r"by-(database|api)|alice|token:ops", "WAY"),
        (r"(?<=up_to_event\": )[0-9]+", "SEQ"),
        (r"after [0-9.]+ m?s", "after"),
    ):
        printed = re.sub(pattern, word, printed)
    return printed


@pytest.fixture
def ways(engine: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The options of both ways: from the database, and by a socket from the API as the operator's token `ops`."""
    with engine.begin() as connection:
        made = tokens.create(connection, None, name="ops", rights=RIGHTS, whose=None)
    file = tmp_path / "token"
    file.write_text(made.text)
    monkeypatch.setenv("RELAY_ACTOR", "alice")
    monkeypatch.setenv("RELAY_ALLOW_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("RELAY_ALLOW_HTTP", "true")
    with served(database_url) as address:
        yield {"database": ("--database-url", database_url), "api": ("--api", address, "--api-token-file", file)}


@pytest.fixture
def both(ways: Any) -> Callable[..., tuple[Ran, Ran]]:
    """Runs a command from the database, and then by the API."""

    def run(*words: object) -> tuple[Ran, Ran]:
        needs_no_database = "schemes" in words or "formats" in words
        return relay(*words, *(() if needs_no_database else ways["database"])), relay(*words, *ways["api"])

    return run


def seed(engine: Engine) -> dict[str, Any]:
    """A subscription of acme, with deliveries that wait, are dead and are delivered; return the ids by name."""
    with engine.begin() as connection:
        sub = seeding.subscribe(connection, tenant="acme", url="https://example.com/hooks")
        evt = seeding.record(connection, tenant="acme", key="k")
        made = seeding.resolve(connection, evt, *[sub] * 4)
        for one, verdict in zip(made, ("retry", "dead", "dead", "delivered"), strict=True):
            seeding.attempt(connection, one, verdict, error="no")
        connection.execute(text("update outbox.subscriptions set url = :url"), {"url": NOBODY})
    return {"sub": sub, "evt": evt} | dict(zip(("waiting", "dead", "dead_too", "delivered"), made, strict=True))


READ = """
statistics --by subscription
statistics --tenant acme --by type --over 1h
audit --json
audit --subject {sub}
audit --action added --tenant acme --since 1h --limit 1
explain {evt}
explain {evt} --json
explain {evt} --tenant acme --subscription {sub} --json
explain {evt} --tenant globex
explain --type order.created --data {draft} --tenant acme --key k
explain --type order.created --data {draft} --json --limit 1
subscriptions preview {sub} --event {evt} --transformation sum(type)
subscriptions preview {sub} --data {draft} --tenant globex
subscriptions filter-test {sub} --event {evt}
subscriptions filter-test {sub} --data {draft} --tenant acme --json
subscriptions filter-test --data {draft} --filter {filter} --json
subscriptions filter-test --event {evt} --filter {filter}
subscriptions check {sub}
subscriptions check {sub} --json
subscriptions show {sub} --tenant globex
subscriptions formats
subscriptions formats --json
schemes list
schemes list --json
schemes show stripe
schemes show stripe --json
events list --text n --json
dead-letters list --event {evt} --text n
deliveries list --event {evt} --json
replay {dead} --dry-run
replay {evt} --dry-run --json
replay {evt} --to-all --dry-run
replay --subscription {sub} --limit 1 --dry-run
replay --subscription {sub} --state delivered --dry-run --json
bulk redrive --subscription {sub} --dry-run
bulk recover {sub} --since 1h --dry-run --json
bulk list --subscription {sub}
bulk list --subscription x
bulk show x
audit --subject sub_x
explain x
statistics --over 5x
statistics --subscription x
subscriptions check x
bulk list --state planned --json
bulk show {bulk}
bulk show {bulk} --json
erase key k --dry-run
erase subject n=1 --tenant acme --dry-run --json
erase tenant acme --yes
erase list --since 1h
erase list --json
erase receipt {ers}
tenants limits
tenants limits --limit 1 --json
tenants retention
tenants retention --json
portal list
portal list --ended --tenant acme --json
portal list --limit 1 --json
"""


@pytest.mark.slow
def test_what_is_read_is_the_same(both, engine: Engine, tmp_path: Path, database_url: str) -> None:
    names = seed(engine) | {"filter": FILTER, "draft": tmp_path / "draft.json"}
    names["draft"].write_text('{"n": 12345678901234567890.1, "n2": 1e2}\n')
    own = ("--database-url", database_url)
    names["bulk"] = json.loads(
        relay("bulk", "redrive", "--subscription", names["sub"], "--no-start", "--json", *own)[1]
    )["id"]
    names["ers"] = json.loads(relay("erase", "key", "nobody's", "--yes", *own)[1])["erasure"]
    for name in ("acme", "globex"):
        relay("tenants", "limit", name, "--rate", "5/s", "--burst", 7, *own)
        relay("tenants", "retain", name, "--events-days", 7, *own)
        relay("portal", "link", "--tenant", name, "--url", "https://hooks.example/portal", *own)
    different = []
    for line in READ.strip().splitlines():
        words = [word.format(**names) for word in line.split()]
        local, remote = ((code, still(out), err) for code, out, err in both(*words))
        assert local[1] or local[0], line
        if remote[:2] != local[:2]:
            different.append((line, local, remote))
    assert different == []


def test_what_moves_with_the_time_is_the_same_otherwise(both, engine: Engine) -> None:
    seeded = seed(engine)
    for words, left_out in (
        (("statistics", "--tenant", "acme", "--json"), {"since", "attempts_per_second"}),
        (("tokens", "list", "--revoked", "--json"), {"last_used_at"}),
        (("subscriptions", "test", seeded["sub"], "--data", '{"a": 1.10}', "--json"),
         {"delivery_id", "at", "milliseconds", "request", "steps"}),
    ):  # fmt: skip
        (code, out, _), (remote_code, remote_out, _) = both(*words)
        local, remote = json.loads(out), json.loads(remote_out)
        assert remote_code == code
        assert remote.keys() == local.keys()
        assert {k: v for k, v in remote.items() if k not in left_out} == {
            k: v for k, v in local.items() if k not in left_out
        }
        if "request" in local:
            assert json.loads(json.dumps(remote["request"]["body"])).endswith('"data":{"a": 1.10}}')
    (_, out, _), (_, remote_out, _) = both("statistics", "--series", "--over", "2h", "--json")
    local, remote = ([json.loads(line) for line in printed.splitlines()] for printed in (out, remote_out))
    assert remote[0].keys() == local[0].keys()
    assert sum(one["failed"] for one in remote) == sum(one["failed"] for one in local) == 3
    event = ("subscriptions", "preview", seeded["sub"], "--event", seeded["evt"], "--json")
    local, remote = (json.loads(printed) for _, printed, _ in both(*event))
    assert remote.pop("request")["body"] == local.pop("request")["body"]
    assert remote == local


CHANGED = """
subscriptions add {url} order.* --tenant {name} --schedule-seconds 1,2 --filter {filter} --metadata a=b --json
subscriptions add {url} order.* --header X-A=b --ordered true
subscriptions add {url} * --authentication-file {auth} --description {name}
subscriptions update {sub} --types x.*,y --filter {filter} --json
subscriptions update {sub} --filter none --schedule-seconds none --header X-A=c --tenant acme
subscriptions update {sub} --no-headers --json
subscriptions update {sub} --timeout-seconds 0
subscriptions update {sub}
subscriptions rotate-secret {sub} --overlap-seconds 0 --json
subscriptions rotate-secret {sub} --scheme standard --tenant globex
subscriptions pause {sub} --json
subscriptions resume {sub} --now
subscriptions resume {sub} --tenant globex
deliveries retry {waiting}
tenants limit {name} --rate 5/s --burst 7 --json
tenants limit {name} --rate none
tenants limit {name} --rate 5x
tenants retain {name} --events-days 3
tenants retain {name} --events-days 0
tokens create {name} --rights read,write --tenant acme --expires-days 5
tokens create {name} --rights read --all-tenants --json
portal link --tenant {name} --rights manage --url https://hooks.example/portal --person a@b.example --expires 2h --json
portal link --tenant {name}
portal revoke --tenant {name} --yes --json
portal revoke lnk_x --yes
pause-all --reason {name} --json
pause-all
resume-all --json
resume-all
replay {dead} --json
replay {dead}
replay dlv_x
deliveries retry dlv_x
deliveries cancel --subscription sub_x --yes
replay --subscription {sub} --state delivered --yes --json
bulk redrive --subscription {sub} --rate 3 --yes
bulk backfill {sub} --no-start --json
dead-letters purge --subscription {sub} --yes
erase key {name} --yes
subscriptions remove {sub} --yes
subscriptions remove {sub} --yes
"""


def test_what_is_changed_is_the_same_and_the_audit_names_who(ways, engine: Engine, tmp_path: Path) -> None:
    auth = tmp_path / "auth.json"
    auth.write_text('{"type": "bearer", "token": "t"}')
    told: dict[str, list[Any]] = {}
    for way, options in ways.items():
        names = seed(engine) | {"url": NOBODY, "auth": auth, "filter": FILTER, "name": f"by-{way}"}
        told[way] = []
        for line in CHANGED.strip().splitlines():
            words = [word.format(**names) for word in line.split()]
            with a_relay_erases(engine, when=way == "api" and words[0] == "erase"):
                code, out, _ = relay(*words, *options)
            told[way].append((line, code, alike(out)))
        (bulk,) = [
            json.loads(line)["id"]
            for line in relay("bulk", "list", "--state", "running", "--json", *options)[1].splitlines()
        ]
        for verb in (("pause",), ("resume", "--rate", "9"), ("cancel",)):
            told[way].append((verb, *relay("bulk", verb[0], bulk, *verb[1:], "--json", *options)[:2]))
        told[way][-3:] = [(verb, code, alike(out)) for verb, code, out in told[way][-3:]]
    assert [pair for pair in zip(told["api"], told["database"], strict=True) if pair[0] != pair[1]] == []
    with engine.connect() as connection:
        rows = connection.execute(
            text("select actor, action from outbox.audit where actor <> '' order by at, id")
        ).all()
    by = {actor: [action for one, action in rows if one == actor] for actor in ("alice", "token:ops")}
    assert by["token:ops"] == by["alice"]
    assert len(by["alice"]) > 20


@contextlib.contextmanager
def a_relay_erases(engine: Engine, *, when: bool) -> Iterator[None]:
    """Carry out, as relays do, the erasure that is asked for meanwhile."""
    ended = threading.Event()

    def erase_it() -> None:
        with engine.connect() as connection:
            running = text("select id from outbox.erasures where state = 'running'")
            while not ended.wait(0.02) and (found := connection.execute(running).scalar()) is None:
                connection.rollback()
            connection.rollback()
            run_erasure(connection, None, found)

    thread = threading.Thread(target=erase_it) if when else None
    if thread is not None:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread is not None:
            thread.join(30)


def test_an_erasure_that_takes_long_is_told_how_to_look_at(
    ways, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "WAITED_SECONDS", 0)
    code, out, err = relay("erase", "key", "nobody's", "--yes", *ways["api"])
    assert (code, out) == (1, "")
    erasure = re.findall(r"ers_[0-9a-z]{26}", err)[0]
    assert err.endswith(f"relay erase receipt {erasure} prints its receipt then\n")
    assert relay("erase", "receipt", erasure, *ways["api"])[0] == 1
    assert relay("erase", "cancel", erasure, *ways["api"])[:2] == (0, f"{erasure} is cancelled\n")


def test_a_tenants_token_does_not_make_less_than_was_asked_for(ways, engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        made = tokens.create(connection, None, name="of acme", rights=["admin"], whose="acme")
    file = tmp_path / "acme"
    file.write_text(made.text)
    words = ("tokens", "create", "new", "--rights", "admin", "--api", ways["api"][1], "--api-token-file", file)
    code, out, err = relay(*words, "--all-tenants")
    assert (code, out) == (2, "")
    assert "--all-tenants: your token is of tenant 'acme'; give --tenant 'acme'" in err
    assert "tenant        acme" in relay(*words, "--tenant", "acme")[1]
