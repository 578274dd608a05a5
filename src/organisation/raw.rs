//! The organisation document as it is written: plain text, nothing judged yet.
//!
//! Mirrors the YAML key by key; the `Apply` message is turned into the same structs. Every scalar is
//! text, so that `NO` stays Norway. A key that the format does not have is kept in `unknown`, for
//! [`super::check()`] to report with all other faults. Must not know what a value means.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

/// A scalar, and the line it stands on when it comes from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// As written, without quotes.
    pub value: String,
    /// Counted from 1.
    pub line: Option<u64>,
}

impl From<&str> for Text {
    fn from(value: &str) -> Text {
        Text { value: value.to_owned(), line: None }
    }
}

impl From<String> for Text {
    fn from(value: String) -> Text {
        Text { value, line: None }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Text { value: spanned.value, line: Some(spanned.referenced.line()) })
    }
}

/// A mapping whose keys are the user's, in the order written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<T>(pub Vec<(Text, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Entries(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// Declares a mapping of the format. Its keys are its fields; every key may be absent.
///
/// Not serde's derive, because `deny_unknown_fields` stops at the first unknown key, and because a
/// missing key is reported on the line where its mapping begins.
macro_rules! mapping {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            /// Where the mapping begins.
            pub line: Option<u64>,
            /// Keys that the format does not have.
            pub unknown: Vec<Text>,
        }

        impl $name {
            /// The keys that the format has here.
            pub const KEYS: &[&str] = &[$(stringify!($field),)*];
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl<'de> Visitor<'de> for Reader {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a mapping with the keys {}", $name::KEYS.join(", "))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut read = $name::default();
                        while let Some(key) = map.next_key::<Text>()? {
                            read.line = read.line.or(key.line);
                            match key.value.as_str() {
                                $(stringify!($field) => read.$field = map.next_value()?,)*
                                _ => {
                                    map.next_value::<IgnoredAny>()?;
                                    read.unknown.push(key);
                                }
                            }
                        }
                        Ok(read)
                    }
                }
                deserializer.deserialize_map(Reader)
            }
        }
    };
}

mapping! {
    /// The whole document.
    RawOrganisation {
        /// The organisations.
        tenants: Vec<RawTenant>,
    }
}

mapping! {
    /// One organisation.
    RawTenant {
        /// Required.
        id: Option<Text>,
        /// ISO 4217; required.
        currency: Option<Text>,
        /// ISO 3166-1 alpha-2.
        country: Option<Text>,
        /// IANA name; UTC when absent.
        time_zone: Option<Text>,
        /// `active` (default), `suspended` or `removed`.
        state: Option<Text>,
        /// `prepaid` (default) or `postpaid`.
        billing: Option<Text>,
        /// `true` or `false` (default).
        overage: Option<Text>,
        /// Name of a deck; `default` when absent.
        rate_deck: Option<Text>,
        /// Where calls may go.
        outbound_policy: RawOutboundPolicy,
        /// What happens while the ledger is out of reach.
        failure_handling: RawFailureHandling,
        /// `proven` (default) or `granted`.
        on_lost_settle: Option<Text>,
        /// Limits of the tenant as a whole.
        limits: RawTenantLimits,
        /// Cap on money over time.
        spend_velocity: Option<RawSpendVelocity>,
        /// `+` and 1 to 15 digits each.
        blocked_prefixes: Vec<Text>,
        /// Refill of the wallet.
        auto_recharge: Option<RawAutoRecharge>,
        /// Purchases.
        credits: Vec<RawPurchase>,
        /// Persons.
        users: Vec<RawUser>,
        /// Numbers of the organisation's services.
        service_numbers: Vec<RawServiceNumber>,
        /// Bots.
        resource_accounts: Vec<RawResourceAccount>,
        /// SBC trunks.
        trunks: Vec<RawTrunk>,
        /// `either` (default) or `each`.
        international_cap: Option<Text>,
        /// `true` or `false` (default).
        allow_unlisted_destinations: Option<Text>,
        /// Length of time such as `1s`, by the code of a plan with minutes.
        pool_increments: Entries<Text>,
        /// `true` or `false` (default).
        deduct_shortfall: Option<Text>,
        /// How long records are kept.
        retention: RawRetention,
        /// Who is told what happens.
        notices: RawNotices,
    }
}

mapping! {
    /// Who is told what happens.
    RawNotices {
        /// Mail addresses.
        emails: Vec<Text>,
        /// URL.
        webhook: Option<Text>,
    }
}

