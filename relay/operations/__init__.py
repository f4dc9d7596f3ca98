"""What a person asks and does that needs a relay: its configuration, its keys, its network or its state.

outbox.control has what SQL alone can do, where an application finds it too. The command line, the HTTP API and the
pages call both.

A function takes a SQLAlchemy Connection and the tenant who asks, None for the operator. It returns frozen documents
with times and ids as values, long lists in pages, and findings as data. It prints nothing.
"""
