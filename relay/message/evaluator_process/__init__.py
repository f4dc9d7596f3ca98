"""Evaluate what is large in a process of its own, since a relay's loop stands still while JSON is read.

evaluator.py is the way in: one such process for each relay process, tenants in turn (turns.py), a deadline.
large_bodies.py asks it for transformations and formats, relay/engine/asking.py for filters. child.py is the process as
seen from the relay, __main__.py what it runs, requests.py what it is asked, answering.py what it answers, frames.py
what goes through the pipes.
"""
