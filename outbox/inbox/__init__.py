"""The inbox: take webhooks of others, each once, in the transaction that acts upon them.

`process()` does everything for one request: it verifies, stores the id, calls the application's function, commits, and
says what to answer. A copy of a message that was taken is answered 2xx and does nothing. `processing()` is the same as
a `with` block, `receive()` its first step alone; `aprocess`, `aprocessing` and `areceive` are for SQLAlchemy's asyncio.
`Request.of()` and `read()` make a Request from a framework's. `messages()`, `get()` and `forget()` look at what came.

    def approve(message):
        data = message.json()
        session.get(Demo, data["demo"]).approved = True
        outbox.record(session, "demo.approved", data)

    answer = outbox.inbox.process(session, request, secrets, approve, source="n8n")
    return Response(status=answer.status)
"""

from outbox.inbox.call import Rules
from outbox.inbox.frameworks import read
from outbox.inbox.history import forget, get, messages
from outbox.inbox.receiving import Busy, Received, Refused, areceive, receive
from outbox.inbox.request import MAX_BYTES, Request
from outbox.inbox.transaction import Answer, aprocess, aprocessing, process, processing

__all__ = [
    "MAX_BYTES",
    "Answer",
    "Busy",
    "Received",
    "Refused",
    "Request",
    "Rules",
    "aprocess",
    "aprocessing",
    "areceive",
    "forget",
    "get",
    "messages",
    "process",
    "processing",
    "read",
    "receive",
]
