//! The command line of `tollgate`.
//!
//! Exit codes: 0 the command was carried out (a refused call is an answer, not a failure); 1 it was not,
//! or the audit found something; 64 the arguments or settings cannot be used. Results go to standard
//! output, errors to standard error.

pub mod args;
pub mod document;
pub mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{ApplyArgs, Cli, Command};

/// The command was not carried out.
pub const FAILURE: u8 = 1;

/// The arguments or settings cannot be used (EX_USAGE of sysexits.h).
pub const USAGE: u8 = 64;

/// Runs the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed standard error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match cli.command {
        Command::Serve(serve) => match serve.config() {
            Ok(config) => serve::run(&config),
            Err(mistakes) => {
                for mistake in mistakes {
                    eprintln!("tollgate: {mistake}");
                }
                ExitCode::from(USAGE)
            }
        },
        Command::Apply(apply) => check_document(&apply),
        command => not_built(command.name()),
    }
}

fn check_document(apply: &ApplyArgs) -> ExitCode {
    let documents = match document::load(&apply.file) {
        Ok(loaded) => loaded.tenants,
        Err(problems) => {
            for problem in problems {
                eprintln!("tollgate: {problem}");
            }
            return ExitCode::from(FAILURE);
        }
    };
    for document in &documents {
        for warning in &document.warnings {
            eprintln!("tollgate: warning: {}: {warning}", document.profile.id);
        }
    }
    if apply.dry_run { ExitCode::SUCCESS } else { not_built("apply") }
}

fn not_built(command: &str) -> ExitCode {
    eprintln!("tollgate: {command} is not part of this build");
    ExitCode::from(FAILURE)
}
