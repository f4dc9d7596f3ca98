"""Idempotency-Key: what a request with one has made is made once, however often it is sent within a day.

The key is claimed in the transaction of the request, so there is an answer exactly where something was done. The answer
may hold a signing secret. It is sealed to the caller's token and key, neither of which is in the database.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Callable
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends, Header, Request, Response

from relay.operations import api_requests
from relay.web.access import given_token
from relay.web.database import Call
from relay.web.problems import Problem

__all__ = ["Asked", "IdempotencyKey", "Once"]

_MAX_ANSWER_BYTES = 1_000_000
_NONCE_BYTES = 12
_KEPT_HEADERS = ("etag", "location")

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=256, description="The same key within a day: done once, and answered alike."),
]


class Once:
    """What is to be done once: for a request without a key every time."""

    def __init__(self, request: Request, body: bytes, key: str | None) -> None:
        self._key = key
        self._token = given_token(request).encode()
        self._asked = b"\0".join([request.method.encode(), request.url.path.encode(), request.url.query.encode(), body])

    def run(self, call: Call, make: Callable[[], Response]) -> Response:
        """Return what `make` makes, or what it made for this key before.

        Raises Problem: 422 where the key was used for another request, 409 where its answer is gone or not made yet.
        """
        if self._key is None:
            return make()
        key_hash, request_hash = hashlib.sha256(self._key.encode()).digest(), hashlib.sha256(self._asked).digest()
        before = api_requests.claim(call.connection, call.principal.token_id, key_hash, request_hash)
        if before is None:
            response = make()
            sealed = self._seal(response, key_hash)
            if self._token and len(sealed) <= _MAX_ANSWER_BYTES:  # without one there is nothing secret to seal it to
                api_requests.keep(call.connection, call.principal.token_id, key_hash, sealed)
            return response
        if before.request_hash != request_hash:
            seen = "idempotency-key: was used for another request"
            raise Problem(422, "key-reused", seen, mend="give each request a key of its own")
        if before.answer is None:
            raise Problem(409, "conflict", "idempotency-key: it is done, but its answer was not kept")
        return self._open(before.answer, key_hash)

    @property
    def _cipher(self) -> AESGCM:
        return AESGCM(hmac.digest(self._token, b"answer\0" + (self._key or "").encode(), "sha256"))

    def _seal(self, response: Response, key_hash: bytes) -> bytes:
        headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        text = json.dumps([response.status_code, headers, bytes(response.body).decode()]).encode()
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text, key_hash)

    def _open(self, sealed: bytes, key_hash: bytes) -> Response:
        try:
            text = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key_hash)
        except InvalidTag:
            raise Problem(409, "conflict", "idempotency-key: it is done, but its answer cannot be read") from None
        status, headers, body = json.loads(text)
        return Response(body, status, {**headers, "Idempotency-Replayed": "true"}, "application/json")


async def _once(request: Request, idempotency_key: IdempotencyKey = None) -> Once:
    return Once(request, await request.body(), idempotency_key)


Asked = Annotated[Once, Depends(_once)]
"""The dependency that a route takes which makes something."""
