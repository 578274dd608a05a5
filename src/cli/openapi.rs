//! `openapi`: the document of what a listener answers in JSON.

use std::process::ExitCode;

use crate::cli::args::{Listener, OpenapiArgs};
use crate::cli::output::{Failure, Outcome, print};
use crate::grpc::{account, call_authorization};
use crate::transcoding::bindings::Bindings;
use crate::transcoding::openapi::document;

/// Carries out `openapi`.
pub fn run(args: &OpenapiArgs) -> Outcome {
    let service = match args.listener {
        Listener::Calls => call_authorization::NAME,
        Listener::Administration => account::NAME,
    };
    let bindings = Bindings::of(service).map_err(Failure::new)?;
    print(&format!("{:#}", document(&bindings)))?;
    Ok(ExitCode::SUCCESS)
}
