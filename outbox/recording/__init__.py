"""Record an event in the caller's own transaction: check and serialise it, keep it with its session, insert it.

record.py is the door; targets.py tells a session from a connection; payload.py and raw_json.py make the JSON text;
session.py keeps events until the commit and commit_guard.py watches for commits made by hand; insert.py writes them.
"""
