//! Splitting usage over funds exists twice, in Rust and in Lua: many small cases, compared whole.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tollgate::charging::funding::{CreditSide, PoolSide, Reach, charge, reserve};
use tollgate::charging::rating::Tariff;
use tollgate::charging::units::{Micros, Seconds};
use tollgate::ledger::state::{MAX_OVERAGE, reach_code};

use crate::support::redis::RedisServer;

const FIELDS: &str = include_str!("../../../src/ledger/redis/scripts/fields.lua");
const LIB: &str = include_str!("../../../src/ledger/redis/scripts/lib.lua");

/// Runs Lua code behind the library, once per batch; `case` is its input.
struct Driver {
    connection: redis::Connection,
    text: String,
}

impl Driver {
    /// The library is a function of its own: one has at most 200 locals.
    fn new(server: &RedisServer, body: &str) -> Driver {
        let text = format!(
            "{FIELDS}return (function(ARGV)\n{LIB}local answers = {{}}\n\
             for i, case in ipairs(cmsgpack.unpack(ARGV[1])) do\n{body}\nend\n\
             return cmsgpack.pack(answers)\nend)(ARGV)"
        );
        Driver { connection: server.client().get_connection().expect("redis"), text }
    }

    fn run<C: Serialize, A: DeserializeOwned>(&mut self, cases: &[C]) -> Vec<A> {
        let cases = rmp_serde::to_vec(cases).expect("cases");
        let script = redis::Script::new(&self.text);
        let answers: Vec<u8> =
            script.arg(cases).invoke(&mut self.connection).expect("the script runs");
        rmp_serde::from_slice(&answers).expect("answers")
    }
}

fn tariff(rate: i64, fee: i64, initial: i64, increment: i64) -> Tariff {
    Tariff {
        rate_per_minute: Micros(rate),
        connection_fee: Micros(fee),
        initial_increment: Seconds(initial),
        increment: Seconds(increment),
    }
}

