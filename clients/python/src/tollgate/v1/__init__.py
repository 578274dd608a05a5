"""The messages of tollgate.v1, generated from the protocol by tools/generate.py."""
