"""Sign requests and verify them: by Standard Webhooks, and by the schemes of other senders.

verify.py has `sign`, `signed_headers` and `verify`; each scheme in schemes/ says which secrets it takes, which text it
signs, and which headers it writes.
"""
