"""Evaluate what is large in a process of its own, since reading JSON holds whoever does it in one stretch.

apart.py is the way in: one such process for each relay process, tenants in turn (turns.py), a deadline. child.py is
the process as seen from the relay, __main__.py what it runs, frames.py what goes through the pipes.
"""
