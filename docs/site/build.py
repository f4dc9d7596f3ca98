"""Copy, generate, render, check."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.site.checks import faults_of
from docs.site.pages import SITE, copy_pages
from docs.site.reference import write_reference


def build(out: Path) -> list[str]:
    """Build the site into `out`, which is replaced; return what is wrong with it."""
    with tempfile.TemporaryDirectory(prefix="outbox-site-") as directory:
        project = Path(directory)
        write_project(project / "pages")
        shutil.copy(SITE / "zensical.toml", project)
        if fault := _render(project):
            return [fault]
        faults = faults_of(project / "site")
        if not faults:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(project / "site", out)
        return faults


def write_project(pages: Path) -> None:
    """Write every page of the site, as Markdown."""
    copy_pages(pages)
    write_reference(pages)


def _render(project: Path) -> str:
    """Run zensical; return what it says if it fails."""
    program = Path(sys.executable).with_name("zensical")
    if not program.exists():
        return "zensical is not installed: pip install -e '.[dev]'"
    done = subprocess.run([program, "build", "--strict"], cwd=project, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return (done.stdout + done.stderr.partition("Traceback")[0]).strip() or done.stderr
