import json

from django.db import connection, transaction
from django.http import Http404, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

import outbox
from shop import services
from shop.models import Order
from shop.webhooks import EVENTS, SENT_AS


def account_of(request):
    return request.headers["X-Account"]  # the proxy in front has signed the user in


@csrf_exempt
@require_POST
def orders(request):
    order = services.place_order(account_of(request), int(json.loads(request.body)["cents"]))
    return JsonResponse(order.as_json(), status=201)


@csrf_exempt
@require_POST
def cancel(request, number):
    try:
        return JsonResponse(services.cancel_order(account_of(request), number).as_json())
    except Order.DoesNotExist:
        return JsonResponse({"error": "no such order"}, status=404)


def as_json(endpoint):
    number = endpoint.name or endpoint.id  # the old table's number is the name
    return {"id": number, "url": endpoint.url, "events": endpoint.types, "active": not endpoint.paused_at}


def get_endpoint_or_404(request, pk):
    try:
        return outbox.subscriptions.get(connection, pk, tenant=account_of(request))
    except outbox.NotFoundError as error:
        raise Http404 from error


@csrf_exempt
@transaction.atomic
def endpoints(request):
    if request.method == "GET":
        mine = outbox.subscriptions.list(connection, tenant=account_of(request), limit=1000)
        return JsonResponse({"endpoints": [as_json(endpoint) for endpoint in mine]})
    wanted = json.loads(request.body)
    if not wanted["url"].startswith("http") or not set(wanted["events"]) <= set(EVENTS):
        return JsonResponse({"error": "url or events cannot be used"}, status=400)
    try:
        endpoint = outbox.subscribe(connection, wanted["url"], wanted["events"], tenant=account_of(request), **SENT_AS)
    except outbox.SubscriptionError as error:
        return JsonResponse({"error": str(error)}, status=400)
    return JsonResponse({**as_json(endpoint), "secret": endpoint.secret}, status=201)


@csrf_exempt
@transaction.atomic
def endpoint(request, pk):
    endpoint = get_endpoint_or_404(request, pk)
    if request.method == "DELETE":
        outbox.subscriptions.remove(connection, endpoint.id, tenant=endpoint.tenant)
        return HttpResponse(status=204)
    if request.method == "PATCH":
        if json.loads(request.body)["active"]:
            endpoint = outbox.subscriptions.resume(connection, endpoint.id, tenant=endpoint.tenant)
        else:
            endpoint = outbox.subscriptions.pause(connection, endpoint.id, drop=True, tenant=endpoint.tenant)
    return JsonResponse(as_json(endpoint))


@csrf_exempt
@require_POST
def test(request, pk):
    endpoint = get_endpoint_or_404(request, pk)
    data = {"event": endpoint.types[0], "account": endpoint.tenant, "order": {"number": 0, "cents": 1, "state": "test"}}
    with transaction.atomic():
        asked = outbox.request_test(connection, endpoint.id, tenant=endpoint.tenant, type=endpoint.types[0], data=data)
    answer = outbox.wait_for_test(connection, asked)
    return JsonResponse({"ok": answer.ok, "status": answer.status})


def log(request, pk):
    endpoint = get_endpoint_or_404(request, pk)
    rows = outbox.deliveries.attempts(connection, tenant=endpoint.tenant, subscription=endpoint.id, limit=50)
    return JsonResponse({"sent": [{"event": row.type or "test", "status": row.status, "at": row.at} for row in rows]})
