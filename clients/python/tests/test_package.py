"""What is installed is whole."""

import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def test_the_wheel_has_the_messages_and_says_that_it_is_typed(tmp_path: Path) -> None:
    (PACKAGE / "README.md").stat()
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    build += ["--disable-pip-version-check", "-w", str(tmp_path), str(PACKAGE)]
    subprocess.run([sys.executable, *build], check=True)
    (wheel,) = tmp_path.glob("tollgate_client-*-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    source = PACKAGE / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "tollgate").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "tollgate/py.typed" in expected
    assert expected <= names
