import hashlib
import hmac
import json
import threading
import time

import httpx
from django.db import close_old_connections

from shop.models import Endpoint, Sent

EVENTS = ("order.placed", "order.cancelled")
DELAYS_SECONDS = (2, 4, 8)


def tell(account, event, order):
    """Send it to the account's endpoints, each in a thread, so that the request need not wait."""
    for endpoint in Endpoint.objects.filter(account=account, active=True, events__contains=[event]):
        threading.Thread(target=deliver, args=(endpoint, event, order), daemon=True).start()


def deliver(endpoint, event, order):
    try:
        for delay in (*DELAYS_SECONDS, None):
            if send(endpoint, event, order).error == "" or delay is None:
                return
            time.sleep(delay)
    finally:
        close_old_connections()


def send(endpoint, event, order):
    body = json.dumps({"event": event, "account": endpoint.account, "order": order}).encode()
    signature = hmac.new(endpoint.secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Event": event,
        "X-Webhook-Signature": f"sha256={signature}",
    }
    sent = Sent(endpoint=endpoint, event=event)
    try:
        sent.status = httpx.post(endpoint.url, content=body, headers=headers, timeout=10).status_code
        sent.error = "" if 200 <= sent.status < 300 else f"HTTP {sent.status}"
    except httpx.HTTPError as error:
        sent.error = str(error) or type(error).__name__
    sent.save()
    return sent
