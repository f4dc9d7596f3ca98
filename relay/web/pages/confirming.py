"""A question before something that cannot be taken back: a page of its own, which sends the same form again."""

from fastapi import Response

from relay.web.pages.rendering import url_of, visit_page
from relay.web.pages.visits import Form, Visit

__all__ = ["confirm"]


def confirm(
    visit: Visit, title: str, question: str, verb: str, action: str, form: Form, *, back: str, warning: str = "",
    danger: bool = False,
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
    """
    fields = [(name, value) for name, value in form if name not in ("csrf", "confirmed")]
    return visit_page(
        visit, "confirm.html", title=title, question=question, verb=verb, action=action, fields=fields,
        back_to=url_of(visit.request, *back.split("/", 1)), warning=warning, danger=danger,
    )  # fmt: skip
