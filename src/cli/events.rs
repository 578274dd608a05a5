//! `events`: what happens to a tenant, a line each.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::cli::args::{EventsArgs, Output};
use crate::cli::client;
use crate::cli::output::{
    Failure, Outcome, Word, instant, is_some_money, is_some_time, length, money,
};
use crate::cli::records::warn_of_trimmed;
use crate::proto::json::to_json_line;
use crate::proto::v1::{Event, WatchEventsRequest};

/// Carries out `events`.
pub async fn run(args: EventsArgs, form: Output) -> Outcome {
    let request = WatchEventsRequest {
        tenant_id: args.tenant,
        after_cursor: args.after.unwrap_or_default(),
        until_now: !args.follow,
    };
    let answer = client::accounts(&args.server).await?.watch_events(request).await?;
    let mut events = answer.into_inner();
    let mut out = io::stdout().lock();
    while let Some(message) = events.message().await? {
        let Some(event) = message.event else {
            warn_of_trimmed(message.records_kept_since.as_ref());
            continue;
        };
        let line = match form {
            Output::Json => to_json_line(&event)?,
            Output::Table => line(&event),
        };
        // Flushed by the line: who follows wants to see each as it comes.
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            written => written.map_err(Failure::from)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(event: &Event) -> String {
    let subject = match event.call_id.as_str() {
        "" => &event.bucket_id,
        call => call,
    };
    let mut parts = vec![
        instant(event.occurred_at.as_ref()),
        format!("{:<18}", event.r#type().word()),
        subject.to_owned(),
    ];
    if !event.payer_id.is_empty() {
        parts.push(format!("of {}", event.payer_id));
    }
    if is_some_time(event.charged_duration.as_ref()) {
        parts.push(format!("{} from pools", length(event.charged_duration.as_ref())));
    }
    if is_some_money(event.charged_money.as_ref()) {
        parts.push(format!("{} from credits", money(event.charged_money.as_ref())));
    }
    if is_some_time(event.shortfall_duration.as_ref()) {
        parts.push(format!("{} unpaid", length(event.shortfall_duration.as_ref())));
    }
    if is_some_money(event.amount.as_ref()) {
        parts.push(money(event.amount.as_ref()));
    }
    if !event.reason.is_empty() {
        parts.push(event.reason.clone());
    }
    if event.call_id.is_empty() || event.decision().word().is_empty() {
        parts.push(format!("[{}]", event.cursor));
    } else {
        parts.push(format!("{} [{}]", event.decision().word(), event.cursor));
    }
    parts.join("  ").trim_end().to_owned()
}
