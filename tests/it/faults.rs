//! Faults under load, by the running program with journals on real servers: what is lost, what is charged
//! twice, and when there is service again.
//!
//! `TOLLGATE_ROUNDS` is how often each fault happens; every test prints one line of a table and, where
//! `TOLLGATE_TABLE` names a file, adds it there. `make faults ROUNDS=20` does both.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use redis::{Client, Commands};
use tokio::time::sleep;
use tollgate::proto::v1::Money;

use crate::regression::{keep, roll_back, sequences, told};
use crate::support::process::{Files, Sidecar, wait_long, wait_until};
use crate::support::redis::RedisServer;
use crate::support::redis_group::Guarded;
use crate::support::traffic::{Outcome, Traffic, credits, tenants};

/// What a call costs, in micro-units.
const PRICE: i64 = 150_000;

/// So much may be replayed in a round, on a machine that does much else.
const REPLAYED_WITHIN: Duration = Duration::from_secs(120);

/// How often each fault happens here.
fn rounds() -> usize {
    let given = std::env::var("TOLLGATE_ROUNDS").ok();
    given.map_or(1, |text| text.parse().expect("TOLLGATE_ROUNDS: a number"))
}

/// Two sidecars with a journal each.
struct Pair {
    url: String,
    sidecars: [Sidecar; 2],
    journals: Files,
}

impl Pair {
    fn on(url: &str) -> Pair {
        let journals = Files::default();
        let sidecars = [0, 1].map(|n| Pair::start(url, &journals, n));
        sidecars[0].set_up(&tenants(&["contoso"]));
        Pair { url: url.to_owned(), sidecars, journals }
    }

    fn start(url: &str, journals: &Files, number: usize) -> Sidecar {
        let journal = journals.path(&number.to_string());
        Sidecar::ready(&["--ledger", url, "--ledger-timeout", "1s", "--journal", &journal])
    }

    /// Begins calls at both and lets them go on for a moment.
    async fn traffic(&self, round: usize) -> Vec<Traffic> {
        let mut traffic = vec![];
        for (n, sidecar) in self.sidecars.iter().enumerate() {
            let name = format!("call-{round}-{n}");
            traffic.push(Traffic::named(sidecar, "contoso", &name).await);
        }
        sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        traffic
    }
}

/// What came of one fault in all rounds.
#[derive(Default)]
struct Tally {
    rounds: usize,
    acknowledged: usize,
    /// Allowed, and unknown when they were to be settled.
    forgotten: usize,
    lost: usize,
    /// By the balance: more than each charged call costs once, in calls.
    twice: i64,
    unclean: usize,
    /// From the fault until a grant that was asked for since, at the sidecar where it took longest.
    back: Vec<Duration>,
    /// From the fault until all that was lost was there again.
    whole: Vec<Duration>,
}

impl Tally {
    /// Ends the calls of a round. Once they have, every sidecar has asked the ledger, and knows what it lost.
    async fn end(&mut self, traffic: Vec<Traffic>, since: Instant) -> Vec<Outcome> {
        let (mut outcomes, mut back) = (vec![], Duration::ZERO);
        for traffic in traffic {
            let outcome = traffic.end(Duration::from_millis(300)).await;
            back = back.max(outcome.back_after(since).expect("service again"));
            self.acknowledged += outcome.done.len();
            self.forgotten += outcome.forgotten;
            outcomes.push(outcome);
        }
        self.rounds += 1;
        self.back.push(back);
        outcomes
    }

