"""The server of the repository's own tests."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[3] / "tests" / "python"))
sys.path.insert(0, str(HERE.parents[1] / "src"))

import importlib.util

_spec = importlib.util.spec_from_file_location(
    "server_conftest", HERE.parents[3] / "tests" / "python" / "conftest.py"
)
assert _spec and _spec.loader
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
pytest_configure = _conftest.pytest_configure
pytest_runtest_makereport = _conftest.pytest_runtest_makereport
shared_server = _conftest.shared_server
