"""The shop's own webhooks: tables, routes, and Celery tasks that sign, send and try again."""

import hashlib
import hmac
import json
import os
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
from celery import Celery
from database import Base, engine, get_db
from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, Session, mapped_column

EVENTS = {"order.placed": "A customer has ordered", "order.cancelled": "An order was called off"}

celery = Celery("webhooks", broker=os.environ.get("BROKER_URL", "redis://localhost"))


class Webhook(Base):
    __tablename__ = "webhooks"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    url: Mapped[str]
    events: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    secret: Mapped[str | None]
    description: Mapped[str | None]
    headers: Mapped[dict[str, str]] = mapped_column(JSONB, default=dict)
    is_active: Mapped[bool] = mapped_column(default=True)
    retry_count: Mapped[int] = mapped_column(default=3)
    timeout_seconds: Mapped[int] = mapped_column(default=30)
    success_count: Mapped[int] = mapped_column(default=0)
    failure_count: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]


class WebhookLog(Base):
    __tablename__ = "webhook_logs"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    webhook_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str]
    status_code: Mapped[int | None]
    response_body: Mapped[str | None]
    response_time_ms: Mapped[int]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC).replace(tzinfo=None))


class WebhookIn(BaseModel):
    url: str = Field(pattern="^https?://", max_length=500)
    events: list[str] = Field(min_length=1)
    secret: str | None = None
    description: str | None = None
    headers: dict[str, str] = {}
    is_active: bool = True
    retry_count: int = Field(default=3, ge=0, le=10)
    timeout_seconds: int = Field(default=30, ge=1, le=300)

    @field_validator("events")
    @classmethod
    def events_are_known(cls, events: list[str]) -> list[str]:
        if unknown := set(events) - set(EVENTS):
            raise ValueError(f"unknown events: {', '.join(sorted(unknown))}")
        return events


class WebhookPatch(WebhookIn):
    url: str = Field(default="", pattern="^https?://", max_length=500)
    events: list[str] = Field(default=[], min_length=1)


class WebhookOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: uuid.UUID
    url: str
    events: list[str]
    description: str | None
    is_active: bool
    retry_count: int
    timeout_seconds: int
    success_count: int
    failure_count: int
    last_error: str | None


class TestIn(BaseModel):
    event: str = "order.placed"
    payload: dict[str, Any] = {"test": True}


class LogOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: uuid.UUID
    event: str
    status_code: int | None
    response_body: str | None
    response_time_ms: int
    error: str | None
    created_at: datetime


def sign(body: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def build_body(event: str, data: dict[str, Any]) -> str:
    timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"event": event, "timestamp": timestamp, "data": data})


def send(db: Session, webhook: Webhook, event: str, text: str) -> WebhookLog:
    body, start = text.encode(), time.monotonic()
    headers = {**webhook.headers, "Content-Type": "application/json", "User-Agent": "Shop-Webhook/1.0"}
    headers["X-Webhook-Event"] = event
    if webhook.secret:
        headers["X-Webhook-Signature"] = sign(body, webhook.secret)
    log = WebhookLog(webhook_id=webhook.id, event=event)
    try:
        response = httpx.post(webhook.url, content=body, headers=headers, timeout=webhook.timeout_seconds)
        log.status_code, log.response_body = response.status_code, response.text[:1000]
        log.error = None if response.is_success else f"HTTP {response.status_code}"
    except httpx.HTTPError as error:
        log.error = str(error) or type(error).__name__
    log.response_time_ms = round((time.monotonic() - start) * 1000)
    db.add(log)
    return log


@celery.task
def trigger_event(event: str, data: dict[str, Any]) -> None:
    body = build_body(event, data)
    with Session(engine) as db:
        wanted = select(Webhook.id).where(Webhook.is_active, Webhook.events.any(event))
        webhook_ids = db.scalars(wanted).all()
    for webhook_id in webhook_ids:
        deliver.delay(str(webhook_id), event, body)


@celery.task(bind=True, max_retries=None)
def deliver(self: Any, webhook_id: str, event: str, body: str) -> None:
    with Session(engine) as db:
        webhook = db.get(Webhook, uuid.UUID(webhook_id))
        if webhook is None or not webhook.is_active:
            return
        log = send(db, webhook, event, body)
        if log.error is None:
            webhook.success_count += 1
        else:
            webhook.failure_count += 1
        webhook.last_error = log.error
        again = log.error is not None and self.request.retries < webhook.retry_count
        db.commit()
    if again:
        raise self.retry(countdown=2 ** (self.request.retries + 1))  # 2, 4, 8 seconds


router = APIRouter()
Db = Annotated[Session, Depends(get_db)]


def get_webhook(webhook_id: uuid.UUID, db: Db) -> Webhook:
    webhook = db.get(Webhook, webhook_id)
    if webhook is None:
        raise HTTPException(404, "Webhook not found")
    return webhook


Found = Annotated[Webhook, Depends(get_webhook)]


@router.post("", status_code=201)
def create_webhook(wanted: WebhookIn, db: Db) -> WebhookOut:
    webhook = Webhook(**wanted.model_dump())
    db.add(webhook)
    db.commit()
    return WebhookOut.model_validate(webhook)


@router.get("")
def list_webhooks(
    db: Db, limit: Annotated[int, Query(ge=1, le=100)] = 20, offset: Annotated[int, Query(ge=0)] = 0
) -> dict[str, Any]:
    total = db.scalar(select(func.count()).select_from(Webhook)) or 0
    page = db.scalars(select(Webhook).order_by(Webhook.id).limit(limit).offset(offset))
    items = [WebhookOut.model_validate(webhook) for webhook in page]
    return {"items": items, "total": total, "limit": limit, "offset": offset, "has_more": offset + limit < total}


@router.get("/{webhook_id}")
def read_webhook(webhook: Found) -> WebhookOut:
    return WebhookOut.model_validate(webhook)


@router.put("/{webhook_id}")
def update_webhook(wanted: WebhookPatch, webhook: Found, db: Db) -> WebhookOut:
    for name, value in wanted.model_dump(exclude_unset=True).items():
        setattr(webhook, name, value)
    db.commit()
    return WebhookOut.model_validate(webhook)


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook: Found, db: Db) -> None:
    db.delete(webhook)
    db.commit()


@router.post("/{webhook_id}/test")
def test_webhook(wanted: TestIn, webhook: Found, db: Db) -> dict[str, Any]:
    log = send(db, webhook, wanted.event, build_body(wanted.event, wanted.payload))
    db.commit()
    fields = ("status_code", "response_time_ms", "response_body", "error")
    return {"success": log.error is None, **{name: getattr(log, name) for name in fields}}


@router.get("/{webhook_id}/logs")
def list_logs(webhook: Found, db: Db, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> list[LogOut]:
    logs = select(WebhookLog).where(WebhookLog.webhook_id == webhook.id).order_by(WebhookLog.created_at.desc())
    return [LogOut.model_validate(log) for log in db.scalars(logs.limit(limit))]
