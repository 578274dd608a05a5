//! The command line of `tollgate`.
//!
//! Exit codes: 0 the command was carried out (a refused call is an answer, not a failure); 1 it was not,
//! or the audit found something; 64 the arguments or settings cannot be used. Results go to standard
//! output, errors to standard error.

pub mod accounts;
pub mod args;
pub mod calls;
pub mod client;
pub mod document;
pub mod organisation;
pub mod output;
pub mod rates;
pub mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, Output};
use output::{Failure, Outcome};

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
        command => carried_out(command, cli.output),
    }
}

/// The commands that ask a running server.
fn carried_out(command: Command, form: Output) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(ask(command, form)));
    outcome.unwrap_or_else(|failure| {
        failure.print();
        ExitCode::from(FAILURE)
    })
}

async fn ask(command: Command, form: Output) -> Outcome {
    match command {
        Command::Apply(args) => accounts::apply(&args, form).await,
        Command::Rates(args) => rates::run(args.command, form).await,
        Command::Authorize(args) => calls::authorize(args, form).await,
        Command::Answer(args) => calls::answer(args, form).await,
        Command::Extend(args) => calls::extend(args, form).await,
        Command::Settle(args) => calls::settle(args, form).await,
        Command::Release(args) => calls::release(args, form).await,
        Command::Quote(args) => calls::quote(args, form).await,
        Command::Balance(args) => accounts::balance(args, form).await,
        Command::Calls(args) => calls::calls(args, form).await,
        Command::Decisions(args) => accounts::decisions(args, form).await,
        Command::Audit(args) => accounts::audit(args, form).await,
        Command::Serve(_) | Command::Demo(_) => Ok(not_built(command.name())),
    }
}

fn not_built(command: &str) -> ExitCode {
    eprintln!("tollgate: {command} is not part of this build");
    ExitCode::from(FAILURE)
}
