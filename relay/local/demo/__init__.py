"""What a newcomer sees first: a shop, a receiver that checks everything, and a result from their two logs."""
