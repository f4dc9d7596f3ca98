"""The control plane: what a person asks and does, for the command line, the HTTP API and Python alike.

Here is what needs a relay's configuration, its keys, its network or its state; what SQL alone can do is in
outbox.control, where an application finds it too. A function takes a SQLAlchemy Connection and the tenant who asks,
None for the operator. It returns frozen documents with times and ids as values, long lists in pages, and findings as
data. It prints nothing.
"""
