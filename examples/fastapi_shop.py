"""A shop on FastAPI, end to end: it records, lets customers subscribe, and (as its own customer) receives.

    export DATABASE_URL=postgresql+psycopg://localhost/shop
    relay migrate && uvicorn examples.fastapi_shop:app
    RELAY_ALLOW_NETWORKS=127.0.0.0/8 RELAY_ALLOW_HTTP=true relay run

    curl -X POST localhost:8000/subscriptions -H 'content-type: application/json' \
         -d '{"url": "http://127.0.0.1:8000/webhooks", "types": ["order.*"]}'
    curl -X POST localhost:8000/orders -H 'content-type: application/json' -d '{"cents": 4200}'
    curl localhost:8000/receipts
"""

import os
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import create_engine, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import outbox

engine = create_engine(os.environ["DATABASE_URL"])
secrets: list[str] = []  # a real customer keeps theirs in a vault
app = FastAPI()
outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)  # this machine; real customers have https


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]


class Receipt(Base):
    __tablename__ = "receipts"
    webhook_id: Mapped[str] = mapped_column(primary_key=True)  # a repeat meets its own id
    content: Mapped[dict[str, Any]] = mapped_column(JSONB)


class NewOrder(BaseModel):
    cents: int


class NewSubscription(BaseModel):
    url: str
    types: list[str]


def transaction() -> Iterator[Session]:
    with Session(engine) as session, session.begin():
        yield session


Transaction = Annotated[Session, Depends(transaction, scope="function")]  # committed before the answer is sent
Base.metadata.create_all(engine)


@app.post("/orders", status_code=201)
def place_order(order: NewOrder, session: Transaction) -> dict[str, Any]:
    row = Order(cents=order.cents)
    session.add(row)
    session.flush()  # the database gives the order its id
    event = outbox.record(session, "order.placed", {"id": row.id, "cents": row.cents}, key=f"order-{row.id}")
    return {"order": row.id, "event": event.id}


@app.post("/subscriptions", status_code=201)
def subscribe(wanted: NewSubscription, session: Transaction) -> dict[str, str]:
    try:
        subscription = outbox.subscribe(session, wanted.url, wanted.types)
    except outbox.SubscriptionError as error:
        raise HTTPException(422, str(error)) from error
    secrets.append(subscription.secret)
    return {"id": subscription.id, "secret": subscription.secret}  # shown once


@app.post("/webhooks", status_code=204)
async def receive(request: Request) -> None:
    try:
        webhook = outbox.verify(secrets, request.headers, await request.body())
    except outbox.SignatureError as error:
        raise HTTPException(401) from error
    with Session(engine) as session, session.begin():
        receipt = {"webhook_id": webhook.id, "content": webhook.json()}
        session.execute(insert(Receipt).values(receipt).on_conflict_do_nothing())


@app.get("/receipts")
def receipts(session: Transaction) -> list[dict[str, Any]]:
    return [receipt.content for receipt in session.scalars(select(Receipt).order_by(Receipt.webhook_id))]
