"""Try one endpoint: send a test message, or inspect the way to it step by step, and say what mends each fault.

test_and_check.py has both verbs, requested_tests.py sends what was asked for in the database; preview.py makes a
request without sending it, repeat.py that of a delivery for a person to repeat. relay/http/inspection takes the steps;
diagnosis.py says what mends what was found.
"""