    /// Settles everything again, and looks at the balance and the audit.
    async fn judge(&mut self, pair: &Pair, ledger: &Client, outcomes: &[Vec<Outcome>]) {
        wait_replayed(ledger, 0);
        let mut charged = 0;
        for round in outcomes {
            for (outcome, sidecar) in round.iter().zip(&pair.sidecars) {
                let again = outcome.settled_again(sidecar, "contoso").await;
                (self.lost, charged) = (self.lost + again.0, charged + again.1);
            }
        }
        if self.lost > 0 {
            for (number, sidecar) in pair.sidecars.iter().enumerate() {
                let log = sidecar.log();
                log.lines().for_each(|line| eprintln!("sidecar {number}: {line}"));
            }
        }
        let credits = credits(&pair.sidecars[0], "contoso").await;
        assert_eq!(micros(credits.held), 0, "held once all has ended");
        self.twice += micros(credits.spent) / PRICE - i64::try_from(charged).unwrap();
        let audit = pair.sidecars[0].client(&["audit", "--tenant", "contoso"]);
        if !audit.status.success() {
            self.unclean += 1;
            eprintln!("{audit:#?}");
        }
    }

    /// Tells a line of the table, and fails where a promise is broken.
    fn tell(mut self, what: &str) {
        let audit = if self.unclean == 0 { "clean" } else { "NOT CLEAN" };
        let (back, whole) = (spread(&mut self.back), spread(&mut self.whole));
        let Tally { rounds, acknowledged, lost, twice, forgotten, .. } = self;
        let line = format!(
            "| {what} | {rounds} | {acknowledged} | {lost} | {twice} | {audit} | {back} | {whole} |\n"
        );
        eprint!("\n{line}");
        if let Some(table) = std::env::var_os("TOLLGATE_TABLE") {
            let mut table = OpenOptions::new().create(true).append(true).open(table).unwrap();
            table.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!((lost, twice, forgotten, self.unclean), (0, 0, 0, 0), "{what}");
    }
}

/// Median and the longest.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    match times.last() {
        Some(worst) => format!("{:.1?} / {worst:.1?}", times[times.len() / 2]),
        None => "-".to_owned(),
    }
}

fn micros(money: Option<Money>) -> i64 {
    let amount = money.unwrap().amount;
    let (whole, decimals) = amount.split_once('.').unwrap_or((&amount, ""));
    format!("{whole}{decimals:0<6}").parse().unwrap()
}

/// How often the ledger was found to have gone back.
fn epoch(ledger: &Client) -> u64 {
    let found: Option<u64> =
        ledger.get_connection().unwrap().hget("tg:{contoso}:sequence", "e").unwrap();
    found.unwrap_or_default()
}

