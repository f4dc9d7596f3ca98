"""Walk the way to an endpoint step by step, as an attempt would, and say where it ends. Not one byte of HTTP is sent.

inspect.py goes directly and inspect_tunnel.py through the egress proxy; steps.py and certificate.py are what they find.
It stands here and not in operations/ because nothing outside relay/http opens a connection.
"""
