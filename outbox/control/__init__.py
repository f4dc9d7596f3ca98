"""What a person asks and does of events and deliveries, as far as SQL in the caller's transaction can do it.

A function takes a SQLAlchemy Connection and the tenant who asks, None for the operator. It returns frozen documents
with times and ids as values, long lists in pages, and findings as data. It prints nothing. `outbox.deliveries` and its
neighbours are the face of it for applications; the relay's command line and API stand on the same functions.
"""
