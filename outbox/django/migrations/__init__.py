"""A migration of Django for each version of the schema, named as its SQL file is."""
