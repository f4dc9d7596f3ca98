"""The data plane: fan_out → claim → send → decide → settle. Read the files in that order of a delivery's life.

feeder.py is the loop that looks for work; fan_out.py and claim.py lease it; outgoing.py sends it and asks decide.py for
the verdict; settler.py settles it. statements.py holds every SQL statement and store.py runs them; states.py draws what
they do to a delivery.
"""
