from django.db import transaction

from shop.models import Order
from shop.webhooks import tell


def place_order(account, cents):
    with transaction.atomic():
        order = Order.objects.create(account=account, cents=cents)
        tell(account, "order.placed", order.as_json())
    return order


def cancel_order(account, number):
    with transaction.atomic():
        order = Order.objects.select_for_update().get(account=account, pk=number)
        order.state = "cancelled"
        order.save(update_fields=["state"])
        tell(account, "order.cancelled", order.as_json())
    return order
