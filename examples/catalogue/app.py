"""The application around it. `python -m examples catalogue` runs it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import outbox
from examples.catalogue import products, webhooks
from examples.catalogue.database import Base, Database, engine

app = FastAPI(title="Product catalogue")
app.include_router(webhooks.router, prefix="/api/v1/webhooks", tags=["webhooks"])
outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)  # this machine; real receivers have https
Base.metadata.create_all(engine)


class NewProduct(BaseModel):
    sku: str
    name: str
    description: str = ""
    active: bool = True


class Changes(BaseModel):
    name: str = ""
    description: str = ""
    active: bool = True


class Import(BaseModel):
    filename: str
    text: str


@app.exception_handler(LookupError)
def not_found(_: Request, error: LookupError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 404)


@app.post("/api/v1/products", status_code=201)
def create(given: NewProduct, session: Database, *, trigger_webhooks: bool = True) -> dict[str, Any]:
    with nullcontext() if trigger_webhooks else outbox.silenced():
        product = products.create_product(session, **given.model_dump())
    made = {"id": product.id, "sku": product.sku}
    session.commit()
    return made


@app.put("/api/v1/products/{product_id}")
def update(product_id: UUID, given: Changes, session: Database) -> dict[str, Any]:
    product = products.update_product(session, product_id, given.model_dump(exclude_unset=True))
    made = {"id": product.id, "name": product.name, "active": product.active}
    session.commit()
    return made


@app.delete("/api/v1/products/{product_id}", status_code=204)
def delete(product_id: UUID, session: Database) -> None:
    products.delete_product(session, product_id)
    session.commit()


@app.post("/api/v1/imports", status_code=201)
def import_(given: Import, session: Database) -> dict[str, Any]:
    told = products.import_products(session, given.filename, given.text)
    session.commit()
    return told
