"""The checked-in messages are those of the protocol."""

import subprocess
import sys
from pathlib import Path

from tollgate import _requests as requests
from tollgate.v1 import call_authorization_service_pb2 as service

PACKAGE = Path(__file__).resolve().parent.parent


def test_the_generated_modules_are_current(tmp_path: Path) -> None:
    script = PACKAGE / "tools" / "generate.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    checked_in = PACKAGE / "src" / "tollgate" / "v1"
    made = {path.name: path.read_text() for path in (tmp_path / "tollgate" / "v1").iterdir()}
    kept = {path.name: path.read_text() for path in checked_in.iterdir() if path.is_file()}
    stale = sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))
    assert stale == [], "run make python-stubs"


def test_the_table_of_methods_is_that_of_the_service() -> None:
    described = service.DESCRIPTOR.services_by_name["CallAuthorizationService"]
    assert described.full_name == requests.SERVICE
    for method in requests.METHODS:
        known = described.methods_by_name[method.name]
        assert known.input_type is method.request.DESCRIPTOR
        assert known.output_type is method.response.DESCRIPTOR


def test_every_field_of_an_authorize_can_be_given() -> None:
    fields = {field.name for field in service.AuthorizeCallRequest.DESCRIPTOR.fields}
    given = set(requests.CallFields.__annotations__)
    assert given - {"requested_seconds"} == fields - {"requested_duration", "attempt"}
