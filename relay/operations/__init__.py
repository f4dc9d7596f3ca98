"""The control plane: what a person asks and does, for the command line, the HTTP API and Python alike.

A function takes a SQLAlchemy Connection and the tenant who asks, None for the operator. It returns frozen documents
with times and ids as values, long lists in pages, and findings as data. It prints nothing.
"""
