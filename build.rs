//! Compiles the protobuf files; no system protoc is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files([
        "tollgate/v1/account_service.proto",
        "tollgate/v1/call_authorization_service.proto",
    ])?;
    // Kept whole for server reflection, for messages as JSON, and for the paths of HTTP, which are
    // extensions: only this encoding keeps them.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tollgate_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    let mut config = tonic_prost_build::Config::new();
    // The full name of a message finds its descriptor.
    config.enable_type_names();
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .codec_path("crate::proto::codec::StrictCodec")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
