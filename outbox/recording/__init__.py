"""Record an event in the caller's own transaction: check and serialise it, keep it with its session, insert it.

record.py has the public functions; targets.py tells a session from a connection; payload.py and raw_json.py make the
JSON text; session.py keeps events until the commit; commit_guard.py refuses a commit that bypasses the session;
insert.py inserts them.
"""
