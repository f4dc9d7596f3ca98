"""The schemes that come with the library, one row each.

`standard`, https://github.com/standard-webhooks/standard-webhooks, v1; its v1a is code (standard_ed25519.py). An
id never holds a dot, or two messages could have one signature. "Message" is that standard's word for what one request
carries.
`svix`: the same v1 under Svix's names.
`stripe`, https://docs.stripe.com/webhooks: the key is the whole text of the secret, `whsec_` included.
`github`, https://docs.github.com/webhooks: its receivers' middleware wants the further headers.
`convoy`, `convoy-advanced`: the two signatures of pkg/signature/signature.go of frain-dev/convoy.
`notely`, `notely-node`, `fulfil`, `soundhash`, `leads` (n8n) are for receivers that were written for four applications.
The first two sign another text than the body that is sent (notely.py). The description of `soundhash` names no header:
ours is that of the other applications. That of `leads` names neither the form of the time nor the signed text: ours are
seconds since 1970, as everywhere, and the body. So anyone can renew its time.
"""

from __future__ import annotations

from outbox.signing.schemes.declaration import SchemeDeclaration as _Row

__all__ = ["ROWS"]

ROWS = (
    _Row("standard", "{id}.{timestamp}.{body}", "webhook-signature", "v1,{signature}", separator=" ", several=True,
         encoding="base64", key="whsec", id_header="webhook-id", timestamp_header="webhook-timestamp"),
    _Row("svix", "{id}.{timestamp}.{body}", "svix-signature", "v1,{signature}", separator=" ", several=True,
         encoding="base64", key="whsec", id_header="svix-id", timestamp_header="svix-timestamp"),
    _Row("stripe", "{timestamp}.{body}", "Stripe-Signature", "t={timestamp},v1={signature}", separator=",",
         several=True, key="whsec-as-text"),
    _Row("github", "{body}", "X-Hub-Signature-256", "sha256={signature}", id_header="X-GitHub-Delivery",
         type_header="X-GitHub-Event"),
    _Row("convoy", "{body}", "X-Convoy-Signature"),
    _Row("convoy-advanced", "{timestamp},{body}", "X-Convoy-Signature", "t={timestamp},v1={signature}", separator=",",
         several=True),
    _Row("notely", "{body}", "X-Webhook-Signature", "sha256={signature}"),
    _Row("notely-node", "{body}", "X-Webhook-Signature", "sha256={signature}"),
    _Row("fulfil", "{body}", "X-Webhook-Signature", "sha256={signature}", type_header="X-Webhook-Event"),
    _Row("soundhash", "{body}", "X-Webhook-Signature"),
    _Row("leads", "{body}", "X-Webhook-Signature-256", "sha256={signature}", timestamp_header="X-Webhook-Timestamp"),
)  # fmt: skip
