"""What `relay run` is: checks at the start, one or more processes, their loops, and housekeeping beside them.

startup.py checks; supervisor.py starts and restarts processes; daemon.py is one process; housekeeping.py keeps tables
small.
"""
