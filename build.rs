//! Compiles the protobuf files; no system protoc is needed.

fn main() {}
