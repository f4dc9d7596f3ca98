"""What the shop answers. ATOMIC_REQUESTS is on, so each of these is a transaction."""

import json

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

import outbox
import outbox.django
from examples.django_shop.models import Order

outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)  # this machine; real customers have https


@csrf_exempt
def place_order(request: HttpRequest) -> JsonResponse:
    order = Order.objects.create(cents=json.loads(request.body)["cents"])
    event = outbox.django.record("order.placed", {"id": order.pk, "cents": order.cents}, key=f"order-{order.pk}")
    if order.cents < 0:
        raise ValueError("nobody pays that")  # Django rolls back: no order, and no event
    return JsonResponse({"order": order.pk, "event": event.id}, status=201)


@csrf_exempt
def subscribe(request: HttpRequest) -> JsonResponse:
    wanted = json.loads(request.body)
    try:
        with outbox.django.connection() as connection:
            made = outbox.subscribe(connection, wanted["url"], wanted["types"], secret=wanted.get("secret"))
    except outbox.SubscriptionError as error:
        return JsonResponse({"detail": str(error)}, status=422)
    return JsonResponse({"id": made.id, "secret": made.secret}, status=201)  # shown once
