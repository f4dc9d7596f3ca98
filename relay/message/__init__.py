"""From an event and a subscription to the request: body, header lines, signature, authentication.

envelope.py puts them together; body.py makes the body; authentication.py and oauth2.py add what the endpoint asks for;
echoes.py redacts the secrets that its answers repeat.
"""
