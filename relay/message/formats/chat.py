"""Messages for Slack, Discord and Microsoft Teams. Limits: those that the vendors document, in characters.

Data stand in plain text or in a code block. Where a subscription has a text of its own, the text may use the receiver's
markup, and what is filled in may not.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from relay.message.formats.wording import cut, data_lines, fill, when
from relay.model.event import Body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.message.formats.maker import Family, Make
    from relay.model.event import EventParts

__all__ = ["FORMATS"]

_SLACK_HEADER, _SLACK_SECTION, _SLACK_TEXT = 150, 3000, 3000
_DISCORD_CONTENT, _DISCORD_TITLE, _DISCORD_DESCRIPTION = 2000, 256, 4096
_TEAMS_BYTES = 20_000  # of the 28 kB that are documented, what was measured to pass
_SLACK_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKDOWN = re.compile(r"([\\`*_~|>#\[\]()<@:\-+.!])")
_BACKTICK, _LIKE_A_BACKTICK = "`", "\u02cb"


def _json(message: Mapping[str, Any]) -> Body:
    return Body(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def _slack(settings: Mapping[str, Any], _secret: str) -> Make:
    def make(event: EventParts) -> Body:
        template = settings.get("text")
        if template is None:
            title, lines = event.type.decode(), data_lines(event)
            said = _slack_escape(f"{title}\n{lines}"[: _SLACK_TEXT + 1])
            first = [{"type": "header", "text": _plain(cut(title, _SLACK_HEADER))},
                     {"type": "section", "text": _plain(cut(lines, _SLACK_SECTION))}]  # fmt: skip
        else:
            said = fill(template, event, _slack_escape, max(_SLACK_SECTION, _SLACK_TEXT))
            text = _whole_entities(cut(said, _SLACK_SECTION))
            first = [{"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}]
        small = {"type": "context", "elements": [_plain(f"{event.id.decode()} · {when(event)}")]}
        return _json({
            "text": _whole_entities(cut(said, _SLACK_TEXT)), "blocks": [*first, small],
            "unfurl_links": False, "unfurl_media": False,
        })  # fmt: skip

    return make


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _slack_escape(text: str) -> str:
    return re.sub("[&<>]", lambda found: _SLACK_ENTITIES[found[0]], text)


def _whole_entities(text: str) -> str:
    """Remove half an entity before the ellipsis."""
    return re.sub(r"&[a-z]{0,3}…\Z", "…", text)


def _discord(settings: Mapping[str, Any], _secret: str) -> Make:
    fixed = {"allowed_mentions": {"parse": []}, **{name: settings[name] for name in ("username",) if name in settings}}

    def make(event: EventParts) -> Body:
        template = settings.get("text")
        if template is not None:
            said = cut(fill(template, event, _discord_escape, _DISCORD_CONTENT), _DISCORD_CONTENT, _utf16_units)
            return _json({"content": re.sub(r"\\+…\Z", "…", said), **fixed})
        lines = data_lines(event).replace(_BACKTICK, _LIKE_A_BACKTICK)
        block = cut(lines, _DISCORD_DESCRIPTION - len("```\n\n```"), _utf16_units)
        embed = {
            "title": cut(event.type.decode(), _DISCORD_TITLE, _utf16_units),
            "description": f"```\n{block}\n```",
            "timestamp": when(event),
            "footer": {"text": event.id.decode()},
        }
        return _json({"embeds": [embed], **fixed})

    return make


def _discord_escape(text: str) -> str:
    r"""Put a backslash before every character that can be markup; before the `:` of a URL, so that it is no link."""
    return _MARKDOWN.sub(r"\\\1", text)


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "replace")) // 2


def _teams(settings: Mapping[str, Any], _secret: str) -> Make:
    def make(event: EventParts) -> Body:
        template = settings.get("text")
        said = data_lines(event) if template is None else fill(template, event, str, _TEAMS_BYTES)
        small = {"type": "TextBlock", "text": f"{event.id.decode()} {when(event)}", "isSubtle": True, "size": "Small"}
        title = {"type": "TextBlock", "text": event.type.decode(), "weight": "Bolder", "wrap": True}
        room = _TEAMS_BYTES - len(_json(_card([title, _unmarked(""), small])).content)
        return _json(_card([title, _unmarked(cut(said, room, _json_bytes)), small]))

    return make


def _unmarked(text: str) -> dict[str, Any]:
    """Return a block in whose text no Markdown acts, unlike that of a TextBlock."""
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, "fontType": "Monospace"}]}


def _card(body: list[dict[str, Any]]) -> dict[str, Any]:
    content = {"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard",
               "version": "1.4", "body": body}  # fmt: skip
    card = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": content}
    return {"type": "message", "attachments": [card]}


def _json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))


FORMATS: Mapping[str, Family] = {"slack": _slack, "discord": _discord, "teams": _teams}
