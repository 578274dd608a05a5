//! `completions` and `man`: made of the commands themselves.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::args::Cli;
use crate::cli::output::{Failure, Outcome};

/// Carries out `completions`.
pub fn completions(shell: Shell) -> Outcome {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
    write(&script)
}

/// Carries out `man`.
pub fn pages(directory: Option<&Path>) -> Outcome {
    let Some(directory) = directory else {
        let mut page = vec![];
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return write(&page);
    };
    let failed = |error| Failure::new(format!("cannot write to {}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// A reader who goes away is no failure.
fn write(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
