//! `adjust` and `adjustments`: corrections of balances and of settled calls.

use std::process::ExitCode;

use crate::cli::accounts::{PAGE, pool, wallet};
use crate::cli::args::{
    AdjustBalanceArgs, AdjustCommand, AdjustSettlementArgs, AdjustmentsArgs, Output,
};
use crate::cli::client;
use crate::cli::output::{
    Failure, Outcome, fields, instant, is_some_money, is_some_time, length, money, rows, show,
};
use crate::cli::records::warn_of_trimmed;
use crate::proto::v1::adjust_balance_request::Amount;
use crate::proto::v1::{
    AdjustBalanceRequest, AdjustBalanceResponse, AdjustSettlementRequest, AdjustSettlementResponse,
    Adjustment, GetBalanceRequest, ListAdjustmentsRequest, ListAdjustmentsResponse, Money,
};

/// Carries out `adjust`.
pub async fn run(command: AdjustCommand, form: Output) -> Outcome {
    match command {
        AdjustCommand::Balance(args) => balance(*args, form).await,
        AdjustCommand::Settlement(args) => settlement(*args, form).await,
    }
}

async fn balance(args: AdjustBalanceArgs, form: Output) -> Outcome {
    let mut accounts = client::accounts(&args.server).await?;
    let authority = args.authority;
    let minutes = args.minutes.map(|minutes| minutes * 60);
    let amount = match (args.amount, args.duration.or(minutes)) {
        (Some(amount), _) => {
            // A tenant has one currency, and the operator need not repeat it.
            let request = GetBalanceRequest { tenant_id: authority.tenant.clone() };
            let known = accounts.get_balance(request).await?.into_inner().credits;
            let currency = known.and_then(|credits| credits.available).unwrap_or_default();
            Amount::Money(Money { currency_code: currency.currency_code, amount })
        }
        (None, Some(seconds)) => Amount::Duration(prost_types::Duration { seconds, nanos: 0 }),
        (None, None) => return Err(Failure::new("expected --amount, --minutes or --duration")),
    };
    let request = AdjustBalanceRequest {
        tenant_id: authority.tenant,
        key: authority.key,
        bucket_id: args.bucket,
        amount: Some(amount),
        reason: authority.reason,
        operator: authority.operator,
    };
    let answer = accounts.adjust_balance(request).await?.into_inner();
    show(form, &answer, balance_adjusted)?;
    Ok(ExitCode::SUCCESS)
}

fn balance_adjusted(answer: &AdjustBalanceResponse) -> String {
    let mut text =
        answer.adjustment.as_ref().map(|of| told(of, answer.replayed)).unwrap_or_default();
    let balance = match (&answer.pool, &answer.credits) {
        (Some(of), _) => {
            rows(["POOL", ">GRANTED", ">HELD", ">SPENT", ">AVAILABLE"], vec![pool(of)])
        }
        (None, Some(credits)) => wallet(credits),
        (None, None) => return text,
    };
    text.push('\n');
    text + &balance
}

async fn settlement(args: AdjustSettlementArgs, form: Output) -> Outcome {
    let used = prost_types::Duration::try_from(args.used)
        .map_err(|error| Failure::new(format_args!("--used: {error}")))?;
    let request = AdjustSettlementRequest {
        tenant_id: args.authority.tenant,
        key: args.authority.key,
        call_id: args.call_id,
        used_duration: Some(used),
        reason: args.authority.reason,
        operator: args.authority.operator,
    };
    let mut accounts = client::accounts(&args.server).await?;
    let answer = accounts.adjust_settlement(request).await?.into_inner();
    show(form, &answer, settlement_adjusted)?;
    Ok(ExitCode::SUCCESS)
}

fn settlement_adjusted(answer: &AdjustSettlementResponse) -> String {
    answer.adjustment.as_ref().map(|of| told(of, answer.replayed)).unwrap_or_default()
}

