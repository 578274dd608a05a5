//! The stream of events, as those who bill or alert by it see it.

use tollgate::proto::v1::{Event, EventType, WatchEventsRequest};
use tonic::Code;

use crate::server::Server;
use crate::support::messages::{authorize, length, settle};

async fn watch(server: &Server, after: &str) -> Vec<Event> {
    let request = WatchEventsRequest {
        tenant_id: "contoso".to_owned(),
        after_cursor: after.to_owned(),
        until_now: true,
    };
    let mut stream = server.account().await.watch_events(request).await.unwrap().into_inner();
    let mut events = vec![];
    while let Some(message) = stream.message().await.unwrap() {
        events.push(message.event.unwrap());
    }
    events
}

fn told(events: &[Event]) -> Vec<(EventType, &str)> {
    events.iter().map(|event| (event.r#type(), event.call_id.as_str())).collect()
}

#[tokio::test]
async fn events_come_in_order_and_reading_goes_on_after_any_of_them() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("paid", "alice", "+12065550100")).await.unwrap();
    calls.settle_call(settle("paid", 61)).await.unwrap();
    calls.authorize_call(authorize("refused", "nobody", "+12065550100")).await.unwrap();
    calls.settle_call(settle("refused", 30)).await.unwrap();

    let events = watch(&server, "").await;
    let expected = [
        (EventType::CallSettled, "paid"),
        (EventType::CallDenied, "refused"),
        (EventType::UnauthorizedUsage, "refused"),
    ];
    // Provisioning has told of nothing.
    assert_eq!(told(&events), expected);
    assert_eq!(events[0].charged_duration, length(120));
    assert_eq!(events[0].used_duration, length(61));

    for (i, event) in events.iter().enumerate() {
        assert_eq!(watch(&server, &event.cursor).await, events[i + 1..]);
    }
    let mut account = server.account().await;
    let garbage = WatchEventsRequest {
        tenant_id: "contoso".to_owned(),
        after_cursor: "garbage".to_owned(),
        until_now: true,
    };
    let status = account.watch_events(garbage).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let stranger = WatchEventsRequest { tenant_id: "nobody".to_owned(), ..Default::default() };
    let status = account.watch_events(stranger).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

#[tokio::test]
async fn a_watcher_is_told_as_it_happens_and_sent_on_when_the_server_drains() {
    let server = Server::start().await;
    let request = WatchEventsRequest { tenant_id: "contoso".to_owned(), ..Default::default() };
    let mut stream = server.account().await.watch_events(request).await.unwrap().into_inner();
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("emergency", "alice", "911")).await.unwrap();
    let event = stream.message().await.unwrap().unwrap().event.unwrap();
    assert_eq!((event.r#type(), event.call_id.as_str()), (EventType::EmergencyCall, "emergency"));
    server.running.drain().await;
    let ended = stream.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
}
