"""Make an event's data anew by an expression (outbox/transformation reads it), within a counted budget of work.

transformation.py is the way in; evaluate.py turns the tree into functions, functions.py has those of JMESPath;
values.py says what values are; budget.py counts; json_text.py reads the payload and writes the result.
"""
