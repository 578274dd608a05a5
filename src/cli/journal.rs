//! `journal`: what a server's own journal holds, read from its directory.

use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::charging::units::Millis;
use crate::cli::args::{JournalCommand, Output};
use crate::cli::output::{Failure, Outcome, fields, print, rows, warn};
use crate::journal::{self, Contents, Todo};

/// Carries out `journal`.
pub fn run(command: &JournalCommand, form: Output) -> Outcome {
    match command {
        JournalCommand::List { journal } => list(journal, form),
        JournalCommand::Verify { journal } => verify(journal, form),
    }
}

fn list(folder: &Path, form: Output) -> Outcome {
    let contents = read(folder)?;
    let pending = contents.todo.iter().map(|todo| (todo, "PENDING"));
    let refused = contents.refused.iter().map(|(todo, outcome)| (todo, outcome.result.as_str()));
    let listed: Vec<(&Todo, &str)> = pending.chain(refused).collect();
    match form {
        Output::Json => {
            let object = |(todo, state): &(&Todo, &str)| {
                json!({
                    "sequence": todo.sequence,
                    "acceptedAt": instant(todo.at),
                    "what": todo.command.name(),
                    "tenantId": todo.command.tenant().as_str(),
                    "callId": todo.command.call().as_str(),
                    "usedSeconds": todo.command.used().map(|used| used.0),
                    "state": state,
                })
            };
            let all: Value = listed.iter().map(object).collect();
            print(&all.to_string())?;
        }
        Output::Table => {
            let row = |(todo, state): (&Todo, &str)| {
                [
                    todo.sequence.to_string(),
                    instant(todo.at),
                    todo.command.name().to_owned(),
                    todo.command.tenant().as_str().to_owned(),
                    todo.command.call().as_str().to_owned(),
                    todo.command.used().map(|used| format!("{used}s")).unwrap_or_default(),
                    state.to_owned(),
                ]
            };
            let header = [">ENTRY", "ACCEPTED", "WHAT", "TENANT", "CALL", ">USED", "STATE"];
            print(rows(header, listed.into_iter().map(row).collect()).trim_end())?;
        }
    }
    for damage in contents.damage {
        warn(damage);
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(folder: &Path, form: Output) -> Outcome {
    let contents = read(folder)?;
    let Contents { todo, refused, done, outcomes, damage } = &contents;
    match form {
        Output::Json => {
            let damage = damage.iter().map(ToString::to_string).collect::<Vec<_>>();
            let all = json!({
                "done": done,
                "outcomes": outcomes,
                "pending": todo.len(),
                "refused": refused.len(),
                "damage": damage,
            });
            print(&all.to_string())?;
        }
        Output::Table => {
            let text = fields([
                ("done by the ledger", done.to_string()),
                ("outcomes", outcomes.to_string()),
                ("pending", todo.len().to_string()),
                ("refused", refused.len().to_string()),
                ("damaged", damage.len().to_string()),
            ]);
            print(text.trim_end())?;
        }
    }
    for damage in damage {
        warn(damage);
    }
    Ok(if damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(folder: &Path) -> Result<Contents, Failure> {
    journal::read(folder, |_, _| {})
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", folder.display())))
}

fn instant(at: Millis) -> String {
    Timestamp::from_millisecond(at.0).map(|at| at.to_string()).unwrap_or_default()
}
