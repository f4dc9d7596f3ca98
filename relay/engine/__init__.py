"""One database's loops: fan_out → claim → send → decide → settle. Read the files in that order of a delivery's life.

feeder.py is the loop that looks for work; sweep.py, fan_out.py, claim.py and suspects.py are its ways to find and lease
it, due_map.py what it knows. sending.py sends what is leased, each to its endpoint (endpoint.py, health.py; registry:
endpoints.py), as far as there is room (room.py, fairness.py); settler.py settles it. engine.py puts these together.
"""
