"""The shop's own webhooks: outbox-relay keeps them, and its relay signs, sends and tries again."""

from database import get_db
from outbox.fastapi import Shape, webhooks_router

EVENTS = {"order.placed": "A customer has ordered", "order.cancelled": "An order was called off"}

router = webhooks_router(
    session=get_db,
    owner="",
    event_types=EVENTS,
    shape=Shape(
        event="event",
        history_path="/logs",
        history_is_list=True,
        retry_count=3,
        first_delay_seconds=2,
        timeout_seconds=30,
        unsigned_without_secret=True,
    ),
    settings={"scheme": "fulfil", "format": "fulfil", "allow_weak_secret": True},
)
