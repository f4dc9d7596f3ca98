"""Sign and verify requests: the public functions over the signature schemes (outbox.signing.schemes)."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outbox.errors import ArgumentError, BodyError, SignatureError, SubscriptionError
from outbox.secret import Secret, hides_secrets
from outbox.signing import schemes
from outbox.signing.schemes import ed25519
from outbox.signing.schemes.scheme import MESSAGE_ID, TIMESTAMP

__all__ = ["Webhook", "check_key", "check_secret", "new_secret", "public_key", "sign", "signed_headers", "verify"]

_TYPE = re.compile(r"[!-~]{1,128}")

Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
Secrets = str | Secret | Sequence[str | Secret]


def new_secret(scheme: str = "standard", key_type: str | None = None) -> str:
    """Return a new secret for a scheme, of its first type of key by default. Raises SubscriptionError."""
    makers = schemes.named(scheme).keys.makers
    chosen = next(iter(makers)) if key_type is None else key_type
    if not isinstance(chosen, str) or chosen not in makers:
        raise SubscriptionError(f"key_type: with scheme {scheme} choose {' or '.join(makers)}")
    return makers[chosen]()


@hides_secrets
def check_secret(text: object, scheme: str = "standard") -> str:
    """Return a user's own secret in the canonical spelling of its scheme.

    Raises SubscriptionError for what that scheme cannot use; the message never holds the secret.
    """
    return schemes.named(scheme).keys.check(text)


@hides_secrets
def check_key(text: str, scheme: str = "standard") -> str:
    """Return what a receiver verifies with: a secret as check_secret() has it, or with `standard` a `whpk_…` key."""
    if scheme == "standard" and text.startswith(ed25519.PUBLIC):
        ed25519.verifying(text)
        return text
    return check_secret(text, scheme)


@hides_secrets
def public_key(secret: str, scheme: str = "standard") -> str:
    """Return the public key of an Ed25519 secret, `whpk_…`; '' for every other secret."""
    return schemes.named(scheme).keys.public_key(secret)


@hides_secrets
def sign(secret: str | Secret, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the Standard Webhooks signature of one message, `v1,…` or by a `whsk_` key `v1a,…`.

    `timestamp` is whole seconds since 1970 UTC. Raises SubscriptionError for a bad secret and ArgumentError for a bad
    id, timestamp or body.
    """
    _checked(message_id, timestamp)
    return signed_headers(secret, message_id, body, timestamp=timestamp)["webhook-signature"]


@hides_secrets
def signed_headers(
    secrets: Secrets,
    message_id: str,
    body: bytes,
    *,
    timestamp: int | None = None,
    scheme: str = "standard",
    type: str = "webhook",  # noqa: A002 - the word of the interface
) -> dict[str, str]:
    """Return the headers that a relay sends with a message, for the tests of a receiver.

    Args:
        secrets: one, or several, newest first; all of them sign where the scheme carries several signatures.
        message_id: the value of webhook-id.
        body: the exact bytes that are sent.
        timestamp: seconds since 1970 UTC; now by default.
        scheme: one of those that `relay schemes list` shows, or declared.
        type: the event's type; some schemes have a header for it.

    Raises:
        SubscriptionError: the scheme is unknown, or a secret is not one for it.
        ArgumentError: the id, the timestamp or the type cannot be a header, or the body is not bytes.
    """
    at = int(time.time()) if timestamp is None else timestamp
    identity, seconds = _checked(message_id, at)
    if not isinstance(type, str) or not _TYPE.fullmatch(type):
        raise ArgumentError("type: must be 1 to 128 characters of visible ASCII")
    lines = schemes.signer(scheme, _listed(secrets)).lines(identity, type.encode(), seconds, _raw(body))
    return dict(line.split(": ", 1) for line in lines.decode("ascii").split("\r\n")[:-1])


@dataclass(frozen=True, slots=True)
class Webhook:
    """A message whose signature was verified, and its body as it came.

    id: '' where the signature does not cover it, since anyone could have altered it. `standard` and `svix` cover it.
    timestamp: the attempt's, seconds since 1970 UTC; None where the scheme carries none. It was compared with the
    clock. Where it is not part of the signed text, as in `leads`, anyone could have altered it.
    """

    id: str
    timestamp: int | None
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the body as parsed JSON.

        Raises BodyError (a ValueError) when it is not JSON, or no JSON that Python reads: its nesting is deeper than
        the stack allows, or a whole number has more than 4,300 digits.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            why = "nested too deep" if isinstance(error, RecursionError) else _first_line(error)
        raise BodyError(f"body: is no JSON that can be read: {why}")


def _first_line(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):  # its own text would quote the body
        return f"not UTF-8 at byte {error.start}"
    return str(error).partition(";")[0][:100]


