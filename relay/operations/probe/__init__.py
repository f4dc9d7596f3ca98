"""Try one endpoint: send a test message, or inspect the way to it step by step, and say what mends each fault.

probe.py has both verbs, preview.py makes a request without sending it; relay/http/inspection takes the steps;
diagnosis.py says what mends what was found.
"""
