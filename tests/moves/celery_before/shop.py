"""A shop: customers order, and whoever has a webhook is told."""

from typing import Annotated

from database import Base, engine, get_db
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy.orm import Mapped, Session, mapped_column
from webhooks import router, trigger_event


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    cents: Mapped[int]
    state: Mapped[str] = mapped_column(default="placed")

    def to_dict(self) -> dict[str, object]:
        return {"id": self.id, "customer": self.customer, "cents": self.cents, "state": self.state}


class NewOrder(BaseModel):
    customer: str = Field(min_length=1)
    cents: int = Field(gt=0)


class OrderService:
    def __init__(self, db: Annotated[Session, Depends(get_db)]) -> None:
        self.db = db

    def place(self, customer: str, cents: int) -> Order:
        order = Order(customer=customer, cents=cents)
        self.db.add(order)
        self.db.commit()
        trigger_event.delay("order.placed", order.to_dict())
        return order

    def cancel(self, order_id: int) -> Order:
        order = self.db.get(Order, order_id)
        if order is None:
            raise HTTPException(404, "No such order")
        order.state = "cancelled"
        self.db.commit()
        trigger_event.delay("order.cancelled", order.to_dict())
        return order


app = FastAPI()
app.include_router(router, prefix="/api/v1/webhooks")
Base.metadata.create_all(engine)


@app.post("/orders", status_code=201)
def place_order(wanted: NewOrder, orders: Annotated[OrderService, Depends()]) -> dict[str, object]:
    return orders.place(wanted.customer, wanted.cents).to_dict()


@app.post("/orders/{order_id}/cancel")
def cancel_order(order_id: int, orders: Annotated[OrderService, Depends()]) -> dict[str, object]:
    return orders.cancel(order_id).to_dict()
