"""Capture: record events of what SQLAlchemy's unit of work changes, in the transaction that changes it.

captures.py has the public function, registry.py what was asked for; change.py what a function is told. listeners.py
hears the unit of work and notes each row in journal.py, which follows savepoints; deciding.py makes events of it just
before COMMIT, all by `record()`. images.py reads a row's values, rows.py reads what is not known from the database;
bulk.py refuses or covers statements that the unit of work does not see, setting.py tells which columns an UPDATE sets.
"""

from outbox.capturing.captures import capture
from outbox.capturing.change import Change
from outbox.capturing.registry import Capture

__all__ = ["Capture", "Change", "capture"]
