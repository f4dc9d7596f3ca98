"""The pages. Each module has a router of its own, which is included in `router` here and nowhere else."""

from fastapi import APIRouter

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
