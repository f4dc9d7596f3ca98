"""Subscriptions from a file: `document` reads it, with `references` to secrets; `plan` compares it with what is stored;
`apply` carries the plan out in one transaction; `export` writes such a file.
"""
