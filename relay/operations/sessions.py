"""Sessions of the dashboard: a person signs in with a token and gets a session, which is a token of its own.

A session is a row of outbox.tokens, kept as a hash as every token is, with the tenant and the rights of the token that
was shown. It ends after twelve hours, with that token, or by signing out; the audit notes its beginning and its end.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox import act_as
from outbox.ids import TokenId
from relay.operations import tokens
from relay.operations.tokens import RIGHTS, SESSION_NAME, Maker, TokenError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Row

    from relay.operations.tokens import NewToken, Right, Token

__all__ = [
    "SESSION_SECONDS", "begin_session", "end_link", "end_session", "is_session", "make_link", "maker_of", "session_of",
]  # fmt: skip

SESSION_SECONDS = 12 * 3600
SESSIONS_EACH = 20  # of one token at once; the oldest ends where there are more
_NAME = re.compile(SESSION_NAME + r"(?P<how>of|by link) (?P<token>tok_[0-9a-z]{26})")
_BEGAN_BY = text("""
select revoked_at is null and (expires_at is null or expires_at > clock_timestamp()) as lives, expires_at
from outbox.tokens where id = :id
""")
_END_LINK = text("""
update outbox.tokens set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = :id or name = :name
""")
# Of two clicks at once the second waits for the first here, and finds it revoked.
_USE = text("""
update outbox.tokens set revoked_at = clock_timestamp() where id = :id and revoked_at is null returning id
""")
_END_OLDEST = text("""
update outbox.tokens set revoked_at = clock_timestamp() where id = any(array(
    select id from outbox.tokens where name = :name and revoked_at is null order by id desc offset :most))
""")
_ENDS = text("""
select extract(epoch from expires_at - clock_timestamp())::double precision
from outbox.tokens where id = :id
""")


def begin_session(connection: Connection, given: str, *, once: bool = False) -> NewToken | None:
    """Begin a session for whoever shows a token, and return it with its text; None where the token is not valid.

    It never outlives the token. With `once`, the token is revoked here: it was made for a link that works one time.
    Raises TokenError where the token may not look at anything; nothing is begun, and a link stays as it is.
    """
    token = tokens.authenticate(connection, given)
    if token is None or is_session(token):
        return None
    if "read" not in token.rights:
        raise TokenError("token: may not look at anything, since it has no right read; sign in with one that has it")
    act_as(connection, f"token:{token.name}")
    if once and connection.execute(_USE, {"id": token.id}).one_or_none() is None:
        return None
    left = connection.execute(_ENDS, {"id": token.id}).scalar_one()
    made = tokens.create(
        connection,
        token.tenant,
        name=(name := f"{SESSION_NAME}{'by link' if once else 'of'} {token.id}"),
        rights=token.rights,
        whose=token.tenant,
        expires=token.expires_at if left is not None and left < SESSION_SECONDS else timedelta(seconds=SESSION_SECONDS),
        maker=Maker(token.rights, token.expires_at),
        is_session=True,
    )
    connection.execute(_END_OLDEST, {"name": name, "most": SESSIONS_EACH})
    return made


def session_of(connection: Connection, given: str) -> Token | None:
    """Return the session of this text; None where it is none, has ended, or the token that began it has."""
    session = tokens.authenticate(connection, given)
    if session is None or not is_session(session):
        return None
    began = _NAME.fullmatch(session.name)
    if began and began["how"] == "of":
        token = _began_by(connection, began["token"])
        if token is None or not token.lives:
            return None
    return session


def maker_of(connection: Connection, session: Token | None, rights: Collection[Right]) -> Maker:
    """Return what a session may give away: its rights, for as long as the token that began it is valid.

    Without a session, somebody signs in by a proxy, whose rights are a setting: they have no end.
    """
    if session is None:
        return Maker(rights, None)
    began = _NAME.fullmatch(session.name)
    token = _began_by(connection, began["token"]) if began else None
    return Maker(rights, session.expires_at if token is None else token.expires_at)


def _began_by(connection: Connection, token_id: str) -> Row[Any] | None:
    return connection.execute(_BEGAN_BY, {"id": TokenId.of(token_id)}).one_or_none()


def end_session(connection: Connection, session: Token) -> None:
    """End a session at once."""
    act_as(connection, session.created_by)
    tokens.revoke(connection, session.tenant, session.id)


def make_link(connection: Connection, tenant: str | None, name: str) -> NewToken:
    """Make a token with every right of this tenant, or of the operator, for a link that signs in once."""
    return tokens.create(
        connection, tenant, name=name, rights=RIGHTS, whose=tenant, expires=timedelta(seconds=SESSION_SECONDS)
    )


def end_link(connection: Connection, token_id: TokenId) -> None:
    """Revoke the token of a link, and the session that began by it."""
    connection.execute(_END_LINK, {"id": token_id, "name": f"{SESSION_NAME}by link {token_id}"})


def is_session(token: Token) -> bool:
    """Tell whether a token is a session of the dashboard."""
    return _NAME.fullmatch(token.name) is not None
