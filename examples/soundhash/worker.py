"""What a background worker does, in plain synchronous code without an event loop."""

from __future__ import annotations

from sqlalchemy.orm import Session

import outbox
from examples.soundhash import webhooks
from examples.soundhash.database import Video, engine


def process_video(video_id: str, *, fails: bool) -> str:
    """Process a video, and tell of it or of the failure in the same transaction; return its state."""
    with Session(engine) as session, session.begin(), outbox.use_session(session):
        video = session.get_one(Video, video_id)
        video.state = "failed" if fails else "processed"
        if fails:
            webhooks.emit_job_failed(tenant_id=video.tenant_id, job_id=video_id, error="no sound in it")
        else:
            webhooks.emit_video_processed(tenant_id=video.tenant_id, video_id=video_id, segments=3)
        return video.state
