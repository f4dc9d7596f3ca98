"""The application around it. `python -m examples leads` runs it."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
import outbox.inbox
from examples.leads import callbacks, events
from examples.leads.database import Base, Demo, Lead, Video, engine

app = FastAPI(title="Leads")
app.include_router(callbacks.router, prefix="/api/v1/webhooks", tags=["callbacks"])
outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)  # n8n runs on this machine
Base.metadata.create_all(engine)
events.start_capture()
with Session(engine) as starting:
    missing = events.subscribe_n8n(starting, os.environ)
    starting.commit()

KINDS = {"leads": Lead, "demos": Demo, "videos": Video}


class Fields(BaseModel):
    name: str | None = None
    status: str | None = None
    note: str | None = None
    lead_id: int | None = None
    demo_id: int | None = None


class Many(BaseModel):
    status: str


def _kind(name: str) -> Any:
    if name not in KINDS:
        raise HTTPException(404)
    return KINDS[name]


@app.post("/api/v1/{kind}", status_code=201)
def add(kind: str, given: Fields) -> dict[str, Any]:
    with Session(engine) as session, session.begin():
        session.add(row := _kind(kind)(**given.model_dump(exclude_unset=True)))
        session.flush()
        return {"id": row.id}


@app.patch("/api/v1/{kind}/{number}", status_code=204)
def change(kind: str, number: int, given: Fields) -> None:
    with Session(engine) as session, session.begin():
        if (row := session.get(_kind(kind), number)) is None:
            raise HTTPException(404)
        for name, value in given.model_dump(exclude_unset=True).items():
            setattr(row, name, value)


@app.post("/api/v1/emails/{lead_id}", status_code=201)
def send_email(lead_id: int, *, fails: bool = False) -> None:
    with Session(engine) as session, session.begin():
        events.tell(session, "email_failed" if fails else "email_sent", {"lead_id": lead_id}, f"lead:{lead_id}")


@app.get("/api/v1/webhooks/queue")
def read_queue() -> dict[str, Any]:
    """Tell what waits, and what came of the last day."""
    with Session(engine) as session:
        waiting = outbox.deliveries.list(session, limit=100)
        counted = outbox.statistics.read(session, "", over="24h")
        return {
            "pending": [
                {"id": str(one.id), "event": one.type, "attempts": one.attempts, "status": one.state}
                for one in waiting.items
            ],
            "sent": counted.delivered, "failed": counted.dead, "cancelled": counted.cancelled,
        }  # fmt: skip


@app.post("/api/v1/webhooks/queue/{delivery_id}/{what}")
def act_on(delivery_id: str, what: str) -> dict[str, str]:
    """Send a delivery now, also one that was given up, or cancel it."""
    if what not in ("retry", "cancel"):
        raise HTTPException(404)
    with Session(engine) as session, session.begin():
        try:
            if what == "cancel":
                outbox.deliveries.cancel(session, delivery_id)
            elif outbox.deliveries.get(session, delivery_id).state == "dead":
                outbox.replays.replay(session, delivery_id)
            else:
                outbox.deliveries.retry(session, delivery_id)
        except (outbox.NotFoundError, outbox.ByHandError, outbox.ReplayError) as error:
            raise HTTPException(409, str(error)) from error
    return {"done": what}


@app.post("/api/v1/webhooks/processing/{state}", status_code=204)
def switch(state: str) -> None:
    with Session(engine) as session, session.begin():
        events.switch(session, on=state == "started")


@app.post("/api/v1/webhooks/test")
def test(given: dict[str, Any]) -> dict[str, Any]:
    """Answer whoever tries whether the application can be reached; nothing is done."""
    return {"received": given}


@app.get("/api/v1/webhooks/n8n/health")
def health() -> dict[str, Any]:
    """Tell whether webhooks go out and come in."""
    with Session(engine) as session:
        subscriptions = outbox.subscriptions.list(session, limit=100)
        relays = session.execute(text("select count(*) from outbox.relays where seen_at > now() - interval '20 s'"))
        newest = outbox.deliveries.attempts(session, limit=20).items
        last = [one for one in newest if one.verdict != "cancelled"]  # that is no request
        return {
            "webhooks": "on" if any(one.state == "active" for one in subscriptions) else "off",
            "missing_endpoints": missing,
            "n8n_reachable": bool(last) and last[0].status is not None,
            "queue_processor": "running" if relays.scalar_one() else "stopped",
            "security_configured": bool(events.SECRET),
        }


@app.get("/api/v1/webhooks/audit")
def read_audit(entity: str = "") -> list[dict[str, Any]]:
    """Tell what went out and came in, the newest first."""
    with Session(engine) as session:
        rows = session.execute(_AUDIT, {"entity": entity})
        return [dict(row) for row in rows.mappings()]


_AUDIT = text("""
select direction, at, id, type, entity, outcome, status, milliseconds, error from outbox.v_messages
where :entity = '' or entity = :entity order by at desc limit 100
""")
