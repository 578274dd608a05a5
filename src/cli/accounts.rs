//! The administrator's commands: `apply`, `balance`, `recharge`, `decisions`, `audit`.

use std::process::ExitCode;

use crate::charging::profile::TenantDocument;
use crate::cli::args::{ApplyArgs, AuditArgs, BalanceArgs, DecisionsArgs, Output, RechargeArgs};
use crate::cli::document::{self, Loaded};
use crate::cli::output::{
    Failure, Outcome, Word, counted, fields, instant, is_some_money, length, money, print, rows,
    show, warn,
};
use crate::cli::progress::Progress;
use crate::cli::records::warn_of_trimmed;
use crate::cli::{FAILURE, client, organisation};
use crate::proto::v1::report_recharge_request::Outcome as ReportOutcome;
use crate::proto::v1::{
    ApplyRequest, ApplyResponse, Classification, CreditLot, Credits, DecisionRecord,
    GetBalanceRequest, GetBalanceResponse, ListDecisionsRequest, ListDecisionsResponse, Pool,
    RechargeFailed, RechargeState, RechargeSucceeded, ReportRechargeRequest,
    ReportRechargeResponse, RunAuditRequest, RunAuditResponse,
};

/// Most entries that one request may ask for.
pub const PAGE: i32 = 1000;

