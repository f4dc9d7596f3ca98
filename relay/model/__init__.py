"""The values that travel through the data plane, and the pure decisions about them. Nothing here does I/O.

The files by theme:

- what is sent, and to whom: event.py (in parts), subscription.py (what sending needs of it), delivery.py (its states,
  as a figure)
- what came back: outcome.py (what the network said), receiver_rules.py (what it means at receivers whose rules
  are known)
- what follows: decide.py (the decision) → verdict.py (its values); health_sign.py (what an attempt says of its
  endpoint's health), alike.py (which endpoints a receiver counts together)
- what the database gets: settlement.py

Values that are made at each attempt are NamedTuples, which are made in a quarter of a frozen dataclass's time.
"""
