"""What is done with products. Each of these runs in the caller's transaction, and so do its events."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

import outbox
from examples.catalogue.database import Product
from examples.catalogue.webhooks import record_product


def create_product(session: Session, **fields: Any) -> Product:
    product = Product(**fields)
    session.add(product)
    session.flush()
    record_product("created", product)
    return product


def update_product(session: Session, product_id: UUID, changes: Mapping[str, Any]) -> Product:
    product = _find(session, product_id)
    for name, value in changes.items():
        setattr(product, name, value)
    product.updated_at = datetime.now(UTC)
    record_product("updated", product)
    return product


def delete_product(session: Session, product_id: UUID) -> None:
    product = _find(session, product_id)
    record_product("deleted", product)
    session.delete(product)


def import_products(session: Session, filename: str, text: str) -> dict[str, Any]:
    """Create or update a product for each row of a CSV file with sku and name; a row without them is an error.

    All that it tells of products is in import.completed: single events are silenced. A file that cannot be read changes
    nothing and is told of by import.failed.
    """
    task = str(uuid4())
    rows = list(csv.DictReader(io.StringIO(text)))
    outbox.emit("import.started", {"task_id": task, "filename": filename, "total_rows": len(rows)}, key=task)
    if rows and not {"sku", "name"} <= rows[0].keys():
        failed = {"task_id": task, "error": "the columns sku and name are missing"}
        outbox.emit("import.failed", failed, key=task)
        return failed
    with outbox.silenced("product.*"):
        counts = _import(session, rows)
    outbox.emit("import.completed", {"task_id": task, **counts}, key=task)
    return {"task_id": task, **counts}


def _import(session: Session, rows: list[dict[str, Any]]) -> dict[str, int]:
    counts = {"created": 0, "updated": 0, "errors": 0}
    for row in rows:
        if not row["sku"] or not row["name"]:
            counts["errors"] += 1
            continue
        known = session.scalar(select(Product).where(Product.sku == row["sku"]))
        if known is None:
            create_product(session, sku=row["sku"], name=row["name"])
        else:
            update_product(session, known.id, {"name": row["name"]})
        counts["updated" if known else "created"] += 1
    return counts


def _find(session: Session, product_id: UUID) -> Product:
    if (product := session.get(Product, product_id)) is None:
        raise LookupError(f"product: no {product_id}")
    return product