@hides_secrets
def verify(
    secrets: Secrets,
    headers: Headers,
    body: bytes,
    *,
    tolerance_seconds: float | None = None,
    now: float | None = None,
    scheme: str = "standard",
) -> Webhook:
    """Return the verified message; whatever was received, the only error is SignatureError.

    A wrong call has another one: ArgumentError for a scheme or secret that cannot be used, a body that is not bytes.
    It does not depend on the request, so that it shows with the first one, in a test, and never as a 401 for everybody.

    One signature by one of the secrets is enough, so that secrets can be rotated. Whoever records a request can send it
    again, and it verifies: within the tolerance in every scheme, and at any time in `github`, `convoy`, `notely`,
    `notely-node`, `fulfil`, `soundhash` (which sign no time) and `leads` (which does not sign the time that it sends).

    Args:
        secrets: one or several, as the subscription's scheme has them; for Ed25519 `whpk_…`. By none nothing verifies.
        headers: of the request: a mapping or pairs, str or bytes, in any case, or a WSGI environ (Django's META).
        body: the raw bytes of the request.
        tolerance_seconds: how far the message's timestamp may lie from `now`, either way; by default the scheme's own,
            which is 300 in all that come with the library.
        now: seconds since 1970 UTC; the machine's clock by default.
        scheme: the subscription's scheme.

    Raises:
        SignatureError: the request does not verify. Answer 401.
        ArgumentError: the call is wrong: mend the program or its settings.
    """
    chosen, keys = _usable(scheme, secrets)
    tolerance = _seconds(
        "tolerance_seconds", chosen.row.tolerance_seconds if tolerance_seconds is None else tolerance_seconds
    )
    at = _seconds("now", time.time() if now is None else now)
    raw = _raw(body)
    if not keys:
        raise SignatureError("secrets: there is none to verify with")
    verified = chosen.verify(keys, _found(chosen.headers, headers), raw)
    if verified.timestamp is not None and abs(at - verified.timestamp) > tolerance:
        raise SignatureError(f"timestamp: more than {tolerance:g} s away from now; check both clocks")
    return Webhook(verified.id, verified.timestamp, raw)


def _usable(scheme: object, secrets: object) -> tuple[schemes.Scheme, list[str]]:
    """Return the scheme and its secrets, each of which it can use. Raises ArgumentError."""
    try:
        chosen, keys = schemes.named(scheme), _listed(secrets)
        for key in keys:
            _require_key(chosen, key)
    except SubscriptionError as error:
        raise ArgumentError(str(error)) from None
    return chosen, keys


def _require_key(scheme: schemes.Scheme, key: str) -> None:
    if scheme.name == "standard" and key.startswith((ed25519.PUBLIC, ed25519.SIGNING)):
        ed25519.verifying(key)
    else:
        scheme.keys.key(key)


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(f"{name}: must be a number of seconds")
    try:
        seconds = int.__float__(value) if isinstance(value, int) else float.__float__(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < math.inf:  # NaN is refused too
        raise ArgumentError(f"{name}: must be a number of seconds, from 0 on and finite")
    return seconds


def _raw(body: object) -> bytes:
    if not isinstance(body, bytes | bytearray | memoryview):
        raise ArgumentError("body: pass the raw bytes of the request, not decoded text or parsed JSON")
    try:
        return memoryview(body).tobytes()
    except ValueError:
        raise ArgumentError("body: its memoryview was released") from None


def _found(names: Sequence[str], headers: Headers) -> dict[str, str]:
    """Return the values of the named headers. Raises SignatureError where one is missing or ambiguous."""
    found: dict[str, str] = {}
    for key, value in _pairs(headers):
        name = _name(key)
        if name in names and found.setdefault(name, _text(value)) != _text(value):
            raise SignatureError(f"{name}: given twice with different values")
    for name in names:
        if not found.get(name):
            raise SignatureError(f"{name}: missing")
    return found


def _pairs(headers: Any) -> list[tuple[Any, Any]]:
    try:
        pairs = headers.items() if hasattr(headers, "items") else headers
        return [(name, value) for name, value in pairs]
    except Exception:  # noqa: BLE001 - the caller's object may raise anything
        raise ArgumentError("headers: pass a mapping or pairs of name and value") from None


def _name(key: object) -> str:
    """Return a header's name in lower case; HTTP_WEBHOOK_ID of a WSGI environ is webhook-id."""
    text = _text(key)
    return text.removeprefix("HTTP_").replace("_", "-").lower() if text.startswith("HTTP_") else text.lower()


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return bytes.decode(value, "latin-1")
    return str.__str__(value) if isinstance(value, str) else ""


def _listed(secrets: Any) -> list[str]:
    """Return the secrets as text. Raises SubscriptionError."""
    try:
        several = [secrets] if isinstance(secrets, str | Secret) else list(secrets)
    except Exception:  # noqa: BLE001 - the caller's object may raise anything
        raise SubscriptionError("secrets: pass one secret or a list of them") from None
    return [str.__str__(_revealed(each)) for each in several]


def _revealed(secret: object) -> str:
    text = secret.reveal() if isinstance(secret, Secret) else secret
    if not isinstance(text, str):
        raise SubscriptionError("secrets: each must be text")
    return text


def _checked(message_id: str, timestamp: int) -> tuple[bytes, bytes]:
    if not isinstance(message_id, str) or not MESSAGE_ID.fullmatch(message_id):
        raise ArgumentError("message_id: must be 1 to 256 characters of visible ASCII without a dot")
    if type(timestamp) is not int or timestamp.bit_length() > 64 or not TIMESTAMP.fullmatch(str(timestamp)):
        raise ArgumentError("timestamp: must be an int, whole seconds since 1970 UTC")
    return message_id.encode(), b"%d" % timestamp
