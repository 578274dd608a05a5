//! Compiles the protobuf files; no system protoc is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(
        [
            "proto/tollgate/v1/account_service.proto",
            "proto/tollgate/v1/call_authorization_service.proto",
        ],
        ["proto"],
    )?;
    // Kept whole for server reflection and for printing messages as JSON.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tollgate_descriptor.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // The full name of a message finds its descriptor.
    config.enable_type_names();
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .codec_path("crate::proto::codec::StrictCodec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
