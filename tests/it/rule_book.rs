//! Rules that only show when everything works together: through gRPC, from the document to the record.

use prost_types::{Duration, Timestamp};
use tollgate::administration::Administration;
use tollgate::charging::units::Seconds;
use tollgate::organisation;
use tollgate::proto::v1::{
    AuthorizeCallRequest, AuthorizeCallResponse, CallOrigin, CallType, Decision,
    ExportUsageRequest, GetBalanceRequest, GetBalanceResponse, SettleCallRequest,
    SettleCallResponse, UsageRecord,
};

use crate::server::{Server, bought_today};

const HOME: &str = "+12065550142";
const FRANCE: &str = "+33123456789";

struct Town {
    server: Server,
}

impl Town {
    /// Tenant fabrikam with credits of 10 and whatever `rest` says.
    async fn open(rest: &str) -> Town {
        let town = Town { server: Server::start().await };
        town.apply(rest).await;
        town
    }

    /// How many payers and tenants were created, updated and left as they were.
    async fn apply(&self, rest: &str) -> (u32, u32, u32) {
        let text = format!(
            "tenants: [{{ id: fabrikam, currency: USD, credits: [{{ key: po, amount: 10, \
             purchased_at: TODAY }}], {rest} }}]"
        );
        let raw = organisation::read(&bought_today(&text)).expect("YAML");
        let document = organisation::check(&raw).expect("a document");
        let control = self.server.running.control().clone();
        let applied = Administration::new(control, Seconds(10)).apply(&document).await;
        let applied = applied.expect("the document is applied");
        (applied.created, applied.updated, applied.unchanged)
    }

    async fn call(&self, of: AuthorizeCallRequest) -> AuthorizeCallResponse {
        let of = AuthorizeCallRequest {
            tenant_id: "fabrikam".to_owned(),
            // What is asked for must not depend on a fair share.
            requested_duration: Some(Duration { seconds: 60, nanos: 0 }),
            ..of
        };
        self.server.calls().await.authorize_call(of).await.unwrap().into_inner()
    }

    async fn decision(&self, payer: &str, called: &str) -> Decision {
        let id = format!("{payer} to {called} {}", fastrand::u64(..));
        self.call(leg(&id, payer, called)).await.decision()
    }

    async fn settle(&self, call: &str, seconds: i64) -> SettleCallResponse {
        let of = SettleCallRequest {
            tenant_id: "fabrikam".to_owned(),
            call_id: call.to_owned(),
            used_duration: Some(Duration { seconds, nanos: 0 }),
            ..SettleCallRequest::default()
        };
        self.server.calls().await.settle_call(of).await.unwrap().into_inner()
    }

    async fn balance(&self) -> GetBalanceResponse {
        let of = GetBalanceRequest { tenant_id: "fabrikam".to_owned() };
        self.server.account().await.get_balance(of).await.unwrap().into_inner()
    }

    /// Pools that something was spent of.
    async fn spent(&self) -> Vec<(String, i64)> {
        let pools = self.balance().await.pools.into_iter();
        let spent = pools.map(|pool| {
            let name = format!("{}:{}", pool.plan, pool.counter().as_str_name());
            (name.replace("POOL_COUNTER_", ""), pool.spent.unwrap().seconds)
        });
        spent.filter(|(_, seconds)| *seconds > 0).collect()
    }

    async fn usage(&self) -> Vec<UsageRecord> {
        let now = jiff::Timestamp::now().as_second();
        // What was made in this very millisecond is not before it.
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let of = ExportUsageRequest {
            tenant_id: "fabrikam".to_owned(),
            from: at(now - 86_400),
            to: at(now + 86_400),
        };
        let mut stream = self.server.account().await.export_usage(of).await.unwrap().into_inner();
        let mut records = vec![];
        while let Some(message) = stream.message().await.unwrap() {
            records.push(message.record.unwrap());
        }
        records
    }
}

fn leg(call: &str, payer: &str, called: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        call_id: call.to_owned(),
        call_type: CallType::UserOutbound.into(),
        payer_id: payer.to_owned(),
        called_number: called.to_owned(),
        ..AuthorizeCallRequest::default()
    }
}

