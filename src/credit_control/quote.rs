//! Quotes: the decision that an authorize would make, with every step, and nothing held.

use tokio::time::Instant;

use crate::charging::decision::{Decision, Nuance};
use crate::charging::entitlement::{self, Explain, Step};
use crate::charging::funding::{Reach, reserve};
use crate::charging::ids::LotId;
use crate::charging::money::format_micros;
use crate::charging::profile::{Billing, TenantProfile};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::{Answer, CallContext, denial, detail, trunk};
use crate::credit_control::directory::Tenant;
use crate::credit_control::{AuthorizeRequest, CreditControl, MAX_DECISIONS, attempt, raw, setup};
use crate::ledger::state::{
    Call, CallState, Funds, LotLine, PoolLine, credit_side, nuance_code, pool_sides, reach_code,
};
use crate::ledger::{
    Authorize, Ledger, LedgerError, Offer, Position, Proposal, Reply, Versions, pool_id,
};
use crate::metrics::Command as Asked;

impl<L: Ledger> CreditControl<L> {
    /// What [`CreditControl::authorize`] would answer now, and why; holds and records nothing.
    ///
    /// A quote judges a new call: it does not look at the state of its `call_id`.
    pub async fn quote(
        &self,
        request: &AuthorizeRequest,
        deadline: Instant,
    ) -> Result<Answer, LedgerError> {
        for _ in 0..MAX_DECISIONS {
            if let Some(answer) = self.quote_emergency(&raw(request), deadline).await {
                return Ok(quoted(answer));
            }
            let (tenant, payer) = self.look_up(&request.tenant, &request.payer, deadline).await?;
            let (command, _) = self.command(request, &tenant, &payer);
            let (families, month) = match &command.proposal {
                Proposal::Refuse(..) => (vec![], tenant.month(self.now()).as_ref().clone()),
                Proposal::Grant(offer) | Proposal::Record(offer) => {
                    (families(offer), offer.month.clone())
                }
            };
            let (name, payer_id, call) = (&request.tenant, &request.payer, &request.call);
            let position = self.ledger().position(name, payer_id, call, &month, &families);
            let reply = self.within(Asked::Position, deadline, position).await?;
            self.set_clock(reply.now);
            let found = &reply.outcome;
            let versions = Versions { tenant: found.tenant.version, payer: found.payer.version };
            if versions != command.versions {
                let stale = command.versions;
                let read = self.directory().refresh(self.ledger(), name, payer_id, stale);
                self.within(Asked::Directory, deadline, read).await?;
            } else if month.contains(reply.now) {
                let setup = setup(&tenant, &payer);
                let mut steps: Vec<Step> = vec![];
                entitlement::decide(&attempt(request, self.now()), &setup, &mut steps);
                return Ok(quoted(answer(&command, &families, &tenant, &reply, steps)));
            }
        }
        Err(LedgerError::Unavailable(format!("{MAX_DECISIONS} looks in a row were stale")))
    }
}

/// The pools of an offer, and the counters that close them.
fn families(offer: &Offer) -> Vec<String> {
    let closers = offer.pools.iter().map(|p| p.closed_by.clone()).filter(|f| !f.is_empty());
    offer.pools.iter().map(|p| p.family.clone()).chain(closers).collect()
}

/// What an authorize would answer to the command where the ledger stands.
fn answer(
    command: &Authorize,
    families: &[String],
    tenant: &Tenant,
    found: &Reply<Position>,
    mut steps: Vec<Step>,
) -> Answer {
    match &command.proposal {
        Proposal::Refuse(decision, nuance) => {
            let context = CallContext::decode(&command.context);
            let detail = detail(*decision, context.as_ref());
            let trunk = trunk(tenant.profile(), &command.trunk);
            let denial = denial(*decision, *nuance, detail, trunk);
            Answer { steps, ..Answer::refused(denial, context) }
        }
        Proposal::Grant(offer) | Proposal::Record(offer) => {
            let profile = tenant.profile();
            let call = weigh(command, offer, families, profile, found, &mut steps);
            Answer { steps, ..Answer::of(&call, profile, found.now, false) }
        }
    }
}

/// A quote is no decision of record.
fn quoted(answer: Answer) -> Answer {
    Answer { decision_id: String::new(), ..answer }
}

