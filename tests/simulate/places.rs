//! Whom and where calls go to, what they cost, and how months end: known to the simulation by itself, not
//! asked of the program.

use tollgate::charging::entitlement::CallType;

/// The end of a month in a time zone.
pub struct MonthEnd {
    pub zone: &'static str,
    /// In milliseconds since 1970.
    pub at: i64,
    pub before: &'static str,
    pub after: &'static str,
}

pub const MONTH_ENDS: [MonthEnd; 5] = [
    MonthEnd { zone: "UTC", at: 1_901_232_000_000, before: "2030-03", after: "2030-04" },
    // Summer time since 10 March.
    MonthEnd {
        zone: "America/Los_Angeles",
        at: 1_901_257_200_000,
        before: "2030-03",
        after: "2030-04",
    },
    MonthEnd { zone: "Asia/Kolkata", at: 1_901_212_200_000, before: "2030-03", after: "2030-04" },
    // Summer time until 7 April.
    MonthEnd {
        zone: "Pacific/Auckland",
        at: 1_901_185_200_000,
        before: "2030-03",
        after: "2030-04",
    },
    MonthEnd { zone: "UTC", at: 1_924_992_000_000, before: "2030-12", after: "2031-01" },
];

/// A price: micro-units a minute, micro-units once, seconds, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    pub rate: i64,
    pub fee: i64,
    pub first: i64,
    pub step: i64,
}

impl Price {
    /// Of a length of talk: written down from the rule book, not taken from the program.
    pub fn of(&self, seconds: i64) -> i64 {
        if seconds <= 0 {
            return 0;
        }
        let mut billed = self.first;
        while billed < seconds {
            billed += self.step;
        }
        self.fee + (self.rate * billed).div_euclid(60) + i64::from((self.rate * billed) % 60 != 0)
    }
}

/// How many decks take turns.
pub const DECKS: usize = 2;

/// Prefix, direction and the price in each deck.
const ROWS: [(&str, &str, [Price; DECKS]); 5] = [
    ("1", "outbound", [price(20_000, 0, 60, 60), price(30_000, 10_000, 60, 60)]),
    ("44", "outbound", [price(100_000, 50_000, 60, 60), price(200_000, 50_000, 60, 60)]),
    ("49", "outbound", [price(333_333, 0, 30, 6), price(333_334, 1, 30, 6)]),
    ("33", "outbound", [price(60_000, 10_000, 1, 1), price(70_000, 0, 6, 10)]),
    ("1", "toll_free_inbound", [price(25_000, 0, 60, 60), price(50_000, 5_000, 6, 6)]),
];

const fn price(rate: i64, fee: i64, first: i64, step: i64) -> Price {
    Price { rate, fee, first, step }
}

pub fn deck_csv(number: usize) -> String {
    let decimal = |micros: i64| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let mut csv = "prefix,destination,rate_per_minute,connection_fee,initial_increment,increment,\
                   currency,effective_from,effective_to,direction\n"
        .to_owned();
    for (prefix, direction, prices) in &ROWS {
        let Price { rate, fee, first, step } = prices[number];
        let (rate, fee) = (decimal(rate), decimal(fee));
        csv += &format!("{prefix},P,{rate},{fee},{first},{step},USD,2020-01-01,,{direction}\n");
    }
    csv
}

/// Where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    UnitedStates,
    Britain,
    Germany,
    France,
    /// Not in the deck.
    Japan,
    /// A colleague: free.
    Colleague,
    Emergency,
    /// No number at all.
    Nowhere,
}

impl Place {
    pub fn number(self) -> &'static str {
        match self {
            Place::UnitedStates => "+12065550100",
            Place::Britain => "+442079460000",
            Place::Germany => "+4930901820",
            Place::France => "+33140205050",
            Place::Japan => "+81312345678",
            Place::Colleague => "+14255550100",
            Place::Emergency => "112",
            Place::Nowhere => "+1",
        }
    }

    /// Its price in each deck; `None` where no money pays for it.
    pub fn prices(self, call_type: CallType) -> Option<[Price; DECKS]> {
        if call_type == CallType::TollFreeInbound {
            return Some(ROWS[4].2);
        }
        match self {
            Place::UnitedStates => Some(ROWS[0].2),
            Place::Britain => Some(ROWS[1].2),
            Place::Germany => Some(ROWS[2].2),
            Place::France => Some(ROWS[3].2),
            _ => None,
        }
    }
}
