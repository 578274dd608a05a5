//! `pools`: the report of minute pools, as they stand now (rule 90).

use std::process::ExitCode;

use crate::cli::args::{Output, PoolsArgs};
use crate::cli::client;
use crate::cli::output::{Outcome, Word, length, rows, show};
use crate::cli::usage::write_report;
use crate::proto::v1::{GetBalanceRequest, GetBalanceResponse, Pool};

/// Columns of the report as CSV; lengths in whole seconds.
const COLUMNS: [&str; 10] = [
    "capability",
    "usage_location",
    "counter",
    "user_id",
    "period",
    "total_seconds",
    "used_seconds",
    "held_seconds",
    "available_seconds",
    "pool_id",
];

/// In the place of the country, of a pool that all usage locations share.
const ALL: &str = "ALL";

/// Carries out `pools`.
pub async fn run(args: PoolsArgs, form: Output) -> Outcome {
    let request = GetBalanceRequest { tenant_id: args.tenant };
    let answer = client::accounts(&args.server).await?.get_balance(request).await?.into_inner();
    if args.file.wanted() {
        let cells = answer.pools.iter().map(cells).collect::<Vec<_>>();
        return write_report(args.file.output_file, &COLUMNS, &cells);
    }
    show(form, &GetBalanceResponse { credits: None, ..answer }, report)?;
    Ok(ExitCode::SUCCESS)
}

fn report(answer: &GetBalanceResponse) -> String {
    if answer.pools.is_empty() {
        return "no pools this month\n".to_owned();
    }
    let row = |pool: &Pool| {
        [
            pool.plan.clone(),
            location(pool).to_owned(),
            pool.counter().word().to_owned(),
            pool.user_id.clone(),
            pool.period.clone(),
            length(pool.granted.as_ref()),
            length(pool.spent.as_ref()),
            length(pool.held.as_ref()),
            length(pool.available.as_ref()),
        ]
    };
    rows(
        [
            "CAPABILITY",
            "LOCATION",
            "COUNTER",
            "USER",
            "PERIOD",
            ">TOTAL",
            ">USED",
            ">HELD",
            ">AVAILABLE",
        ],
        answer.pools.iter().map(row).collect(),
    )
}

fn cells(pool: &Pool) -> [String; 10] {
    let seconds = |length: &Option<prost_types::Duration>| {
        length.as_ref().map_or(0, |length| length.seconds).to_string()
    };
    [
        pool.plan.clone(),
        location(pool).to_owned(),
        pool.counter().word().to_owned(),
        pool.user_id.clone(),
        pool.period.clone(),
        seconds(&pool.granted),
        seconds(&pool.spent),
        seconds(&pool.held),
        seconds(&pool.available),
        pool.pool_id.clone(),
    ]
}

fn location(pool: &Pool) -> &str {
    if pool.country.is_empty() { ALL } else { &pool.country }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::PoolCounter;

    #[test]
    fn a_pool_is_one_line_of_the_report() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let pool = Pool {
            pool_id: "ALL:MCOMEETADD:CONFERENCE:2026-11".to_owned(),
            plan: "MCOMEETADD".to_owned(),
            counter: PoolCounter::Conference.into(),
            period: "2026-11".to_owned(),
            granted: seconds(7_200),
            held: seconds(300),
            spent: seconds(60),
            available: seconds(6_840),
            ..Pool::default()
        };
        let line = "MCOMEETADD,ALL,CONFERENCE,,2026-11,7200,60,300,6840,\
                    ALL:MCOMEETADD:CONFERENCE:2026-11";
        assert_eq!(cells(&pool).join(","), line);
        let text = report(&GetBalanceResponse { pools: vec![pool], ..Default::default() });
        let row: Vec<_> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row.join(" "), "MCOMEETADD ALL CONFERENCE 2026-11 2h0m0s 1m0s 5m0s 1h54m0s");
        assert_eq!(report(&GetBalanceResponse::default()), "no pools this month\n");
    }
}
