"""Makes a subscription of each row of the old table `webhooks`; runs once, after `relay migrate`."""

from database import engine
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox

with Session(engine) as session, session.begin():
    for old in session.execute(text("select * from webhooks")).mappings():
        moved = outbox.subscribe(
            session,
            old["url"],
            old["events"],
            id=str(old["id"]),
            secret=old["secret"] or None,
            scheme="fulfil" if old["secret"] else "none",
            format="fulfil",
            headers=old["headers"],
            timeout_seconds=old["timeout_seconds"],
            schedule_seconds=[2 ** (n + 1) for n in range(old["retry_count"])],
            description=old["description"],
            allow_weak_secret=len(old["secret"] or "") < 12,
        )
        if not old["is_active"]:
            outbox.subscriptions.pause(session, moved.id, drop=True)
