"""Subscriptions in the caller's session: fields checked before any SQL, tenants apart, a secret shown once."""

from __future__ import annotations

import asyncio
import math

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import Secret, subscriptions
from outbox.errors import NotFoundError, SubscriptionError
from outbox.ids import parse_id
from outbox.sealing import SealingKey
from outbox.subscriptions import NewSubscription

URL = "https://example.com/hooks"
SECRET = "whsec_" + "QUJD" * 11
UNTOUCHED = None  # what is refused is refused before the connection is looked at


@pytest.fixture
def connection(engine):
    with engine.connect() as connection:
        yield connection


def add(connection, types=("order.created",), url=URL, **fields) -> NewSubscription:
    return subscriptions.add(connection, url, list(types), **fields)


def live_secrets(connection, subscription_id) -> list[str]:
    return list(
        connection.execute(
            text("""select secret from outbox.secrets where subscription_id = :id
                    and (expires_at is null or expires_at > clock_timestamp()) order by created_at desc"""),
            {"id": parse_id("sub", subscription_id)},
        ).scalars()
    )


class TestTransaction:
    def test_nothing_is_committed_for_the_caller(self, engine):
        with engine.connect() as connection:
            made = add(connection)
            connection.rollback()
        with engine.connect() as connection, pytest.raises(NotFoundError):
            subscriptions.get(connection, made.id)

    def test_a_session_works_like_a_connection(self, engine):
        with Session(engine) as session, session.begin():
            made = outbox.subscribe(session, URL, ["order.*"])
        with Session(engine) as session:
            assert subscriptions.get(session, made.id).types == ("order.*",)

    @pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
    def test_asynchronous_code_calls_run_sync(self, database_url, driver):
        async def subscribe() -> str:
            engine = create_async_engine(make_url(database_url).set(drivername=driver))
            async with AsyncSession(engine) as session:
                made = await session.run_sync(outbox.subscribe, URL, ["a.b"], metadata={"owner": "7"})
                await session.run_sync(subscriptions.update, made.id, schedule_seconds=[1, 2])
                await session.run_sync(subscriptions.rotate_secret, made.id)
                found = await session.run_sync(subscriptions.list, type="a.b")
                await session.commit()
            await engine.dispose()
            assert [(item.schedule_seconds, item.metadata) for item in found] == [((1, 2), {"owner": "7"})]
            return made.id

        assert asyncio.run(subscribe()).startswith("sub_")

    def test_psycopg2_works_too(self, database_url):
        engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
        with engine.begin() as connection:
            made = add(connection)
            subscriptions.rotate_secret(connection, made.id)
            assert subscriptions.list(connection, type="order.created")[0].id == made.id
        engine.dispose()

    def test_a_refused_field_leaves_the_transaction_usable(self, connection):
        add(connection)
        with pytest.raises(SubscriptionError):
            add(connection, timeout_seconds=0)
        assert len(subscriptions.list(connection)) == 1

    @pytest.mark.case("C7")
    def test_a_hostile_search_path_changes_nothing(self, connection):
        connection.execute(text("create temporary table subscriptions (like outbox.subscriptions)"))
        connection.execute(text("create temporary table secrets (like outbox.secrets)"))
        connection.execute(text("set local search_path = pg_temp"))
        made = add(connection)
        subscriptions.rotate_secret(connection, made.id)
        assert connection.execute(text("select count(*) from pg_temp.subscriptions")).scalar_one() == 0
        assert subscriptions.get(connection, made.id).url == URL


