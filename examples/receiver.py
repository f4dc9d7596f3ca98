"""What the receivers of all examples share: requests come, are verified by the customer's own code, and are kept.

A customer saves the secret of a webhook by `PUT /hooks/{name}`, and can say there which statuses to answer with first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

__all__ = ["Verify", "receiver"]

Verify = Callable[[Mapping[str, str], bytes, str], bool]
"""Tells by headers and body whether a request was made with this secret."""


class Settings(BaseModel):
    """The secret, None where requests are unsigned, and the statuses to answer with before 200."""

    secret: str | None = None
    answers: list[int] = []


@dataclass
class Hook:
    settings: Settings = field(default_factory=Settings)
    requests: list[dict[str, Any]] = field(default_factory=list)


def receiver(verify: Verify, secret: str | None = None) -> FastAPI:
    """Return an application that receives at `/hooks/{name}` and tells what came at `GET /hooks/{name}`.

    `secret` is that of each hook, until it is set up with another one.
    """
    app, hooks = FastAPI(), defaultdict[str, Hook](lambda: Hook(Settings(secret=secret)))

    @app.put("/hooks/{name}", status_code=204)
    async def set_up(name: str, settings: Settings) -> None:
        hooks[name].settings = settings

    @app.get("/hooks/{name}")
    async def received(name: str) -> list[dict[str, Any]]:
        return hooks[name].requests

    @app.post("/hooks/{name}")
    async def receive(name: str, request: Request) -> Response:
        hook, body = hooks[name], await request.body()
        key = hook.settings.secret
        verified = key is None or verify(request.headers, body, key)
        status = 401 if not verified else hook.settings.answers.pop(0) if hook.settings.answers else 200
        hook.requests.append(
            {"headers": dict(request.headers), "body": body.decode(), "verified": verified, "status": status}
        )
        return Response('{"status": "ok"}', status, media_type="application/json")

    return app
