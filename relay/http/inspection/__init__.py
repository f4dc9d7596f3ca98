"""Walk the way to an endpoint step by step, as an attempt would, and say where it ends. Not one byte of HTTP is sent.

inspect.py walks, handshake.py is the last step; steps.py and certificate.py are what they find.
It stands here and not in operations/ because nothing outside relay/http opens a connection.
"""
