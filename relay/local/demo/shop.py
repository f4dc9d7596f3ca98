"""A small shop: an order and its event are stored together, or neither. Every tenth order is called off."""

import os
import time

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import outbox


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]


def place_order(session: Session, cents: int) -> outbox.Event:
    order = Order(cents=cents)
    session.add(order)
    session.flush()  # now the order has its id
    return outbox.record(session, "order.placed", {"id": order.id, "cents": order.cents})


def main(orders: int, per_second: float) -> None:
    engine, start = create_engine(os.environ["DATABASE_URL"]), time.monotonic()
    Base.metadata.create_all(engine)
    for number in range(orders):
        time.sleep(max(0.0, start + number / per_second - time.monotonic()))
        with Session(engine) as session:
            event = place_order(session, cents=100 + number)
            paid = number % 10 != 9
            session.commit() if paid else session.rollback()
        print(time.time(), event.id, "committed" if paid else "rolled back", flush=True)
