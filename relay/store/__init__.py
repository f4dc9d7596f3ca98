"""Every statement of the data plane: what moves an event or a delivery from one state to the next.

statements.py has the SQL, one statement a verb; store.py runs it; rows.py names what goes in and comes out; arrays.py
packs it.
"""
