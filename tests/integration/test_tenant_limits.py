"""A tenant's limit: set by Python, SQL and the command line, refused where it is none, noted, and read by relays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

import outbox
from outbox.errors import SubscriptionError
from outbox.subscriptions import TenantLimit, limit_tenant, list_tenant_limits
from relay.cli import cli
from tests.support.loopback import allow_loopback


def rows(connection: Connection, statement: str) -> list[Any]:
    return list(connection.execute(text(statement)).all())


def relay(url: str, *arguments: str) -> str:
    ended = CliRunner().invoke(cli, arguments, env={"RELAY_DATABASE_URL": url}, standalone_mode=False)
    assert ended.exception is None, ended.exception
    return ended.stdout


def test_it_is_set_changed_listed_and_taken_away(engine: Engine) -> None:
    with engine.begin() as connection:
        assert limit_tenant(connection, "b", rate_limit="5/s") == TenantLimit(
            tenant="b", rate_limit="5/s", rate_burst=None
        )
        limit_tenant(connection, "a", rate_limit="30/min", rate_burst=3)
        limit_tenant(connection, "b", rate_limit="7/h", rate_burst=2)
        found = list_tenant_limits(connection)
        assert [(one.tenant, one.rate_limit, one.rate_burst) for one in found] == [("a", "30/min", 3), ("b", "7/h", 2)]
        assert list_tenant_limits(connection, after="a", limit=1) == found[1:]
        assert limit_tenant(connection, "b", rate_limit=None) is None
        assert list_tenant_limits(connection) == found[:1]


def test_each_change_is_noted_and_none_where_nothing_changes(engine: Engine) -> None:
    with engine.begin() as connection:
        for rate in ("5/s", "5/s", "6/s", None, None):
            limit_tenant(connection, "acme", rate_limit=rate)
        noted = rows(connection, "select action, subject, tenant, before, after from outbox.audit order by at, id")
    five, six = ({"rate_limit": rate, "rate_burst": None} for rate in ("5/s", "6/s"))
    assert noted == [
        ("tenant limit set", "acme", "acme", None, five),
        ("tenant limit set", "acme", "acme", five, six),
        ("tenant limit removed", "acme", "acme", six, None),
    ]


def test_a_change_moves_the_versions_of_the_tenants_subscriptions_only(engine: Engine) -> None:
    allow_loopback()
    with engine.begin() as connection:
        for tenant in ("acme", "other"):
            outbox.subscribe(connection, "https://example.com/", ["*"], tenant=tenant)
        before = dict(rows(connection, "select tenant, version from outbox.subscriptions"))
        limit_tenant(connection, "acme", rate_limit="5/s")
        after = dict(rows(connection, "select tenant, version from outbox.subscriptions"))
    assert after["acme"] > before["acme"]
    assert after["other"] == before["other"]


@pytest.mark.parametrize("rate", ["5", "5/d", "0/s", "1.5/s", "100000/s", " 5/s", "5/S", 5, "none"])
def test_a_rate_that_is_none_is_refused_by_name_before_anything_is_written(engine: Engine, rate: Any) -> None:
    with engine.begin() as connection:
        with pytest.raises(SubscriptionError, match=r"^rate_limit: .* is not a rate; give N/s, N/min or N/h"):
            limit_tenant(connection, "acme", rate_limit=rate)
        assert list_tenant_limits(connection) == []


@pytest.mark.parametrize("burst", [0, 10_001, True, "5", 1.5])
def test_a_burst_that_is_none_is_refused(engine: Engine, burst: Any) -> None:
    with engine.begin() as connection, pytest.raises(SubscriptionError, match=r"^rate_burst: "):
        limit_tenant(connection, "acme", rate_limit="5/s", rate_burst=burst)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into outbox.tenant_limits (tenant, rate_limit) values ('a', '5')",
        "insert into outbox.tenant_limits (tenant, rate_limit) values ('*', '5/s')",
        "insert into outbox.tenant_limits (tenant, rate_limit, rate_burst) values ('a', '5/s', 0)",
        "insert into outbox.limits (id, slowed_to) values (outbox.uuid7(), 'infinity')",
        "insert into outbox.limits (id, allowed_at) values (outbox.uuid7(), 'infinity')",
        "insert into outbox.in_flight values (outbox.uuid7(), outbox.uuid7(), 0, now())",
    ],
)
def test_the_schema_refuses_what_would_mean_nothing(engine: Engine, statement: str) -> None:
    with engine.begin() as connection, pytest.raises(DBAPIError, match="check constraint"):
        connection.execute(text(statement))


def test_the_command_line_sets_lists_and_takes_away(database_url: str) -> None:
    assert relay(database_url, "tenants", "limit", "acme", "--rate", "200/s", "--burst", "50") == (
        "tenant 'acme': 200/s, 50 at once\n"
    )
    assert json.loads(relay(database_url, "tenants", "limits", "--json")) == {
        "tenant": "acme", "rate_limit": "200/s", "rate_burst": 50,
    }  # fmt: skip
    assert "acme" in relay(database_url, "tenants", "limits")
    assert relay(database_url, "tenants", "limit", "acme", "--rate", "none") == "tenant 'acme': no limit\n"
    assert relay(database_url, "tenants", "limits", "--json") == ""
    assert "tenant limit removed" in relay(database_url, "audit", "--action", "tenant limit removed")


@pytest.mark.case("B19")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rate_limit": "0/s"}, "rate_limit: '0/s' is not a rate"),
        ({"rate_limit": "-1/s"}, "rate_limit: '-1/s' is not a rate"),
        ({"rate_limit": "1000000000/s"}, "rate_limit: '1000000000/s' is not a rate"),
        ({"rate_limit": 0}, "rate_limit: 0 is not"),
        ({"rate_limit": "5/s", "rate_burst": 0}, "rate_burst: 0 is not"),
        ({"max_in_flight": 0}, "max_in_flight: 0 is not"),
        ({"max_in_flight": -1}, "max_in_flight: -1 is not"),
    ],
)
def test_a_limit_of_a_subscription_that_is_none_is_refused(engine: Engine, given: dict[str, Any], told: str) -> None:
    with engine.begin() as connection:
        with pytest.raises(SubscriptionError) as error:
            outbox.subscribe(connection, "https://example.com/", ["*"], **given)
        assert rows(connection, "select id from outbox.subscriptions") == []
    assert str(error.value).startswith(told)


def test_a_subscriptions_flags_take_none_as_no_limit(database_url: str, engine: Engine) -> None:
    allow_loopback()
    with engine.begin() as connection:
        made = outbox.subscribe(
            connection, "https://example.com/", ["*"], rate_limit="20/s", rate_burst=5, max_in_flight=4
        )
    arguments = ("--rate-limit", "90/min", "--rate-burst", "none", "--max-in-flight", "none")
    told = json.loads(relay(database_url, "subscriptions", "update", made.id, *arguments, "--json"))
    assert (told["rate_limit"], told["rate_burst"], told["max_in_flight"]) == ("90/min", None, None)
