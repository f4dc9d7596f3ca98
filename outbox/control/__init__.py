"""What a person asks and does of events and deliveries by SQL alone, in the caller's transaction.

relay.operations has what needs more: a relay's configuration, its keys, its network or its state. The command line, the
HTTP API and the pages call both.

A function takes a SQLAlchemy Connection and the tenant who asks, None for the operator. It returns frozen documents
with times and ids as values, long lists in pages, and findings as data. It prints nothing. `outbox.deliveries` and its
neighbours are the face of this room for applications.
"""
