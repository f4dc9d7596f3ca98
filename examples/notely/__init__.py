"""notely: e-mails, calendar and tasks of many users, each of whom has webhooks of their own."""
