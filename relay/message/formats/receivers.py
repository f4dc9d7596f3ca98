"""What the answers of receivers mean whose rules are published: rows of data, particular ones first.

Basis: Slack's and Discord's and PagerDuty's papers, n8n's source, and what users report of Microsoft's and Zapier's.
What no row names means what it means anywhere: 5xx and a network error are tried again.

Discord bans an address that is refused too often, for all its webhooks, and requests during the ban prolong it. A 429
of that kind, without JSON, or one about the global rate holds back every Discord webhook (relay/model/alike.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.model.outcome import Scope
from relay.model.receiver_rules import Answer, Means

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ANSWERS"]

_2XX = range(200, 300)
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_RETRY_AFTER = rf'"retry_after":\s*{_NUMBER}'
_TOO_LARGE = Answer((413,), Means.DEAD, "the body is too large for the receiver")
_SLOW_DOWN = Answer((429,), Means.HOLD, "over the receiver's rate")

_SLACK = (
    Answer((200,), Means.DELIVERED, "taken", texts=(b"ok",)),
    Answer(_2XX, Means.RETRY, "the answer is not Slack's ok"),
    Answer((400,), Means.DEAD, "Slack refuses the message: mend the subscription's text, then replay",
           texts=(b"invalid_payload", b"no_text", b"too_many_attachments", b"invalid_blocks", b"invalid_blocks_format",
                  b"msg_blocks_too_long", b"user_not_found")),
    Answer((400, 403), Means.DISABLE, "Slack's webhook or workspace is gone: make a new webhook",
           texts=(b"invalid_token", b"team_disabled")),
    Answer((403,), Means.DEAD, "an administrator of Slack forbids it",
           texts=(b"action_prohibited", b"posting_to_general_channel_denied")),
    Answer((403, 404), Means.DISABLE, "Slack's webhook was revoked or its app removed: make a new webhook",
           texts=(b"no_service", b"no_active_hooks", b"no_team", b"no_service_id")),
    Answer((404,), Means.DEAD, "the channel is gone, or the app is no longer in it", texts=(b"channel_not_found",)),
    Answer((410,), Means.DISABLE, "the channel is archived: unarchive it, then resume",
           texts=(b"channel_is_archived",)),
    _SLOW_DOWN,
)  # fmt: skip
_DISCORD = (
    Answer(_2XX, Means.DELIVERED_HOLD, "the next message would be refused", lines=r"^x-ratelimit-remaining:\s*0\s*$",
           seconds=(rf"^x-ratelimit-reset-after:\s*{_NUMBER}\s*$",)),
    Answer((400,), Means.DEAD, "Discord refuses the message: mend the subscription's text, then replay",
           pattern=r'"code":\s*(50035|50006|50109|220001)\b'),
    Answer((401,), Means.DISABLE, "Discord does not know the webhook's token: make a new webhook",
           pattern=r'"code":\s*50027\b'),
    Answer((403,), Means.DISABLE, "Discord forbids it: make a new webhook"),
    Answer((404,), Means.DISABLE, "Discord's webhook was deleted: make a new one", pattern=r'"code":\s*10015\b'),
    _TOO_LARGE,
    Answer((429,), Means.HOLD, "over Discord's global rate", pattern=r'"global":\s*true',
           seconds=(_RETRY_AFTER,), scope=Scope.RECEIVER),
    Answer((429,), Means.HOLD, "over Discord's global rate", pattern=r'"retry_after"', lines=r"^x-ratelimit-global:",
           seconds=(_RETRY_AFTER,), scope=Scope.RECEIVER),
    Answer((429,), Means.HOLD, "over Discord's rate", pattern=r'"retry_after"',
           seconds=(_RETRY_AFTER,)),
    Answer((429,), Means.HOLD, "Discord has banned this address for a while", otherwise=600.0, scope=Scope.RECEIVER),
)  # fmt: skip
_TEAMS = (
    Answer((200,), Means.HOLD, "a retired connector passes on a 429", otherwise=60.0,
           pattern=r"\A\s*Webhook message delivery failed with error: .*\b429\b"),
    Answer((200,), Means.DEAD, "a retired connector refuses the message: make a webhook with the Workflows app",
           pattern=r"\A\s*Webhook message delivery failed with error: .*\b4[0-9][0-9]\b"),
    Answer((200,), Means.RETRY, "a retired connector failed: make a webhook with the Workflows app",
           pattern=r"\A\s*Webhook message delivery failed with error"),
    Answer((400,), Means.DEAD, "the flow refuses the body, or is switched off"),
    Answer((401,), Means.DISABLE, "the signature in the URL is wrong or was made anew: take the flow's new URL"),
    Answer((404,), Means.DISABLE, "the flow was deleted or is switched off"),
    _TOO_LARGE,
    _SLOW_DOWN,
)  # fmt: skip
_PAGERDUTY = (
    Answer((400,), Means.DEAD, "PagerDuty refuses the alert: look at the answer, mend, then replay"),
    Answer((429,), Means.HOLD, "over PagerDuty's rate", otherwise=30.0),
)
_N8N = (
    Answer((401, 403), Means.DEAD, "the authentication of the Webhook node does not match"),
    Answer((404,), Means.RETRY, "the workflow is inactive, or is being redeployed"),
    _TOO_LARGE,
)
_ZAPIER = (
    Answer((200,), Means.DELIVERED, "taken"),
    Answer(_2XX, Means.RETRY, "Zapier says with 200 that it has taken something, and with nothing else"),
    Answer((410,), Means.DISABLE, "the Zap was switched off or deleted"),
    Answer((404,), Means.DISABLE, "there is no such hook"),
    _TOO_LARGE,
    _SLOW_DOWN,
)

ANSWERS: Mapping[str, tuple[Answer, ...]] = {
    "slack": _SLACK, "discord": _DISCORD, "teams": _TEAMS, "pagerduty": _PAGERDUTY, "n8n": _N8N, "zapier": _ZAPIER,
}  # fmt: skip
"""By format."""
