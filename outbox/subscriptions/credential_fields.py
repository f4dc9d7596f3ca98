"""The fields that each request is made known by, kept as secrets; declared as in fields.py."""

from collections.abc import Mapping
from typing import Annotated, TypedDict

from outbox.subscriptions import checks
from outbox.subscriptions.authentication import TLS, Authentication
from outbox.subscriptions.declaration import Field, Flag

__all__ = ["CredentialSettings"]


class CredentialSettings(TypedDict, total=False):
    """What each request is made known by: kept as secrets."""

    headers: Annotated[
        Mapping[str, str] | None,
        Field(
            check=checks.headers_to_store,
            flags=(
                Flag(name="header", metavar="NAME=VALUE", repeatable=True, help="Send it along; repeatable."),
                Flag(name="headers_file", file=True, help="Headers: a JSON object, or 'Name: value' lines."),
            ),
            no_flag="Send no own headers any more.",
            meaning="Own headers of every request, at most 50 and 8 KiB; their values are kept as secrets.",
        ),
    ]
    authentication: Annotated[
        Authentication | None,
        Field(
            check=checks.authentication_to_store,
            flags=(
                Flag(
                    name="authentication_file",
                    file=True,
                    help="JSON whose type is basic, bearer or oauth2; - is stdin.",
                ),
            ),
            no_flag="Authenticate no more.",
            meaning="BasicAuth, BearerToken or OAuth2ClientCredentials, kept as a secret.",
        ),
    ]
    tls: Annotated[
        TLS | None,
        Field(
            check=checks.tls_to_store,
            flags=(
                Flag(name="client_certificate", file=True, help="PEM to show to the receiver, with --client-key."),
                Flag(name="client_key", file=True, help="PEM of its private key, without a passphrase."),
                Flag(name="ca", file=True, help="PEM of the authority to trust instead of the public ones."),
            ),
            no_flag="No client certificate, no own authority.",
            meaning="A client certificate, an own certificate authority, or both, kept as a secret.",
        ),
    ]