#[tokio::test]
async fn a_transfer_a_forward_and_an_added_party_are_calls_of_their_own() {
    // Rule 25: each leg is decided, charged and recorded by itself.
    let alice = "users: [{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1] }]";
    let town = Town::open(alice).await;
    let legs = [
        (CallOrigin::Direct, "user_out"),
        (CallOrigin::Transfer, "user_out_transfer"),
        (CallOrigin::Forward, "user_out_forwarding"),
        (CallOrigin::AddParty, "user_out_conf"),
    ];
    for (origin, name) in legs {
        let of = AuthorizeCallRequest {
            origin: origin.into(),
            sip_call_id: "one-dialog".to_owned(),
            ..leg(name, "alice", HOME)
        };
        assert_eq!(town.call(of).await.decision(), Decision::Allowed, "{name}");
    }
    for (done, (_, name)) in legs.iter().enumerate() {
        let settled = town.settle(name, 61).await;
        assert_eq!(settled.charged_duration.unwrap().seconds, 120, "{name}");
        let spent = 120 * (i64::try_from(done).unwrap() + 1);
        assert_eq!(town.spent().await, [("MCOPSTN1:DOMESTIC".to_owned(), spent)]);
    }
    let found: Vec<_> = town.usage().await.into_iter().map(|r| (r.call_id, r.call_type)).collect();
    let expected = legs.map(|(_, name)| (name.to_owned(), name.to_owned()));
    assert_eq!(found, expected);
}

#[tokio::test]
async fn any_number_of_credits_licences_opens_the_one_balance() {
    // Rule 35.
    let name = |n: i64| format!("user-{n}");
    let users: Vec<String> = (0..80)
        .map(|n| {
            let (id, licences) = (name(n), "[MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1]");
            format!("{{ id: {id}, usage_location: US, licences: {licences} }}")
        })
        .collect();
    let town = Town::open(&format!("users: [{}]", users.join(", "))).await;
    for n in 0..66 {
        let call = format!("call-{n}");
        assert_eq!(town.call(leg(&call, &name(n), HOME)).await.decision(), Decision::Allowed);
        assert_eq!(town.settle(&call, 30).await.charged_money.unwrap().amount, "0.15");
    }
    // 66 calls of 0.15 leave 0.10 of the 10, too little for whoever comes next.
    let credits = town.balance().await.credits.unwrap();
    assert_eq!(credits.spent.unwrap().amount, "9.9");
    assert_eq!(town.decision(&name(79), HOME).await, Decision::InsufficientCredits);
}

#[tokio::test]
async fn each_user_may_have_another_plan() {
    // Rules 77, 1 and 2.
    let plans = ["MCOPSTN1", "MCOPSTN2", "MCOPSTN5", "MCOPSTN6", "MCOPSTN8"];
    let users: Vec<String> = plans
        .iter()
        .map(|plan| format!("{{ id: of-{plan}, usage_location: US, licences: [MCOEV, {plan}] }}"))
        .collect();
    let town = Town::open(&format!("users: [{}]", users.join(", "))).await;
    let mut expected = vec![];
    for (n, plan) in plans.iter().enumerate() {
        let minutes = i64::try_from(n).unwrap() + 1;
        assert_eq!(
            town.call(leg(plan, &format!("of-{plan}"), HOME)).await.decision(),
            Decision::Allowed
        );
        town.settle(plan, minutes * 60).await;
        expected.push((format!("{plan}:DOMESTIC"), minutes * 60));
    }
    assert_eq!(town.spent().await, expected);
}

