"""`relay run`: checks at the start, one or more processes, each with an engine and housekeeping.

startup.py checks; supervisor.py starts and restarts processes; daemon.py is one process. housekeeping.py runs the
rounds of housekeeping_rounds.py: they make partitions ahead, clear what expired and apply retention. presence.py says
that the process lives, monitoring.py serves health and metrics, schema_watch.py notices a migration, and
requested_tests.py sends the test messages that somebody asked for.
"""
