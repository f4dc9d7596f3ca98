"""What holds for every route: problems, request ids, methods, bounds, rates, versions, things done once."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from sqlalchemy import text

from relay.config.options import Config
from relay.web.app import create_app
from relay.web.every_request import MAX_BODY_BYTES
from relay.web.rate_limits import RateLimits
from tests.support import seeding

pytestmark = pytest.mark.anyio

HOOK = {"url": "https://example.com/hooks", "types": ["order.*"]}


def assert_problem(answer: httpx.Response, status: int, field: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["field"] == field
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["type"].startswith("urn:outbox-relay:problem:")
    assert problem["detail"]


class TestProblems:
    async def test_a_refused_field_is_named_with_its_mend(self, ask):
        answer = await ask("POST /subscriptions", json={**HOOK, "url": "https://10.0.0.1/"})
        assert_problem(answer, 422, "url")
        assert answer.json()["mend"]

    async def test_every_wrong_field_of_a_body_is_told_without_its_value(self, ask):
        answer = await ask("POST /subscriptions", json={**HOOK, "timeout_seconds": "s3cret", "colour": "s3cret"})
        assert_problem(answer, 422, "timeout_seconds")
        assert {one["field"] for one in answer.json()["errors"]} == {"timeout_seconds", "colour"}
        assert "s3cret" not in answer.text

    async def test_an_unknown_parameter_is_refused_not_ignored(self, ask):
        assert_problem(await ask("GET /events?colour=red"), 422, "colour")

    async def test_a_path_and_a_method_that_are_not_there(self, ask, client):
        assert_problem(await client.get("/api/v1/nothing"), 404, "path")
        answer = await client.put("/api/v1/subscriptions")
        assert_problem(answer, 405, "method")
        assert answer.headers["allow"] == "GET, POST, HEAD, OPTIONS"

    @pytest.mark.case("D3")
    @pytest.mark.parametrize(
        "body",
        ["{", '{"a": NaN}', '{"a":1,"a":2}', "[" * 300 + "]" * 300, b"\xff\xfe{}", "{} x", "{}{}", "\ufeff{}"],
    )
    async def test_what_is_no_json(self, ask, body):
        answer = await ask("POST /subscriptions", content=body, headers={"Content-Type": "application/json"})
        assert_problem(answer, 400, "body")

    @pytest.mark.case("D3")
    @pytest.mark.parametrize("body", ["", "null", "[]", '"x"', "1"])
    async def test_what_is_no_object(self, ask, body):
        answer = await ask("POST /subscriptions", content=body, headers={"Content-Type": "application/json"})
        assert_problem(answer, 422, "body")

    @pytest.mark.case("D2")
    @pytest.mark.parametrize(
        "headers",
        [{"Content-Type": "text/plain"}, {}, {"Content-Type": "application/json; charset=latin-1"},
         {"Content-Type": "application/json", "Content-Encoding": "gzip"}],
        ids=["another", "none", "charset", "encoded"],
    )  # fmt: skip
    async def test_another_content_type(self, ask, headers):
        answer = await ask("POST /subscriptions", content=b"{}", headers=headers)
        assert_problem(answer, 415, "content-encoding" if "Content-Encoding" in headers else "content-type")

    @pytest.mark.parametrize("kind", ["application/json;charset=UTF-8", 'application/json; x=y; charset="utf-8"'])
    async def test_json_in_utf_8_may_say_so(self, ask, kind):
        await ask("POST /filter-test", content=b'{"filter":{},"data":1}', headers={"Content-Type": kind}, code=200)

    @pytest.mark.case("D4")
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_body_that_is_too_long(self, ask, chunked):
        async def parts():
            for _ in range(3):
                yield b" " * (MAX_BODY_BYTES // 2)

        content = parts() if chunked else b" " * (MAX_BODY_BYTES + 1)
        answer = await ask("POST /subscriptions", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["type"].endswith("too-large")

    async def test_an_error_of_our_own_has_no_traceback_and_the_log_has_it(self, app, ask, monkeypatch, caplog):
        def fail(*_args: object, **_more: object) -> None:
            raise ZeroDivisionError("whsec_c2VjcmV0c2VjcmV0c2VjcmV0")

        monkeypatch.setattr("relay.web.api.events.list_events", fail)
        with caplog.at_level(logging.ERROR, "relay.web"):
            answer = await ask("GET /events")
        assert_problem(answer, 500, "server")
        assert "ZeroDivision" not in answer.text
        assert "whsec_c2" not in answer.text
        assert answer.json()["request_id"] in caplog.text
        assert {record.request_id for record in caplog.records} == {answer.json()["request_id"]}

    async def test_a_database_that_is_away(self, ask, app, token, caplog):
        away = create_app(Config(database_url="postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(away), base_url="http://relay") as client:
            answer = await client.get("/api/v1/events", headers={"Authorization": f"Bearer {token()}"})
        assert_problem(answer, 503, "database")
        assert "127.0.0.1" not in answer.text
        assert answer.headers["retry-after"] == "2"
        (record,) = [record for record in caplog.records if record.getMessage().startswith("database: ")]
        assert record.request_id == answer.headers["x-request-id"]

    async def test_a_schema_that_does_not_fit_is_told_without_its_name(self, empty_database_url, token):
        app = create_app(Config(database_url=empty_database_url))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay") as client:
            answer = await client.get("/api/v1/events", headers={"Authorization": "Bearer rtk_" + "A" * 43})
        app.state.database.close()
        assert_problem(answer, 503, "server")
        assert "outbox_test" not in answer.text


class TestTokens:
    @pytest.mark.case("D1")
    async def test_one_in_the_query_is_none(self, client, token):
        for name in ("token", "access_token", "authorization", "api_key"):
            assert (await client.get(f"/api/v1/events?{name}={token()}")).status_code == 401

    @pytest.mark.case("D1")
    @pytest.mark.parametrize(
        "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer x", "Bearer rtk_" + "A" * 43, "rtk_" + "A" * 43]
    )
    async def test_without_a_valid_one_the_answer_says_how(self, client, header):
        headers = {} if header is None else {"Authorization": header}
        answer = await client.get("/api/v1/events", headers=headers)
        assert_problem(answer, 401, "authorization")
        assert answer.headers["www-authenticate"].startswith("Bearer ")

    async def test_a_token_is_shown_once_and_ends_when_it_is_revoked(self, ask, token, connection):
        admin = token("admin", "read", tenant="acme")
        made = (await ask("POST /tokens", admin, json={"name": "ci", "rights": ["read"]}, code=201)).json()
        await ask("GET /events", made["token"], code=200)
        listed = (await ask("GET /tokens", admin, code=200)).text
        assert made["id"] in listed
        assert made["token"] not in listed
        await ask(f"DELETE /tokens/{made['id']}", admin, code=200)
        await ask("GET /events", made["token"], code=401)
        noted = (await ask("GET /audit?subject=" + made["id"], admin, code=200)).json()["items"]
        assert [one["action"] for one in noted] == ["token revoked", "token added"]
        assert {one["actor"] for one in noted} == {"token:test"}
        assert made["token"] not in json.dumps(noted)
        stored = connection.execute(text("select t::text from outbox.tokens t")).scalars().all()
        assert made["token"] not in "".join(stored)

    async def test_it_gives_no_right_that_it_has_not_and_none_that_outlives_it(self, ask, token, connection):
        from datetime import timedelta

        admin = token("admin", "read", tenant="acme", expires=timedelta(hours=1))
        for body, field in (
            ({"name": "a", "rights": ["write"]}, "rights"),
            ({"name": "a", "rights": ["read"]}, "expires_at"),
            ({"name": "a", "rights": ["read"], "expires_at": "2099-01-01T00:00:00Z"}, "expires_at"),
            ({"name": "a", "rights": ["read"], "tenant": "globex", "expires_at": None}, "tenant"),
        ):
            assert_problem(await ask("POST /tokens", admin, json=body), 422, field)
        assert connection.execute(text("select count(*) from outbox.tokens")).scalar_one() == 1

    async def test_an_expired_one_is_refused(self, ask, token, connection):
        from datetime import timedelta

        short = token(expires=timedelta(hours=1))
        await ask("GET /token", short, code=200)
        connection.execute(text("update outbox.tokens set expires_at = clock_timestamp()"))
        await ask("GET /token", short, code=401)

    async def test_last_use_is_noted_at_most_once_a_minute(self, ask, token, connection):
        read = text("select last_used_at, xmin::text from outbox.tokens")
        own = token()
        await ask("GET /token", own, code=200)
        first = connection.execute(read).one()
        await ask("GET /token", own, code=200)
        assert connection.execute(read).one() == first
        connection.execute(text("update outbox.tokens set last_used_at = last_used_at - interval '61 seconds'"))
        await ask("GET /token", own, code=200)
        assert connection.execute(read).one().last_used_at > first.last_used_at


class TestMethods:
    async def test_head_is_get_without_a_body(self, ask):
        got, head = await ask("GET /subscriptions", code=200), await ask("HEAD /subscriptions", code=200)
        assert head.content == b""
        assert head.headers["content-length"] == got.headers["content-length"]

    async def test_options_tells_the_methods_and_allows_no_other_origin(self, client):
        answer = await client.options("/api/v1/subscriptions/sub_x", headers={"Origin": "https://evil.example"})
        assert answer.status_code == 204
        assert answer.headers["allow"] == "GET, PATCH, DELETE, HEAD, OPTIONS"
        assert not [name for name in answer.headers if name.startswith("access-control")]

    async def test_answers_are_not_cached_and_not_sniffed(self, ask):
        answer = await ask("GET /events")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


class TestRequestIds:
    async def test_ones_own_comes_back_and_is_in_the_log_without_the_query(self, ask, caplog):
        with caplog.at_level(logging.INFO, "relay.web"):
            answer = await ask("GET /events?type=s3cret", headers={"X-Request-Id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        (record,) = [record for record in caplog.records if "mine-1" in record.getMessage()]
        line = record.getMessage()
        assert record.request_id == "mine-1"
        assert "GET /api/v1/events 200" in line
        assert "by tok_" in line
        assert "s3cret" not in line

    @pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb"])
    async def test_one_that_could_forge_a_line_is_replaced(self, ask, given):
        answer = await ask("GET /events", headers={"X-Request-Id": given})
        assert answer.headers["x-request-id"].startswith("req_")


class TestRates:
    async def test_a_token_that_asks_too_often_is_told_when_to_come_back(self, app, ask, token):
        now = [0.0]
        app.state.rate_limits = RateLimits(60, clock=lambda: now[0])
        own, other = token(), token()
        answers = [await ask("GET /token", own) for _ in range(61)]
        assert [answer.status_code for answer in answers] == [200] * 60 + [429]
        assert answers[0].headers["ratelimit-policy"] == '"token";q=60;w=60'
        assert answers[0].headers["ratelimit"] == '"token";r=59;t=0'
        assert_problem(answers[-1], 429, "rate")
        assert answers[-1].headers["retry-after"] == "1"
        await ask("GET /token", other, code=200)
        now[0] = 1.0
        await ask("GET /token", own, code=200)
        await ask("GET /token", own, code=429)


class TestVersions:
    async def test_a_change_needs_the_version_that_was_read(self, ask):
        path = f"/subscriptions/{(await ask('POST /subscriptions', json=HOOK, code=201)).json()['id']}"
        assert_problem(await ask(f"PATCH {path}", json={"description": "a"}), 428, "if-match")
        assert_problem(await ask(f"DELETE {path}"), 428, "if-match")
        read = (await ask(f"GET {path}")).headers["etag"]
        await ask(f"PATCH {path}", json={"description": "a"}, headers={"If-Match": read}, code=200)
        late = await ask(f"PATCH {path}", json={"description": "b"}, headers={"If-Match": read})
        assert_problem(late, 412, "if-match")
        assert_problem(await ask(f"POST {path}/pause", headers={"If-Match": read}), 412, "if-match")
        await ask(
            f"PATCH {path}", json={"description": "c"}, headers={"If-Match": f'"0", {late.headers["etag"]}'}, code=200
        )
        assert (await ask(f"GET {path}")).json()["description"] == "c"

    async def test_a_new_secret_is_a_new_version(self, ask):
        made = await ask("POST /subscriptions", json=HOOK, code=201)
        rotated = await ask(f"POST /subscriptions/{made.json()['id']}/rotate-secret", code=200)
        assert rotated.json()["secret"] != made.json()["secret"]
        assert rotated.headers["etag"] != made.headers["etag"]


class TestOnce:
    async def test_what_is_sent_twice_with_a_key_is_made_once_and_answered_alike(self, ask, connection):
        first, again = [
            await ask("POST /subscriptions", json=HOOK, headers={"Idempotency-Key": "k1"}, code=201) for _ in range(2)
        ]
        assert again.json() == first.json()
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        assert len((await ask("GET /subscriptions")).json()["items"]) == 1

    async def test_what_is_kept_of_an_answer_shows_no_secret(self, ask, connection):
        made = await ask("POST /subscriptions", json=HOOK, headers={"Idempotency-Key": "k1"}, code=201)
        (kept,) = connection.execute(text("select answer from outbox.api_requests")).scalars()
        assert made.json()["secret"].encode() not in bytes(kept)
        assert b"example.com" not in bytes(kept)

    async def test_a_key_is_for_one_request_of_one_token(self, ask, token):
        key = {"Idempotency-Key": "k1"}
        first = await ask("POST /subscriptions", json=HOOK, headers=key, code=201)
        other = await ask("POST /subscriptions", json={**HOOK, "types": ["*"]}, headers=key)
        assert_problem(other, 422, "idempotency-key")
        theirs = await ask("POST /subscriptions", token(), json=HOOK, headers=key, code=201)
        assert theirs.json()["id"] != first.json()["id"]

    async def test_what_failed_may_be_tried_again_with_its_key(self, ask, connection):
        key = {"Idempotency-Key": "k1"}
        assert_problem(await ask("POST /subscriptions", json={**HOOK, "url": "ftp://x"}, headers=key), 422, "url")
        assert connection.execute(text("select count(*) from outbox.api_requests")).scalar_one() == 0
        await ask("POST /subscriptions", json=HOOK, headers=key, code=201)

    async def test_two_at_the_same_time_make_one(self, ask, connection):
        import anyio

        answers: list[httpx.Response] = []

        async def send() -> None:
            answers.append(await ask("POST /subscriptions", json=HOOK, headers={"Idempotency-Key": "k1"}))

        await ask("GET /token")
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(send)
        assert [answer.status_code for answer in answers] == [201] * 5
        assert len({answer.json()["id"] for answer in answers}) == 1

    async def test_answers_are_forgotten_after_a_day(self, ask, connection):
        await ask("POST /subscriptions", json=HOOK, headers={"Idempotency-Key": "k1"}, code=201)
        connection.execute(text("update outbox.api_requests set at = at - interval '25 hours'"))
        await ask("POST /subscriptions", json=HOOK, headers={"Idempotency-Key": "k2"}, code=201)
        assert connection.execute(text("select count(*) from outbox.api_requests")).scalar_one() == 1

    async def test_an_event_is_recorded_once_as_it_is_written(self, ask, connection):
        body = '{"type": "order.created", "data": {"cents": 42.10, "big": 1e400}, "key": "o-7"}'
        headers = {"Content-Type": "application/json", "Idempotency-Key": "e1"}
        first, again = [await ask("POST /events", content=body, headers=headers, code=201) for _ in range(2)]
        assert first.json()["id"] == again.json()["id"]
        rows = connection.execute(text("select payload, tenant, key from outbox.events")).all()
        assert rows == [('{"cents": 42.10, "big": 1e400}', "acme", "o-7")]
        other = await ask("POST /events", json={"type": "order.created", "data": 2}, headers={"Idempotency-Key": "e1"})
        assert_problem(other, 422, "idempotency_key")
        assert_problem(await ask("POST /events", json={"type": "a", "data": 1}), 422, "idempotency-key")

    @pytest.mark.parametrize("given", [53626110, 53626110.5, "53626110", "1e9", True, "tomorrow"])
    async def test_a_time_is_a_text_as_rfc_3339_writes_it(self, ask, given):
        event = {"type": "a", "data": 1, "available_at": given}
        assert_problem(await ask("POST /events", json=event, headers={"Idempotency-Key": "k"}), 422, "available_at")
        token = {"name": "a", "rights": ["read"], "expires_at": given}
        assert_problem(await ask("POST /tokens", json=token), 422, "expires_at")


async def test_who_changed_it_is_audited_by_the_name_of_the_token(ask, connection):
    made = await ask("POST /subscriptions", json=HOOK, code=201)
    (entry, *_) = (await ask(f"GET /audit?subject={made.json()['id']}&action=added", code=200)).json()["items"]
    assert entry["actor"] == "token:test"


async def test_a_dead_letter_is_redriven_and_another_purged(ask, connection):
    sub = seeding.subscribe(connection, tenant="acme")
    made = seeding.resolve(connection, seeding.record(connection, tenant="acme"), sub, sub)
    for one in made:
        seeding.attempt(connection, one, "dead", error="no")
    redriven = await ask(f"POST /dead-letters/{made[0]}/redrive", code=201)
    assert redriven.json()["count"] == 1
    await ask(f"DELETE /dead-letters/{made[1]}", code=200)
    assert (await ask("GET /dead-letters")).json()["items"] == []
    again = redriven.json()["deliveries"][0]
    assert (await ask(f"GET /deliveries/{again}", code=200)).json()["state"] == "due"
    assert (await ask("POST /deliveries/cancel", json={"ids": [again], "dry_run": True}, code=200)).json()["count"] == 1
    assert (await ask(f"POST /deliveries/{again}/cancel", code=200)).json()["deliveries"] == [again]
    assert_problem(await ask(f"POST /deliveries/{again}/cancel"), 409, "delivery")