mapping! {
    /// The two settings of the outbound policy.
    RawOutboundPolicy {
        /// `any` (default), `same_country`, `zone_a` or `disabled`.
        conference: Option<Text>,
        /// `international` (default), `domestic` or `none`.
        user: Option<Text>,
    }
}

mapping! {
    /// Per type of call: `terminate` (default), `continue_capped` or `retry_then_terminate`.
    RawFailureHandling {
        /// Calls of users.
        user_outbound: Option<Text>,
        /// Conference dial-outs.
        conference_dial_out: Option<Text>,
        /// Inbound calls to toll-free service numbers.
        toll_free_inbound: Option<Text>,
    }
}

mapping! {
    /// Limits of a tenant.
    RawTenantLimits {
        /// Whole number.
        concurrent_calls: Option<Text>,
        /// Whole number.
        calls_per_second: Option<Text>,
        /// Amount.
        max_rate_per_minute: Option<Text>,
        /// Amount.
        max_connection_fee: Option<Text>,
    }
}

mapping! {
    /// A cap on money over time.
    RawSpendVelocity {
        /// Amount; required.
        amount: Option<Text>,
        /// Length of time, such as `1h`; required.
        per: Option<Text>,
    }
}

mapping! {
    /// Refill of the wallet.
    RawAutoRecharge {
        /// Amount; required.
        trigger: Option<Text>,
        /// Amount; required.
        amount: Option<Text>,
        /// Amount.
        daily_cap: Option<Text>,
        /// `spent` (default) or `available`.
        recharge_on: Option<Text>,
    }
}

mapping! {
    /// A purchase of credits.
    RawPurchase {
        /// Names the purchase; required.
        key: Option<Text>,
        /// Amount; required.
        amount: Option<Text>,
        /// RFC 3339; required.
        purchased_at: Option<Text>,
        /// How it was paid.
        payment: RawPayment,
    }
}

mapping! {
    /// How a purchase was paid.
    RawPayment {
        /// Number of the enterprise agreement.
        agreement: Option<Text>,
        /// Purchase-order number.
        purchase_order: Option<Text>,
    }
}

mapping! {
    /// A person.
    RawUser {
        /// Required.
        id: Option<Text>,
        /// `active` (default), `blocked` or `removed`.
        state: Option<Text>,
        /// User principal name.
        upn: Option<Text>,
        /// For records.
        display_name: Option<Text>,
        /// Directory object id.
        object_id: Option<Text>,
        /// ISO 3166-1 alpha-2; required.
        usage_location: Option<Text>,
        /// Licence codes.
        licences: Vec<Text>,
        /// E.164 with `+`.
        numbers: Vec<Text>,
        /// Overrides the tenant's, per setting.
        outbound_policy: RawOutboundPolicy,
        /// Amount.
        spend_limit: Option<Text>,
        /// Limits of the user.
        limits: RawUserLimits,
        /// As it is registered; looked at, not kept.
        emergency_address: Option<Text>,
    }
}

mapping! {
    /// Limits of a user.
    RawUserLimits {
        /// Whole number.
        concurrent_calls: Option<Text>,
    }
}

mapping! {
    /// A number of one of the organisation's services.
    RawServiceNumber {
        /// Required.
        id: Option<Text>,
        /// `active` (default) or `removed`.
        state: Option<Text>,
        /// E.164 with `+`; required.
        e164: Option<Text>,
        /// `toll` or `toll_free`; required.
        kind: Option<Text>,
    }
}

mapping! {
    /// A bot.
    RawResourceAccount {
        /// Required.
        id: Option<Text>,
        /// `active` (default) or `removed`.
        state: Option<Text>,
        /// ISO 3166-1 alpha-2; required.
        usage_location: Option<Text>,
        /// Licence codes.
        licences: Vec<Text>,
        /// E.164 with `+`.
        numbers: Vec<Text>,
    }
}

mapping! {
    /// An SBC trunk.
    RawTrunk {
        /// Required.
        id: Option<Text>,
        /// ISO 3166-1 alpha-2.
        emergency_country: Option<Text>,
        /// Answers that differ from the default table, by decision.
        responses: Entries<RawResponse>,
    }
}

mapping! {
    /// A trunk's own answer to a refusal.
    RawResponse {
        /// 400 to 699, not 503.
        sip_status: Option<Text>,
        /// 1 to 127.
        q850_cause: Option<Text>,
    }
}

mapping! {
    /// How long records are kept.
    RawRetention {
        /// Length of time, such as `90d`.
        numbers: Option<Text>,
        /// Length of time, such as `400d`.
        records: Option<Text>,
    }
}
