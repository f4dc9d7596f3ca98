"""The relay's configuration. options.py declares every option once; kinds.py reads and checks one value; sources.py
collects the values.

database_url.py, egress_proxy.py and schemes.py parse the options that are more than a plain value.
"""