fn told(of: &Adjustment, replayed: bool) -> String {
    let applied = if replayed { "applied before" } else { "applied" };
    fields([
        ("adjustment", format!("{} {applied}", of.key)),
        ("at", instant(of.adjusted_at.as_ref())),
        (if of.call_id.is_empty() { "bucket" } else { "call" }, subject(of).to_owned()),
        ("change", change(of)),
        ("shortfall", shortfall(of)),
        ("reason", of.reason.clone()),
        ("operator", of.operator.clone()),
    ])
}

fn subject(of: &Adjustment) -> &str {
    if of.call_id.is_empty() { &of.bucket_id } else { &of.call_id }
}

/// `61s -> 30s, -1m0s of pools, -0.1 USD of credits`.
fn change(of: &Adjustment) -> String {
    let mut parts = vec![];
    if !of.call_id.is_empty() {
        let (before, after) = (of.used_before.as_ref(), of.used_after.as_ref());
        parts.push(format!("{} -> {}", length(before), length(after)));
    }
    for (duration, words) in [(&of.adjusted_duration, ""), (&of.charged_duration, " of pools")] {
        if is_some_time(duration.as_ref()) {
            parts.push(length(duration.as_ref()) + words);
        }
    }
    for (amount, words) in [(&of.adjusted_money, ""), (&of.charged_money, " of credits")] {
        if is_some_money(amount.as_ref()) {
            parts.push(money(amount.as_ref()) + words);
        }
    }
    parts.join(", ")
}

fn shortfall(of: &Adjustment) -> String {
    match is_some_time(of.shortfall_duration.as_ref()) {
        true => {
            let price = money(of.shortfall_money.as_ref());
            format!("{} unpaid, {price}", length(of.shortfall_duration.as_ref()))
        }
        false => String::new(),
    }
}

/// Carries out `adjustments`.
pub async fn list(args: AdjustmentsArgs, form: Output) -> Outcome {
    let mut accounts = client::accounts(&args.server).await?;
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut all = ListAdjustmentsResponse::default();
    let mut page_token = String::new();
    loop {
        let tenant_id = args.tenant.clone();
        let request = ListAdjustmentsRequest { tenant_id, page_size: PAGE, page_token };
        let page = accounts.list_adjustments(request).await?.into_inner();
        all.adjustments.extend(page.adjustments);
        all.records_kept_since = all.records_kept_since.or(page.records_kept_since);
        page_token = page.next_page_token;
        if page_token.is_empty() || all.adjustments.len() >= most {
            break;
        }
    }
    all.adjustments.truncate(most);
    show(form, &all, listed)?;
    warn_of_trimmed(all.records_kept_since.as_ref());
    Ok(ExitCode::SUCCESS)
}

fn listed(answer: &ListAdjustmentsResponse) -> String {
    if answer.adjustments.is_empty() {
        return "no adjustments".to_owned();
    }
    let row = |of: &Adjustment| {
        let at = instant(of.adjusted_at.as_ref());
        let (key, operator, reason) = (of.key.clone(), of.operator.clone(), of.reason.clone());
        [at, key, subject(of).to_owned(), change(of), operator, reason]
    };
    let header = ["ADJUSTED", "KEY", "BUCKET OR CALL", "CHANGE", "OPERATOR", "REASON"];
    rows(header, answer.adjustments.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_what_moved() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let usd = |amount: &str| Some(Money { currency_code: "USD".into(), amount: amount.into() });
        let balance = Adjustment {
            bucket_id: "po-1".into(),
            adjusted_money: usd("-5"),
            charged_money: usd("0"),
            ..Adjustment::default()
        };
        assert_eq!(change(&balance), "-5 USD");
        let call = Adjustment {
            call_id: "c".into(),
            used_before: seconds(61),
            used_after: seconds(30),
            charged_duration: seconds(-60),
            charged_money: usd("-0.1"),
            ..Adjustment::default()
        };
        assert_eq!(change(&call), "1m1s -> 30s, -1m0s of pools, -0.1 USD of credits");
    }
}
