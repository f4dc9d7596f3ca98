"""What n8n calls back: verified, acted upon once and audited, in one transaction with the next event."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

import outbox.inbox
from examples.leads.database import Demo, Lead, Run, Video, engine
from examples.leads.events import SECRET, tell

router = APIRouter(prefix="/n8n")
_Handle = Callable[[Session, Mapping[str, Any]], str]
"""Acts on a callback's body and returns what it was about."""


def approve_demo(session: Session, body: Mapping[str, Any]) -> str:
    demo = _found(session, Demo, body["demo_id"])
    demo.approved = body["approved"]
    if demo.approved:
        session.add(Video(demo_id=demo.id))
    return f"demo:{demo.id}"


def approve_video(session: Session, body: Mapping[str, Any]) -> str:
    video = _found(session, Video, body["video_id"])
    video.approved = body["approved"]
    if video.approved:
        tell(session, "email_sent", {"video_id": video.id, "to": body.get("to", "")}, f"video:{video.id}")
    return f"video:{video.id}"


def complete_workflow(session: Session, body: Mapping[str, Any]) -> str:
    lead = _found(session, Lead, body["lead_id"])
    lead.note = f"workflow {body['execution_id']} completed"
    return f"lead:{lead.id}"


def note_status(session: Session, body: Mapping[str, Any]) -> str:
    session.merge(Run(execution_id=body["execution_id"], state=body["status"]))
    return f"workflow:{body['execution_id']}"


def note_error(session: Session, body: Mapping[str, Any]) -> str:
    entity = f"workflow:{body['execution_id']}"
    tell(session, "workflow_error", {"execution_id": body["execution_id"], "error": body["error"]}, entity)
    return entity


CALLBACKS: dict[str, _Handle] = {
    "demo-approval": approve_demo,
    "video-approval": approve_video,
    "workflow-completed": complete_workflow,
    "workflow-status": note_status,
    "error-notification": note_error,
}


@router.post("/{name}")
async def receive(name: str, request: Request) -> Response:
    """Receive a callback: 200 also for a copy, 401 unsigned, 404 and 422 for what cannot be acted upon."""
    if name not in CALLBACKS:
        return Response(status_code=404)
    given = await outbox.inbox.read(request)
    return Response(status_code=await run_in_threadpool(_process, name, given))


def _process(name: str, given: outbox.inbox.Request) -> int:
    def act(message: outbox.inbox.Received) -> None:
        try:
            message.entity = CALLBACKS[name](session, message.json())
        except KeyError as error:
            raise outbox.inbox.Refused(f"{error} is missing", status=422) from error

    with Session(engine) as session:
        answer = outbox.inbox.process(session, given, SECRET, act, source=f"n8n.{name}", scheme="leads", id=_id_of)
    return answer.status


def _id_of(request: outbox.inbox.Request) -> str | None:
    """n8n numbers each run of a workflow, and each callback of a run is sent once."""
    return json.loads(request.body).get("callback_id")


def _found(session: Session, kind: type[Any], number: int) -> Any:
    if (row := session.get(kind, number)) is None:
        raise outbox.inbox.Refused(f"{kind.__name__}: no {number}", status=404)
    return row
