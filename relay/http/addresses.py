"""The address policy, as the relay uses it: the one that `outbox` refuses URLs by when they are subscribed."""

from outbox.subscriptions.addresses import AddressPolicy, is_private_name, literal_address

__all__ = ["AddressPolicy", "is_private_name", "literal_address"]
