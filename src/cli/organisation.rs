//! The organisation document as a message of `Apply`.
//!
//! The document was checked before, so that every mistake in it was named with its line. What the
//! message holds as a number, a duration or an instant is read here once more; everything else is text
//! on both sides.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::duration;
use crate::organisation::{
    RawAutoRecharge, RawFailureHandling, RawNotices, RawOrganisation, RawOutboundPolicy,
    RawPayment, RawPurchase, RawResourceAccount, RawResponse, RawRetention, RawServiceNumber,
    RawSpendVelocity, RawTenant, RawTenantLimits, RawTrunk, RawUser, RawUserLimits, Text,
};
use crate::proto::v1::{
    AutoRecharge, CreditPurchase, FailureHandling, Notices, Organisation, OutboundPolicy, Payment,
    ResourceAccount, Retention, ServiceNumber, SpendVelocity, Tenant, TenantLimits, Trunk,
    TrunkResponse, User, UserLimits,
};

/// The whole document. Fails only where the document was not checked.
pub fn message(raw: &RawOrganisation) -> Result<Organisation> {
    Ok(Organisation { tenants: each(&raw.tenants, tenant)? })
}

fn tenant(raw: &RawTenant) -> Result<Tenant> {
    Ok(Tenant {
        id: text(&raw.id),
        currency: text(&raw.currency),
        country: text(&raw.country),
        time_zone: text(&raw.time_zone),
        billing: text(&raw.billing),
        overage: parsed("overage", &raw.overage, |text| text.parse().ok())?.unwrap_or_default(),
        rate_deck: text(&raw.rate_deck),
        outbound_policy: unless_default(policy(&raw.outbound_policy)),
        failure_handling: unless_default(handling(&raw.failure_handling)),
        on_lost_settle: text(&raw.on_lost_settle),
        limits: unless_default(tenant_limits(&raw.limits)?),
        spend_velocity: raw.spend_velocity.as_ref().map(velocity).transpose()?,
        blocked_prefixes: texts(&raw.blocked_prefixes),
        auto_recharge: raw.auto_recharge.as_ref().map(recharge),
        credits: each(&raw.credits, purchase)?,
        users: each(&raw.users, user)?,
        service_numbers: raw.service_numbers.iter().map(service_number).collect(),
        resource_accounts: raw.resource_accounts.iter().map(resource_account).collect(),
        trunks: each(&raw.trunks, trunk)?,
        state: text(&raw.state),
        retention: unless_default(retention(&raw.retention)?),
        notices: unless_default(notices(&raw.notices)),
        international_cap: text(&raw.international_cap),
        allow_unlisted_destinations: parsed(
            "allow_unlisted_destinations",
            &raw.allow_unlisted_destinations,
            |text| text.parse().ok(),
        )?
        .unwrap_or_default(),
        pool_increments: raw
            .pool_increments
            .0
            .iter()
            .map(|(plan, length)| Ok((value(plan), increment(length)?)))
            .collect::<Result<_>>()?,
        deduct_shortfall: parsed("deduct_shortfall", &raw.deduct_shortfall, |text| {
            text.parse().ok()
        })?
        .unwrap_or_default(),
    })
}

fn retention(raw: &RawRetention) -> Result<Retention> {
    let wire = |length: Duration| prost_types::Duration::try_from(length).ok();
    let read = |text: &str| duration::parse(text).and_then(wire);
    Ok(Retention {
        numbers: parsed("numbers", &raw.numbers, read)?,
        records: parsed("records", &raw.records, read)?,
    })
}

fn increment(text: &Text) -> Result<prost_types::Duration> {
    let length = duration::parse(&text.value).and_then(|length| length.try_into().ok());
    length.with_context(|| format!("pool_increments: expected a length of time, found {text:?}"))
}

fn notices(raw: &RawNotices) -> Notices {
    Notices { emails: texts(&raw.emails), webhook: text(&raw.webhook) }
}

fn policy(raw: &RawOutboundPolicy) -> OutboundPolicy {
    OutboundPolicy { conference: text(&raw.conference), user: text(&raw.user) }
}

fn handling(raw: &RawFailureHandling) -> FailureHandling {
    FailureHandling {
        user_outbound: text(&raw.user_outbound),
        conference_dial_out: text(&raw.conference_dial_out),
        toll_free_inbound: text(&raw.toll_free_inbound),
    }
}

fn tenant_limits(raw: &RawTenantLimits) -> Result<TenantLimits> {
    Ok(TenantLimits {
        concurrent_calls: whole("concurrent_calls", &raw.concurrent_calls)?,
        calls_per_second: whole("calls_per_second", &raw.calls_per_second)?,
        max_rate_per_minute: raw.max_rate_per_minute.as_ref().map(value),
        max_connection_fee: raw.max_connection_fee.as_ref().map(value),
    })
}

