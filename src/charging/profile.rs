//! What an organisation has set up: the tenant, and everybody in it who may pay for a call.
//!
//! These are the parsed and checked form of the organisation file. Absent limits mean none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::charging::catalogue::{CountryCode, Licence};
use crate::charging::decision::Decision;
use crate::charging::ids::{LotId, PayerId, TenantId};
use crate::charging::units::{Micros, Millis, Seconds};

/// A tenant without its payers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantProfile {
    /// The organisation.
    pub id: TenantId,
    /// ISO 4217 code; all money of the tenant is in it (D26).
    pub currency: String,
    /// Country of the organisation; decides the masking of exports, never who pays (rule 5).
    pub country: Option<CountryCode>,
    /// IANA name of the zone that the month is counted in (D2).
    pub time_zone: String,
    /// Whether calls go on.
    pub state: TenantState,
    /// Prepaid credits, or invoiced afterwards.
    pub billing: Billing,
    /// Post-paid only: keep calling once everything else is used (rule 42).
    pub overage: bool,
    /// Name of the deck that prices the tenant's calls.
    pub rate_deck: String,
    /// Where the tenant's users and organisers may call (rule 67).
    pub outbound_policy: OutboundPolicy,
    /// What happens to each type of call while the ledger is out of reach (D20).
    pub failure_handling: FailureHandling,
    /// What an answered call whose settle never came is charged (contract rule 6).
    pub on_lost_settle: OnLostSettle,
    /// Limits of the tenant as a whole.
    pub limits: TenantLimits,
    /// Most money that all calls may commit in any such length of time.
    pub spend_velocity: Option<SpendVelocity>,
    /// E.164 prefixes, digits only, that nobody of the tenant may call.
    pub blocked_prefixes: Vec<String>,
    /// How the wallet refills itself (rule 49).
    pub auto_recharge: Option<AutoRecharge>,
    /// The tenant's SBC trunks.
    pub trunks: Vec<Trunk>,
    /// Whether the next purchase pays what settled calls fell short of (D7).
    #[serde(default)]
    pub deduct_shortfall: bool,
    /// How long records are kept.
    #[serde(default)]
    pub retention: Retention,
    /// Who is told what happens (rules 51 and 66). Tenants stored before there were notices have none.
    #[serde(default)]
    pub notices: NoticeTargets,
    /// What closes a counter of the international plan (D11).
    #[serde(default)]
    pub international_cap: InternationalCap,
    /// Whether credits pay for destinations outside the list that the deck prices (D13).
    #[serde(default)]
    pub allow_unlisted_destinations: bool,
    /// Charging increments of the minutes of single plans, whole parts of a minute; 60 s for the others (D1).
    #[serde(default)]
    pub pool_increments: BTreeMap<Licence, Seconds>,
}

/// How long a tenant's records are kept; what is absent is kept for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// After it the telephone numbers in records are erased.
    pub numbers: Option<Seconds>,
    /// After it records are trimmed to sums.
    pub records: Option<Seconds>,
}

/// Who of a tenant is told what happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeTargets {
    /// Administrators, by mail; each address once.
    pub emails: Vec<String>,
    /// A program, by webhook; the server's own where there is none.
    pub webhook: Option<String>,
}

/// Charging increment of pools: whole started minutes (D1).
pub const POOL_INCREMENT: Seconds = Seconds(60);

/// What closes a counter of the plan that has a domestic and an international one (rule 9, D11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternationalCap {
    /// Either counter used up closes both until the month ends.
    #[default]
    Either,
    /// Each counter only closes itself.
    Each,
}

/// Whether a tenant's calls go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// They do.
    #[default]
    Active,
    /// No new calls, no extensions.
    Suspended,
    /// No new calls; open calls keep their grants; records stay.
    Removed,
}

/// How the tenant pays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Billing {
    /// With credits bought before.
    #[default]
    Prepaid,
    /// By invoice (rule 44).
    Postpaid,
}

/// The two independent settings of rule 67.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundPolicy {
    /// For conference dial-outs.
    pub conference: ConferencePolicy,
    /// For calls of users.
    pub user: UserPolicy,
}

/// Where conferences may dial out to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConferencePolicy {
    /// Anywhere.
    #[default]
    Any,
    /// The organiser's country only.
    SameCountry,
    /// Zone A only.
    ZoneA,
    /// Nowhere.
    Disabled,
}

/// Where users may call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserPolicy {
    /// Anywhere.
    #[default]
    International,
    /// Their own country; strict, rule 19 does not widen it (rule 21).
    Domestic,
    /// Nowhere but emergency numbers (rule 24).
    None,
}

/// What to do per type of call while the ledger is out of reach (D20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureHandling {
    /// Calls of users.
    pub user_outbound: OnFailure,
    /// Conference dial-outs.
    pub conference_dial_out: OnFailure,
    /// Inbound calls to toll-free service numbers.
    pub toll_free_inbound: OnFailure,
}

impl FailureHandling {
    /// Whether calls of any type go on out of a lease.
    pub fn goes_on(&self) -> bool {
        [self.user_outbound, self.conference_dial_out, self.toll_free_inbound]
            .contains(&OnFailure::ContinueCapped)
    }
}

/// RFC 8506 section 8.14, Credit-Control-Failure-Handling, bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Refuse at once.
    #[default]
    Terminate,
    /// Go on from a small lease.
    ContinueCapped,
    /// Try once more within the caller's deadline, then refuse.
    RetryThenTerminate,
}

