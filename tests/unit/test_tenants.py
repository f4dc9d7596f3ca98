"""Whose turn it is among tenants, and how much of a process one of them may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.engine.byte_shares import ByteGrants, ByteRoom
from relay.engine.due_map import DueMap
from relay.engine.endpoint import Endpoint
from relay.engine.fairness import Grants, Places, Queues
from relay.engine.room import BYTES_MAX, Room
from relay.engine.tenants import Tenants
from relay.model.delivery import Delivery
from relay.model.outcome import Outcome, OutcomeKind
from relay.secrets.keyring import Keyring
from tests.unit.test_endpoint import OWNER, subscription


def endpoint(tenants: Tenants, tenant: str, waiting: int = 0, *, answers: bool = True) -> Endpoint:
    one = Endpoint(subscription(), 64, Keyring(), OWNER, tenants.use_of(tenant))
    one.window.answers = answers
    one.window.size = 64
    one.unbegun.extend(Delivery(bytes(16), 1, bytes(16), 1, 1, None, 0.0) for _ in range(waiting))
    return one


def test_the_due_map_names_one_of_each_tenant_in_turn() -> None:
    due = DueMap(lambda i: i.decode()[0])
    due.add_all([b"a1", b"a2", b"a3", b"b1", b"c1", b"c2"])
    assert [*due] == [b"a1", b"b1", b"c1", b"a2", b"c2", b"a3"]
    due.move_on(b"a1", more=True)
    assert [*due] == [b"b1", b"c1", b"a2", b"c2", b"a3", b"a1"], "the tenant that was served is last"
    due.drop([b"b1", b"c1"])
    due.move_on(b"c2", more=False)
    assert [*due] == [b"a2", b"a3", b"a1"]
    assert (len(due), b"c2" in due, b"a3" in due) == (3, False, True)
    due.clear()
    assert not due


def test_a_subscription_that_becomes_known_joins_its_tenant_at_its_next_turn() -> None:
    known: dict[bytes, str] = {}
    due = DueMap(known.get)
    due.add(b"a1")
    known[b"a1"] = "a"
    due.add(b"a1")
    due.move_on(b"a1", more=True)
    due.add_all([b"x1", b"x2"])
    assert [*due] == [b"a1", b"x1", b"x2"]
    known[b"x1"] = "x"
    assert [*due.unread] == [b"x1", b"x2"]
    due.rejoin([b"x1", b"gone"])
    assert ([*due.unread], due.tenant_of(b"x1")) == ([b"x2"], "x")
    assert [*due] == [b"a1", b"x2", b"x1"]


def test_the_due_map_names_those_that_are_left_without_some_and_without_those_that_were_not_read() -> None:
    due = DueMap(lambda i: None if i.startswith(b"x") else i.decode()[0])
    due.add_all([b"a1", b"a2", b"x1", b"b1", b"b2", b"a3"])
    assert [*due.without(set())] == [b"a1", b"b1", b"a2", b"b2", b"a3"]
    assert [*due.without({b"a1", b"a2", b"b2"})] == [b"a3", b"b1"]
    assert [*due.without({b"a1", b"a2", b"a3", b"b1", b"b2"})] == []


def test_tenants_get_places_in_turn_however_many_endpoints_wait() -> None:
    tenants, requests = Tenants(), Places(256)
    queues = Queues(requests, tenants)
    many = [endpoint(tenants, "a", 1) for _ in range(100)]
    few = [endpoint(tenants, "b", 1) for _ in range(2)]
    for one in (*many, *few):
        queues.append(one)
    order = [queues.next() for _ in range(102)]
    assert {order.index(one) for one in few} == {1, 3}
    assert queues.next() is None
    assert set(order) == {*many, *few}


def test_alone_a_tenant_may_have_all_and_beside_another_seven_eighths() -> None:
    tenants, leases = Tenants(), Places(2048)
    mine = [endpoint(tenants, "a") for _ in range(100)]
    grants = Grants(leases, ByteGrants(ByteRoom(BYTES_MAX)), tenants)
    assert sum(grants.promise(one) for one in mine) == sum(one.free for one in mine)
    other = endpoint(tenants, "b")
    mine[0].tenant.leased = 1700
    grants = Grants(leases, ByteGrants(ByteRoom(BYTES_MAX)), tenants)
    assert sum(grants.promise(one) for one in mine) == 2048 - 256 - 1700
    assert not grants.take(mine[0], mine[0].free, 2)
    assert grants.promise(other) == other.free


def test_requests_of_one_tenant_leave_an_eighth_to_the_others() -> None:
    tenants, requests = Tenants(), Places(16)
    queues = Queues(requests, tenants)
    mine, other = endpoint(tenants, "a", 20), endpoint(tenants, "b")
    queues.append(mine)
    mine.tenant.sending = 14
    assert queues.next() is None
    other.unbegun.extend(mine.unbegun)
    queues.append(other)
    assert queues.next() is other
    mine.tenant.sending = 13
    assert queues.next() is mine


def test_unproven_endpoints_of_one_tenant_leave_others_some_of_what_unproven_ones_may_have() -> None:
    tenants, places = Tenants(), Places(2048)
    mine = [endpoint(tenants, "a", 1, answers=False) for _ in range(2000)]
    other = endpoint(tenants, "b", 1, answers=False)
    most = 1792 - 224  # of the 1,792 places that unproven ones have together
    promised = Grants(places, ByteGrants(ByteRoom(BYTES_MAX)), tenants)
    taken = Grants(places, ByteGrants(ByteRoom(BYTES_MAX)), tenants)
    assert sum(promised.promise(one) for one in mine) == most
    assert sum(taken.take(one, one.free, 2) for one in mine) == most
    for grants in (promised, taken):
        assert grants.promise(other) == 1
    queues = Queues(places, tenants)
    for one in (*mine, other):
        queues.append(one)
    served = []
    while (one := queues.next()) is not None:
        one.tenant.unproven_sending += 1
        served.append(one)
    assert len(served) == most + 1
    assert other in served[:2]


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "begin", "answer", "time out"]))))
def test_what_a_tenant_holds_is_the_sum_of_what_its_endpoints_do(steps: list[tuple[int, str]]) -> None:
    tenants, room = Tenants(), Room(100)
    endpoints = [endpoint(tenants, tenant, answers=False) for tenant in "aabb"]
    for number, step in steps:
        one = endpoints[number]
        if step == "take":
            room.enter(one, Delivery(bytes(16), 1, bytes(16), 1, 1, None, 0.0))
        elif step == "begin" and one.unbegun:
            one.unbegun.pop(0)
            room.begin(one)
        elif one.sending:
            room.end(one)
            answer = (
                Outcome(OutcomeKind.DELIVERED, 200, 1) if step == "answer" else Outcome(OutcomeKind.TIMEOUT, None, 1)
            )
            room.learn(one, answer)
            room.leave(one, Delivery(bytes(16), 1, bytes(16), 1, 1, None, 0.0))
    for tenant in "ab":
        use = tenants.use_of(tenant)
        mine = [one for one in endpoints if one.tenant is use]
        assert (use.leased, use.sending) == (sum(e.leased for e in mine), sum(e.sending for e in mine))
        unproven = [one for one in mine if not one.answers]
        assert use.unproven_leased == sum(e.leased for e in unproven)
        assert use.unproven_sending == sum(e.sending for e in unproven)


def test_a_tenant_whose_endpoints_are_gone_is_forgotten() -> None:
    tenants = Tenants()
    one = endpoint(tenants, "a")
    one.tenant.leased = 5
    assert tenants.use_of("a").leased == 5
    del one
    assert tenants.use_of("a").leased == 0
