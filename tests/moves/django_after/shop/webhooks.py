import outbox.django

EVENTS = ("order.placed", "order.cancelled")
SENT_AS = {"scheme": "fulfil", "format": "raw", "schedule_seconds": [2, 4, 8], "timeout_seconds": 10}


def tell(account, event, order):
    outbox.django.record(event, {"event": event, "account": account, "order": order}, tenant=account)