/// What is charged for an answered call that was never settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLostSettle {
    /// The usage that the client last proved.
    #[default]
    Proven,
    /// Everything granted.
    Granted,
}

/// Limits of a tenant; absent means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLimits {
    /// Most open holds at a time.
    pub concurrent_calls: Option<u32>,
    /// Most authorize decisions per second of the store's clock.
    pub calls_per_second: Option<u32>,
    /// Dearest rate per minute that money may pay.
    pub max_rate_per_minute: Option<Micros>,
    /// Dearest connection fee that money may pay.
    pub max_connection_fee: Option<Micros>,
}

/// A cap on money over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendVelocity {
    /// Most that may be spent.
    pub amount: Micros,
    /// In each span of this length.
    pub per: Seconds,
}

/// Refill of the wallet (rule 49, D16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoRecharge {
    /// Recharge when the balance falls below this.
    pub trigger: Micros,
    /// How much to buy.
    pub amount: Micros,
    /// Most to ask for in a day of UTC.
    pub daily_cap: Option<Micros>,
    /// Which balance is judged.
    #[serde(default)]
    pub recharge_on: RechargeOn,
}

/// Which balance auto-recharge looks at (D16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RechargeOn {
    /// What is not spent: available and held.
    #[default]
    Spent,
    /// What new calls may take.
    Available,
}

/// An SBC trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// Its name in requests.
    pub id: PayerId,
    /// Whose emergency numbers count when the payer is unknown (contract rule 13).
    pub emergency_country: Option<CountryCode>,
    /// SIP and Q.850 answers that differ from the default table, by decision.
    pub responses: BTreeMap<Decision, ResponseOverride>,
}

/// A trunk's own answer to a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseOverride {
    /// SIP status, 400 to 699.
    pub sip_status: Option<u16>,
    /// Q.850 cause, 1 to 127.
    pub q850_cause: Option<u8>,
}

/// Somebody who may pay for a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayerProfile {
    /// Name in requests.
    pub id: PayerId,
    /// Person, service number or resource account.
    pub kind: PayerKind,
    /// Whether new calls may start.
    pub state: PayerState,
    /// Country of the licence: decides what is domestic, and the pool (rule 5). A service number has
    /// the country of its number.
    pub usage_location: CountryCode,
    /// Assigned licences, without duplicates, in the catalogue's order.
    pub licences: Vec<Licence>,
    /// E.164 numbers with their leading `+`.
    pub numbers: Vec<String>,
    /// Overrides the tenant's policy, per setting (rule 67).
    pub user_policy: Option<UserPolicy>,
    /// Overrides the tenant's policy, per setting (rule 67).
    pub conference_policy: Option<ConferencePolicy>,
    /// Most credits and overage that the payer may use in a month (rule 41, D15).
    pub spend_limit: Option<Micros>,
    /// Most open holds of the payer at a time.
    pub concurrent_calls: Option<u32>,
    /// User principal name, for records.
    pub upn: String,
    /// For records.
    pub display_name: String,
    /// Directory object id, for records.
    pub object_id: String,
}

/// What kind of payer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayerKind {
    /// A person.
    User,
    /// A toll-free service number: inbound calls are charged to credits (rule 36).
    TollFreeNumber,
    /// A toll service number.
    TollNumber,
    /// A bot (rules 70 to 73).
    ResourceAccount,
}

/// Whether a payer may start calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayerState {
    /// They may.
    #[default]
    Active,
    /// Suspected of fraud: no new calls, no extensions.
    Blocked,
    /// As if unknown; open calls keep their grants.
    Removed,
}

/// One purchase of credits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// Names the purchase; applied once (invariant 16).
    pub key: LotId,
    /// Money bought.
    pub amount: Micros,
    /// When; the lot expires 12 calendar months later (rule 47, D17).
    pub purchased_at: Millis,
    /// How it was paid (rule 54): `agreement`, `purchase_order`.
    pub payment: BTreeMap<String, String>,
}

/// Everything that an organisation file says about one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantDocument {
    /// The tenant.
    pub profile: TenantProfile,
    /// Whether the file named the deck, rather than leaving it to the default.
    pub names_deck: bool,
    /// Users, service numbers and resource accounts, each id once.
    pub payers: Vec<PayerProfile>,
    /// Purchases to apply, each key once.
    pub purchases: Vec<Purchase>,
    /// What is allowed but probably not meant, such as a user without a number.
    pub warnings: Vec<String>,
}

impl TenantProfile {
    /// Whether calls go on post-paid once everything else is used (rule 42).
    pub fn has_overage(&self) -> bool {
        self.billing == Billing::Postpaid && self.overage
    }

    /// Charging increment of the minutes of a plan (D1).
    pub fn pool_increment(&self, plan: Licence) -> Seconds {
        self.pool_increments.get(&plan).copied().unwrap_or(POOL_INCREMENT)
    }

    /// The trunk of that name.
    pub fn trunk(&self, id: &str) -> Option<&Trunk> {
        self.trunks.iter().find(|trunk| trunk.id.as_str() == id)
    }
}

impl PayerProfile {
    /// Whether `licence` is assigned.
    pub fn holds(&self, licence: Licence) -> bool {
        self.licences.contains(&licence)
    }
}
