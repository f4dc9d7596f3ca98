"""Record an event in the caller's own transaction: check and serialise it, keep it with its session, insert it.

record.py has the public functions, event.py what they return; targets.py tells a session from a connection, current.py
knows the session in use, silence.py the blocks without events. arguments.py, payload.py, plain_data.py and raw_json.py
check what is given and make the JSON text; session.py and session_events.py keep events until the commit, and drop
those of a savepoint that is rolled back; commit_guard.py refuses a commit that bypasses the session, lost.py tells of
events that nobody commits; statements.py and insert.py insert them, and lenient_write.py, guarded_insert.py and
refusals.py those that may fail without harm. idempotency.py and trace.py know what their names say; bind.py finds a
session's engine, named_errors.py makes the server's errors ours.
"""
