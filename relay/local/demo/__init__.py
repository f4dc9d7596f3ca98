"""What a newcomer sees first: a shop, a receiver that checks everything, a verdict from their two logs."""