/// Waits until the ledger was found to have gone back so often, and nothing of it is to be replayed any more.
fn wait_replayed(ledger: &Client, times: u64) {
    let look = || {
        let missing = sequences(ledger).iter().any(|field| field.starts_with("l:"));
        let found = ledger.get_connection().and_then(|mut c| c.hget("tg:{contoso}:sequence", "e"));
        (missing, found.ok().flatten().unwrap_or(0_u64))
    };
    wait_long(REPLAYED_WITHIN, "replayed", look, |(missing, found)| !missing && *found >= times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_killed_under_load_loses_nothing_and_charges_nobody_twice() {
    let redis = RedisServer::started();
    let (mut pair, mut tally, mut outcomes) = (Pair::on(&redis.url()), Tally::default(), vec![]);
    for round in 0..rounds() {
        let (traffic, killed) = (pair.traffic(round).await, round % 2);
        // Every other pair of rounds it is killed while it accepts ends of calls for a Redis that hangs.
        let hangs = round % 4 > 1;
        if hangs {
            redis.signal("STOP");
            sleep(Duration::from_millis(fastrand::u64(900..1500))).await;
        }
        let since = Instant::now();
        pair.sidecars[killed].kill();
        if hangs {
            redis.signal("CONT");
        }
        wait_until("gone", || pair.sidecars[killed].runs(), |runs| !runs);
        pair.sidecars[killed] = Pair::start(&pair.url, &pair.journals, killed);
        traffic[killed].go_to(&pair.sidecars[killed]).await;
        outcomes.push(tally.end(traffic, since).await);
    }
    tally.judge(&pair, &redis.client(), &outcomes).await;
    assert_eq!(told(&pair.sidecars[0]).await, Vec::<String>::new(), "nothing went back");
    tally.tell("kill -9 of a sidecar");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_syncs_always_and_is_killed_under_load_has_everything() {
    let mut tally = Tally::default();
    for round in 0..rounds() {
        let redis = RedisServer::absent_with("always");
        redis.start();
        let pair = Pair::on(&redis.url());
        let traffic = pair.traffic(round).await;
        let since = Instant::now();
        roll_back(&redis);
        let outcomes = tally.end(traffic, since).await;
        tally.judge(&pair, &redis.client(), &[outcomes]).await;
        assert_eq!(told(&pair.sidecars[0]).await, Vec::<String>::new(), "nothing went back");
    }
    tally.tell("kill -9 of Redis, `appendfsync always`");
}

/// A killed process loses nothing that it has written: the system still writes it out. Only a machine that
/// stops loses what was not synced, a second at most; so the file is cut as that may leave it, somewhere
/// between what it was a second before and half of what came since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_syncs_every_second_and_loses_that_second_is_brought_up_to_date() {
    let mut tally = Tally::default();
    for round in 0..rounds() {
        let redis = RedisServer::absent_with("everysec");
        redis.start();
        let pair = Pair::on(&redis.url());
        let traffic = pair.traffic(round).await;
        let length = || std::fs::metadata(redis.appended()).unwrap().len();
        let synced = length();
        sleep(Duration::from_secs(1)).await;
        // On a machine that is busy with something else, too.
        let written = wait_until("used", length, |length| *length > synced + (64 << 10));
        let since = Instant::now();
        redis.kill();
        let left = fastrand::u64(synced..=synced + (written - synced) / 2);
        let file = OpenOptions::new().write(true).open(redis.appended()).unwrap();
        file.set_len(left).unwrap();
        redis.start();
        wait_replayed(&redis.client(), 1);
        tally.whole.push(since.elapsed());
        let outcomes = tally.end(traffic, since).await;
        tally.judge(&pair, &redis.client(), &[outcomes]).await;
        assert_eq!(told(&pair.sidecars[0]).await.len(), 1);
    }
    tally.tell("kill -9 of Redis, `appendfsync everysec`, its last second lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_loses_nothing_that_a_journal_holds() {
    let mut tally = Tally::default();
    for round in 0..rounds() {
        let guarded = Guarded::start(&[]);
        let pair = Pair::on(&guarded.url());
        let traffic = pair.traffic(round).await;
        let since = Instant::now();
        guarded.master.kill();
        wait_until("failed over", || guarded.named(), |port| *port != guarded.master.port);
        let promoted = guarded.replicas.iter().find(|one| one.port == guarded.named()).unwrap();
        // Until calls go on at both.
        sleep(Duration::from_millis(1000)).await;
        let outcomes = tally.end(traffic, since).await;
        tally.judge(&pair, &promoted.client(), &[outcomes]).await;
    }
    tally.tell("Sentinel failover, asynchronous replication");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_redis_under_load_loses_nothing_that_two_sidecars_acknowledged() {
    let redis = RedisServer::started();
    let (pair, mut tally, mut outcomes) = (Pair::on(&redis.url()), Tally::default(), vec![]);
    // It goes back twice at least: behind what a replay has brought.
    for round in 0..rounds().max(2) {
        let traffic = pair.traffic(round).await;
        keep(&redis);
        let before = epoch(&redis.client());
        sleep(Duration::from_millis(300)).await;
        let since = Instant::now();
        roll_back(&redis);
        wait_replayed(&redis.client(), before + 1);
        tally.whole.push(since.elapsed());
        eprintln!(
            "round {round}: killed {:?} ago, brought back after {:?}",
            since.elapsed(),
            tally.whole.last()
        );
        outcomes.push(tally.end(traffic, since).await);
    }
    tally.judge(&pair, &redis.client(), &outcomes).await;
    // Each loss is told once, whoever finds it.
    assert_eq!(told(&pair.sidecars[0]).await.len(), tally.rounds);
    tally.tell("Redis started from an older RDB");
}
