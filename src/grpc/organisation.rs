//! The organisation of an Apply message as the document that [`organisation`] judges.
//!
//! Nothing is judged here: what is no value in the message becomes a text that is none either, so that
//! it is reported with everything else.
//!
//! [`organisation`]: crate::organisation

use prost_types::{Duration, Timestamp};

use crate::organisation::{
    Entries, RawAutoRecharge, RawFailureHandling, RawNotices, RawOrganisation, RawOutboundPolicy,
    RawPayment, RawPurchase, RawResourceAccount, RawResponse, RawRetention, RawServiceNumber,
    RawSpendVelocity, RawTenant, RawTenantLimits, RawTrunk, RawUser, RawUserLimits, Text,
};
use crate::proto::v1;

/// The document of a message.
pub fn raw(organisation: v1::Organisation) -> RawOrganisation {
    RawOrganisation {
        tenants: organisation.tenants.into_iter().map(tenant).collect(),
        ..RawOrganisation::default()
    }
}

fn tenant(of: v1::Tenant) -> RawTenant {
    RawTenant {
        id: given(of.id),
        currency: given(of.currency),
        country: given(of.country),
        time_zone: given(of.time_zone),
        state: given(of.state),
        billing: given(of.billing),
        overage: of.overage.then(|| Text::from("true")),
        rate_deck: given(of.rate_deck),
        outbound_policy: policy(of.outbound_policy),
        failure_handling: of.failure_handling.map(failure_handling).unwrap_or_default(),
        on_lost_settle: given(of.on_lost_settle),
        limits: of.limits.map(limits).unwrap_or_default(),
        spend_velocity: of.spend_velocity.map(spend_velocity),
        blocked_prefixes: texts(of.blocked_prefixes),
        auto_recharge: of.auto_recharge.map(auto_recharge),
        credits: of.credits.into_iter().map(purchase).collect(),
        users: of.users.into_iter().map(user).collect(),
        service_numbers: of.service_numbers.into_iter().map(service_number).collect(),
        resource_accounts: of.resource_accounts.into_iter().map(resource_account).collect(),
        trunks: of.trunks.into_iter().map(trunk).collect(),
        retention: of.retention.map(retention).unwrap_or_default(),
        notices: of.notices.map(notices).unwrap_or_default(),
        international_cap: given(of.international_cap),
        allow_unlisted_destinations: of.allow_unlisted_destinations.then(|| Text::from("true")),
        pool_increments: Entries(
            of.pool_increments
                .into_iter()
                .map(|(plan, of)| (Text::from(plan), length(of)))
                .collect(),
        ),
        deduct_shortfall: of.deduct_shortfall.then(|| Text::from("true")),
        ..RawTenant::default()
    }
}

fn notices(of: v1::Notices) -> RawNotices {
    RawNotices { emails: texts(of.emails), webhook: given(of.webhook), ..RawNotices::default() }
}

fn policy(of: Option<v1::OutboundPolicy>) -> RawOutboundPolicy {
    let of = of.unwrap_or_default();
    RawOutboundPolicy {
        conference: given(of.conference),
        user: given(of.user),
        ..RawOutboundPolicy::default()
    }
}

fn failure_handling(of: v1::FailureHandling) -> RawFailureHandling {
    RawFailureHandling {
        user_outbound: given(of.user_outbound),
        conference_dial_out: given(of.conference_dial_out),
        toll_free_inbound: given(of.toll_free_inbound),
        ..RawFailureHandling::default()
    }
}

fn limits(of: v1::TenantLimits) -> RawTenantLimits {
    RawTenantLimits {
        concurrent_calls: of.concurrent_calls.map(number),
        calls_per_second: of.calls_per_second.map(number),
        max_rate_per_minute: of.max_rate_per_minute.map(Text::from),
        max_connection_fee: of.max_connection_fee.map(Text::from),
        ..RawTenantLimits::default()
    }
}

fn spend_velocity(of: v1::SpendVelocity) -> RawSpendVelocity {
    RawSpendVelocity {
        amount: given(of.amount),
        per: of.per.map(length),
        ..RawSpendVelocity::default()
    }
}

fn auto_recharge(of: v1::AutoRecharge) -> RawAutoRecharge {
    RawAutoRecharge {
        trigger: given(of.trigger),
        amount: given(of.amount),
        daily_cap: of.daily_cap.map(Text::from),
        recharge_on: given(of.recharge_on),
        ..RawAutoRecharge::default()
    }
}

