"""Generates src/tollgate/v1 from proto/tollgate/v1: `python tools/generate.py [DIRECTORY]`.

The result is checked in, so that installing the package needs no compiler; a test compares it with
what this script makes of the protocol today. The pinned grpcio-tools decides the oldest protobuf and
grpcio that can load it (pyproject.toml).
"""

import sys
from importlib.resources import files
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PROTO = PACKAGE.parent.parent / "proto"
HEADER = '"""The messages of tollgate.v1, generated from the protocol by tools/generate.py."""\n'


def generate(into: Path) -> None:
    """Writes the modules of tollgate.v1 below `into`."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("tollgate/v1/*.proto"))
    services = [source for source in sources if source.endswith("_service.proto")]
    includes = [f"-I{PROTO}", f"-I{files('grpc_tools').joinpath('_proto')}"]
    into.mkdir(parents=True, exist_ok=True)
    messages = ["protoc", *includes, f"--python_out={into}", f"--pyi_out={into}", *sources]
    stubs = ["protoc", *includes, f"--grpc_python_out={into}", *services]
    for arguments in (messages, stubs):
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
    (into / "tollgate" / "v1" / "__init__.py").write_text(HEADER)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE / "src")