#[test]
fn billed_cost_and_affordable_are_equal_in_rust_and_lua() {
    let server = RedisServer::shared();
    let mut driver = Driver::new(
        &server,
        "answers[i] = { billed(case[1], case[3]), cost(case[1], case[3]), \
         affordable(case[1], case[2], case[3]) }",
    );
    let mut cases = vec![];
    for rate in [0, 1, 59, 60, 61, 100_000, 10_000_000_000] {
        for fee in [0, 5, 10_000_000_000] {
            for (initial, increment) in [(60, 60), (30, 6), (1, 1), (6, 10), (3600, 3600)] {
                let t = tariff(rate, fee, initial, increment);
                for wanted in [0, 1, 5, 6, 7, 30, 31, 59, 60, 61, 119, 121, 604_800] {
                    for budget in [0, 1, 4, 5, 6, 59, 65, 120, 100_000, 10_000_000_001] {
                        cases.push((t, budget, wanted));
                    }
                    let exact = t.cost(Seconds(wanted)).0;
                    cases.extend([-1, 0, 1].map(|by| (t, (exact + by).max(0), wanted)));
                }
            }
        }
    }
    for batch in cases.chunks(5_000) {
        let answers: Vec<(i64, i64, i64)> = driver.run(batch);
        for ((t, budget, wanted), answer) in batch.iter().zip(answers) {
            let wanted = Seconds(*wanted);
            let expected =
                (t.billed(wanted).0, t.cost(wanted).0, t.affordable(Micros(*budget), wanted).0);
            assert_eq!(answer, expected, "{t:?} budget {budget} wanted {wanted}");
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    target: i64,
    pools: Vec<PoolSide>,
    credits: Option<CreditSide>,
}

type PackedPool = (i64, i64, i64, i64);
type PackedCredits = (i64, i64, i64, i64, Tariff, i64);
type Answer = (Vec<i64>, i64, i64, u8, Vec<i64>, i64, i64, i64, i64);

impl Case {
    fn packed(&self) -> (i64, Vec<PackedPool>, Vec<PackedCredits>) {
        let pool = |p: &PoolSide| (p.taken.0, p.available.0, p.others, p.increment.0);
        let credits = |c: &CreditSide| {
            let bound = |of: Option<Micros>| of.map_or(-1, |most| most.0);
            let (limit, velocity) = (bound(c.limit), bound(c.velocity));
            (c.taken.0, c.available.0, c.others, limit, c.tariff, velocity)
        };
        (
            self.target,
            self.pools.iter().map(pool).collect(),
            self.credits.iter().map(credits).collect(),
        )
    }

    fn answer(&self) -> Answer {
        let target = Seconds(self.target);
        let r = reserve(target, &self.pools, self.credits.as_ref());
        let c = charge(target, &self.pools, self.credits.as_ref());
        (
            r.pools.iter().map(|s| s.0).collect(),
            r.money.0,
            r.covered.0,
            reach_code(r.reach),
            c.pools.iter().map(|s| s.0).collect(),
            c.money.0,
            c.money_duration.0,
            c.shortfall_duration.0,
            c.shortfall_money.0,
        )
    }
}

const TARGETS: &[i64] = &[0, 1, 59, 60, 61, 150, 300];

fn all_pools() -> Vec<PoolSide> {
    let mut pools = vec![];
    for taken in [0, 60, 90] {
        for available in [0, 30, 60, 119, 240] {
            for others in [0, 1, 3] {
                for increment in [60, 6] {
                    pools.push(PoolSide {
                        taken: Seconds(taken),
                        available: Seconds(available),
                        others,
                        increment: Seconds(increment),
                    });
                }
            }
        }
    }
    pools
}

fn all_credits() -> Vec<Option<CreditSide>> {
    let mut all = vec![None];
    for tariff in
        [tariff(60, 0, 60, 60), tariff(7, 5, 30, 6), tariff(0, 3, 1, 1), tariff(90, 4, 6, 60)]
    {
        for taken in [0, 5, 65] {
            for available in [0, 4, 61, 130, 1_000, MAX_OVERAGE.0] {
                for others in [0, 1, 2] {
                    let bounds = [None, Some(0), Some(60), Some(200)];
                    // Each bound with the other absent, and with one above and one below it.
                    let velocities = [None, Some(0), Some(70), Some(190)];
                    for limit in bounds {
                        for velocity in &velocities[..if others == 1 { 4 } else { 1 }] {
                            all.push(Some(CreditSide {
                                taken: Micros(taken),
                                available: Micros(available),
                                others,
                                limit: limit.map(Micros),
                                tariff,
                                velocity: velocity.map(Micros),
                            }));
                        }
                    }
                }
            }
        }
    }
    all
}

#[test]
fn reserve_and_charge_are_equal_in_rust_and_lua() {
    let server = RedisServer::shared();
    let mut driver = Driver::new(
        &server,
        "local function sides()
           local pools, credits = {}, case[3][1]
           for n, pool in ipairs(case[2]) do
             pools[n] = { taken = pool[1], available = pool[2], others = pool[3], increment = pool[4] }
           end
           local limit = credits and credits[4] >= 0 and credits[4] or nil
           local velocity = credits and credits[6] >= 0 and credits[6] or nil
           return pools, credits and { taken = credits[1], available = credits[2],
             others = credits[3], limit = limit, tariff = credits[5], velocity = velocity }
         end
         local added, money, covered, reach = reserve(case[1], sides())
         local charged, price, length, short, short_price = charge(case[1], sides())
         answers[i] = { added, money, covered, reach, charged, price, length, short, short_price }",
    );
    let (pools, credits) = (all_pools(), all_credits());
    let mut cases = vec![];
    for &target in TARGETS {
        for credits in &credits {
            cases.push(Case { target, pools: vec![], credits: *credits });
            // Every single pool with a few wallets, and a few pools with every wallet.
            let step = match credits {
                None => 1,
                Some(CreditSide { velocity: None, .. }) => 3,
                Some(_) => 6,
            };
            for pool in pools.iter().skip(cases.len() % step).step_by(step) {
                cases.push(Case { target, pools: vec![*pool], credits: *credits });
            }
        }
    }
    let mut random = fastrand::Rng::with_seed(20_261_121);
    for _ in 0..60_000 {
        let target = random.i64(0..400);
        let pools = (0..random.usize(2..4)).map(|_| pools[random.usize(..pools.len())]).collect();
        let credits = credits[random.usize(..credits.len())];
        cases.push(Case { target, pools, credits });
    }
    assert!(cases.len() > 200_000, "{} cases", cases.len());
    let mut reaches = std::collections::HashSet::new();
    for batch in cases.chunks(2_000) {
        let packed: Vec<_> = batch.iter().map(Case::packed).collect();
        let answers: Vec<Answer> = driver.run(&packed);
        for (case, answer) in batch.iter().zip(answers) {
            reaches.insert(answer.3);
            assert_eq!(answer, case.answer(), "{case:?}");
        }
    }
    use Reach::{Exhausted, Full, Shared, SpendLimit, Velocity};
    let every = [Full, Shared, Exhausted, SpendLimit, Velocity].map(reach_code);
    assert!(every.iter().all(|reach| reaches.contains(reach)), "reached only {reaches:?}");
}
