"""Every statement that moves an event or a delivery from one state to the next, each beside the function that runs it.

In the order of a delivery's life: fan_out.py, fan_out_births.py (its insert) and fan_out_wide.py (one event to very
many), polling.py (what there is to do), lease.py, claims.py, batches.py and suspects.py, settlement.py,
consequences.py and halving.py, dead_letters.py. subscriptions.py reads who is sent to; breaker.py opens and closes
breakers; limits.py gives out the slots of rates, in_flight.py the shares of caps. store.py lists the verbs that the
engine asks for. database.py has the connection and its settings, turns.py what bounds a process that stops; bodies.py
reads the events of what is leased; rows.py and arrays.py have what statements take and return, nearest_time.py how
commands read times that Python has none for. relay/model/delivery.py draws the arrows. What a person moves by hand is
in outbox/control/store. No other module writes to pending, deliveries or dead_letters.
"""