class TestSecret:
    def test_a_new_one_is_handed_out_once_and_repr_hides_it(self, connection):
        made = add(connection)
        assert made.secret.startswith("whsec_")
        assert made.secret not in repr(made)
        assert live_secrets(connection, made.id) == [made.secret]
        assert not hasattr(subscriptions.get(connection, made.id), "secret")

    def test_an_own_one_is_kept(self, connection):
        assert live_secrets(connection, add(connection, secret=SECRET).id) == [SECRET]

    @pytest.mark.case("B7")
    @pytest.mark.parametrize("secret", ["", "whsec_", "   ", b"whsec_QUJD", 7])
    def test_an_empty_secret_is_refused(self, secret):
        with pytest.raises(SubscriptionError, match="secret"):
            add(UNTOUCHED, secret=secret)

    @pytest.mark.case("B8")
    @pytest.mark.parametrize("encoded", ["QUJD" * 7, "QUJD" * 22])
    def test_a_secret_of_the_wrong_length_is_refused(self, encoded):
        with pytest.raises(SubscriptionError, match="24 to 64"):
            add(UNTOUCHED, secret="whsec_" + encoded)

    @pytest.mark.case("B9")
    @pytest.mark.parametrize("encoded", ["-_-_" * 11, "QUJD" * 5 + "\n" + "QUJD" * 5, "QUJD" * 10 + "Q", "é" * 44])
    def test_a_secret_that_is_not_base64_is_refused_without_being_repeated(self, encoded):
        with pytest.raises(SubscriptionError, match="secret") as refused:
            add(UNTOUCHED, secret="whsec_" + encoded)
        assert encoded not in str(refused.value)

    def test_rotation_lets_the_old_one_sign_along(self, connection):
        made = add(connection)
        rotated = subscriptions.rotate_secret(connection, made.id)
        assert live_secrets(connection, made.id) == [rotated.secret, made.secret]

    @pytest.mark.field("F118")
    @pytest.mark.parametrize("spelled", [SECRET, SECRET.removeprefix("whsec_"), Secret(SECRET)])
    def test_a_rotation_to_a_secret_that_signs_already_is_refused(self, connection, spelled):
        made = add(connection, secret=SECRET)
        with pytest.raises(SubscriptionError, match=r"^secret: it signs already"):
            subscriptions.rotate_secret(connection, made.id, secret=spelled)
        fresh = subscriptions.rotate_secret(connection, made.id).secret
        for old in (SECRET, fresh):
            with pytest.raises(SubscriptionError, match=r"^secret: it signs already"):
                subscriptions.rotate_secret(connection, made.id, secret=old)
        subscriptions.rotate_secret(connection, made.id, overlap_seconds=0)
        assert subscriptions.rotate_secret(connection, made.id, secret=SECRET).secret == SECRET  # it had ended

    @pytest.mark.field("F118")
    def test_a_sealed_key_of_ed25519_is_known_by_its_public_key(self, connection):
        key = SealingKey(X25519PrivateKey.generate().public_key().public_bytes_raw())
        register = text("insert into outbox.sealing_keys (id, key) values (:id, :key)")
        connection.execute(register, {"id": key.id, "key": key.text})
        made = add(connection, key_type="ed25519")
        with pytest.raises(SubscriptionError, match=r"^secret: it signs already"):
            subscriptions.rotate_secret(connection, made.id, secret=made.secret)

    @pytest.mark.field("F118")
    @pytest.mark.parametrize("scheme", ["standard", "github"])
    def test_a_sealed_secret_is_known_by_its_fingerprint(self, connection, scheme):
        key = SealingKey(X25519PrivateKey.generate().public_key().public_bytes_raw())
        register = text("insert into outbox.sealing_keys (id, key) values (:id, :key)")
        connection.execute(register, {"id": key.id, "key": key.text})
        made = add(connection, scheme=scheme)
        given = add(connection, scheme=scheme, secret=SECRET)
        for one, secret in ((made, made.secret), (given, SECRET)):
            with pytest.raises(SubscriptionError, match=r"^secret: it signs already"):
                subscriptions.rotate_secret(connection, one.id, secret=secret)
        assert subscriptions.rotate_secret(connection, made.id, secret=SECRET).secret == SECRET

    def test_rotation_without_overlap_ends_the_old_ones_at_once(self, connection):
        made = add(connection)
        rotated = subscriptions.rotate_secret(connection, made.id, secret=SECRET, overlap_seconds=0)
        assert rotated.secret == SECRET
        assert live_secrets(connection, made.id) == [SECRET]

    def test_a_later_rotation_never_lengthens_an_overlap(self, connection):
        made = add(connection)
        subscriptions.rotate_secret(connection, made.id, overlap_seconds=60)
        subscriptions.rotate_secret(connection, made.id, overlap_seconds=86_400)
        left = connection.execute(
            text("select extract(epoch from expires_at - clock_timestamp()) from outbox.secrets where secret = :s"),
            {"s": made.secret},
        ).scalar_one()
        assert left <= 60

    def test_five_live_ones_are_enough(self, connection):
        made = add(connection)
        for _ in range(4):
            subscriptions.rotate_secret(connection, made.id)
        with pytest.raises(SubscriptionError, match="5 older secrets still sign along"):
            subscriptions.rotate_secret(connection, made.id)
        connection.rollback()

    @pytest.mark.parametrize("seconds", [-1, 1.5, True, math.nan, 10**9, "60"])
    def test_an_overlap_out_of_range_is_refused(self, connection, seconds):
        made = add(connection)
        with pytest.raises(SubscriptionError, match="overlap_seconds"):
            subscriptions.rotate_secret(connection, made.id, overlap_seconds=seconds)