#[tokio::test]
async fn the_user_of_a_conference_dial_out_is_its_organiser() {
    // Rule 89: not who pressed dial.
    let user = |id, licences| {
        format!(
            "{{ id: {id}, usage_location: US, upn: {id}@example.com, display_name: {id}, \
             licences: [{licences}], numbers: [\"+1425555{}\"] }}",
            if id == "olga" { "0150" } else { "0151" }
        )
    };
    let users = [user("olga", "MCOMEETADD"), user("pete", "MCOEV, MCOPSTN1")];
    let town = Town::open(&format!("users: [{}]", users.join(", "))).await;
    let of = AuthorizeCallRequest {
        call_type: CallType::ConferenceDialOut.into(),
        calling_number: "+14255550151".to_owned(),
        on_behalf_of: "pete".to_owned(),
        conference_id: "standup".to_owned(),
        ..leg("dial-out", "olga", HOME)
    };
    assert_eq!(town.call(of).await.decision(), Decision::Allowed);
    town.settle("dial-out", 60).await;
    let record = town.usage().await.remove(0);
    assert_eq!((record.call_type.as_str(), record.upn.as_str()), ("conf_out", "olga@example.com"));
    assert_eq!(
        (record.user_display_name.as_str(), record.conference_id.as_str()),
        ("olga", "standup")
    );
}

#[tokio::test]
async fn a_plan_is_charged_by_the_increment_that_the_tenant_sets() {
    // D1.
    let rest = |increments| {
        format!(
            "pool_increments: {increments}, users: [{{ id: alice, usage_location: US, licences: \
             [MCOEV, MCOPSTN1] }}, {{ id: bob, usage_location: US, licences: [MCOEV, MCOPSTN5] }}]"
        )
    };
    let town = Town::open(&rest("{ MCOPSTN1: 1s }")).await;
    assert_eq!(town.apply(&rest("{ MCOPSTN1: 1s }")).await, (0, 0, 3));
    for (call, payer, used, charged) in
        [("a", "alice", 61, 61), ("b", "bob", 61, 120), ("c", "alice", 0, 0)]
    {
        town.call(leg(call, payer, HOME)).await;
        let settled = town.settle(call, used).await;
        assert_eq!(settled.charged_duration.unwrap().seconds, charged, "{call}");
    }
    // A running call keeps the increment that it began with.
    town.call(leg("running", "alice", HOME)).await;
    assert_eq!(town.apply(&rest("{ MCOPSTN1: 6s }")).await, (0, 1, 2));
    town.call(leg("later", "alice", HOME)).await;
    assert_eq!(town.settle("running", 61).await.charged_duration.unwrap().seconds, 61);
    assert_eq!(town.settle("later", 61).await.charged_duration.unwrap().seconds, 66);
}

#[tokio::test]
async fn the_international_cap_closes_both_counters_or_each_its_own() {
    // D11, rule 9.
    for (cap, after) in [("either", Decision::PoolExhausted), ("each", Decision::Allowed)] {
        let rest = format!(
            "international_cap: {cap}, users: [{{ id: alice, usage_location: US, licences: [MCOEV, \
             MCOPSTN2] }}]"
        );
        let town = Town::open(&rest).await;
        assert_eq!(town.apply(&rest).await, (0, 0, 2));
        assert_eq!(town.call(leg("long", "alice", FRANCE)).await.decision(), Decision::Allowed);
        town.settle("long", 36_000).await;
        assert_eq!(town.decision("alice", FRANCE).await, Decision::PoolExhausted, "{cap}");
        assert_eq!(town.decision("alice", HOME).await, after, "{cap}");
    }
}

#[tokio::test]
async fn destinations_outside_the_list_are_on_credits_where_the_tenant_allows_them() {
    // D13: the deck prices the whole world by its default row.
    let rest = |allow| {
        format!(
            "allow_unlisted_destinations: {allow}, users: [{{ id: alice, usage_location: US, \
             licences: [MCOEV, MCOPSTN2, MCOPSTNPP] }}]"
        )
    };
    let tunisia = "+21671000000";
    let town = Town::open(&rest(false)).await;
    assert_eq!(town.decision("alice", tunisia).await, Decision::DestinationBlocked);
    assert_eq!(town.apply(&rest(true)).await, (0, 1, 1));
    assert_eq!(town.apply(&rest(true)).await, (0, 0, 2));
    assert_eq!(town.call(leg("tunis", "alice", tunisia)).await.decision(), Decision::Allowed);
    assert_eq!(town.settle("tunis", 30).await.charged_money.unwrap().amount, "0.15");
    assert!(town.spent().await.is_empty());
}
