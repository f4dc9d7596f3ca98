"""The schemes that come with the library, one row each.

`standard`, https://github.com/standard-webhooks/standard-webhooks, v1; its v1a is code (standard.py). An id never holds
a dot, or two messages could sign alike. "Message" is that standard's word for what one request carries.
`svix`: the same v1 under Svix's names.
`stripe`, https://docs.stripe.com/webhooks: the key is the whole text of the secret, `whsec_` included.
`github`, https://docs.github.com/webhooks: its receivers' middleware wants the further headers.
`convoy`, `convoy-advanced`: the two signatures of pkg/signature/signature.go of frain-dev/convoy.
`notely`, `notely-node`, `fulfil`, `soundhash`, `leads` (n8n) are the senders of four applications, for receivers that
were written for those. The former two sign another text than the body that is sent (notely.py). The paper on
`soundhash` names no header, and that on `leads` neither the time's form nor the text it signs: the header is the one
its peers use, the time is seconds since 1970 like every other, the text is the body, so that anyone can renew the time.
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
