"""The application around it: users, e-mails, tasks. `python -m examples notely` runs it."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import outbox
from examples.notely import webhooks
from examples.notely.database import Database, Email, Me, Task, User, init_db

app = FastAPI(title="notely")
app.include_router(webhooks.router, prefix="/api/webhooks", tags=["webhooks"])
outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)  # this machine; real users have https
init_db()


class NewUser(BaseModel):
    name: str


class NewEmail(BaseModel):
    id: str
    subject: str
    sender: str


class NewTask(BaseModel):
    title: str


@app.post("/api/users", status_code=201)
def register(given: NewUser, session: Database) -> dict[str, Any]:
    user = User(name=given.name, token=secrets.token_urlsafe(24))
    session.add(user)
    session.flush()
    outbox.record(session, "user.created", {"id": user.id, "name": user.name}, tenant=str(user.id))
    made = {"id": user.id, "token": user.token}
    session.commit()
    return made


@app.post("/api/emails", status_code=201)
def receive_email(given: NewEmail, session: Database, me: Me) -> dict[str, str]:
    session.add(Email(id=given.id, user_id=me.id, subject=given.subject, sender=given.sender))
    event = webhooks.trigger_email_received_webhook(
        email_id=given.id, email_data={"subject": given.subject, "from": given.sender}, user_id=me.id
    )
    session.commit()
    return {"event": event.id}


@app.post("/api/tasks", status_code=201)
def add_task(given: NewTask, session: Database, me: Me) -> dict[str, int]:
    task = Task(user_id=me.id, title=given.title)
    session.add(task)
    session.flush()
    outbox.record(session, "task.created", {"task_id": task.id, "title": task.title}, tenant=str(me.id))
    session.commit()
    return {"id": task.id}


@app.post("/api/tasks/{task_id}/complete", status_code=204)
def complete_task(task_id: int, session: Database, me: Me) -> None:
    task = session.get(Task, task_id)
    if task is None or task.user_id != me.id:
        raise HTTPException(404, f"task: no {task_id}")
    task.done = True
    webhooks.trigger_task_completed_webhook(task_id=str(task_id), task_data={"title": task.title}, user_id=me.id)
    session.commit()


@app.post("/api/webhooks-retry")
def retry_failed(session: Database, me: Me) -> dict[str, int]:
    """Do what notely's job does every five minutes, for one user."""
    count = webhooks.retry_failed_webhooks(me.id)
    session.commit()
    return {"retried": count}
