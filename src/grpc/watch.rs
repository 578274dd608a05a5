//! Directives as WatchCalls sends them.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::credit_control::directives::{Cut, Directive, Kind, Reason, Told, WatchError};
use crate::grpc::convert::to_timestamp;
use crate::grpc::status;
use crate::proto::v1;

/// What a client of WatchCalls reads.
pub type Stream = BoxStream<'static, Result<v1::WatchCallsResponse, Status>>;

/// The stream of what is told.
pub fn stream(told: mpsc::Receiver<Told>) -> Stream {
    ReceiverStream::new(told).map(message).boxed()
}

/// Why there is none.
pub fn refused(error: WatchError) -> Status {
    match error {
        WatchError::TooMany(_) => Status::resource_exhausted(error.to_string()),
        WatchError::NoSuchTenant => Status::not_found(error.to_string()),
        WatchError::Ledger(error) => status::ledger(error),
    }
}

/// The end of a stream of a server that drains.
pub fn draining() -> Status {
    Status::unavailable("shutting down; go on at another server")
}

fn message(told: Told) -> Result<v1::WatchCallsResponse, Status> {
    match told {
        Told::Directive(told) => {
            Ok(v1::WatchCallsResponse { directive: Some(directive(told)), caught_up: false })
        }
        Told::CaughtUp => Ok(v1::WatchCallsResponse { directive: None, caught_up: true }),
        Told::Cut(Cut::Draining) => Err(draining()),
        Told::Cut(Cut::TooSlow) => Err(Status::resource_exhausted(
            "the directives were not taken in time; what still applies is sent again on a new stream",
        )),
    }
}

fn directive(told: Directive) -> v1::Directive {
    let kind = match told.kind {
        Kind::Refresh => v1::DirectiveType::Refresh,
        Kind::EndNow => v1::DirectiveType::EndNow,
        Kind::Warn => v1::DirectiveType::Warn,
    };
    let reason = match told.reason {
        Reason::FundsArrived => v1::DirectiveReason::FundsArrived,
        Reason::TenantSuspended => v1::DirectiveReason::TenantSuspended,
        Reason::PayerBlocked => v1::DirectiveReason::PayerBlocked,
        Reason::FraudSuspected => v1::DirectiveReason::FraudSuspected,
        Reason::Operator => v1::DirectiveReason::Operator,
        Reason::FundsEnding => v1::DirectiveReason::FundsEnding,
    };
    v1::Directive {
        r#type: kind.into(),
        call_id: told.call,
        reason: reason.into(),
        directive_id: told.id,
        payer_id: told.payer,
        trunk_id: told.trunk,
        issued_at: to_timestamp(told.at),
        detail: told.detail,
    }
}
