"""`relay run`: checks at the start, one or more processes, each with an engine and housekeeping.

startup.py checks; supervisor.py starts and restarts processes; daemon.py is one process; housekeeping.py keeps tables
small, by the statements of housekeeping_rounds.py.
"""
