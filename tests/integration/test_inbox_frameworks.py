"""docs/inbox.md: every receiver on that page is run; it takes what is signed once, and refuses a forgery."""

from __future__ import annotations

import asyncio
import io
from typing import Any
from wsgiref.util import setup_testing_defaults

import httpx
import pytest
import sqlalchemy as sa
from django.test import RequestFactory
from sqlalchemy.orm import Session

import outbox
from outbox.signing.verify import new_secret
from tests.support import django_site, readme

BLOCKS = {
    block.text.partition("\n")[0].removeprefix("# "): block
    for block in readme.blocks(readme.ROOT / "docs" / "inbox.md")
    if block.text.startswith("# ")
}
BODY = b'{"id": 7}'
Statuses = list[int]


def fastapi(names: dict[str, Any], requests: list[dict[str, str]]) -> Statuses:
    async def run() -> Statuses:
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            answers = [await client.post("/hooks/n8n", content=BODY, headers=headers) for headers in requests]
        await names["async_engine"].dispose()
        return [answer.status_code for answer in answers]

    return asyncio.run(run())


def flask(names: dict[str, Any], requests: list[dict[str, str]]) -> Statuses:
    client = names["app"].test_client()
    return [client.post("/hooks/n8n", data=BODY, headers=headers).status_code for headers in requests]


def django(names: dict[str, Any], requests: list[dict[str, str]]) -> Statuses:
    django_site.begin()
    make = RequestFactory()
    made = [make.post("/hooks/n8n", BODY, content_type="application/json", headers=headers) for headers in requests]
    with django_site.on_database(names["engine"].url.render_as_string(hide_password=False)):
        return [names["receive"](request).status_code for request in made]


def wsgi(names: dict[str, Any], requests: list[dict[str, str]]) -> Statuses:
    answered: list[str] = []
    for headers in requests:
        given: dict[str, Any] = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(BODY))}
        setup_testing_defaults(given)
        given |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        names["app"](given | {"wsgi.input": io.BytesIO(BODY)}, lambda status, _: answered.append(status))
    return [int(status.split()[0]) for status in answered]


FRAMEWORKS = {"FastAPI, Starlette": fastapi, "Flask": flask, "Django": django, "WSGI": wsgi}


def test_the_page_has_each_framework() -> None:
    assert BLOCKS.keys() == FRAMEWORKS.keys()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_receiver_of_the_page_acts_once_and_refuses_a_forgery(framework: str, engine: sa.Engine) -> None:
    secret = new_secret()
    names: dict[str, Any] = {"engine": engine, "Session": Session, "outbox": outbox, "secret": secret}
    names["__name__"] = "__main__"
    exec(compile(BLOCKS[framework].text, framework, "exec", dont_inherit=True), names)
    signed, forged = (outbox.signed_headers(each, "evt_1", BODY) for each in (secret, new_secret()))
    assert FRAMEWORKS[framework](names, [signed, signed, forged]) == [200, 200, 401]
    with engine.connect() as connection:
        found = connection.execute(sa.text("select outcome from outbox.inbox order by at")).scalars()
        assert list(found) == ["accepted", "duplicate", "refused"]
        assert connection.execute(sa.text("select payload from outbox.events")).scalars().all() == ['{"id":7}']
