"""Ask an endpoint before its customers do: a test message, or the way to it step by step, with what mends each fault.

probe.py has both verbs; relay/http/inspection walks the way; diagnosis.py says what mends what was found.
"""
