//! `records`: erasing telephone numbers.

use std::process::ExitCode;

use crate::cli::args::{EraseArgs, Output, RecordsCommand};
use crate::cli::client;
use crate::cli::organisation::timestamp;
use crate::cli::output::{Outcome, counted, fields, instant, show, warn};
use crate::proto::v1::{EraseNumbersRequest, EraseNumbersResponse};

/// Carries out `records`.
pub async fn run(command: RecordsCommand, form: Output) -> Outcome {
    match command {
        RecordsCommand::Erase(args) => erase(args, form).await,
    }
}

async fn erase(args: EraseArgs, form: Output) -> Outcome {
    let request = EraseNumbersRequest {
        tenant_id: args.tenant,
        number: args.number.unwrap_or_default(),
        before: args.before.map(timestamp),
        reason: args.reason,
        operator: args.operator,
    };
    let answer = client::accounts(&args.server).await?.erase_numbers(request).await?.into_inner();
    show(form, &answer, erased)?;
    if answer.call_id_count > 0 {
        let entries = counted(answer.call_id_count, "record");
        warn(format!(
            "warning: {entries} of calls whose call_id itself holds the number; it stays"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn erased(answer: &EraseNumbersResponse) -> String {
    fields([
        ("records", format!("{} erased", answer.entry_count)),
        ("kept calls", format!("{} erased", answer.call_count)),
    ])
}

/// Says on standard error that what was asked for reaches back beyond what is kept.
pub fn warn_of_trimmed(since: Option<&prost_types::Timestamp>) {
    if since.is_some() {
        let since = instant(since);
        warn(format!("warning: only records from {since} on are kept; older ones are trimmed"));
    }
}