/// Carries out `apply`.
pub async fn apply(args: &ApplyArgs, form: Output) -> Outcome {
    // Checked here first: only here are the lines of the file known.
    let Loaded { raw, tenants } = document::load(&args.file).map_err(Failure)?;
    if args.dry_run {
        for tenant in &tenants {
            for warning in &tenant.warnings {
                warn(format!("warning: {}: {warning}", tenant.profile.id));
            }
        }
        if form == Output::Table {
            print(&checked(&tenants))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let request = ApplyRequest { organisation: Some(organisation::message(&raw)?) };
    let mut accounts = client::accounts(&args.server).await?;
    let progress = Progress::waiting("applying");
    let answer = accounts.apply(request).await?.into_inner();
    drop(progress);
    if form == Output::Table {
        answer.warnings.iter().for_each(|warning| warn(format!("warning: {warning}")));
    }
    show(form, &answer, applied)?;
    Ok(ExitCode::SUCCESS)
}

/// `the document is right: 1 tenant, 4 payers, 0 purchases; nothing was applied`.
fn checked(tenants: &[TenantDocument]) -> String {
    let sum = |of: fn(&TenantDocument) -> usize| tenants.iter().map(of).sum::<usize>() as u64;
    let payers = counted(sum(|tenant| tenant.payers.len()), "payer");
    let purchases = counted(sum(|tenant| tenant.purchases.len()), "purchase");
    let tenants = counted(tenants.len() as u64, "tenant");
    format!("the document is right: {tenants}, {payers}, {purchases}; nothing was applied")
}

fn applied(answer: &ApplyResponse) -> String {
    fields([
        ("created", answer.created.to_string()),
        ("updated", answer.updated.to_string()),
        ("unchanged", answer.unchanged.to_string()),
        ("removed", answer.removed.to_string()),
        ("purchases", format!("{} newly applied", answer.purchases_applied)),
    ])
}

/// Carries out `balance`.
pub async fn balance(args: BalanceArgs, form: Output) -> Outcome {
    let request = GetBalanceRequest { tenant_id: args.tenant };
    let answer = client::accounts(&args.server).await?.get_balance(request).await?.into_inner();
    show(form, &answer, balances)?;
    Ok(ExitCode::SUCCESS)
}

fn balances(answer: &GetBalanceResponse) -> String {
    let mut text = match answer.pools.as_slice() {
        [] => "no pools this month\n".to_owned(),
        pools => rows(
            ["POOL", ">GRANTED", ">HELD", ">SPENT", ">AVAILABLE"],
            pools.iter().map(pool).collect(),
        ),
    };
    if let Some(credits) = &answer.credits {
        text.push('\n');
        text += &wallet(credits);
    }
    if let Some(recharge) = &answer.recharge {
        text.push('\n');
        text += &recharge_state(recharge);
    }
    text
}

fn recharge_state(recharge: &RechargeState) -> String {
    let in_flight = match recharge.in_flight_key.as_str() {
        "" => "nothing".to_owned(),
        key => {
            let (amount, at) = (&recharge.in_flight_amount, &recharge.requested_at);
            format!("{key}: {} since {}", money(amount.as_ref()), instant(at.as_ref()))
        }
    };
    let failures = match recharge.failure_count {
        0 => String::new(),
        count => format!(
            "{count} in a row; next attempt {}",
            match &recharge.next_attempt_at {
                Some(at) => format!("at {}", instant(Some(at))),
                None => "at once".to_owned(),
            }
        ),
    };
    let cap = match &recharge.daily_cap {
        Some(cap) => format!(" of {}", money(Some(cap))),
        None => String::new(),
    };
    fields([
        ("auto-recharge", if recharge.enabled { "on" } else { "off" }.to_owned()),
        ("in flight", in_flight),
        ("failures", failures),
        ("asked today", money(recharge.requested_today.as_ref()) + &cap),
    ])
}

/// Carries out `recharge`.
pub async fn recharge(args: RechargeArgs, form: Output) -> Outcome {
    let outcome = match args.failed {
        Some(reason) => ReportOutcome::Failed(RechargeFailed { reason }),
        None => ReportOutcome::Succeeded(RechargeSucceeded {}),
    };
    let request =
        ReportRechargeRequest { tenant_id: args.tenant, key: args.key, outcome: Some(outcome) };
    let mut accounts = client::accounts(&args.server).await?;
    let answer = accounts.report_recharge(request).await?.into_inner();
    show(form, &answer, reported)?;
    Ok(ExitCode::SUCCESS)
}

fn reported(answer: &ReportRechargeResponse) -> String {
    let told = if answer.replayed { "reported before" } else { "recorded" };
    let mut text = format!("{told}\n");
    if let Some(credits) = &answer.credits {
        text.push('\n');
        text += &wallet(credits);
    }
    if let Some(recharge) = &answer.recharge {
        text.push('\n');
        text += &recharge_state(recharge);
    }
    text
}

pub(super) fn pool(pool: &Pool) -> [String; 5] {
    let of_user = match pool.user_id.as_str() {
        "" => String::new(),
        user => format!(" of {user}"),
    };
    [
        pool.pool_id.clone() + &of_user,
        length(pool.granted.as_ref()),
        length(pool.held.as_ref()),
        length(pool.spent.as_ref()),
        length(pool.available.as_ref()),
    ]
}

pub(super) fn wallet(credits: &Credits) -> String {
    let mut text = rows(
        ["CREDITS", ">FUNDED", ">ADJUSTED", ">HELD", ">SPENT", ">EXPIRED", ">AVAILABLE"],
        vec![[
            "all lots".to_owned(),
            money(credits.funded.as_ref()),
            money(credits.adjusted.as_ref()),
            money(credits.held.as_ref()),
            money(credits.spent.as_ref()),
            money(credits.expired.as_ref()),
            money(credits.available.as_ref()),
        ]],
    );
    if let Some(overage) = &credits.overage
        && (overage.amount != "0" || !credits.past_overage.is_empty())
    {
        text.push('\n');
        let this = [
            "this month".to_owned(),
            money(credits.overage_held.as_ref()),
            money(credits.overage_spent.as_ref()),
        ];
        let past = credits.past_overage.iter().map(|past| {
            [past.period.clone(), money(past.held.as_ref()), money(past.spent.as_ref())]
        });
        text += &rows(["OVERAGE", ">HELD", ">SPENT"], std::iter::once(this).chain(past).collect());
    }
    if is_some_money(credits.owed.as_ref()) {
        text += &format!("owed by earlier calls: {}\n", money(credits.owed.as_ref()));
    }
    if !credits.lots.is_empty() {
        text.push('\n');
        text += &rows(
            ["LOT", "PURCHASED", "EXPIRES", ">AMOUNT", ">ADJUSTED", ">REMAINING"],
            credits.lots.iter().map(lot).collect(),
        );
    }
    text
}

fn lot(lot: &CreditLot) -> [String; 6] {
    [
        lot.key.clone(),
        instant(lot.purchased_at.as_ref()),
        instant(lot.expires_at.as_ref()),
        money(lot.amount.as_ref()),
        money(lot.adjusted.as_ref()),
        money(lot.remaining.as_ref()),
    ]
}

/// Carries out `decisions`.
pub async fn decisions(args: DecisionsArgs, form: Output) -> Outcome {
    let mut accounts = client::accounts(&args.server).await?;
    let wanted = |record: &DecisionRecord| {
        args.call_id.as_ref().is_none_or(|call_id| record.call_id == *call_id)
    };
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let page_size = match args.call_id {
        Some(_) => PAGE,
        None => i32::try_from(args.limit).unwrap_or(PAGE).min(PAGE),
    };
    let mut all = ListDecisionsResponse::default();
    let mut page_token = String::new();
    loop {
        let tenant_id = args.tenant.clone();
        let request = ListDecisionsRequest { tenant_id, page_size, page_token };
        let page = accounts.list_decisions(request).await?.into_inner();
        all.decisions.extend(page.decisions.into_iter().filter(wanted));
        all.records_kept_since = all.records_kept_since.or(page.records_kept_since);
        page_token = page.next_page_token;
        if page_token.is_empty() || all.decisions.len() >= most {
            break;
        }
    }
    all.decisions.truncate(most);
    show(form, &all, decided)?;
    warn_of_trimmed(all.records_kept_since.as_ref());
    Ok(ExitCode::SUCCESS)
}

fn decided(answer: &ListDecisionsResponse) -> String {
    if answer.decisions.is_empty() {
        return "no decisions".to_owned();
    }
    rows(
        ["DECIDED", "DECISION", "PAYER", "CALLED", "CLASS", ">GRANTED", "CALL", "DETAIL"],
        answer.decisions.iter().map(decision).collect(),
    )
}

fn decision(record: &DecisionRecord) -> [String; 8] {
    [
        instant(record.decided_at.as_ref()),
        record.decision().word().to_owned(),
        record.payer_id.clone(),
        record.called_number.clone(),
        record.classification.as_ref().map(class).unwrap_or_default(),
        length(record.granted_duration.as_ref()),
        record.call_id.clone(),
        [record.detail.as_str(), &record.flags.join(" ")].join(" ").trim().to_owned(),
    ]
}

/// `INTERNATIONAL CA`.
fn class(classification: &Classification) -> String {
    let class = classification.call_class().word();
    format!("{class} {}", classification.country).trim().to_owned()
}

/// Carries out `audit`.
pub async fn audit(args: AuditArgs, form: Output) -> Outcome {
    let request = RunAuditRequest { tenant_id: args.tenant.unwrap_or_default() };
    let mut accounts = client::accounts(&args.server).await?;
    let progress = Progress::waiting("auditing");
    let answer = accounts.run_audit(request).await?.into_inner();
    drop(progress);
    show(form, &answer, audited)?;
    Ok(if answer.clean { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

/// The first offending key first.
fn audited(answer: &RunAuditResponse) -> String {
    let mut text = String::new();
    for finding in &answer.findings {
        let (key, tenant, invariant) = (&finding.key, &finding.tenant_id, finding.invariant);
        text += &format!("{key} of {tenant}: invariant {invariant}: {}\n", finding.detail);
    }
    let verdict = match answer.clean {
        true => "clean".to_owned(),
        false => counted(answer.finding_count, "finding"),
    };
    let looked_at = [
        counted(answer.checked_tenants, "tenant"),
        counted(answer.checked_buckets, "bucket"),
        counted(answer.checked_calls, "call"),
        counted(answer.checked_decisions, "record"),
    ];
    text + &format!("{verdict}: {} checked\n", looked_at.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{AuditFinding, CallClass, Decision, Money};

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn usd(amount: &str) -> Option<Money> {
        Some(Money { currency_code: "USD".into(), amount: amount.into() })
    }

    #[test]
    fn a_balance_shows_pools_credits_and_lots() {
        let answer = GetBalanceResponse {
            pools: vec![Pool {
                pool_id: "US:MCOPSTN1:DOMESTIC:2026-11".into(),
                granted: seconds(180_000),
                held: seconds(0),
                spent: seconds(300),
                available: seconds(179_700),
                ..Pool::default()
            }],
            credits: Some(Credits {
                funded: usd("500"),
                held: usd("1.25"),
                spent: usd("0"),
                expired: usd("0"),
                available: usd("497.75"),
                lots: vec![CreditLot {
                    key: "po-1".into(),
                    purchased_at: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
                    expires_at: Some(prost_types::Timestamp { seconds: 31_536_000, nanos: 0 }),
                    amount: usd("500"),
                    remaining: usd("497.75"),
                    adjusted: usd("-1"),
                }],
                adjusted: usd("-1"),
                overage: usd("0.25"),
                overage_held: usd("0"),
                overage_spent: usd("0.25"),
                past_overage: vec![],
                owed: usd("0"),
            }),
            recharge: None,
        };
        assert_eq!(
            balances(&answer),
            "POOL                          GRANTED  HELD  SPENT  AVAILABLE\n\
             US:MCOPSTN1:DOMESTIC:2026-11  50h0m0s    0s   5m0s   49h55m0s\n\
             \n\
             CREDITS    FUNDED  ADJUSTED      HELD  SPENT  EXPIRED   AVAILABLE\n\
             all lots  500 USD    -1 USD  1.25 USD  0 USD    0 USD  497.75 USD\n\
             \n\
             OVERAGE      HELD     SPENT\n\
             this month  0 USD  0.25 USD\n\
             \n\
             LOT   PURCHASED             EXPIRES                AMOUNT  ADJUSTED   REMAINING\n\
             po-1  1970-01-01T00:00:00Z  1971-01-01T00:00:00Z  500 USD    -1 USD  497.75 USD\n"
        );
    }

    #[test]
    fn a_decision_is_one_line() {
        let record = DecisionRecord {
            decided_at: Some(prost_types::Timestamp::default()),
            decision: Decision::PolicyDenied.into(),
            payer_id: "alice".into(),
            called_number: "+16045550123".into(),
            classification: Some(Classification {
                call_class: CallClass::International.into(),
                country: "CA".into(),
                ..Classification::default()
            }),
            granted_duration: seconds(0),
            call_id: "c1".into(),
            detail: "the outbound policy is user: domestic".into(),
            flags: vec!["FLAGGED".into()],
            ..DecisionRecord::default()
        };
        let text = decided(&ListDecisionsResponse {
            decisions: vec![record],
            ..ListDecisionsResponse::default()
        });
        assert_eq!(
            text.lines().nth(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")),
            Some(
                "1970-01-01T00:00:00Z POLICY_DENIED alice +16045550123 INTERNATIONAL CA 0s c1 \
                 the outbound policy is user: domestic FLAGGED"
                    .to_owned()
            )
        );
    }

    #[test]
    fn an_audit_names_the_first_offending_key_first() {
        let answer = RunAuditResponse {
            finding_count: 1,
            findings: vec![AuditFinding {
                invariant: 2,
                tenant_id: "contoso".into(),
                key: "po-1".into(),
                detail: "expected 0, found 1".into(),
            }],
            checked_tenants: 1,
            ..RunAuditResponse::default()
        };
        assert_eq!(
            audited(&answer),
            "po-1 of contoso: invariant 2: expected 0, found 1\n\
             1 finding: 1 tenant, 0 buckets, 0 calls, 0 records checked\n"
        );
        let clean = RunAuditResponse { clean: true, ..RunAuditResponse::default() };
        assert!(audited(&clean).starts_with("clean: "));
    }
}
