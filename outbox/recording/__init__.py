"""Record an event in the caller's own transaction: check and serialise it, keep it with its session, insert it.

record.py has the public functions; targets.py tells a session from a connection; payload.py and raw_json.py make the
JSON text; session.py keeps events until the commit; commit_guard.py refuses a commit that bypasses the session;
statements.py and insert.py insert them. idempotency.py and trace.py know what their names say; bind.py finds a
session's engine, named_errors.py makes the server's errors ours.
"""
