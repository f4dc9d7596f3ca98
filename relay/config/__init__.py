"""The relay's configuration. options.py declares every option once; kinds.py reads and checks one value; sources.py
collects the values. option.py is what an option is; secret_files.py reads the file that holds a secret.

database_url.py, egress_proxy.py and schemes.py parse the options that are more than a plain value.
"""
