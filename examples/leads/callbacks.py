"""What n8n calls back: verified, acted upon once and audited, in one transaction with the next event."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session

import outbox.inbox
from examples.leads.database import Demo, Lead, Run, Video, engine
from examples.leads.events import SECRET, tell

router = APIRouter(prefix="/n8n")


class DemoApproval(BaseModel):
    demo_id: int
    approved: bool


class VideoApproval(BaseModel):
    video_id: int
    approved: bool
    to: str = ""


class WorkflowCompleted(BaseModel):
    execution_id: str
    lead_id: int


class WorkflowStatus(BaseModel):
    execution_id: str
    status: str


class WorkflowError(BaseModel):
    execution_id: str
    error: str


def approve_demo(session: Session, given: DemoApproval) -> str:
    demo = _found(session, Demo, given.demo_id)
    demo.approved = given.approved
    if demo.approved:
        session.add(Video(demo_id=demo.id))
    return f"demo:{demo.id}"


def approve_video(session: Session, given: VideoApproval) -> str:
    video = _found(session, Video, given.video_id)
    video.approved = given.approved
    if video.approved:
        tell(session, "email_sent", {"video_id": video.id, "to": given.to}, f"video:{video.id}")
    return f"video:{video.id}"


def complete_workflow(session: Session, given: WorkflowCompleted) -> str:
    lead = _found(session, Lead, given.lead_id)
    lead.note = f"workflow {given.execution_id} completed"
    return f"lead:{lead.id}"


def note_status(session: Session, given: WorkflowStatus) -> str:
    session.merge(Run(execution_id=given.execution_id, state=given.status))
    return f"workflow:{given.execution_id}"


def note_error(session: Session, given: WorkflowError) -> str:
    entity = f"workflow:{given.execution_id}"
    tell(session, "workflow_error", given.model_dump(), entity)
    return entity


CALLBACKS: dict[str, tuple[type[BaseModel], Callable[[Session, Any], str]]] = {
    "demo-approval": (DemoApproval, approve_demo),
    "video-approval": (VideoApproval, approve_video),
    "workflow-completed": (WorkflowCompleted, complete_workflow),
    "workflow-status": (WorkflowStatus, note_status),
    "error-notification": (WorkflowError, note_error),
}
"""Of each callback what its body is, and what acts upon it and returns what it was about."""


@router.post("/{name}")
async def receive(name: str, request: Request) -> Response:
    """Receive a callback: 200 also for a copy, 401 unsigned, 400 without an id, 404 and 422 for what cannot be done."""
    if name not in CALLBACKS:
        return Response(status_code=404)
    if not SECRET:
        return Response(status_code=503)  # nobody's signature can be told from a forged one
    given = await outbox.inbox.read(request)
    return Response(status_code=await run_in_threadpool(_process, name, given))


def _process(name: str, request: outbox.inbox.Request) -> int:
    body, handle = CALLBACKS[name]

    def act(message: outbox.inbox.Received) -> None:
        try:
            given = body.model_validate_json(message.body)
        except ValidationError as error:
            raise outbox.inbox.Refused(f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}", status=422) from error
        message.entity = handle(session, given)

    with Session(engine) as session:
        answer = outbox.inbox.process(session, request, SECRET, act, source=f"n8n.{name}", scheme="leads", id=_id_of)
    return answer.status


def _id_of(request: outbox.inbox.Request) -> str | None:
    """n8n numbers each run of a workflow, and each callback of a run is sent once."""
    try:
        given = json.loads(request.body)
    except ValueError:
        return None
    return given.get("callback_id") if isinstance(given, dict) else None


def _found(session: Session, kind: type[Any], number: int) -> Any:
    if (row := session.get(kind, number)) is None:
        raise outbox.inbox.Refused(f"{kind.__name__}: no {number}", status=404)
    return row
