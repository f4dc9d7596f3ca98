"""The values that travel through the data plane, and the pure decisions about them. Nothing here does I/O.

event.py has the parts of an event; delivery.py draws the states of a delivery; outcome.py is what the network said;
decide.py makes a verdict from it, health_sign.py what it says of the endpoint's health; settlement.py is what the
database gets. Values that are made at each attempt are NamedTuples, which are made in a quarter of a frozen
dataclass's time.
"""
