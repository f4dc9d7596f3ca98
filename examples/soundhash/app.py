"""The application around it. `python -m examples soundhash` runs it."""

from __future__ import annotations

import os
import secrets
from typing import Any, Literal

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import outbox
from examples.soundhash import webhooks, worker
from examples.soundhash.database import Base, Database, Me, User, Video, engine

app = FastAPI(title="SoundHash")
app.include_router(webhooks.router, prefix="/api/v1/webhooks", tags=["webhooks"])
# Private addresses are refused, but for those of your own that you name.
networks = os.environ.get("RELAY_ALLOW_NETWORKS", "")
outbox.allow_endpoints(allow_networks=networks.split(",") if networks else [], allow_http=bool(networks))
Base.metadata.create_all(engine)


CALLS = {"trial": 3, "free": 1_000, "pro": 100_000}
"""Of each plan, how many calls it has."""


class NewUser(BaseModel):
    tenant_id: str
    username: str
    email: str


class NewVideo(BaseModel):
    id: str
    fails: bool = False


class Plan(BaseModel):
    plan: Literal["trial", "free", "pro"]


class NewMatch(BaseModel):
    match_id: int
    query_video_id: str
    matched_video_id: str
    confidence: float
    note: Any = None


@app.post("/api/v1/auth/register", status_code=201)
async def register(given: NewUser, session: Database) -> dict[str, Any]:
    user = User(**given.model_dump(), api_key=secrets.token_urlsafe(24))
    session.add(user)
    await session.flush()
    webhooks.emit_user_created(tenant_id=user.tenant_id, user_id=user.id, username=user.username, email=user.email)
    made = {"id": user.id, "api_key": user.api_key}
    await session.commit()
    return made


@app.put("/api/v1/plan")
async def change_plan(given: Plan, session: Database, me: Me) -> dict[str, Any]:
    me.plan, me.calls = given.plan, 0
    webhooks.emit_subscription_updated(tenant_id=me.tenant_id, user_id=me.id, plan=me.plan)
    await session.commit()
    return {"plan": given.plan, "limit": CALLS[given.plan]}


@app.post("/api/v1/videos", status_code=201)
async def add_video(given: NewVideo, session: Database, me: Me) -> dict[str, str]:
    session.add(Video(id=given.id, tenant_id=me.tenant_id))
    await session.commit()
    return {"id": given.id}


@app.post("/api/v1/videos/{video_id}/process")
def process(video_id: str, me: Me, *, fails: bool = False) -> dict[str, str]:
    return {"state": worker.process_video(video_id, fails=fails), "by": me.username}


@app.post("/api/v1/matches", status_code=201)
async def add_match(given: NewMatch, session: Database, me: Me) -> dict[str, Any]:
    event = webhooks.emit_match_found(tenant_id=me.tenant_id, **given.model_dump())
    me.calls += 1
    if me.calls == CALLS[me.plan]:
        webhooks.emit_api_limit_reached(tenant_id=me.tenant_id, user_id=me.id, limit=me.calls)
    await session.commit()
    return {"event": event.id, "recorded": event.recorded}


@app.get("/api/v1/events/{event_id}")
async def show_event(event_id: str, session: Database, me: Me) -> dict[str, Any]:
    try:
        found = await session.run_sync(outbox.events.get, event_id, tenant=me.tenant_id)
    except outbox.NotFoundError as error:
        raise HTTPException(404, str(error)) from error
    return {"type": found.type, "processed": found.state not in ("pending", "under_way"), "state": found.state}
