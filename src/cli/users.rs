//! `users`: block and unblock who pays for calls, and the report of both (rule 91).

use std::process::ExitCode;

use crate::cli::args::{BlockArgs, BlockedArgs, Output, UsersCommand};
use crate::cli::client;
use crate::cli::organisation::timestamp;
use crate::cli::output::{Outcome, Word, fields, instant, rows, show, warn};
use crate::cli::records::warn_of_trimmed;
use crate::cli::usage::write_report;
use crate::proto::v1::{
    BlockRecord, BlockSource, BlockUserRequest, BlockUserResponse, ListBlockedUsersRequest,
    ListBlockedUsersResponse, UnblockUserRequest, UnblockUserResponse,
};

use super::accounts::PAGE;

/// Columns of the report as CSV.
const COLUMNS: [&str; 9] = [
    "user_id",
    "user_display_name",
    "upn",
    "numbers",
    "blocked_reason",
    "action",
    "time_utc",
    "source",
    "operator",
];

/// Carries out `users`.
pub async fn run(command: UsersCommand, form: Output) -> Outcome {
    match command {
        UsersCommand::Block { who, reason } => block(who, reason, form).await,
        UsersCommand::Unblock { who, reason } => unblock(who, reason, form).await,
        UsersCommand::Blocked(args) => blocked(args, form).await,
    }
}

async fn block(who: BlockArgs, reason: String, form: Output) -> Outcome {
    let BlockArgs { user, tenant, operator, server } = who;
    let request = BlockUserRequest { tenant_id: tenant, user_id: user, reason, operator };
    let answer = client::accounts(&server).await?.block_user(request).await?.into_inner();
    show(form, &answer, |answer: &BlockUserResponse| {
        let result = if answer.changed { "blocked" } else { "blocked before; nothing changed" };
        told(result, answer.block.as_ref())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn unblock(who: BlockArgs, reason: String, form: Output) -> Outcome {
    let BlockArgs { user, tenant, operator, server } = who;
    let request = UnblockUserRequest { tenant_id: tenant, user_id: user, reason, operator };
    let answer = client::accounts(&server).await?.unblock_user(request).await?.into_inner();
    if answer.still_blocked {
        warn("the user stays blocked: the organisation file says state: blocked");
    }
    show(form, &answer, |answer: &UnblockUserResponse| {
        let result = if answer.changed { "unblocked" } else { "not blocked; nothing changed" };
        told(result, answer.block.as_ref())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn told(result: &str, block: Option<&BlockRecord>) -> String {
    let none = BlockRecord::default();
    let block = block.unwrap_or(&none);
    fields([
        ("result", result.to_owned()),
        ("user", block.user_id.clone()),
        ("reason", block.reason.clone()),
        ("since", instant(block.occurred_at.as_ref())),
        ("operator", block.operator.clone()),
    ])
}

async fn blocked(args: BlockedArgs, form: Output) -> Outcome {
    let mut client = client::accounts(&args.server).await?;
    let mut request = ListBlockedUsersRequest {
        tenant_id: args.tenant,
        page_size: PAGE,
        page_token: String::new(),
        include_unblocked: args.include_unblocked,
        from: args.from.map(timestamp),
        to: args.to.map(timestamp),
    };
    let mut all = ListBlockedUsersResponse::default();
    loop {
        let page = client.list_blocked_users(request.clone()).await?.into_inner();
        all.blocks.extend(page.blocks);
        all.records_kept_since = all.records_kept_since.or(page.records_kept_since);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    warn_of_trimmed(all.records_kept_since.as_ref());
    if args.file.wanted() {
        let cells = all.blocks.iter().map(cells).collect::<Vec<_>>();
        return write_report(args.file.output_file, &COLUMNS, &cells);
    }
    show(form, &all, report)?;
    Ok(ExitCode::SUCCESS)
}

fn report(answer: &ListBlockedUsersResponse) -> String {
    if answer.blocks.is_empty() {
        return "nobody\n".to_owned();
    }
    let row = |block: &BlockRecord| {
        let [user, _, _, numbers, reason, action, time, source, operator] = cells(block);
        [time, action, user, numbers, source, operator, reason]
    };
    rows(
        ["TIME", "ACTION", "USER", "NUMBERS", "BY", "OPERATOR", "REASON"],
        answer.blocks.iter().map(row).collect(),
    )
}

fn cells(block: &BlockRecord) -> [String; 9] {
    [
        block.user_id.clone(),
        block.display_name.clone(),
        block.upn.clone(),
        block.numbers.join(" "),
        block.reason.clone(),
        if block.blocked { "blocked" } else { "unblocked" }.to_owned(),
        instant(block.occurred_at.as_ref()),
        source(block.source()).to_owned(),
        block.operator.clone(),
    ]
}

fn source(source: BlockSource) -> String {
    source.word().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_one_line_of_the_report() {
        let block = BlockRecord {
            user_id: "alice".to_owned(),
            numbers: vec!["+14255550100".to_owned(), "+14255550101".to_owned()],
            reason: "premium calls".to_owned(),
            blocked: true,
            occurred_at: Some(prost_types::Timestamp { seconds: 1_794_312_000, nanos: 0 }),
            source: BlockSource::OrganisationFile.into(),
            ..BlockRecord::default()
        };
        let text = report(&ListBlockedUsersResponse {
            blocks: vec![block],
            ..ListBlockedUsersResponse::default()
        });
        let line: Vec<_> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        let expected = "2026-11-10T12:00:00Z blocked alice +14255550100 +14255550101 \
                        organisation_file premium calls";
        assert_eq!(line.join(" "), expected);
        assert_eq!(report(&ListBlockedUsersResponse::default()), "nobody\n");
    }
}
