//! The command line of `tollgate`.
//!
//! Exit codes: 0 the command was carried out (a refused call is an answer, not a failure); 1 it was not,
//! or the audit found something; 64 the arguments or settings cannot be used. `reconcile` has 1 for
//! differences, and 2 where it was not carried out. Results go to standard output, errors to standard
//! error.

pub mod accounts;
pub mod adjust;
pub mod args;
pub mod calls;
pub mod check_config;
pub mod client;
pub mod demo;
pub mod document;
pub mod events;
pub mod journal;
pub mod loadtest;
pub mod manual;
pub mod openapi;
pub mod organisation;
pub mod output;
pub mod pools;
pub mod progress;
pub mod rates;
pub mod reconcile;
pub mod records;
pub mod serve;
pub mod usage;
pub mod users;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, ClientCommand, Command, Output};
use output::Outcome;

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
        Command::Serve(serve) => {
            let source = serve.source();
            match source.load() {
                Ok(config) => serve::run(&config, source),
                Err(mistakes) => {
                    mistakes.iter().for_each(output::warn);
                    ExitCode::from(USAGE)
                }
            }
        }
        Command::CheckConfig(serve) => {
            let (ask, source) = (serve.ask_ledger, serve.serve.source());
            exit_code(check_config::run(&source, ask, cli.output))
        }
        Command::Completions(args) => exit_code(manual::completions(args.shell)),
        Command::Man(args) => exit_code(manual::pages(args.directory.as_deref())),
        Command::Demo(args) => exit_code(demo::run(&args)),
        Command::Loadtest(args) => exit_code(loadtest::run(&args, cli.output)),
        Command::Journal(args) => exit_code(journal::run(&args.command, cli.output)),
        Command::Client(command) => exit_code(carry_out(*command, cli.output)),
    }
}

fn exit_code(outcome: Outcome) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        failure.print();
        ExitCode::from(FAILURE)
    })
}

fn carry_out(command: ClientCommand, form: Output) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask(command, form))
}

async fn ask(command: ClientCommand, form: Output) -> Outcome {
    match command {
        ClientCommand::Apply(args) => accounts::apply(&args, form).await,
        ClientCommand::Rates(args) => rates::run(args.command, form).await,
        ClientCommand::Authorize(args) => calls::authorize(*args, form).await,
        ClientCommand::Answer(args) => calls::answer(args, form).await,
        ClientCommand::Extend(args) => calls::extend(args, form).await,
        ClientCommand::Settle(args) => calls::settle(args, form).await,
        ClientCommand::Release(args) => calls::release(args, form).await,
        ClientCommand::Quote(args) => calls::quote(*args, form).await,
        ClientCommand::Balance(args) => accounts::balance(args, form).await,
        ClientCommand::Recharge(args) => accounts::recharge(args, form).await,
        ClientCommand::Calls(args) => calls::calls(*args, form).await,
        ClientCommand::Decisions(args) => accounts::decisions(args, form).await,
        ClientCommand::Usage(args) => usage::run(args, form).await,
        ClientCommand::Reconcile(args) => reconcile::run(*args, form).await,
        ClientCommand::Events(args) => events::run(args, form).await,
        ClientCommand::Openapi(args) => openapi::run(&args),
        ClientCommand::Records(args) => records::run(args.command, form).await,
        ClientCommand::Audit(args) => accounts::audit(args, form).await,
        ClientCommand::Adjust(args) => adjust::run(args.command, form).await,
        ClientCommand::Adjustments(args) => adjust::list(args, form).await,
        ClientCommand::Users(args) => users::run(args.command, form).await,
        ClientCommand::Pools(args) => pools::run(args, form).await,
    }
}