fn velocity(raw: &RawSpendVelocity) -> Result<SpendVelocity> {
    let wire = |length: Duration| prost_types::Duration::try_from(length).ok();
    let per = parsed("per", &raw.per, |text| duration::parse(text).and_then(wire))?;
    Ok(SpendVelocity { amount: text(&raw.amount), per })
}

fn recharge(raw: &RawAutoRecharge) -> AutoRecharge {
    AutoRecharge {
        trigger: text(&raw.trigger),
        amount: text(&raw.amount),
        daily_cap: raw.daily_cap.as_ref().map(value),
        recharge_on: text(&raw.recharge_on),
    }
}

fn purchase(raw: &RawPurchase) -> Result<CreditPurchase> {
    let instant = |text: &str| text.parse::<Timestamp>().ok().map(timestamp);
    Ok(CreditPurchase {
        key: text(&raw.key),
        amount: text(&raw.amount),
        purchased_at: parsed("purchased_at", &raw.purchased_at, instant)?,
        payment: unless_default(payment(&raw.payment)),
    })
}

fn payment(raw: &RawPayment) -> Payment {
    Payment { agreement: text(&raw.agreement), purchase_order: text(&raw.purchase_order) }
}

fn user(raw: &RawUser) -> Result<User> {
    Ok(User {
        id: text(&raw.id),
        upn: text(&raw.upn),
        display_name: text(&raw.display_name),
        object_id: text(&raw.object_id),
        usage_location: text(&raw.usage_location),
        licences: texts(&raw.licences),
        numbers: texts(&raw.numbers),
        outbound_policy: unless_default(policy(&raw.outbound_policy)),
        spend_limit: raw.spend_limit.as_ref().map(value),
        limits: unless_default(user_limits(&raw.limits)?),
        state: text(&raw.state),
        emergency_address: text(&raw.emergency_address),
    })
}

fn user_limits(raw: &RawUserLimits) -> Result<UserLimits> {
    Ok(UserLimits { concurrent_calls: whole("concurrent_calls", &raw.concurrent_calls)? })
}

fn service_number(raw: &RawServiceNumber) -> ServiceNumber {
    ServiceNumber {
        id: text(&raw.id),
        e164: text(&raw.e164),
        kind: text(&raw.kind),
        state: text(&raw.state),
    }
}

fn resource_account(raw: &RawResourceAccount) -> ResourceAccount {
    ResourceAccount {
        id: text(&raw.id),
        usage_location: text(&raw.usage_location),
        licences: texts(&raw.licences),
        numbers: texts(&raw.numbers),
        state: text(&raw.state),
    }
}

fn trunk(raw: &RawTrunk) -> Result<Trunk> {
    let responses = raw.responses.0.iter();
    Ok(Trunk {
        id: text(&raw.id),
        emergency_country: text(&raw.emergency_country),
        responses: responses
            .map(|(decision, raw)| Ok((value(decision), response(raw)?)))
            .collect::<Result<_>>()?,
    })
}

fn response(raw: &RawResponse) -> Result<TrunkResponse> {
    Ok(TrunkResponse {
        sip_status: whole("sip_status", &raw.sip_status)?.unwrap_or_default(),
        q850_cause: whole("q850_cause", &raw.q850_cause)?,
    })
}

/// An instant on the wire.
pub fn timestamp(instant: Timestamp) -> prost_types::Timestamp {
    let nanos = instant.subsec_nanosecond();
    // Before 1970 jiff counts fractions backwards, protobuf forwards.
    match nanos {
        0.. => prost_types::Timestamp { seconds: instant.as_second(), nanos },
        _ => prost_types::Timestamp {
            seconds: instant.as_second() - 1,
            nanos: nanos + 1_000_000_000,
        },
    }
}

fn each<R, M>(raw: &[R], message: impl Fn(&R) -> Result<M>) -> Result<Vec<M>> {
    raw.iter().map(message).collect()
}

fn value(text: &Text) -> String {
    text.value.clone()
}

/// Empty is the wire's word for absent.
fn text(text: &Option<Text>) -> String {
    text.as_ref().map(value).unwrap_or_default()
}

fn texts(texts: &[Text]) -> Vec<String> {
    texts.iter().map(value).collect()
}

fn whole(key: &'static str, text: &Option<Text>) -> Result<Option<u32>> {
    parsed(key, text, |text| text.parse().ok())
}

