"""Check before `relay run` claims: the database answers, its schema fits, its settings keep the promise."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from outbox._row_security import mend_row_security
from outbox.schema.runner import require_current
from relay.engine.outage import Outage
from relay.http.tls import has_authorities
from relay.operations.connection import make_engine
from relay.operations.denied_rights import RightsError
from relay.operations.secrets import require_keys
from relay.secrets.keyring import Keyring
from relay.store.row_security import HIDING

if TYPE_CHECKING:
    from relay.config.options import Config

__all__ = ["check_database"]

log = logging.getLogger("relay")

WAIT_SECONDS = 30.0
CLOCK_TOLERANCE_SECONDS = 5.0
_SETTINGS = sa.text(
    "select current_setting('fsync') = 'on', current_setting('synchronous_commit') <> 'off',"
    " (extract(epoch from clock_timestamp()) * 1000000)::bigint"
)


# What `relay run` needs; a role with these rights has the others too (see migrations/grants.sql).
_MISSING_RIGHTS = sa.text("""
select string_agg(required || ' on ' || relation, ', ') from (values
    ('insert', 'outbox.deliveries'), ('update', 'outbox.deliveries'), ('delete', 'outbox.deliveries'),
    ('update', 'outbox.pending'), ('delete', 'outbox.pending'), ('insert', 'outbox.attempts'),
    ('insert', 'outbox.resolutions'), ('insert', 'outbox.dead_letters'), ('delete', 'outbox.dead_letters'),
    ('update', 'outbox.subscriptions'), ('select', 'outbox.events'), ('select', 'outbox.secrets'),
    ('select', 'outbox.sending'), ('select', 'outbox.home')
) rights(required, relation)
where not case required when 'delete' then has_table_privilege(relation, required)
                        else has_any_column_privilege(relation, required) end
""")


def check_database(config: Config) -> None:
    """Wait for the database at most 30 s, then check its schema and warn of settings that weaken the promise.

    Raises:
        SchemaError: the schema is missing, older or newer than this version.
        RightsError: the user may not do what a relay does.
        ConfigError: secrets are sealed to a key that secret_key does not hold.
        sqlalchemy.exc.OperationalError: the database did not answer for 30 seconds.
    """
    if not has_authorities():
        log.warning(
            "this machine has no certificate authorities, so that no https endpoint can be verified;"
            " install ca-certificates, or name a file with SSL_CERT_FILE"
        )
    engine = make_engine(config)
    outage, give_up_at = Outage(), time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with engine.connect() as connection:
                _require_primary(connection)
                require_current(connection)
                _require_rights(connection)
                require_keys(connection, Keyring(config.secret_key))
                _warn_of_settings(connection)
                return
        except OperationalError as error:
            if time.monotonic() > give_up_at:
                raise
            outage.note_failure(error.orig or error)
            time.sleep(1.0)


def _require_primary(connection: sa.Connection) -> None:
    """Raise OperationalError on a standby: as with a server that starts, a failover may be under way."""
    if connection.scalar(sa.text("select pg_catalog.pg_is_in_recovery()")):
        cause = psycopg.OperationalError("server is in hot standby mode, and a relay needs the primary")
        raise OperationalError("connect", None, cause)


def _require_rights(connection: sa.Connection) -> None:
    role = connection.engine.url.username or "the relay's role"
    missing = connection.execute(_MISSING_RIGHTS).scalar()
    if missing:
        raise RightsError(f"{role} may not {missing}", f"grant outbox_relay to {role}")
    hiding = connection.scalar(sa.text(HIDING))
    if hiding:
        raise RightsError(f"row level security hides rows of {hiding} from {role}", mend_row_security(hiding, role))


def _warn_of_settings(connection: sa.Connection) -> None:
    fsync, synchronous, microseconds = connection.execute(_SETTINGS).one()
    clock = microseconds / 1_000_000
    if not fsync:
        log.warning("fsync is off on the server: committed events can vanish in a crash")
    if not synchronous:
        log.warning("synchronous_commit is off: the last committed events can vanish in a crash of the server")
    if abs(clock - time.time()) > CLOCK_TOLERANCE_SECONDS:
        log.warning(
            "this machine's clock differs from the database's by %d s; the database's is used",
            clock - time.time(),
        )
