"""The formats of a request's body: which there are, and what a subscription may set of them.

Here is what can be said without an event; relay.message.formats makes the bodies. `declared.py` has one row a format.
"""

from outbox.formats.declared import FORMATS, Format, check_settings, named, warnings_of
from outbox.formats.shown_urls import REDACTED, shown_url

__all__ = ["FORMATS", "REDACTED", "Format", "check_settings", "named", "shown_url", "warnings_of"]
