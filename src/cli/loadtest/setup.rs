//! Tenants for a test, made through the listener for administration: users with a calling plan, pools
//! and credits so large that nothing is refused, and a rate deck of their own.
//!
//! A tenant that this did not make is never touched: those that it makes have a purchase of credits
//! whose key begins with [`MARK`], and nothing is changed unless every tenant that exists has one.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use prost_types::Timestamp as WireTimestamp;
use tonic::Code;

use crate::cli::args::Server;
use crate::cli::client::{self, Accounts};
use crate::cli::loadtest::args::LoadtestArgs;
use crate::cli::output::Failure;
use crate::proto::v1;

/// Begin of the keys of the purchases that tell tenants of a test from others.
pub const MARK: &str = "tollgate-loadtest-";

/// Name of the rate deck that the tests use.
pub const DECK: &str = "tollgate-loadtest";

/// Minutes a month that a US user with the plan of the test brings to the pool.
const MINUTES_OF_A_USER: u32 = 3_000;

/// Bought each month.
const CREDITS: &str = "10000000";

/// Least time that each step may take: a large organisation does.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Tenants.
    pub tenants: u32,
    /// Users of all of them, those who never call too.
    pub users: u32,
}

/// Makes the tenants of the test, or brings them up to what the arguments say.
pub async fn make(args: &LoadtestArgs) -> Result<Made, Failure> {
    let mut server = Server { timeout: args.server.timeout.max(PATIENCE), ..args.server.clone() };
    if args.setup_token_file.is_some() {
        server.trust.token_file.clone_from(&args.setup_token_file);
    }
    let mut accounts = client::accounts(&server).await?;
    let names: Vec<String> = (1..=args.tenants).map(|n| format!("{}-{n}", args.prefix)).collect();
    for name in &names {
        refuse_strangers(&mut accounts, name).await?;
    }
    let csv = deck(args.deck_prefixes).into_bytes().into();
    let deck = v1::ActivateDeckRequest { deck: DECK.to_owned(), csv };
    accounts.activate_deck(deck).await?;
    let users = args.users.max(args.minutes.div_ceil(MINUTES_OF_A_USER));
    for name in names {
        let tenants = vec![tenant(name, users)];
        let organisation = Some(v1::Organisation { tenants });
        accounts.apply(v1::ApplyRequest { organisation }).await?;
    }
    Ok(Made { tenants: args.tenants, users: users * args.tenants })
}

async fn refuse_strangers(accounts: &mut Accounts, name: &str) -> Result<(), Failure> {
    let request = v1::GetBalanceRequest { tenant_id: name.to_owned() };
    let balance = match accounts.get_balance(request).await {
        Ok(balance) => balance.into_inner(),
        Err(status) if status.code() == Code::NotFound => return Ok(()),
        Err(status) => return Err(status.into()),
    };
    let lots = balance.credits.unwrap_or_default().lots;
    match lots.iter().any(|lot| lot.key.starts_with(MARK)) {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "tenant {name} exists and was not made by a load test: it is left alone, and so is \
             everything else; choose another --prefix"
        ))),
    }
}

fn tenant(id: String, users: u32) -> v1::Tenant {
    let user = |number: u32| v1::User {
        id: format!("user-{number}"),
        usage_location: "US".to_owned(),
        licences: ["MCOEV", "MCOPSTN1", "MCOPSTNPP"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    // The same all month, so that the same purchase is made once.
    let month = Timestamp::now().to_zoned(TimeZone::UTC).date().first_of_month();
    let purchased = month.to_zoned(TimeZone::UTC).map_or(0, |begin| begin.timestamp().as_second());
    let purchase = v1::CreditPurchase {
        key: format!("{MARK}{}", month.strftime("%Y-%m")),
        amount: CREDITS.to_owned(),
        purchased_at: Some(WireTimestamp { seconds: purchased, nanos: 0 }),
        ..Default::default()
    };
    v1::Tenant {
        id,
        currency: "USD".to_owned(),
        rate_deck: DECK.to_owned(),
        credits: vec![purchase],
        users: (1..=users).map(user).collect(),
        ..Default::default()
    }
}

/// A deck with so many prefixes of the United States, the shortest of which matches every call.
pub fn deck(prefixes: u32) -> String {
    let mut csv = crate::charging::deck::HEADER.join(",") + "\n";
    let mut row = |prefix: &str| {
        // A text takes whatever is written to it.
        let _ = writeln!(csv, "{prefix},Load test,0.01,0,60,60,USD,2020-01-01,,outbound");
    };
    row("1");
    for number in 0..prefixes.saturating_sub(1) {
        // Area codes from 200, then as many further digits as it takes.
        row(&format!("1{}", 2_000_000 + number * 7));
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::deck::Deck;

    #[test]
    fn the_deck_has_as_many_prefixes_as_asked_for() {
        for prefixes in [1, 1_000, 500_000] {
            let deck = Deck::parse(deck(prefixes).as_bytes()).expect("a deck without mistakes");
            assert_eq!(deck.len(), prefixes as usize);
        }
    }
}
