"""One database's loops: fan_out → claim → send → decide → settle. Read the files in that order of a delivery's life.

feeder.py is the loop that looks for work, every poll_interval.py. sweep.py, fan_out.py, claim.py and suspects.py find
it and lease it; due_map.py and low_water.py are their hints. sending.py sends what is leased (attempts.py: one request
and its outcome) to its endpoint (endpoint.py, window.py; endpoint_registry.py) when there is room (room.py,
fairness.py, byte_shares.py). settler.py settles it. engine.py puts these together; outage.py waits for a database that
is away, pace.py measures a slow one, stuck_relays.py ends what a stopped relay holds; sending_switch.py knows whether
all sending is stopped. relay/store has every SQL statement; relay/model/delivery.py draws what they do to a delivery.
"""
