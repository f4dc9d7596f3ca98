"""All that the catalogue needs for webhooks: its event types, the API to manage them, and what it records."""

from __future__ import annotations

import outbox
from examples.catalogue.database import Product, get_session
from outbox.fastapi import Shape, webhooks_router

EVENT_TYPES = {
    "product.created": "Product created",
    "product.updated": "Product updated",
    "product.deleted": "Product deleted",
    "import.started": "CSV import started",
    "import.completed": "CSV import completed",
    "import.failed": "CSV import failed",
}

router = webhooks_router(
    session=get_session,
    owner="",  # the catalogue has one owner; keep its API from others as you do the rest
    event_types=EVENT_TYPES,
    shape=Shape(
        event="event", history_path="/logs", history_is_list=True, retry_count=3, first_delay_seconds=2,
        timeout_seconds=30, unsigned_without_secret=True, test_type="product.created",
    ),
    settings={
        "format": "fulfil", "scheme": "fulfil", "allow_weak_secret": True,
    },
)  # fmt: skip


def record_product(what: str, product: Product) -> None:
    """Record that a product was created, updated or deleted, in the transaction that does it."""
    data: dict[str, object] = {"id": product.id, "sku": product.sku, "name": product.name}
    if what != "deleted":
        data |= {"description": product.description, "active": product.active, f"{what}_at": product.updated_at}
    outbox.emit(f"product.{what}", data, key=str(product.id))
