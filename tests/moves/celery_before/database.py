import os
from collections.abc import Iterator

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Session

engine = create_engine(os.environ["DATABASE_URL"])


class Base(DeclarativeBase): ...


def get_db() -> Iterator[Session]:
    with Session(engine) as db:
        yield db
