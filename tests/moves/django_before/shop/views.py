import json

from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from shop import services
from shop.models import Endpoint, Order
from shop.webhooks import EVENTS, send


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
    return {"id": endpoint.pk, "url": endpoint.url, "events": endpoint.events, "active": endpoint.active}


@csrf_exempt
def endpoints(request):
    if request.method == "GET":
        mine = Endpoint.objects.filter(account=account_of(request)).order_by("pk")
        return JsonResponse({"endpoints": [as_json(endpoint) for endpoint in mine]})
    wanted = json.loads(request.body)
    if not wanted["url"].startswith("http") or not set(wanted["events"]) <= set(EVENTS):
        return JsonResponse({"error": "url or events cannot be used"}, status=400)
    endpoint = Endpoint.objects.create(account=account_of(request), url=wanted["url"], events=wanted["events"])
    return JsonResponse({**as_json(endpoint), "secret": endpoint.secret}, status=201)


@csrf_exempt
def endpoint(request, pk):
    endpoint = get_object_or_404(Endpoint, account=account_of(request), pk=pk)
    if request.method == "DELETE":
        endpoint.delete()
        return HttpResponse(status=204)
    if request.method == "PATCH":
        endpoint.active = bool(json.loads(request.body)["active"])
        endpoint.save(update_fields=["active"])
    return JsonResponse(as_json(endpoint))


@csrf_exempt
@require_POST
def test(request, pk):
    endpoint = get_object_or_404(Endpoint, account=account_of(request), pk=pk)
    sent = send(endpoint, endpoint.events[0], {"number": 0, "cents": 1, "state": "test"})
    return JsonResponse({"ok": sent.error == "", "status": sent.status})


def log(request, pk):
    endpoint = get_object_or_404(Endpoint, account=account_of(request), pk=pk)
    rows = endpoint.sent_set.order_by("-at")[:50]
    return JsonResponse({"sent": [{"event": row.event, "status": row.status, "at": row.at} for row in rows]})
