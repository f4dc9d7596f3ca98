"""Every option of the relay, declared once: options.py. kinds.py reads and checks one value; sources.py collects them.

database_url.py and egress_proxy.py are the two options that are more than a value.
"""
