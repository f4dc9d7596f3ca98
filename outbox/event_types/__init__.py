"""An event type as a plain value: declared_type.py. Which parts its data has: parts.py. What a change breaks:
differences.py. All by its JSON Schema (schema_forms.py); pure, without a database.

outbox.catalogue, where types are declared, and outbox.control, which stores and shows them, both stand on this.
"""