fn purchase(of: v1::CreditPurchase) -> RawPurchase {
    let payment = of.payment.unwrap_or_default();
    RawPurchase {
        key: given(of.key),
        amount: given(of.amount),
        purchased_at: of.purchased_at.map(instant),
        payment: RawPayment {
            agreement: given(payment.agreement),
            purchase_order: given(payment.purchase_order),
            ..RawPayment::default()
        },
        ..RawPurchase::default()
    }
}

fn user(of: v1::User) -> RawUser {
    RawUser {
        id: given(of.id),
        state: given(of.state),
        upn: given(of.upn),
        display_name: given(of.display_name),
        object_id: given(of.object_id),
        usage_location: given(of.usage_location),
        licences: texts(of.licences),
        numbers: texts(of.numbers),
        outbound_policy: policy(of.outbound_policy),
        spend_limit: of.spend_limit.map(Text::from),
        limits: RawUserLimits {
            concurrent_calls: of.limits.and_then(|limits| limits.concurrent_calls).map(number),
            ..RawUserLimits::default()
        },
        emergency_address: given(of.emergency_address),
        ..RawUser::default()
    }
}

fn service_number(of: v1::ServiceNumber) -> RawServiceNumber {
    RawServiceNumber {
        id: given(of.id),
        state: given(of.state),
        e164: given(of.e164),
        kind: given(of.kind),
        ..RawServiceNumber::default()
    }
}

fn resource_account(of: v1::ResourceAccount) -> RawResourceAccount {
    RawResourceAccount {
        id: given(of.id),
        state: given(of.state),
        usage_location: given(of.usage_location),
        licences: texts(of.licences),
        numbers: texts(of.numbers),
        ..RawResourceAccount::default()
    }
}

fn trunk(of: v1::Trunk) -> RawTrunk {
    let response = |(decision, of): (String, v1::TrunkResponse)| {
        let response = RawResponse {
            sip_status: (of.sip_status != 0).then(|| number(of.sip_status)),
            q850_cause: of.q850_cause.map(number),
            ..RawResponse::default()
        };
        (Text::from(decision), response)
    };
    RawTrunk {
        id: given(of.id),
        emergency_country: given(of.emergency_country),
        responses: Entries(of.responses.into_iter().map(response).collect()),
        ..RawTrunk::default()
    }
}

fn retention(of: v1::Retention) -> RawRetention {
    RawRetention {
        numbers: of.numbers.map(length),
        records: of.records.map(length),
        ..RawRetention::default()
    }
}

/// An empty text is an absent one.
fn given(text: String) -> Option<Text> {
    (!text.is_empty()).then(|| Text::from(text))
}

fn texts(texts: Vec<String>) -> Vec<Text> {
    texts.into_iter().map(Text::from).collect()
}

fn number(value: u32) -> Text {
    Text::from(value.to_string())
}

fn length(of: Duration) -> Text {
    let Duration { seconds, nanos } = of;
    Text::from(match nanos {
        0 => format!("{seconds}s"),
        _ => format!("{seconds} s and {nanos} ns"),
    })
}

fn instant(of: Timestamp) -> Text {
    let Timestamp { seconds, nanos } = of;
    Text::from(match jiff::Timestamp::new(seconds, nanos) {
        Ok(instant) if nanos >= 0 => instant.to_string(),
        _ => format!("{seconds} s and {nanos} ns"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::organisation;

    #[test]
    fn values_that_are_none_are_faults_of_their_fields() {
        let message = v1::Tenant {
            id: "contoso".to_owned(),
            currency: "USD".to_owned(),
            spend_velocity: Some(v1::SpendVelocity {
                amount: "200".to_owned(),
                per: Some(Duration { seconds: -1, nanos: 5 }),
            }),
            credits: vec![v1::CreditPurchase {
                key: "po".to_owned(),
                amount: "NaN".to_owned(),
                purchased_at: Some(Timestamp { seconds: i64::MAX, nanos: -1 }),
                payment: None,
            }],
            ..v1::Tenant::default()
        };
        let faults = organisation::check(&raw(v1::Organisation { tenants: vec![message] }));
        let mut fields: Vec<String> =
            faults.expect_err("three faults").into_iter().map(|fault| fault.field).collect();
        fields.sort();
        let credit = "tenants[0].credits[0]";
        let expected = [
            format!("{credit}.amount"),
            format!("{credit}.purchased_at"),
            "tenants[0].spend_velocity.per".to_owned(),
        ];
        assert_eq!(fields, expected);
    }
}
