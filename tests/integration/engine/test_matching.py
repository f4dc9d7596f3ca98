"""Which subscriptions the events of a take match: those that each pattern says, with little work for each kind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outbox._patterns import covers, patterns_of
from relay.store.arrays import Uuids
from relay.store.filters import Look, PassedOver
from relay.store.store import Store
from tests.integration.engine.world import PlanWatch, World, uuid_of
from tests.support import databases

KINDS = 500
TENANTS = st.sampled_from(["", "a", "b"])
NAMES = st.lists(st.sampled_from(["a", "b", "ab", "relay"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.just("*") | NAMES | NAMES.map("{}.*".format)
OWNERS = TENANTS | st.just("*")
SUBSCRIPTIONS = st.tuples(OWNERS, st.lists(PATTERNS, min_size=1, max_size=3, unique=True), st.booleans())
ANYTHING = st.text(st.sampled_from("ab.*"), max_size=9) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))
INSERT = "insert into outbox.events (seq, tenant, type, payload) values (%s, %s, %s, '{}')"
DROP = "update outbox.subscriptions set paused_at = now(), drops_while_paused = true where id = %s"
HASH = "select filter_hash from outbox.subscriptions where id = %s"


@pytest.fixture(scope="module")
def place(server_url: str, migrated_template: str) -> Iterator[World]:
    with databases.database(server_url, template=migrated_template) as url:
        world = World(url)
        yield world
        world.close()


@given(
    subscriptions=st.lists(SUBSCRIPTIONS, max_size=12),
    kinds=st.lists(st.tuples(TENANTS, NAMES), min_size=1, max_size=12),
    most=st.sampled_from([1, 2, 2000]),
)
@example([("", ["*", "a.*", "a.b"], False), ("*", ["a.*"], False)], [("", "a.b"), ("", "a.b"), ("a", "a.b")], 2000)
@example([("", ["*"], False), ("", ["relay.*"], False)], [("", "relay.a"), ("a", "relay.a"), ("", "relay")], 2000)
@example([("", ["a"], True)] * 3 + [("", ["a"], False)] * 2, [("", "a"), ("", "b")], 1)
@settings(max_examples=60)
def test_a_take_matches_what_the_patterns_say(
    place: World, subscriptions: list[tuple[str, list[str], bool]], kinds: list[tuple[str, str]], most: int
) -> None:
    """Each kind has the subscriptions of its tenant, or of every tenant, that a pattern covers; `most` + 1 at most."""
    place.rows("truncate outbox.events, outbox.pending, outbox.subscriptions, outbox.subscription_types cascade")
    who: dict[bytes, tuple[str, list[str], bool]] = {}
    for tenant, patterns, drops in subscriptions:
        subscription = place.subscribe(*patterns, tenant=tenant)
        who[subscription] = (tenant, patterns, drops)
        if drops:
            place.rows(DROP, uuid_of(subscription))
    for seq, (tenant, name) in enumerate(kinds, 1):  # a number that was not drawn: so relays record what is of relay.
        place.rows(INSERT, seq, tenant, name)
    expected = {
        kind: {
            one
            for one, (tenant, patterns, drops) in who.items()
            if tenant in (kind[0], "*") and not drops and any(covers(pattern, kind[1]) for pattern in patterns)
        }
        for kind in kinds
    }
    matches, is_wide = asyncio.run(_taken(place, most))
    assert is_wide == any(len(of_kind) > most for of_kind in expected.values())
    assert matches.keys() <= expected.keys()
    for kind, of_kind in expected.items():
        brought = matches.get(kind, [])
        assert len(set(brought)) == len(brought) <= most + 1
        assert set(brought) == of_kind or (is_wide and set(brought) < of_kind)


async def _taken(place: World, most: int) -> tuple[dict[tuple[str, str], list[bytes]], bool]:
    store = Store(place.url)
    async with store.fan_out(-1, 500, 10_000_000, most_matches=most) as batch:
        found = {kind: [match.subscription_id for match in matches] for kind, matches in batch.matches.items()}
    await store.close()
    return found, batch.is_wide


@given(type_=NAMES | ANYTHING)
@example("")
@example("relay.")
@example(".a..b.")
def test_the_patterns_of_a_type_are_those_of_the_function_in_sql(place: World, type_: str) -> None:
    assert sorted(patterns_of(type_)) == sorted(place.value("select outbox.patterns_of(%s)", type_))


@pytest.mark.anyio
async def test_what_one_kind_passes_over_the_others_match(world: World, store: Store) -> None:
    """Of another tenant with that type, and of another type of that tenant, though one pattern is for all."""
    every, own = world.subscribe("*", tenant="*", filter={"type": "x"}), world.subscribe("*", filter={"type": "x"})
    plain = world.subscribe("a.*")
    hashes = [world.value(HASH, uuid_of(every)).bytes]
    kinds = [("", "a.b"), ("", "a.c"), ("other", "a.b")]
    seqs = [seq for tenant, name in kinds for seq in world.record(name, tenant=tenant)]
    look = Look(seqs, passing=PassedOver("", "a.b", Uuids(hashes)))
    async with store.fan_out(-1, 500, 10_000_000, look=look) as batch:
        found = {kind: {match.subscription_id for match in matches} for kind, matches in batch.matches.items()}
        filtered = batch.filtered
    assert found == dict(zip(kinds, [{plain}, {plain, every, own}, {every}], strict=True))
    assert filtered == set(kinds[1:])


SHAPES = {  # the tenant and the type of the n-th event, and how many patterns cover one of them
    "types": ("''", "'order.t' || n", KINDS + 2),
    "types with names above them": ("''", "'order.a' || n || '.b.c.d.e'", 5 * KINDS + 2),
    "tenants": ("'tenant' || n", "'order.paid'", 3),
}


@pytest.mark.anyio
@pytest.mark.parametrize("statistics", ["of empty tables", "of what is there"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_take_looks_up_few_things_for_each_kind(own_world: World, shape: str, statistics: str) -> None:
    """Each pattern, for all that ask for it, and all subscriptions at once; each event is of another kind here."""
    tenant, name, patterns = SHAPES[shape]
    tables = ("events", "pending", "subscriptions", "subscription_types", "health")
    for table in tables:
        own_world.rows(f"analyze outbox.{table}")
    for table in tables[1:]:
        own_world.rows(f"alter table outbox.{table} set (autovacuum_enabled = off)")
    own_world.rows(
        "insert into outbox.subscriptions (url, tenant, types)"
        f" select 'http://127.0.0.1/', {tenant}, array[{name}] from generate_series(1, {KINDS}) n"
    )
    own_world.rows(
        f"insert into outbox.events (tenant, type, payload) select {tenant}, {name}, '{{}}'"
        f" from generate_series(1, {KINDS}) n"
    )
    if statistics == "of what is there":
        own_world.rows("analyze")
    watch = PlanWatch(own_world.url)
    await watch.begin()
    async with watch.store.fan_out(-1, KINDS, 10_000_000) as batch:
        assert [len(matches) for matches in batch.matches.values()] == [1] * KINDS
    begun = {table: sum(_loops(watch, table)) for table in ("subscription_types", "subscriptions")}
    buffers = watch.buffers
    seq_scans = watch.seq_scans()
    await watch.store.close()
    assert begun == {"subscription_types": patterns, "subscriptions": 1}
    assert seq_scans == []
    assert buffers <= 40 * KINDS


def _loops(watch: PlanWatch, table: str) -> Iterator[int]:
    """How many times each scan of a table was begun; those by index alone have its name too."""
    nodes: list[dict[str, Any]] = watch.nodes()
    return (node["Actual Loops"] for node in nodes if node.get("Relation Name") == table)
