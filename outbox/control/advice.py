"""What usually mends a delivery that fails: from the class of its last failure to advice, as tables.

The word of an outcome, or a status, decides; of TLS the words of OpenSSL in the error. Who looks closer, with a request
of its own (`relay subscriptions check` and `test`), finds more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from outbox.control.attempts import Attempt
from outbox.control.findings import Action, Finding
from outbox.ids import DeliveryId, SubscriptionId

__all__ = ["ANSWERS", "OUTCOMES", "READ_IT", "REASONS", "TLS", "advice_on", "advice_on_last", "cause_of"]

READ_IT = "its answer should say why"
ANSWERS = {
    400: ("The endpoint calls the message malformed", READ_IT),
    401: ("The endpoint refuses the signature or the credentials",
          ("mostly the secret was exchanged on one side only: compare it, or rotate it and give the new one to the"
           " receiver; then look at the receiver's clock (the signature's time holds for about five minutes), that it"
           " verifies the raw body, and at what headers or authentication of the subscription has run out")),
    403: ("The endpoint refuses the signature or the credentials, or a firewall in front of it refuses this machine",
          ("compare the secret on both sides, the receiver's clock, and the credentials in headers or authentication;"
           " let a firewall or a bot filter take the relays' addresses")),
    404: ("The server is there, but has nothing at this path", "correct the path in the URL, or deploy the receiver"),
    405: ("The path is there, but takes no POST", "correct the path in the URL, or the receiver's route"),
    406: ("The endpoint refuses the content type", "it has to take application/json"),
    408: ("The endpoint gave up waiting for the request", "look at the proxy in front of it"),
    410: ("The endpoint says that it is gone for good. A delivery with this answer disables the subscription",
          "correct the URL and resume the subscription, or remove it"),
    411: ("The endpoint misses the length, which was sent", "a proxy in front of it drops it"),
    413: ("The endpoint finds the body too large",
          "raise the limit of the receiver or of the proxy in front of it, or send less by a transformation"),
    415: ("The endpoint refuses the content type", "it has to take application/json"),
    421: ("The server does not know this host name", "look at its virtual hosts"),
    422: ("The endpoint understood the message and refuses its content", READ_IT),
    425: ("The endpoint does not want the message yet; deliveries with this answer are tried again", ""),
    429: ("The endpoint is asked too often",
          "it is sent fewer by itself; a rate limit of the subscription keeps below its own"),
    500: ("The receiver failed inside", "look at its log at this time"),
    501: ("The server does not know POST", "the URL may lead to something else than the receiver"),
    502: ("A proxy in front of the receiver gets no proper answer from it", "is it running?"),
    503: ("The endpoint is overloaded or under maintenance", "it is tried again by itself; is it down for longer?"),
    504: ("A proxy in front of the receiver waits for it in vain", "is it running, and quick enough?"),
}  # fmt: skip
"""What a status means, and what usually mends it."""

OUTCOMES = {
    "http_3xx": ("The endpoint redirects, and no redirect is followed", "put the URL that it leads to in its place"),
    "http_4xx": ("The endpoint refuses the message", READ_IT),
    "slowed": ("The endpoint takes fewer requests than it was sent; the attempt is not charged",
               "it is sent fewer by itself; a rate limit of the subscription keeps below its own"),
    "http_5xx": ("The receiver failed", "look at its log at this time"),
    "protocol": ("What answers does not speak HTTP/1.1",
                 "the port or the scheme of the URL may be wrong, or HTTP/1.1 is off there"),
    "timeout": ("No complete answer came in time",
                ("the receiver should answer first and work afterwards, or timeout_seconds of the subscription be more;"
                 " a firewall that drops packets looks the same")),
    "refused": ("Nobody listens at the address", "start the receiver, or correct the port; a firewall may reject it"),
    "connection": ("The connection was closed or reset, or there is no way to the address",
                   ("look at the receiver's log for a crash, at limits of the proxy in front of it, and at the way from"
                    " the relay's machine")),
    "dns": ("The host name does not resolve",
            "correct the URL, or publish an A or AAAA record; else look at the resolver of the relay's machine"),
    "tls": ("The TLS handshake failed, or the certificate does not verify",
            "check the endpoint: that names the fault of its certificate"),
    "authorization": ("No access token could be fetched for the receiver",
                      "look at the token URL, the client id and the client secret of its authentication"),
    "blocked_address": ("The address policy forbids the URL or its address",
                        "the endpoint needs a public address, or each relay the network in RELAY_ALLOW_NETWORKS"),
    "local": ("The relay's own machine could not send; the attempt is not charged",
              "look at its open files, memory and free ports: the relay's log says which"),
    "stood_still": ("The relay's own process stood still when the attempt's time ended; the attempt is not charged",
                    ("nothing: it is tried again. Where it comes again, look why the relay's machine or process is"
                     " stopped or too busy")),
    "aborted": ("The relay was told to leave at once and cut the request",
                "nothing: it is tried again. Relays that stop need as long as the longest timeout"),
    "internal": ("The relay raised an exception, or its process for large transformations ended",
                 "the error says which: the log has the exception, please report it; a process needs memory and time"),
    "key_unavailable": ("A secret is sealed to a key that this relay does not hold; the attempt is not charged",
                        "give the private half to each relay (secret_key), and restart them"),
    "unsendable": ("The URL of the subscription or its secrets cannot be used",
                   "the error says which: correct the URL, or rotate the secret"),
    "event_gone": ("Somebody removed the event's row, so there is nothing to send", "record the event again"),
    "unformatted": ("The event has no body in the subscription's format",
                    "the error says which value cannot stand there: change the format or its settings"),
    "not_taken": ("The endpoint answers 2xx, but says that it did not take the event", READ_IT),
    "payload_unreadable": ("The server cannot read the event: its data is damaged there",
                           "look at the server's disk and log, and restore the row, or purge the dead letter"),
    "transformation_failed": ("The subscription's transformation makes nothing of this event",
                              "try another on this event in a preview, then update the subscription and replay"),
}  # fmt: skip
"""The same for each outcome that is a failure, for what has no status of its own above."""

TLS = (
    ("expired", "certificate has expired", "Its certificate has expired", "renew it"),
    ("not_yet_valid", "not yet valid", "Its certificate is not valid yet",
     "correct it, or the clock of the relay's machine"),
    ("self_signed", "self.signed certificate", "Its certificate is signed by itself, or by an authority of its own",
     "install one of a public authority, or give its authority to the subscription (ca)"),
    ("unknown_issuer", "unable to get (local )?issuer", "The authority of its certificate is not known",
     "install the whole chain on the server, or give a private authority to the subscription (ca)"),
    ("wrong_name", "mismatch|not valid for", "Its certificate is for another name",
     "add the name to it, or correct the URL"),
    ("not_tls", "wrong version number|record layer failure", "What answers there does not speak TLS",
     "the port or the scheme of the URL is wrong"),
    ("old_tls", "unsupported protocol|protocol version", "It offers no version of TLS that is still safe",
     "enable TLS 1.2 or 1.3 there"),
    ("client_certificate", "certificate required|alert bad certificate|unknown ca",
     "It wants a client certificate, or refuses the one it gets", "give the subscription one that it trusts"),
)  # fmt: skip
"""Faults of TLS by the words of the error: name, pattern, what is seen, what mends it."""

REASONS = {
    "crash": ("A relay process ended three times while it sent this delivery alone",
              "look at its log and its host's memory; then replay it"),
    "unresolvable": ("The database refused this event's deliveries", "the error says why; mend that, then replay it"),
}  # fmt: skip
"""The same for reasons of dead letters without an attempt that says it."""


def advice_on(
    name: DeliveryId, subscription_id: SubscriptionId | None, attempts: Sequence[Attempt], reason: str | None
) -> Finding | None:
    """Return what the last failure of a delivery means and what usually mends it, None where it did not fail.

    `attempts` are its own, the oldest first; `reason` is why it died, where it did. A finding of the area `answer`,
    `tls`, `message` or `dead`.
    """
    last = attempts[-1] if attempts else None
    if reason in REASONS:
        code, (seen, mend) = f"dead.{reason}", REASONS[reason]
    elif last is None or last.verdict in ("delivered", "cancelled") or last.outcome not in OUTCOMES:
        return None
    else:
        code, seen, mend = cause_of(last.outcome, last.status, last.error)
    action = None if subscription_id is None else Action("test", str(subscription_id))
    return Finding(code=code, subject=name, seen=seen, mend=mend, severity="note", action=action)


def advice_on_last(
    subscription_id: SubscriptionId | str, outcome: str | None, status: int | None, error: str | None
) -> Finding | None:
    """Return the same of a subscription's last attempt, None where that did not fail."""
    if outcome not in OUTCOMES:
        return None
    code, seen, mend = cause_of(outcome, status, error)
    action = Action("test", str(subscription_id))
    return Finding(code=code, subject=subscription_id, seen=seen, mend=mend, severity="note", action=action)


def cause_of(outcome: str, status: int | None, error: str | None) -> tuple[str, str, str]:
    """Return the code of a failure, what is seen and what mends it; of an outcome in OUTCOMES.

    The code is `answer.` and a status, `tls.` and a fault, or `message.` and the outcome.
    """
    if status in ANSWERS and outcome in ("http_4xx", "http_5xx", "slowed"):
        return f"answer.{status}", *ANSWERS[status]
    if outcome == "tls":
        for cause, words, seen, mend in TLS:
            if re.search(words, error or "", re.IGNORECASE):
                return f"tls.{cause}", seen, mend
    return f"message.{outcome}", *OUTCOMES[outcome]
