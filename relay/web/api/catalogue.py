"""What a subscription can be told, by HTTP: signature schemes and formats of bodies."""

from typing import Any

from fastapi import APIRouter

from outbox.errors import NotFoundError, SubscriptionError
from relay.operations.schemes import format_documents, scheme_document, scheme_documents
from relay.web.access import Reader
from relay.web.bodies import ExactRoute

__all__ = ["router"]

router = APIRouter(tags=["catalogue"], route_class=ExactRoute)


@router.get("/schemes")
def get_schemes(_reader: Reader) -> list[dict[str, Any]]:
    """List how requests can be signed, each with an example that everybody knows the secret of."""
    return scheme_documents()


@router.get("/schemes/{name}")
def get_scheme(_reader: Reader, name: str) -> dict[str, Any]:
    """Show what a scheme signs, what that protects, and what a request looks like."""
    try:
        return scheme_document(name)
    except SubscriptionError as error:
        raise NotFoundError(str(error)) from None


@router.get("/formats")
def get_formats(_reader: Reader) -> list[dict[str, Any]]:
    """List the shapes that a body can have, and what each can be told."""
    return format_documents()
