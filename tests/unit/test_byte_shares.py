"""What each endpoint may hold of the bytes of one process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.byte_shares import ByteGrants, ByteRoom, ByteShare
from relay.engine.endpoint import Endpoint
from relay.engine.room import BYTES_MAX
from relay.engine.tenants import Tenants
from relay.model.delivery import HUGE_BYTES, SMALL_BYTES
from tests.unit.test_fairness import endpoint

pytestmark = pytest.mark.field("F01")

KB, MB = 1000, 1_000_000


def fill(room: ByteRoom, one: Endpoint, size: int) -> int:
    """Lease for one endpoint alone until it may have no more; return how many."""
    held = 0
    while ByteGrants(room).take(one, size):
        room.take(one, size)
        held += 1
    return held


def test_one_endpoint_alone_has_half() -> None:
    room = ByteRoom(BYTES_MAX)
    fill(room, endpoint(answers=True), 250 * KB)
    assert BYTES_MAX // 2 - BYTES_MAX // 64 <= room.taken <= BYTES_MAX // 2 + 250 * KB


def test_beside_it_others_have_a_share_each() -> None:
    room, others = ByteRoom(BYTES_MAX), [endpoint(answers=True) for _ in range(5)]
    fill(room, endpoint(answers=True), 250 * KB)
    assert [fill(room, one, 60 * KB) for one in others] == [14] * 5  # up to 3/4 of a share: then it waits for more


def test_the_last_eighth_is_for_those_that_hold_nothing() -> None:
    room, many = ByteRoom(BYTES_MAX), [endpoint(answers=True) for _ in range(40)]
    for one in many:
        fill(room, one, 250 * KB)
    holders = [one.bytes for one in many if one.bytes]
    assert room.taken <= BYTES_MAX + 250 * KB
    assert holders[-4:] == [250 * KB] * 4


def test_hanging_endpoints_leave_an_eighth_and_have_one_delivery_each_from_half_on() -> None:
    room = ByteRoom(BYTES_MAX)
    fill(room, endpoint(), 250 * KB)
    assert {fill(room, endpoint(), 250 * KB) for _ in range(20)} == {1}
    for _ in range(40):
        fill(room, endpoint(), 250 * KB)
    assert room.taken <= BYTES_MAX * 7 // 8 + 250 * KB
    assert fill(room, endpoint(answers=True), 250 * KB) >= 1


@pytest.mark.parametrize("answers", [True, False])
def test_one_tenant_leaves_an_eighth_to_the_others_however_many_endpoints_it_has(answers: bool) -> None:
    room, tenants = ByteRoom(BYTES_MAX), Tenants()
    others = endpoint(answers=answers, tenant=tenants.use_of("other"))
    use = tenants.use_of("large")
    while ByteGrants(room, 1, tenants).take(one := endpoint(answers=answers, tenant=use), 250 * KB):
        room.take(one, 250 * KB)
    assert use.bytes == room.taken > BYTES_MAX * 3 // 4
    grants = ByteGrants(room, 100, tenants)
    assert [grants.promise(endpoint(answers=answers, tenant=use)) for _ in range(100)] == [ByteShare(0, True)] * 100
    assert ByteGrants(room, 1, tenants).take(others, 60 * KB)
    assert (grants.promise(others) or ByteShare(0, False)).bytes > 60 * KB


def test_one_tenant_alone_has_all_of_the_room() -> None:
    room, tenants = ByteRoom(BYTES_MAX), Tenants()
    use = tenants.use_of("only")
    while ByteGrants(room, 1, tenants).take(one := endpoint(answers=True, tenant=use), 250 * KB):
        room.take(one, 250 * KB)
    assert room.taken >= BYTES_MAX


def test_small_ones_always_go() -> None:
    room = ByteRoom(BYTES_MAX)
    for _ in range(100):
        fill(room, endpoint(answers=True), 250 * KB)
    late = endpoint()
    assert ByteGrants(room).take(late, SMALL_BYTES)
    assert ByteGrants(room).promise(late) == ByteShare(0, True)
    taken = room.taken
    room.take(late, SMALL_BYTES)
    assert room.taken == taken


def test_a_huge_one_goes_alone_of_its_kind_and_takes_nothing_from_the_others() -> None:
    room, hanging, answering = ByteRoom(BYTES_MAX), endpoint(), endpoint(answers=True)
    assert not ByteGrants(room).take(hanging, 17 * MB), "only a claim leases it"
    room.take(hanging, 17 * MB)
    assert room.taken == 0
    promised = [ByteGrants(room).promise(one) for one in (endpoint(), answering)]
    assert [share.huge for share in promised if share] == [False, True]
    hanging.window.answers = True
    room.reclassify(hanging, answers=True)
    assert room.huge == {True: 1, False: 0}
    room.give_back(hanging, 17 * MB)
    assert room.huge == {True: 0, False: 0}


def test_a_batch_promises_no_more_than_there_is() -> None:
    room = ByteRoom(BYTES_MAX)
    grants = ByteGrants(room, 500)
    shares = [grants.promise(endpoint(answers=True)) for _ in range(500)]
    assert sum(share.bytes for share in shares if share) <= BYTES_MAX
    assert shares[0] is not None
    assert shares[0].bytes == BYTES_MAX // 64
    assert shares[-1] == ByteShare(0, True), "it still may have small ones"


def test_who_holds_all_that_it_may_is_not_asked() -> None:
    room, slow = ByteRoom(BYTES_MAX), endpoint(answers=True)
    fill(room, slow, 250 * KB)
    assert ByteGrants(room).promise(slow) is None


sizes = st.integers(0, 2 * HUGE_BYTES)


@given(st.lists(st.tuples(st.integers(0, 5), sizes, st.booleans())))
def test_what_was_taken_is_given_back_whatever_endpoints_do_meanwhile(steps: list[tuple[int, int, bool]]) -> None:
    room, some, held = ByteRoom(BYTES_MAX), [endpoint() for _ in range(6)], []
    for number, size, turns in steps:
        one = some[number]
        room.take(one, size)
        held.append((one, size))
        if turns:
            one.window.answers = not one.window.answers
            room.reclassify(one, answers=one.window.answers)
        assert 0 <= room.unproven <= room.taken
        assert sum(one.tenant.bytes for one in some) == room.taken
        assert sum(one.tenant.unproven_bytes for one in some) == room.unproven
    for one, size in held:
        room.give_back(one, size)
    assert (room.taken, room.unproven, room.huge) == (0, 0, {True: 0, False: 0})
    assert all(one.bytes == one.huge == 0 for one in some)
