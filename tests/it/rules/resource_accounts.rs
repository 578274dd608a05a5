//! Rules 70 to 74: attendants, queues and shared calling.

use tollgate::proto::v1::{AuthorizeCallRequest, CallOrigin, Decision, FundingSource};

use crate::rules::{SEATTLE, TEN, Town, call, charged, named, sources};

on_every_ledger! {
    rule_70_an_attendant_pays_by_its_plan_and_then_by_credits_without_a_licence
    rule_72_shared_calling_needs_pay_as_you_go_and_funded_credits
    rule_73_ordinary_plans_do_not_pay_for_calls_on_behalf_of_others
    rule_74_routing_a_call_for_an_unassigned_number_needs_credits
}

fn attendant(licences: &str) -> String {
    format!("resource_accounts: [{{ id: attendant, usage_location: US, licences: [{licences}] }}]")
}

fn with(origin: CallOrigin) -> AuthorizeCallRequest {
    AuthorizeCallRequest { origin: origin.into(), ..call("attendant", SEATTLE) }
}

async fn rule_70_an_attendant_pays_by_its_plan_and_then_by_credits_without_a_licence(town: Town) {
    let plan = attendant("MCOEV_VIRTUALUSER, MCOPSTN5");
    town.apply(&plan).await;
    town.talk(with(CallOrigin::Transfer), 7_200).await;
    assert_eq!(town.pool("US:MCOPSTN5:DOMESTIC").await, (120, 120));
    // With neither the call fails.
    assert_eq!(town.decision(with(CallOrigin::Transfer)).await, Decision::PoolExhausted);
    town.buy("po-1", "10").await.unwrap();
    let settled = town.talk(with(CallOrigin::Transfer), 60).await;
    assert_eq!(charged(&settled), (60, "0.01"));
    assert_eq!(sources(&settled.funding), [FundingSource::Credits]);
    // The plan is gone altogether.
    town.apply(&attendant("MCOEV_VIRTUALUSER")).await;
    assert_eq!(charged(&town.talk(with(CallOrigin::Forward), 60).await), (60, "0.01"));
}

/// A user without a number of his own calls out by the number of the resource account.
fn shared() -> AuthorizeCallRequest {
    AuthorizeCallRequest { on_behalf_of: "uma".to_owned(), ..with(CallOrigin::OnBehalf) }
}

async fn rule_72_shared_calling_needs_pay_as_you_go_and_funded_credits(town: Town) {
    let uma = "users: [{ id: uma, usage_location: US, licences: [MCOEV] }]";
    let with = |licences| format!("{}, {uma}", attendant(licences));
    town.apply(&with("MCOEV_VIRTUALUSER, MCOPSTN1")).await;
    assert_eq!(town.decision(shared()).await, Decision::NotEntitled);
    town.apply(&with("MCOEV_VIRTUALUSER, MCOPSTN_PAYG_1")).await;
    assert_eq!(town.decision(shared()).await, Decision::CreditsNotLicensed);
    let right = with("MCOEV_VIRTUALUSER, MCOPSTN_PAYG_1, MCOPSTNPP");
    town.apply(&right).await;
    assert_eq!(town.decision(shared()).await, Decision::InsufficientCredits);
    town.apply(&format!("{TEN}{right}")).await;
    assert_eq!(charged(&town.talk(shared(), 60).await), (60, "0.01"));
    // Whom it is for changes who pays, and so is a part of the key's payload.
    let other = AuthorizeCallRequest { on_behalf_of: String::new(), ..shared() };
    town.ask(named(shared(), "a")).await;
    assert_eq!(town.ask(named(other, "a")).await.decision(), Decision::KeyConflict);
    let own = AuthorizeCallRequest { payer_id: "uma".to_owned(), ..shared() };
    assert_eq!(town.decision(own).await, Decision::NotEntitled, "the user pays nothing himself");
}

async fn rule_73_ordinary_plans_do_not_pay_for_calls_on_behalf_of_others(town: Town) {
    for plan in ["MCOPSTN1", "MCOPSTN2", "MCOPSTN5"] {
        town.apply(&format!(
            "{TEN}{}",
            attendant(&format!("MCOEV_VIRTUALUSER, {plan}, MCOPSTNPP"))
        ))
        .await;
        for origin in [CallOrigin::OnBehalf, CallOrigin::Direct] {
            assert_eq!(
                town.decision(with(origin)).await,
                Decision::NotEntitled,
                "{plan} {origin:?}"
            );
        }
    }
    let payg = "MCOEV_VIRTUALUSER, MCOPSTN1, MCOPSTN_PAYG_1, MCOPSTNPP";
    town.apply(&format!("{TEN}{}", attendant(payg))).await;
    for origin in [CallOrigin::OnBehalf, CallOrigin::Direct] {
        let settled = town.talk(with(origin), 60).await;
        assert_eq!(sources(&settled.funding), [FundingSource::Credits], "{origin:?}");
    }
    assert_eq!(town.pool("US:MCOPSTN1:DOMESTIC").await, (3_000, 0));
}

async fn rule_74_routing_a_call_for_an_unassigned_number_needs_credits(town: Town) {
    town.apply(&attendant("MCOEV_VIRTUALUSER")).await;
    assert_eq!(town.decision(with(CallOrigin::Forward)).await, Decision::InsufficientCredits);
    town.buy("po-1", "10").await.unwrap();
    assert_eq!(charged(&town.talk(with(CallOrigin::Forward), 60).await), (60, "0.01"));
}