/// The call as an authorize would leave it, from the balances of one instant.
fn weigh(
    command: &Authorize,
    offer: &Offer,
    families: &[String],
    tenant: Option<&TenantProfile>,
    found: &Reply<Position>,
    steps: &mut Vec<Step>,
) -> Call {
    let Reply { now, outcome: position } = found;
    let now = *now;
    let mut call = Call::new(CallState::Ringing, now);
    call.payer = command.payer.as_str().to_owned();
    call.trunk = command.trunk.clone();
    call.context = command.context.clone();
    call.terms = offer.terms;
    call.decision = Some(offer.decision);
    call.deadline = now;
    if let Some((decision, nuance)) = over_limits(offer, position, now, steps) {
        call.decision = Some(decision);
        call.nuance = nuance_code(nuance);
        return call;
    }
    if offer.terms.free {
        call.granted = offer.requested;
        call.deadline = now.after(life(&call));
        return call;
    }
    let id = |family: &str| pool_id(family, &offer.month.key);
    call.pools = offer
        .pools
        .iter()
        .map(|pool| PoolLine {
            pool: crate::charging::ids::PoolId::of(&pool.family, &offer.month.key),
            closed_by: match pool.closed_by.as_str() {
                "" => String::new(),
                family => id(family),
            },
            increment: pool.increment,
            held: Seconds::ZERO,
            spent: Seconds::ZERO,
        })
        .collect();
    call.money = offer.money.map(|money| money.line(&offer.month.key));
    let pools = pool_sides(&call, |name| {
        let index = families.iter().position(|family| id(family) == name)?;
        position.pools.get(index).copied()
    });
    let funds = Funds {
        credits: position.credits,
        overage: position.overage,
        holds: position.wallet_holds,
        ring: &position.ring,
        now,
    };
    let credits = call.money.as_ref().map(|money| credit_side(money, &funds, &position.payer));
    let reservation = reserve(offer.requested, &pools, credits.as_ref());
    for ((line, side), added) in call.pools.iter_mut().zip(&pools).zip(&reservation.pools) {
        let (left, others) = (side.available, side.others);
        steps.step(
            format_args!("POOL {}", line.pool),
            added.is_positive(),
            "27",
            format_args!("{left} s available, {others} other holds: {added} s would be held"),
        );
        line.held = *added;
    }
    if let (Some(side), Some(money)) = (&credits, call.money.as_mut()) {
        let by_credits = reservation.money.min(position.credits);
        let by_overage = reservation.money - by_credits;
        let price = format_micros(by_credits);
        let left = format_micros(position.credits);
        let limit = side.limit.map_or(String::new(), |limit| {
            format!(", spend limit leaves {}", format_micros(limit.max(Micros::ZERO)))
        });
        let pays = by_credits.is_positive();
        let detail = format_args!("{left} available{limit}: {price} would be held");
        steps.step("CREDITS BALANCE", pays, "27", detail);
        if pays {
            let lot = LotId::literal("wallet");
            money.lots.push(LotLine { lot, held: by_credits, spent: Micros::ZERO });
        }
        if money.overage {
            let pays = by_overage.is_positive();
            let price = format_micros(by_overage);
            let so_far = format_micros(Micros(position.overage.funded));
            let month = &offer.month.key;
            let detail = format_args!("{so_far} post-paid in {month}: {price} would be held");
            steps.step("OVERAGE", pays, "42", detail);
            if pays {
                let lot = LotId::overage(&offer.month.key);
                money.lots.push(LotLine { lot, held: by_overage, spent: Micros::ZERO });
            }
        }
        if let (Some(left), Some(velocity)) =
            (side.velocity, offer.money.and_then(|money| money.velocity))
        {
            let passed = reservation.reach != Reach::Velocity;
            let (left, most) = (format_micros(left), format_micros(velocity.amount));
            let detail =
                format_args!("{left} of {most} left in the last {} s before this", velocity.per);
            steps.step("SPEND VELOCITY", passed, "", detail);
        }
    }
    if let Some(why) = passed_over(offer, tenant) {
        steps.step("OVERAGE", false, "42", format_args!("{why}"));
    }
    if !reservation.covered.is_positive() {
        call.decision = Some(match reservation.reach {
            Reach::SpendLimit => offer.when_spend_limited,
            Reach::Velocity => offer.when_velocity_limited,
            _ => offer.when_exhausted,
        });
        return call;
    }
    call.granted = reservation.covered.min(offer.requested);
    call.reach = reach_code(reservation.reach);
    call.deadline = now.after(life(&call));
    call
}

/// Why overage of a post-paid tenant may not pay for a call.
fn passed_over(offer: &Offer, tenant: Option<&TenantProfile>) -> Option<&'static str> {
    let tenant = tenant.filter(|tenant| tenant.billing == Billing::Postpaid)?;
    match offer.money {
        _ if !tenant.overage => Some("off: a call is refused when everything else is used"),
        None => Some("needs what credits need: a licence, and a price"),
        Some(_) => None,
    }
}

/// How long the hold of a new call lives without a further message.
fn life(call: &Call) -> Seconds {
    match call.terms.reports_answer {
        true => call.terms.ringing,
        false => call.terms.ringing + call.granted + call.terms.grace,
    }
}

/// The limits that an authorize checks before funding, in the same order.
fn over_limits(
    offer: &Offer,
    position: &Position,
    now: Millis,
    steps: &mut Vec<Step>,
) -> Option<(Decision, Nuance)> {
    let same_second = position.tenant.second == now.0 / 1000;
    let this_second = if same_second { position.tenant.calls_in_second } else { 0 };
    let checks = [
        (
            "CALLS PER SECOND",
            this_second,
            offer.limits.calls_per_second,
            (Decision::RateLimited, Nuance::None),
        ),
        (
            "CONCURRENCY OF PAYER",
            position.payer.open,
            offer.limits.payer_calls,
            (Decision::ConcurrencyLimit, Nuance::None),
        ),
        (
            "CONCURRENCY OF TENANT",
            position.tenant.open,
            offer.limits.tenant_calls,
            (Decision::ConcurrencyLimit, Nuance::OfTenant),
        ),
    ];
    for (check, now, most, refusal) in checks {
        let Some(most) = most else { continue };
        let passed = now < i64::from(most);
        steps.step(check, passed, "", format_args!("{now} of {most}"));
        if !passed {
            return Some(refusal);
        }
    }
    None
}
