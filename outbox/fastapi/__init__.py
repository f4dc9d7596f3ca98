"""Outbox in a FastAPI application, under its own authentication and on its own sessions.

`webhooks_router()` makes the routes of your customers' webhooks; `Shape` says what fields and paths are called and how
far values may go. `inbox_router()` receives webhooks, each once. `session_in_use()` lets `outbox.emit()` find the
request's session, and `lifespan()` checks the schema at the start. Requests to customers are sent by the relay, and
never from here.
"""

from outbox.fastapi.application import lifespan, session_in_use
from outbox.fastapi.inbox import inbox_router
from outbox.fastapi.router import webhooks_router
from outbox.fastapi.shape import Shape

__all__ = ["Shape", "inbox_router", "lifespan", "session_in_use", "webhooks_router"]
