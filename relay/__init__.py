"""The relay: takes recorded events from PostgreSQL and delivers them as signed webhooks."""