class TestFields:
    def test_defaults(self, connection):
        made = add(connection)
        assert (made.tenant, made.description, made.metadata) == ("", "", {})
        assert made.timeout_seconds == 15
        assert made.schedule_seconds == (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
        assert (made.state, made.created_at.utcoffset() is not None) == ("active", True)

    @pytest.mark.case("B4")
    @pytest.mark.parametrize("url", ["ftp://x/", "example.com", "https://user:pw@h/", "https://h/\n", "", None, 7])
    def test_a_url_that_is_none_is_refused(self, url):
        with pytest.raises(SubscriptionError, match=r"^url"):
            add(UNTOUCHED, url=url)

    def test_the_url_is_kept_in_its_one_spelling(self, connection):
        assert add(connection, url="HTTPS://Example.COM:443/Hooks").url == "https://example.com/Hooks"

    @pytest.mark.case("B14")
    @pytest.mark.parametrize("timeout", [0, -1, 301, math.nan, math.inf, 1e9, 1.5, "10", True])
    def test_a_timeout_out_of_range_is_refused(self, timeout):
        with pytest.raises(SubscriptionError, match="timeout_seconds"):
            add(UNTOUCHED, timeout_seconds=timeout)

    @pytest.mark.case("B16", "B17")
    @pytest.mark.parametrize("schedule", [[], [0, 0, 0], [9, 1], [604_800] * 20])
    def test_a_schedule_may_be_empty_descend_and_last(self, connection, schedule):
        assert add(connection, schedule_seconds=schedule).schedule_seconds == tuple(schedule)

    @pytest.mark.case("B16", "B17")
    @pytest.mark.parametrize(
        "schedule", [[-1], [math.nan], [1.5], ["5"], "5,300", [True], [604_801], [1] * 21, [2**31], 7, [None]]
    )
    def test_a_schedule_out_of_range_is_refused(self, schedule):
        with pytest.raises(SubscriptionError, match="schedule_seconds"):
            add(UNTOUCHED, schedule_seconds=schedule)

    @pytest.mark.case("B32")
    @pytest.mark.parametrize("pattern", ["*", "a.*", "a.b.*", "A.B", "a", "__proto__", "7.x"])
    def test_patterns_that_mean_something(self, connection, pattern):
        assert add(connection, [pattern]).types == (pattern,)

    @pytest.mark.case("B32")
    @pytest.mark.parametrize(
        "types", [[""], ["**"], ["a.*.b"], [".*"], ["*.a"], ["a*"], ["a b"], ["é"], ["a..b"], ["a\n"], ["a" * 129], [7]]
    )
    def test_patterns_that_mean_nothing_are_refused(self, types):
        with pytest.raises(SubscriptionError, match="types"):
            add(UNTOUCHED, types)

    @pytest.mark.parametrize("types", ["order.created", [], None, {"a"}, [f"t{n}" for n in range(201)]])
    def test_types_are_a_list_of_1_to_200(self, types):
        with pytest.raises(SubscriptionError, match="types"):
            subscriptions.add(UNTOUCHED, URL, types)

    def test_a_pattern_given_twice_is_kept_once(self, connection):
        assert add(connection, ["a", "b", "a"]).types == ("a", "b")

    @pytest.mark.case("B36")
    def test_a_description_is_kept_as_given(self, connection):
        hostile = "<script>\x1b[31m\u202etxt.exe\n"
        assert add(connection, description=hostile).description == hostile

    @pytest.mark.case("B36")
    @pytest.mark.parametrize(
        ("description", "why"),
        [
            ("x" * 2049, "is 2049 bytes, at most 2048"),
            ("é" * 1025, "is 2050 bytes, at most 2048"),
            ("\x00", "has a NUL character"),
            ("\ud800", "has a lone surrogate"),
            (7, "must be a str, not int"),
        ],
    )
    def test_a_description_that_is_too_long_or_no_text_is_refused(self, description, why):
        with pytest.raises(SubscriptionError, match=f"^description: {why}"):
            add(UNTOUCHED, description=description)

    @pytest.mark.parametrize(
        "metadata", [[], "a", {"a": 1}, {1: "a"}, {"a": "\x00"}, {"a": "\ud800"}, {"a": "x" * 8200}]
    )
    def test_metadata_is_a_small_mapping_of_text_to_text(self, metadata):
        with pytest.raises(SubscriptionError, match="metadata"):
            add(UNTOUCHED, metadata=metadata)

    @pytest.mark.parametrize("tenant", ["x" * 257, "\x00", "\ud800", None, 7])
    def test_a_tenant_is_short_text(self, tenant):
        with pytest.raises(SubscriptionError, match=r"^tenant: (is|has|must be) "):
            add(UNTOUCHED, tenant=tenant)


def outcome_of(call):
    try:
        return call()
    except NotFoundError:
        return NotFoundError


class TestTenants:
    def test_every_tenants_events_are_for_the_operator_only(self, connection):
        with pytest.raises(SubscriptionError, match=r"relay subscriptions add --all-tenants"):
            add(connection, tenant="*")
        made = subscriptions.add_for_every_tenant(connection, URL, ["*"])
        assert made.tenant == "*"
        assert "add_for_every_tenant" not in outbox.__all__

    @pytest.mark.case("B35")
    def test_another_tenants_subscription_is_not_found_by_any_verb(self, connection):
        made = add(connection, tenant="acme")
        calls = [
            lambda: subscriptions.get(connection, made.id, tenant="other"),
            lambda: subscriptions.update(connection, made.id, tenant="other", description="x"),
            lambda: subscriptions.pause(connection, made.id, tenant="other"),
            lambda: subscriptions.resume(connection, made.id, tenant="other"),
            lambda: subscriptions.remove(connection, made.id, tenant="other"),
            lambda: subscriptions.rotate_secret(connection, made.id, tenant="other"),
            lambda: subscriptions.disable(connection, made.id, tenant="other", reason="x"),
            lambda: subscriptions.get(connection, made.id),
            lambda: subscriptions.remove(connection, made.id),
        ]
        missing = "sub_00000000000000000000000000"
        with pytest.raises(NotFoundError) as nothing:
            subscriptions.get(connection, missing, tenant="other")
        for call in calls:
            with pytest.raises(NotFoundError) as refused:
                call()
            assert str(refused.value).replace(made.id, missing) == str(nothing.value)
        assert subscriptions.get(connection, made.id, tenant="acme") == subscriptions.get(
            connection, made.id, tenant=outbox.EVERY_TENANT
        )

    @pytest.mark.field("F102")
    def test_no_value_that_a_request_can_hold_stands_for_every_tenant(self, connection):
        made = add(connection, tenant="acme")
        for tenant in (None, "*", 0, False, b"", "acme\0", ["acme"], "EVERY_TENANT"):
            for call in (
                lambda tenant=tenant: subscriptions.list(connection, tenant=tenant),
                lambda tenant=tenant: subscriptions.get(connection, made.id, tenant=tenant),
                lambda tenant=tenant: subscriptions.update(connection, made.id, tenant=tenant, description="x"),
                lambda tenant=tenant: subscriptions.rotate_secret(connection, made.id, tenant=tenant),
                lambda tenant=tenant: subscriptions.remove(connection, made.id, tenant=tenant),
            ):
                if tenant == "EVERY_TENANT":  # a name like any other
                    assert outcome_of(call) in ([], NotFoundError)
                else:
                    with pytest.raises(SubscriptionError, match=r"^tenant: "):
                        call()
        assert subscriptions.get(connection, made.id, tenant="acme").state == "active"

    def test_a_list_is_one_tenants_or_everybodys(self, connection):
        for tenant in ("a", "b", ""):
            add(connection, tenant=tenant)
        assert [item.tenant for item in subscriptions.list(connection, tenant="a")] == ["a"]
        assert [item.tenant for item in subscriptions.list(connection, tenant="")] == [""]
        assert [item.tenant for item in subscriptions.list(connection)] == [""]
        assert len(subscriptions.list(connection, tenant=outbox.EVERY_TENANT)) == 3


class TestList:
    def test_pages_follow_each_other(self, connection):
        made = [add(connection).id for _ in range(5)]
        first = subscriptions.list(connection, limit=2)
        second = subscriptions.list(connection, limit=10, after=first[-1].id)
        assert [item.id for item in first + second] == sorted(made)

    @pytest.mark.parametrize("limit", [0, -1, 1001, True])
    def test_a_page_has_1_to_1000(self, connection, limit):
        with pytest.raises(SubscriptionError, match="limit"):
            subscriptions.list(connection, limit=limit)

    def test_a_page_by_offset_and_the_number_of_all(self, connection):
        made = sorted(add(connection).id for _ in range(5))
        add(connection, tenant="other")
        assert [item.id for item in subscriptions.list(connection, offset=1, limit=2)] == made[1:3]
        assert subscriptions.list(connection, offset=5) == []
        assert subscriptions.count(connection) == 5
        assert subscriptions.count(connection, tenant=outbox.EVERY_TENANT) == 6
        with pytest.raises(SubscriptionError, match="offset"):
            subscriptions.list(connection, offset=-1)

    def test_by_metadata_it_lists_those_that_have_each(self, connection):
        ann, both, _ = (
            add(connection, metadata=data).id for data in ({"o": "ann"}, {"o": "ann", "p": "1"}, {"o": "b"})
        )
        for wanted, expected in (({"o": "ann"}, [ann, both]), ({"o": "ann", "p": "1"}, [both]), ({"o": "an"}, [])):
            assert [item.id for item in subscriptions.list(connection, metadata=wanted)] == expected
            assert subscriptions.count(connection, metadata=wanted) == len(expected)
        with pytest.raises(SubscriptionError, match="metadata"):
            subscriptions.list(connection, metadata={"o": 1})

    def test_by_type_it_lists_whom_an_event_of_it_would_reach(self, connection):
        patterns = ["*", "order.*", "order.created", "order.created.*", "order", "user.*"]
        for pattern in patterns:
            add(connection, [pattern])
        found = subscriptions.list(connection, type="order.created")
        assert {item.types[0] for item in found} == {"*", "order.*", "order.created"}

    def test_by_state(self, connection):
        active, paused, disabled, removed = (add(connection) for _ in range(4))
        subscriptions.pause(connection, paused.id)
        subscriptions.pause(connection, disabled.id)
        subscriptions.disable(connection, disabled.id, reason="broken")
        subscriptions.remove(connection, removed.id)
        by_state = {state: [item.id for item in subscriptions.list(connection, state=state)]
                    for state in (None, "active", "paused", "disabled", "removed")}  # fmt: skip
        several = subscriptions.list(connection, state=["paused", "disabled"])
        assert [item.id for item in several] == by_state["paused"] + by_state["disabled"]
        assert subscriptions.count(connection, state=("active", "removed")) == 2
        assert by_state == {
            None: [active.id, paused.id, disabled.id], "active": [active.id], "paused": [paused.id],
            "disabled": [disabled.id], "removed": [removed.id],
        }  # fmt: skip
        assert all(item.state == state for state in by_state if state
                   for item in subscriptions.list(connection, state=state))  # fmt: skip
        with pytest.raises(SubscriptionError, match="state"):
            subscriptions.list(connection, state="gone")


class TestChange:
    def test_update_touches_only_what_is_given(self, connection):
        made = add(connection, description="d", metadata={"a": "b"}, timeout_seconds=3, schedule_seconds=[1])
        changed = subscriptions.update(connection, made.id, types=["x.*"])
        assert changed.types == ("x.*",)
        assert (changed.description, changed.metadata, changed.timeout_seconds) == ("d", {"a": "b"}, 3)

    def test_none_puts_a_field_back_to_its_default(self, connection):
        made = add(connection, description="d", metadata={"a": "b"}, timeout_seconds=3, schedule_seconds=[1])
        changed = subscriptions.update(
            connection, made.id, description=None, metadata=None, timeout_seconds=None, schedule_seconds=None
        )
        assert (changed.description, changed.metadata, changed.timeout_seconds) == ("", {}, 15)
        assert len(changed.schedule_seconds) == 9

    @pytest.mark.parametrize("fields", [{}, {"url": None}, {"types": None}, {"types": []}, {"timeout_seconds": 0}])
    def test_an_update_that_says_nothing_or_nonsense_is_refused(self, connection, fields):
        made = add(connection)
        with pytest.raises(SubscriptionError):
            subscriptions.update(connection, made.id, **fields)
        assert subscriptions.get(connection, made.id).types == made.types

    def test_pause_keeps_its_first_time_and_resume_ends_it(self, connection):
        made = add(connection)
        first = subscriptions.pause(connection, made.id)
        assert first.state == "paused"
        assert subscriptions.pause(connection, made.id).paused_at == first.paused_at
        assert subscriptions.resume(connection, made.id).state == "active"

    def test_disable_keeps_its_first_time_and_reason_and_resume_ends_it(self, connection):
        made = add(connection)
        first = subscriptions.disable(connection, made.id, reason="sends to the wrong shop")
        again = subscriptions.disable(connection, made.id, reason="another")
        assert (first.state, first.disabled_reason) == ("disabled", "sends to the wrong shop")
        assert (again.disabled_at, again.disabled_reason) == (first.disabled_at, first.disabled_reason)
        resumed = subscriptions.resume(connection, made.id)
        assert (resumed.state, resumed.disabled_at, resumed.disabled_reason) == ("active", None, None)

    @pytest.mark.parametrize("reason", ["", "x" * 501, None, 7, "a\0b"])
    def test_a_reason_is_text_of_1_to_500_bytes(self, connection, reason):
        made = add(connection)
        with pytest.raises(SubscriptionError, match="reason"):
            subscriptions.disable(connection, made.id, reason=reason)

    def test_a_hold_ends_with_resume_and_with_another_url_but_not_with_another_field(self, connection):
        made = add(connection)

        def held() -> bool:
            return subscriptions.get(connection, made.id).held_until is not None

        def version() -> int:
            return connection.execute(text("select version from outbox.subscriptions")).scalar_one()

        for end in (subscriptions.resume, lambda *of: subscriptions.update(*of, url="https://example.com/other")):
            before = version()
            connection.execute(text("update outbox.subscriptions set held_until = now() + interval '1 hour'"))
            assert version() == before, "relays need not read it again"
            subscriptions.update(connection, made.id, url=subscriptions.get(connection, made.id).url, description="x")
            assert held()
            before = version()
            end(connection, made.id)
            assert not held()
            assert version() > before, "relays that have it closed read it again"

    def test_final_statuses_are_kept_in_order_and_none_by_default(self, connection):
        made = add(connection, final_statuses=[422, 400, 413, 400])
        assert (add(connection).final_statuses, made.final_statuses) == ((), (400, 413, 422))
        assert subscriptions.update(connection, made.id, final_statuses=[404]).final_statuses == (404,)
        assert subscriptions.update(connection, made.id, final_statuses=None).final_statuses == ()
        every = [status for status in range(400, 500) if status not in (408, 410, 425, 429)]
        assert add(connection, final_statuses=every).final_statuses == tuple(every)

    @pytest.mark.parametrize("statuses", [[408], [410], [425], [429], [399], [500], [200], [True], ["400"], "400", 400,
                                          [400.0], [None]])  # fmt: skip
    def test_what_says_try_again_is_never_final(self, connection, statuses):
        with pytest.raises(SubscriptionError, match="final_statuses"):
            add(connection, final_statuses=statuses)

    @pytest.mark.field("F48")
    def test_what_is_removed_is_seen_but_never_changed(self, connection):
        made = add(connection)
        assert subscriptions.remove(connection, made.id).state == "removed"
        with pytest.raises(NotFoundError, match="or it is removed"):
            subscriptions.get(connection, made.id)
        assert subscriptions.get(connection, made.id, removed=True).state == "removed"
        for verb in (subscriptions.remove, subscriptions.pause, subscriptions.resume, subscriptions.rotate_secret):
            with pytest.raises(NotFoundError):
                verb(connection, made.id)
        patterns = text("select count(*) from outbox.subscription_types")
        assert connection.execute(patterns).scalar_one() == 0

    @pytest.mark.case("C26")
    @pytest.mark.parametrize(
        "name", ["", "sub_", "evt_01m809za4retvbsps2mj46p1zb", "' or true --", "%", "x" * 10_000, "-1"]
    )
    def test_what_is_no_id_is_not_found(self, connection, name):
        with pytest.raises(NotFoundError) as refused:
            subscriptions.get(connection, name)
        assert len(str(refused.value)) < 200

    def test_an_id_is_understood_in_either_form(self, connection):
        made = add(connection)
        assert subscriptions.get(connection, str(parse_id("sub", made.id))).id == made.id
