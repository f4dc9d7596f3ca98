"""The scheme and the keys of a subscription: chosen when it is added, changed with its secret, shown without it."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from outbox import subscriptions
from outbox.errors import NotFoundError, SubscriptionError
from outbox.ids import parse_id
from outbox.signing.schemes import SCHEMES
from outbox.signing.verify import check_secret, public_key
from outbox.subscriptions import NewSubscription
from tests.integration.test_cli_commands import run  # noqa: F401 - a fixture
from tests.integration.test_subscriptions import SECRET, UNTOUCHED, URL, live_secrets

TEXT = "my-secret-key"
SEVERAL = [name for name, scheme in SCHEMES.items() if scheme.several_signatures]
SINGLE = sorted({*SCHEMES} - {*SEVERAL})


@pytest.fixture
def connection(engine):
    with engine.connect() as connection:
        yield connection


def add(connection, **fields) -> NewSubscription:
    return subscriptions.add(connection, URL, ["order.*"], **fields)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_new_secret_is_one_of_the_scheme(connection, scheme):
    made = add(connection, scheme=scheme)
    assert made.scheme == subscriptions.get(connection, made.id).scheme == scheme
    assert check_secret(made.secret, scheme) == made.secret
    assert live_secrets(connection, made.id) == [made.secret]
    assert (made.public_key, made.public_keys) == ("", ())


def test_an_own_secret_is_judged_by_its_scheme(connection):
    assert live_secrets(connection, add(connection, scheme="github", secret=TEXT).id) == [TEXT]
    assert live_secrets(connection, add(connection, scheme="stripe", secret=SECRET).id) == [SECRET]
    for scheme, secret in (("standard", TEXT), ("svix", TEXT), ("github", "short"), ("stripe", "")):
        with pytest.raises(SubscriptionError, match=r"^secret: "):
            add(UNTOUCHED, scheme=scheme, secret=secret)


@pytest.mark.parametrize("scheme", ["", "Standard", "md5", None, 7])
def test_an_unknown_scheme_is_refused(scheme):
    with pytest.raises(SubscriptionError, match=r"^scheme: choose one of standard"):
        add(UNTOUCHED, scheme=scheme)


def test_every_tenants_subscription_has_a_scheme_too(connection):
    made = subscriptions.add_for_every_tenant(connection, URL, ["*"], scheme="github", secret=TEXT)
    assert (made.tenant, made.scheme, made.secret) == ("*", "github", TEXT)


class TestEd25519:
    def test_the_public_key_is_shown_wherever_the_subscription_is(self, connection):
        made = add(connection, key_type="ed25519")
        assert made.secret.startswith("whsk_")
        assert made.public_key == public_key(made.secret)
        assert made.public_keys == (made.public_key,)
        for read in (
            subscriptions.get(connection, made.id),
            subscriptions.list(connection)[-1],
            subscriptions.update(connection, made.id, description="x"),
            subscriptions.pause(connection, made.id),
        ):
            assert read.public_keys == (made.public_key,)
            assert made.secret not in repr(read)

    def test_a_rotation_keeps_the_type_and_both_keys_sign(self, connection):
        made = add(connection, key_type="ed25519")
        rotated = subscriptions.rotate_secret(connection, made.id)
        assert live_secrets(connection, made.id) == [rotated.secret, made.secret]
        assert rotated.public_keys == (rotated.public_key, made.public_key)
        assert rotated.public_key.startswith("whpk_")

    def test_the_type_may_change_with_an_overlap(self, connection):
        made = add(connection)
        keyed = subscriptions.rotate_secret(connection, made.id, key_type="ed25519")
        assert live_secrets(connection, made.id) == [keyed.secret, made.secret]
        hashed = subscriptions.rotate_secret(connection, made.id, key_type="hmac")
        assert hashed.secret.startswith("whsec_")
        assert hashed.public_keys == (keyed.public_key,)
        assert subscriptions.rotate_secret(connection, made.id).secret.startswith("whsec_")

    def test_a_public_key_goes_with_its_secret(self, connection):
        made = add(connection, key_type="ed25519")
        assert subscriptions.rotate_secret(connection, made.id, secret=SECRET, overlap_seconds=0).public_keys == ()

    def test_an_own_key_tells_its_type(self, connection):
        made = add(connection, key_type="ed25519")
        again = add(connection, secret=made.secret)
        assert again.public_key == made.public_key
        for secret, key_type in ((made.secret, "hmac"), (SECRET, "ed25519")):
            with pytest.raises(SubscriptionError, match=r"^key_type: "):
                add(UNTOUCHED, secret=secret, key_type=key_type)

    @pytest.mark.parametrize("scheme", sorted({*SCHEMES} - {"standard"}))
    def test_no_other_scheme_has_such_keys(self, scheme):
        with pytest.raises(SubscriptionError, match=r"^key_type: "):
            add(UNTOUCHED, scheme=scheme, key_type="ed25519")

    @pytest.mark.parametrize("key_type", ["", "rsa", 7])
    def test_an_unknown_type_is_refused(self, key_type):
        with pytest.raises(SubscriptionError, match=r"^key_type: "):
            add(UNTOUCHED, key_type=key_type)


class TestRotation:
    @pytest.mark.parametrize("scheme", SEVERAL)
    def test_secrets_overlap_by_a_day_where_a_request_carries_several_signatures(self, connection, scheme):
        made = add(connection, scheme=scheme)
        rotated = subscriptions.rotate_secret(connection, made.id)
        assert live_secrets(connection, made.id) == [rotated.secret, made.secret]
        left = text("select extract(epoch from max(expires_at) - clock_timestamp()) from outbox.secrets")
        assert 86_000 < connection.execute(left).scalar_one() <= 86_400

    @pytest.mark.parametrize("scheme", SINGLE)
    def test_secrets_do_not_overlap_where_it_carries_one(self, connection, scheme):
        made = add(connection, scheme=scheme)
        with pytest.raises(
            SubscriptionError, match=rf"^overlap_seconds: must be 0, since a request of scheme {scheme}"
        ):
            subscriptions.rotate_secret(connection, made.id, overlap_seconds=60)
        rotated = subscriptions.rotate_secret(connection, made.id)
        assert live_secrets(connection, made.id) == [rotated.secret]
        assert subscriptions.rotate_secret(connection, made.id, overlap_seconds=0).secret != rotated.secret

    def test_another_scheme_begins_at_once(self, connection):
        made = add(connection)
        before = version(connection, made.id)
        with pytest.raises(SubscriptionError, match=r"^overlap_seconds: must be 0, since another scheme"):
            subscriptions.rotate_secret(connection, made.id, scheme="stripe", overlap_seconds=60)
        moved = subscriptions.rotate_secret(connection, made.id, scheme="stripe", secret=TEXT)
        assert (moved.scheme, moved.secret) == ("stripe", TEXT)
        assert live_secrets(connection, made.id) == [TEXT]
        assert version(connection, made.id) > before

    def test_away_from_ed25519_a_new_secret_is_one_of_the_new_scheme(self, connection):
        made = add(connection, key_type="ed25519")
        moved = subscriptions.rotate_secret(connection, made.id, scheme="github")
        assert check_secret(moved.secret, "github") == moved.secret
        assert moved.public_keys == ()

    def test_an_own_secret_is_judged_by_the_scheme_it_is_for(self, connection):
        made = add(connection, scheme="github", secret=TEXT)
        with pytest.raises(SubscriptionError, match=r"^secret: "):
            subscriptions.rotate_secret(connection, made.id, scheme="standard", secret=TEXT)
        assert live_secrets(connection, made.id) == [TEXT]

    def test_another_tenants_is_not_found(self, connection):
        made = add(connection, tenant="acme")
        with pytest.raises(NotFoundError):
            subscriptions.rotate_secret(connection, made.id, tenant="other", scheme="github")


def version(connection, subscription_id) -> int:
    statement = text("select version from outbox.subscriptions where id = :id")
    return connection.execute(statement, {"id": parse_id("sub", subscription_id)}).scalar_one()


def test_the_command_line_chooses_scheme_and_key(run, tmp_path):  # noqa: F811
    file = tmp_path / "secret"
    file.write_text(f"{TEXT}\n")
    made = json.loads(run("subscriptions", "add", URL, "*", "--scheme", "github", "--secret-file", str(file), "--json"))
    assert (made["scheme"], made["secret"]) == ("github", TEXT)
    command = ("subscriptions", "rotate-secret", made["id"])
    assert "overlap_seconds: must be 0" in run(*command, "--overlap-seconds", "60", code=1)
    moved = json.loads(run(*command, "--scheme", "standard", "--key-type", "ed25519", "--json"))
    assert (moved["scheme"], moved["secret"][:5]) == ("standard", "whsk_")
    shown = json.loads(run("subscriptions", "show", made["id"], "--json"))
    assert shown["public_keys"] == [public_key(moved["secret"])]
    assert public_key(moved["secret"]) in run("subscriptions", "show", made["id"])
    run("subscriptions", "add", URL, "*", "--scheme", "md5", code=2)
