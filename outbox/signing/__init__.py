"""Sign what is sent and verify what is received: Standard Webhooks, and the schemes of other senders.

verify.py has `sign`, `signed_headers` and `verify`; each scheme in schemes/ owns its rule for secrets, the text that is
signed, and its header lines.
"""
