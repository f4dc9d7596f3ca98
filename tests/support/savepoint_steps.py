"""Steps of a random program that open, release and roll back savepoints of its session."""

from __future__ import annotations

from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["SavepointSteps"]


class SavepointSteps:
    """What programs have in common: a session, and the savepoints that are open on it, the outermost first."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.savepoints: list[SessionTransaction] = []

    def savepoint(self) -> None:
        """Open one inside those that are open."""
        self.savepoints.append(self.session.begin_nested())

    def release(self) -> None:
        """Release the innermost."""
        if self.savepoints:
            self.savepoints.pop().commit()

    def undo(self) -> None:
        """Roll the innermost back."""
        if self.savepoints:
            self.savepoints.pop().rollback()

    def release_outermost(self) -> None:
        """Release the outermost, and with it those inside."""
        if self.savepoints:
            self.savepoints[0].commit()
            self.savepoints.clear()

    def undo_outermost(self) -> None:
        """Roll the outermost back, and with it those inside."""
        if self.savepoints:
            self.savepoints[0].rollback()
            self.savepoints.clear()