fn parsed<T>(
    key: &'static str,
    text: &Option<Text>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>> {
    text.as_ref()
        .map(|text| read(&text.value).with_context(|| format!("{key}: cannot read {text:?}")))
        .transpose()
}

/// A mapping of which no key is set is not sent.
fn unless_default<M: Default + PartialEq>(message: M) -> Option<M> {
    (message != M::default()).then_some(message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::proto::json::to_json;
    use crate::{grpc, organisation};

    fn read(yaml: &str) -> Organisation {
        let raw = organisation::read(yaml).expect("YAML");
        organisation::check(&raw).expect("a document without faults");
        message(&raw).expect("checked")
    }

    #[test]
    fn every_key_of_the_sample_is_sent_under_its_own_name() {
        let sample = fs::read_to_string("samples/organisation.yaml").expect("the sample");
        let sent = to_json(&read(&sample)).expect("printable");
        let yaml: serde_json::Value = serde_saphyr::from_str(&sample).expect("YAML");
        let mut expected = vec![];
        keys_and_values(&yaml, &mut expected);
        for text in expected {
            assert!(sent.contains(&text), "{text} is missing in {sent}");
        }
    }

    /// Keys in the spelling of protobuf JSON, and values except for those that JSON spells differently.
    fn keys_and_values(yaml: &serde_json::Value, texts: &mut Vec<String>) {
        match yaml {
            serde_json::Value::Object(entries) => {
                for (key, value) in entries {
                    texts.push(format!("\"{}\"", camel(key)));
                    if key != "per" {
                        keys_and_values(value, texts);
                    }
                }
            }
            serde_json::Value::Array(items) => {
                items.iter().for_each(|item| keys_and_values(item, texts));
            }
            value => texts.push(value.to_string()),
        }
    }

    fn camel(key: &str) -> String {
        if key.chars().all(|c| !c.is_lowercase()) {
            return key.to_owned();
        }
        let mut words = key.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
    }

    #[test]
    fn texts_become_numbers_durations_and_instants() {
        let document = read(
            "tenants:\n  - id: a\n    currency: USD\n    state: suspended\n    billing: postpaid\n    overage: true\n\
             \x20   limits: { concurrent_calls: 7 }\n    spend_velocity: { amount: 5, per: 1h30m }\n\
             \x20   credits: [{ key: k, amount: 1, purchased_at: 2026-01-10T01:00:00.5+01:00 }]\n\
             \x20   trunks: [{ id: t, responses: { RATE_LIMITED: { q850_cause: 42 } } }]\n",
        );
        let tenant = &document.tenants[0];
        assert!(tenant.overage);
        assert_eq!(tenant.state, "suspended");
        assert_eq!(tenant.limits.as_ref().and_then(|l| l.concurrent_calls), Some(7));
        let per = tenant.spend_velocity.as_ref().and_then(|velocity| velocity.per);
        assert_eq!(per, Some(prost_types::Duration { seconds: 5400, nanos: 0 }));
        let bought = prost_types::Timestamp { seconds: 1_768_003_200, nanos: 500_000_000 };
        assert_eq!(tenant.credits[0].purchased_at, Some(bought));
        let response = TrunkResponse { sip_status: 0, q850_cause: Some(42) };
        assert_eq!(tenant.trunks[0].responses["RATE_LIMITED"], response);
    }

    #[test]
    fn the_server_understands_the_document_as_it_was_checked_here() {
        let every_key = fs::read_to_string("samples/organisation.yaml").expect("the sample");
        let suspended = "tenants: [{id: a, currency: EUR, state: suspended, billing: postpaid, overage: true, users: [{id: b, usage_location: DE, state: blocked, outbound_policy: {conference: zone_a}}], service_numbers: [{id: c, e164: +4930123456, kind: toll, state: removed}], resource_accounts: [{id: d, usage_location: DE, state: removed}]}]";
        for yaml in [every_key.as_str(), suspended] {
            let raw = organisation::read(yaml).expect("YAML");
            let received = grpc::organisation::raw(message(&raw).expect("checked"));
            let understood = organisation::check(&received).expect("without faults there too");
            assert_eq!(understood, organisation::check(&raw).expect("without faults"));
        }
    }

    #[test]
    fn what_is_absent_is_not_sent() {
        let document =
            read("tenants: [{ id: a, currency: USD, users: [{ id: b, usage_location: US }] }]");
        let user = User { id: "b".into(), usage_location: "US".into(), ..User::default() };
        let tenant = Tenant {
            id: "a".into(),
            currency: "USD".into(),
            users: vec![user],
            ..Tenant::default()
        };
        assert_eq!(document.tenants, [tenant]);
    }

    #[test]
    fn a_document_that_was_not_checked_is_refused_with_its_key() {
        let raw = organisation::read("tenants: [{ overage: perhaps }]").expect("YAML");
        let error = message(&raw).expect_err("perhaps is neither true nor false");
        assert!(error.to_string().contains("overage"), "{error}");
    }
}
