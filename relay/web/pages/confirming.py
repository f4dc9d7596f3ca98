"""A question before something that cannot be taken back: a page of its own, which sends the same form again."""

from dataclasses import dataclass

from fastapi import Response

from relay.web.pages.csrf import Form
from relay.web.pages.rendering import url_of, visit_page
from relay.web.pages.visits import Visit

__all__ = ["Instead", "Reason", "confirm"]


@dataclass(frozen=True, slots=True)
class Instead:
    """Another way to what is asked for, on the page that asks: what is said of it, and the link to it."""

    words: str
    verb: str
    address: str


@dataclass(frozen=True, slots=True)
class Reason:
    """The field `reason` of the page that asks: what is said of it, whether it is needed, what was wrong with it."""

    help: str
    is_needed: bool = False
    wrong: str = ""


def confirm(
    visit: Visit, title: str, question: str, verb: str, action: str, form: Form, *, back: str, warning: str = "",
    danger: bool = False, reason: Reason | None = None, instead: Instead | None = None,
) -> Response:  # fmt: skip
    """Return the page that asks.

    Args:
        visit: by whom.
        title: the question in a few words.
        question: what will happen.
        verb: on the button.
        action: where the form goes, with all its fields and `confirmed`.
        form: what was posted.
        back: the path of the page to go back to.
        warning: what cannot be taken back.
        danger: whether the button looks so.
        reason: asks why, too.
        instead: another way, where there is one.
    """
    own = ("csrf", "confirmed", "reason") if reason else ("csrf", "confirmed")
    fields = [(name, value) for name, value in form if name not in own]
    return visit_page(
        visit, "confirm.html", title=title, question=question, verb=verb, action=action, fields=fields,
        back_to=url_of(visit.request, *back.split("/", 1)), warning=warning, danger=danger, reason=reason,
        given_reason=form.get("reason"), instead=instead, status=422 if reason and reason.wrong else 200,
    )  # fmt: skip
