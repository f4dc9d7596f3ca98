"""Order with real processes: relays are killed while writers that serialise on their keys go on."""

from __future__ import annotations

import pytest

from tests.support.application import Application
from tests.support.order import Order
from tests.support.processes import WriterProcess, read_log

EVENTS = 2_000
KEYS = 40
KILLS = 6


@pytest.mark.slow
@pytest.mark.case("B12")
def test_kills_break_the_order_of_no_key(app: Application) -> None:
    """Of each key, first acknowledgements come in the order of the commits; `python -m tests.chaos order` is larger."""
    app.timeout_seconds = 1
    app.subscribe("/ordered", schedule_seconds=[0] * 20, ordered=True)
    app.receiver.plan("/ordered", "0.01:200")
    writers = [
        app.stage.writer("--events", EVENTS // 2, "--per-second", 200, "--batch", 4, "--keys", KEYS, "--seed", seed)
        for seed in (1, 2)
    ]
    for kill in range(KILLS):
        relay = app.stage.running_relay()
        app.receiver.wait_for((kill + 1) * EVENTS // (KILLS + 4), "/ordered")
        relay.kill()
        app.expire_leases()
    for writer in writers:
        writer.finish()
    app.expire_leases()
    app.stage.drain()
    order = _order(app, writers)
    assert (order.broken, order.missing) == ([], 0)
    assert sum(order.acknowledged.values()) == EVENTS
    app.assert_all_accounted()


@pytest.mark.case("B12")
def test_a_failing_endpoint_gets_every_key_in_order_all_the_same(app: Application) -> None:
    app.switch_breakers_off()
    app.subscribe("/ordered", schedule_seconds=[0] * 20, ordered=True)
    app.receiver.plan("/ordered", "500", "500", "200")
    writer = app.stage.writer("--events", 100, "--batch", 4, "--keys", 10)
    app.stage.running_relay()
    writer.finish()
    app.wait_settled()
    order = _order(app, [writer])
    assert (order.broken, order.missing) == ([], 0)


def _order(app: Application, writers: list[WriterProcess]) -> Order:
    for writer in writers:
        app.take_over(writer)
    written = [entry for writer in writers for entry in read_log(writer.log)]
    return Order.of(written, app.committed, read_log(app.receiver.log), "/ordered")
