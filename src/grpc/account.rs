//! `AccountService`: requests are checked here, carried out in [`administration`].
//!
//! [`administration`]: crate::administration

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span, info_span};

use crate::administration::{
    AdjustmentRecord, Administration, Amount, Authority, BlockRecord, CreditLot, Credits,
    DecisionRecord, ErasureOf, MAX_POOL, Overage, PoolBalance, RechargeState, kept_since,
};
use crate::charging::deck::{DeckErrors, MAX_BYTES};
use crate::charging::ids::{AdjustmentId, CallId, LotId, PayerId, TenantId};
use crate::charging::rating::MAX_USAGE;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::{
    CallContext, EndReport, detail, funding_charged, funding_held,
};
use crate::credit_control::erasure::Wanted;
use crate::credit_control::{CreditControl, OpenCalls};
use crate::events::{Event, EventKind, events_of};
use crate::grpc::answer;
use crate::grpc::convert::{
    MAX_NAME_BYTES, MAX_TEXT_BYTES, MAX_TOKEN_BYTES, micros, optional_millis, page_size,
    required_text, seconds, signed_micros, signed_seconds, text, to_duration, to_money,
    to_timestamp,
};
use crate::grpc::gate::Gate;
use crate::grpc::organisation::raw;
use crate::grpc::status::{self, FieldViolations, administration};
use crate::ledger::Ledger;
use crate::ledger::audit::{Finding, Report};
use crate::ledger::state::{BlockNote, BlockedBy, Call, CallState, Posting};
use crate::organisation;
use crate::proto::json::to_json_line;
use crate::proto::v1;
use crate::proto::v1::account_service_server::{AccountService, AccountServiceServer};
use crate::proto::v1::end_open_calls_request::Calls as WhichCalls;
use crate::proto::v1::report_recharge_request::Outcome as RechargeOutcome;
use crate::records::UsageRecord;
use crate::records::export::Export;

/// The full name of the service.
pub const NAME: &str = "tollgate.v1.AccountService";

/// Largest message: the largest deck, and what is around it.
pub const MAX_MESSAGE_BYTES: usize = MAX_BYTES + (64 << 10);

/// Most requests at a time: each may hold the largest message.
const MAX_REQUESTS: u32 = 16;

/// Most exports at a time: each may run for minutes.
const MAX_EXPORTS: usize = 4;

/// Usage records that wait for a slow client.
const EXPORT_AHEAD: usize = 256;

/// Most watchers of events at a time.
const MAX_WATCHERS: usize = 16;

/// Entries of the journal that a watcher is given at a time.
const EVENTS_PAGE: usize = 200;

/// How often a watcher looks for new events.
const EVENTS_INTERVAL: Duration = Duration::from_millis(200);

/// Longest name of a bucket, in bytes: a pool has the name of its user in it.
const MAX_BUCKET_BYTES: usize = 256;

/// Most findings in the answer of an audit.
const MAX_FINDINGS: usize = 1000;

/// Longest time for ending a tenant's calls.
const END_CALLS_TIMEOUT: Duration = Duration::from_secs(600);

/// See the module.
pub struct Account<L> {
    administration: Arc<Administration<L>>,
    control: Arc<CreditControl<L>>,
    gate: Gate,
    exports: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    /// Of the calls: tells when the server drains.
    calls: Arc<Gate>,
}

impl<L: Ledger> Account<L> {
    /// The service on its use cases, ready to be listened for.
    pub fn serve(
        administration: Administration<L>,
        control: Arc<CreditControl<L>>,
        calls: Arc<Gate>,
    ) -> AccountServiceServer<Account<L>> {
        let service = Account {
            administration: Arc::new(administration),
            control,
            gate: Gate::new(MAX_REQUESTS),
            exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            calls,
        };
        AccountServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Runs long work apart from the calls, and to its end even if the client leaves.
    async fn apart<T, F>(
        &self,
        work: impl FnOnce(Arc<Administration<L>>) -> F + Send + 'static,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>>,
    {
        let administration = self.administration.clone();
        let (runtime, span) = (Handle::current(), Span::current());
        let work = move || span.in_scope(|| runtime.block_on(work(administration)));
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|stopped| {
            tracing::error!(%stopped, "a request was cut off");
            Err(Status::internal("the request was cut off; it can be repeated"))
        })
    }
}

#[tonic::async_trait]
impl<L: Ledger> AccountService for Account<L> {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let _entered = self.gate.enter()?;
        let Some(organisation) = request.into_inner().organisation else {
            let mut violations = FieldViolations::new();
            violations.add("organisation", "expected a value");
            return Err(violations.into_status());
        };
        let applied = self.apart(|administration| async move {
            let documents = organisation::check(&raw(organisation)).map_err(|faults| {
                let mut violations = FieldViolations::new();
                for fault in faults {
                    violations.add(format!("organisation.{}", fault.field), fault.message);
                }
                violations.into_status()
            })?;
            administration.apply(&documents).await.map_err(self::administration)
        });
        let applied = applied.instrument(info_span!("rpc", rpc = "Apply")).await?;
        Ok(Response::new(v1::ApplyResponse {
            created: applied.created,
            updated: applied.updated,
            unchanged: applied.unchanged,
            removed: applied.removed,
            purchases_applied: applied.purchases_applied,
            warnings: applied.warnings,
        }))
    }

    async fn purchase_credits(
        &self,
        request: Request<v1::PurchaseCreditsRequest>,
    ) -> Result<Response<v1::PurchaseCreditsResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let key = violations.take("key", LotId::of_purchase(&message.key));
        let amount = violations.take("amount", micros(message.amount.as_ref()));
        if amount.as_ref().is_some_and(|(amount, _)| *amount == Micros::ZERO) {
            violations.add("amount.amount", "expected more than 0");
        }
        let at = violations.take("purchased_at", optional_millis(message.purchased_at.as_ref()));
        let payment = read_payment(message.payment.unwrap_or_default(), &mut violations);
        let read = tenant.zip(key).zip(amount.zip(at));
        let ((tenant, key), ((amount, currency), at)) = violations.finish(read)?;
        let span = info_span!("rpc", rpc = "PurchaseCredits", %tenant);
        let purchased = self
            .administration
            .purchase(&tenant, key, amount, currency.code(), at, payment)
            .instrument(span)
            .await
            .map_err(administration)?;
        Ok(Response::new(v1::PurchaseCreditsResponse {
            replayed: purchased.replayed,
            lot: Some(credit_lot(&purchased.lot, &purchased.currency)),
            credits: Some(credits(&purchased.credits, &purchased.currency)),
        }))
    }

    async fn get_balance(
        &self,
        request: Request<v1::GetBalanceRequest>,
    ) -> Result<Response<v1::GetBalanceResponse>, Status> {
        let _entered = self.gate.enter()?;
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&request.get_ref().tenant_id));
        let tenant = violations.finish(tenant)?;
        let balance = self.administration.balance(&tenant).await.map_err(administration)?;
        Ok(Response::new(v1::GetBalanceResponse {
            pools: balance.pools.iter().map(pool).collect(),
            credits: Some(credits(&balance.credits, &balance.currency)),
            recharge: balance.recharge.as_ref().map(|of| recharge(of, &balance.currency)),
        }))
    }

    async fn report_recharge(
        &self,
        request: Request<v1::ReportRechargeRequest>,
    ) -> Result<Response<v1::ReportRechargeResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let key = violations.take("key", LotId::new(&message.key));
        let outcome = match message.outcome {
            None => {
                violations.add("outcome", "expected succeeded or failed");
                None
            }
            Some(RechargeOutcome::Succeeded(_)) => Some(Ok(())),
            Some(RechargeOutcome::Failed(failed)) => {
                violations.take("failed.reason", text(&failed.reason, MAX_TEXT_BYTES));
                Some(Err(failed.reason))
            }
        };
        let ((tenant, key), outcome) = violations.finish(tenant.zip(key).zip(outcome))?;
        let span = info_span!("rpc", rpc = "ReportRecharge", %tenant);
        let reported = self.administration.report_recharge(&tenant, key, outcome).instrument(span);
        let reported = reported.await.map_err(administration)?;
        let currency = &reported.currency;
        Ok(Response::new(v1::ReportRechargeResponse {
            replayed: reported.replayed,
            lot: reported.lot.as_ref().map(|lot| credit_lot(lot, currency)),
            credits: Some(credits(&reported.credits, currency)),
            recharge: reported.recharge.as_ref().map(|of| recharge(of, currency)),
        }))
    }

    async fn get_call(
        &self,
        request: Request<v1::GetCallRequest>,
    ) -> Result<Response<v1::GetCallResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let call = violations.take("call_id", CallId::new(&message.call_id));
        let (tenant, call) = violations.finish(tenant.zip(call))?;
        let found = self.administration.call(&tenant, &call).await;
        let (found, profile) = found.map_err(administration)?;
        let call = self::call(&tenant, &call, &found, &profile.currency);
        Ok(Response::new(v1::GetCallResponse { call: Some(call) }))
    }

    async fn list_open_calls(
        &self,
        request: Request<v1::ListOpenCallsRequest>,
    ) -> Result<Response<v1::ListOpenCallsResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let (tenant, cursor, most) =
            read_page(&message.tenant_id, message.page_token, message.page_size)?;
        let found = self.administration.open_calls(&tenant, cursor.as_deref(), most).await;
        let (page, profile) = found.map_err(administration)?;
        let calls = page.items.iter();
        Ok(Response::new(v1::ListOpenCallsResponse {
            calls: calls.map(|(id, found)| call(&tenant, id, found, &profile.currency)).collect(),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn list_decisions(
        &self,
        request: Request<v1::ListDecisionsRequest>,
    ) -> Result<Response<v1::ListDecisionsResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let (tenant, cursor, most) =
            read_page(&message.tenant_id, message.page_token, message.page_size)?;
        let page = self.administration.decisions(&tenant, cursor, most).await;
        let (page, kept_since) = page.map_err(administration)?;
        Ok(Response::new(v1::ListDecisionsResponse {
            records_kept_since: kept_since.and_then(to_timestamp),
            decisions: page.items.into_iter().map(|record| decision(&tenant, record)).collect(),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    type ExportUsageStream = ReceiverStream<Result<v1::ExportUsageResponse, Status>>;

    async fn export_usage(
        &self,
        request: Request<v1::ExportUsageRequest>,
    ) -> Result<Response<Self::ExportUsageStream>, Status> {
        let permit = self.exports.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            Status::resource_exhausted(format!("expected at most {MAX_EXPORTS} exports at a time"))
        })?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let from = violations.take("from", optional_millis(message.from.as_ref()));
        let to = violations.take("to", optional_millis(message.to.as_ref()));
        let (tenant, (from, to)) = violations.finish(tenant.zip(from.zip(to)))?;
        let export = Export::open(self.control.clone(), &tenant, from, to);
        let mut export = export.await.map_err(status::export)?;
        let (sender, receiver) = mpsc::channel(EXPORT_AHEAD);
        let span = info_span!("rpc", rpc = "ExportUsage", %tenant);
        let sending = async move {
            let _permit = permit;
            let mut told = false;
            loop {
                let page = tokio::select! {
                    page = export.next_page() => page,
                    () = sender.closed() => return,
                };
                let records = match page {
                    Ok(Some(records)) => records,
                    Ok(None) => return,
                    Err(error) => {
                        // Where the client has left there is nobody to tell.
                        let _ = sender.send(Err(status::export(error))).await;
                        return;
                    }
                };
                if let Some(since) = export.kept_since().filter(|_| !told) {
                    let records_kept_since = to_timestamp(since);
                    let message = v1::ExportUsageResponse { record: None, records_kept_since };
                    told = true;
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                for record in records {
                    let message = v1::ExportUsageResponse {
                        record: Some(usage(record)),
                        records_kept_since: None,
                    };
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                // A page of no records is no reason to keep the calls waiting.
                tokio::task::yield_now().await;
            }
        };
        tokio::spawn(sending.instrument(span));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type WatchEventsStream = ReceiverStream<Result<v1::WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let permit = self.watchers.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("expected at most {MAX_WATCHERS} watchers"))
        })?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let after = violations.take("after_cursor", text(&message.after_cursor, MAX_TOKEN_BYTES));
        let (tenant, after) = violations.finish(tenant.zip(after))?;
        let mut after = Some(after.to_owned()).filter(|cursor| !cursor.is_empty());
        let first = self.administration.history(&tenant, after.as_deref(), EVENTS_PAGE).await;
        let mut found = first.map_err(status::administration)?;
        let (sender, receiver) = mpsc::channel(EXPORT_AHEAD);
        let (administration, calls) = (self.administration.clone(), self.calls.clone());
        let span = info_span!("rpc", rpc = "WatchEvents", %tenant);
        let sending = async move {
            let _permit = permit;
            loop {
                let (page, currency) = found;
                let at_end = page.next.is_none();
                if let Some(since) = kept_since(page.items.iter().map(|(_, entry)| entry)) {
                    let records_kept_since = to_timestamp(since);
                    let message = v1::WatchEventsResponse { event: None, records_kept_since };
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                for (cursor, entry) in page.items {
                    for event in events_of(after.as_deref(), &cursor, &entry) {
                        let event = Some(event_message(event, &tenant, &currency));
                        let message = v1::WatchEventsResponse { event, records_kept_since: None };
                        if sender.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                    after = Some(cursor);
                }
                if at_end && message.until_now {
                    return;
                }
                if at_end {
                    tokio::select! {
                        () = tokio::time::sleep(EVENTS_INTERVAL) => {}
                        () = sender.closed() => return,
                    }
                }
                if calls.is_draining() {
                    let ended = Status::unavailable("shutting down; go on at another server");
                    let _ = sender.send(Err(ended)).await;
                    return;
                }
                match administration.history(&tenant, after.as_deref(), EVENTS_PAGE).await {
                    Ok(next) => found = next,
                    Err(error) => {
                        // Where the client has left there is nobody to tell.
                        let _ = sender.send(Err(status::administration(error))).await;
                        return;
                    }
                }
            }
        };
        tokio::spawn(sending.instrument(span));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn erase_numbers(
        &self,
        request: Request<v1::EraseNumbersRequest>,
    ) -> Result<Response<v1::EraseNumbersResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let before = violations.take("before", optional_millis(message.before.as_ref())).flatten();
        violations.take("number", text(&message.number, MAX_TEXT_BYTES));
        violations.take("reason", text(&message.reason, MAX_TEXT_BYTES));
        violations.take("operator", text(&message.operator, MAX_TEXT_BYTES));
        let of = match (message.number.as_str(), before) {
            ("", Some(before)) => Some(ErasureOf::Before(before)),
            ("", None) => {
                violations.add("number", "expected either number or before");
                None
            }
            (number, None) if Wanted::new(number, None).is_some() => {
                Some(ErasureOf::Number(number.to_owned()))
            }
            (_, None) => {
                violations.add("number", "expected an E.164 number, + and 7 to 15 digits");
                None
            }
            (_, Some(_)) => {
                violations.add("before", "expected number or before, not both");
                None
            }
        };
        let (tenant, of) = violations.finish(tenant.zip(of))?;
        let span = info_span!("rpc", rpc = "EraseNumbers", %tenant);
        let erased = self.apart(move |administration| async move {
            let v1::EraseNumbersRequest { reason, operator, .. } = message;
            let erased = administration.erase(&tenant, &of, &reason, &operator).await;
            erased.map_err(self::administration)
        });
        let erased = erased.instrument(span).await?;
        Ok(Response::new(v1::EraseNumbersResponse {
            entry_count: erased.entries,
            call_count: erased.calls,
            call_id_count: erased.in_call_ids,
        }))
    }

    async fn check_deck(
        &self,
        request: Request<v1::CheckDeckRequest>,
    ) -> Result<Response<v1::CheckDeckResponse>, Status> {
        let _entered = self.gate.enter()?;
        let csv = request.into_inner().csv;
        let checked = self.apart(|administration| async move {
            Ok(administration.check_deck(&csv).map(|deck| (deck.len(), deck.currency().to_owned())))
        });
        let answer = match checked.instrument(info_span!("rpc", rpc = "CheckDeck")).await? {
            Ok((rows, currency)) => v1::CheckDeckResponse {
                valid: true,
                row_count: count(rows),
                currency,
                problem_count: 0,
                problems: vec![],
            },
            Err(DeckErrors { errors, total }) => v1::CheckDeckResponse {
                valid: false,
                row_count: 0,
                currency: String::new(),
                problem_count: u32::try_from(total).unwrap_or(u32::MAX),
                problems: errors
                    .into_iter()
                    .map(|error| v1::DeckProblem {
                        line: u32::try_from(error.line).unwrap_or(u32::MAX),
                        column: String::new(),
                        reason: error.reason,
                    })
                    .collect(),
            },
        };
        Ok(Response::new(answer))
    }

    async fn activate_deck(
        &self,
        request: Request<v1::ActivateDeckRequest>,
    ) -> Result<Response<v1::ActivateDeckResponse>, Status> {
        let _entered = self.gate.enter()?;
        let v1::ActivateDeckRequest { deck, csv } = request.into_inner();
        let mut violations = FieldViolations::new();
        // A deck is named like a tenant.
        let name = violations.take("deck", TenantId::new(&deck));
        let name = violations.finish(name)?;
        let span = info_span!("rpc", rpc = "ActivateDeck", deck);
        let activated = self.apart(move |administration| async move {
            administration.activate_deck(name.as_str(), &csv).await.map_err(self::administration)
        });
        let activated = activated.instrument(span).await?;
        Ok(Response::new(v1::ActivateDeckResponse {
            deck,
            deck_version: activated.version,
            row_count: count(activated.rows),
            currency: activated.currency,
            tenant_count: activated.tenants,
        }))
    }

    async fn run_audit(
        &self,
        request: Request<v1::RunAuditRequest>,
    ) -> Result<Response<v1::RunAuditResponse>, Status> {
        let _entered = self.gate.enter()?;
        let tenant_id = request.into_inner().tenant_id;
        let mut violations = FieldViolations::new();
        let tenant = match tenant_id.as_str() {
            "" => Some(None),
            given => violations.take("tenant_id", TenantId::new(given)).map(Some),
        };
        let tenant = violations.finish(tenant)?;
        let reports = self.apart(move |administration| async move {
            administration.audit(tenant.as_ref()).await.map_err(self::administration)
        });
        let reports = reports.instrument(info_span!("rpc", rpc = "RunAudit")).await?;
        Ok(Response::new(audited(&reports)))
    }

    async fn block_user(
        &self,
        request: Request<v1::BlockUserRequest>,
    ) -> Result<Response<v1::BlockUserResponse>, Status> {
        let _entered = self.gate.enter()?;
        let v1::BlockUserRequest { tenant_id, user_id, reason, operator } = request.into_inner();
        let mut violations = FieldViolations::new();
        if reason.is_empty() {
            violations.add("reason", "expected a reason for the report");
        }
        let who = read_blocked(&tenant_id, &user_id, &reason, &operator, &mut violations);
        let (tenant, user) = violations.finish(who)?;
        let span = info_span!("rpc", rpc = "BlockUser", %tenant);
        let note = BlockNote { reason, operator };
        let set = self.administration.set_block(&tenant, &user, true, note).instrument(span).await;
        let set = set.map_err(administration)?;
        Ok(Response::new(v1::BlockUserResponse {
            changed: set.changed,
            block: set.block.map(block),
        }))
    }

    async fn end_open_calls(
        &self,
        request: Request<v1::EndOpenCallsRequest>,
    ) -> Result<Response<v1::EndOpenCallsResponse>, Status> {
        let _entered = self.gate.enter()?;
        let v1::EndOpenCallsRequest { tenant_id, calls, reason, operator } = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&tenant_id));
        violations.take("reason", required_text(&reason, MAX_TEXT_BYTES));
        violations.take("operator", required_text(&operator, MAX_TEXT_BYTES));
        let calls = match calls {
            Some(WhichCalls::CallId(id)) => {
                violations.take("call_id", CallId::new(&id)).map(OpenCalls::Call)
            }
            Some(WhichCalls::PayerId(id)) => {
                violations.take("payer_id", PayerId::new(&id)).map(OpenCalls::Payer)
            }
            Some(WhichCalls::TrunkId(id)) => {
                let id = violations.take("trunk_id", required_text(&id, MAX_NAME_BYTES));
                id.map(|id| OpenCalls::Trunk(id.to_owned()))
            }
            Some(WhichCalls::All(true)) => Some(OpenCalls::All),
            Some(WhichCalls::All(false)) | None => {
                violations.add("calls", "expected call_id, payer_id, trunk_id, or all as true");
                None
            }
        };
        let (tenant, calls) = violations.finish(tenant.zip(calls))?;
        let span = info_span!("rpc", rpc = "EndOpenCalls", %tenant);
        let control = self.control.clone();
        let ended = self.apart(move |_| async move {
            let deadline = Instant::now() + END_CALLS_TIMEOUT;
            let by = (operator.as_str(), reason.as_str());
            let ended = control.end_open_calls(&tenant, &calls, by, deadline).await;
            ended.map_err(status::use_case)
        });
        let v1::EndCallsResponse {
            ended_calls,
            released_calls,
            charged_duration,
            charged_money,
            call_ids,
        } = answer::ended(&ended.instrument(span).await?);
        Ok(Response::new(v1::EndOpenCallsResponse {
            ended_calls,
            released_calls,
            charged_duration,
            charged_money,
            call_ids,
        }))
    }

    async fn unblock_user(
        &self,
        request: Request<v1::UnblockUserRequest>,
    ) -> Result<Response<v1::UnblockUserResponse>, Status> {
        let _entered = self.gate.enter()?;
        let v1::UnblockUserRequest { tenant_id, user_id, reason, operator } = request.into_inner();
        let mut violations = FieldViolations::new();
        let who = read_blocked(&tenant_id, &user_id, &reason, &operator, &mut violations);
        let (tenant, user) = violations.finish(who)?;
        let span = info_span!("rpc", rpc = "UnblockUser", %tenant);
        let note = BlockNote { reason, operator };
        let set = self.administration.set_block(&tenant, &user, false, note).instrument(span).await;
        let set = set.map_err(administration)?;
        Ok(Response::new(v1::UnblockUserResponse {
            changed: set.changed,
            block: set.block.map(block),
            still_blocked: set.still_blocked,
        }))
    }

    async fn list_blocked_users(
        &self,
        request: Request<v1::ListBlockedUsersRequest>,
    ) -> Result<Response<v1::ListBlockedUsersResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let from = violations.take("from", optional_millis(message.from.as_ref()));
        let to = violations.take("to", optional_millis(message.to.as_ref()));
        let window = from.zip(to);
        for (field, given) in [("from", &message.from), ("to", &message.to)] {
            if given.is_some() && !message.include_unblocked {
                violations.add(field, "expected include_unblocked with it");
            }
        }
        if let Some((Some(from), Some(to))) = window
            && from > to
        {
            violations.add("to", "expected an instant that is not before `from`");
        }
        let window = violations.finish(window)?;
        let (tenant, cursor, most) =
            read_page(&message.tenant_id, message.page_token, message.page_size)?;
        let cursor = cursor.as_deref();
        let found = match message.include_unblocked {
            true => self.administration.block_history(&tenant, window, cursor, most).await,
            // Those that stand are known however old they are.
            false => {
                self.administration.blocks(&tenant, cursor, most).await.map(|page| (page, None))
            }
        };
        let (page, kept_since) = found.map_err(administration)?;
        Ok(Response::new(v1::ListBlockedUsersResponse {
            records_kept_since: kept_since.and_then(to_timestamp),
            blocks: page.items.into_iter().map(block).collect(),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn adjust_balance(
        &self,
        request: Request<v1::AdjustBalanceRequest>,
    ) -> Result<Response<v1::AdjustBalanceResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let bucket =
            violations.take("bucket_id", required_text(&message.bucket_id, MAX_BUCKET_BYTES));
        let amount = read_amount(message.amount, &mut violations);
        let authority =
            read_authority(&message.key, message.reason, message.operator, &mut violations);
        let read = tenant.zip(bucket).zip(amount.zip(authority));
        let ((tenant, bucket), (amount, authority)) = violations.finish(read)?;
        let span = info_span!("rpc", rpc = "AdjustBalance", %tenant);
        let adjusted = self.administration.adjust_balance(&tenant, bucket, &amount, &authority);
        let adjusted = adjusted.instrument(span).await.map_err(administration)?;
        let currency = &adjusted.currency;
        Ok(Response::new(v1::AdjustBalanceResponse {
            replayed: adjusted.replayed,
            adjustment: Some(adjustment(&tenant, adjusted.adjustment, currency)),
            pool: adjusted.pool.as_ref().map(pool),
            credits: Some(credits(&adjusted.credits, currency)),
        }))
    }

    async fn adjust_settlement(
        &self,
        request: Request<v1::AdjustSettlementRequest>,
    ) -> Result<Response<v1::AdjustSettlementResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let mut violations = FieldViolations::new();
        let tenant = violations.take("tenant_id", TenantId::new(&message.tenant_id));
        let id = violations.take("call_id", CallId::of_client(&message.call_id));
        let used = seconds(message.used_duration.as_ref(), MAX_USAGE);
        let used = violations.take("used_duration", used);
        let authority =
            read_authority(&message.key, message.reason, message.operator, &mut violations);
        let read = tenant.zip(id).zip(used.zip(authority));
        let ((tenant, id), (used, authority)) = violations.finish(read)?;
        let span = info_span!("rpc", rpc = "AdjustSettlement", %tenant);
        let adjusted = self.administration.adjust_settlement(&tenant, &id, used, &authority);
        let adjusted = adjusted.instrument(span).await.map_err(administration)?;
        let currency = &adjusted.currency;
        Ok(Response::new(v1::AdjustSettlementResponse {
            replayed: adjusted.replayed,
            adjustment: Some(adjustment(&tenant, adjusted.adjustment, currency)),
            call: adjusted.call.as_ref().map(|found| call(&tenant, &id, found, currency)),
        }))
    }

    async fn list_adjustments(
        &self,
        request: Request<v1::ListAdjustmentsRequest>,
    ) -> Result<Response<v1::ListAdjustmentsResponse>, Status> {
        let _entered = self.gate.enter()?;
        let message = request.into_inner();
        let (tenant, cursor, most) =
            read_page(&message.tenant_id, message.page_token, message.page_size)?;
        let found = self.administration.adjustments(&tenant, cursor, most).await;
        let (page, kept_since, currency) = found.map_err(administration)?;
        let items = page.items.into_iter();
        Ok(Response::new(v1::ListAdjustmentsResponse {
            records_kept_since: kept_since.and_then(to_timestamp),
            adjustments: items.map(|record| adjustment(&tenant, record, &currency)).collect(),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }
}

/// Who corrects, why, and by which key.
fn read_authority(
    key: &str,
    reason: String,
    operator: String,
    violations: &mut FieldViolations,
) -> Option<Authority> {
    let key = violations.take("key", AdjustmentId::new(key));
    let reason_read = violations.take("reason", required_text(&reason, MAX_TEXT_BYTES)).is_some();
    let operator_read =
        violations.take("operator", required_text(&operator, MAX_TEXT_BYTES)).is_some();
    key.filter(|_| reason_read && operator_read).map(|key| Authority { key, reason, operator })
}

fn read_amount(
    amount: Option<v1::adjust_balance_request::Amount>,
    violations: &mut FieldViolations,
) -> Option<Amount> {
    use v1::adjust_balance_request::Amount::{Duration, Money};
    match amount {
        None => {
            violations.add("amount", "expected money for a lot or a duration for a pool");
            None
        }
        Some(Money(money)) => violations
            .take("money", signed_micros(&money))
            .map(|(amount, currency)| Amount::Money(amount, currency.code().to_owned())),
        Some(Duration(duration)) => {
            violations.take("duration", signed_seconds(duration, MAX_POOL)).map(Amount::Minutes)
        }
    }
}

fn adjustment(tenant: &TenantId, record: AdjustmentRecord, currency: &str) -> v1::Adjustment {
    let AdjustmentRecord { entry, report } = record;
    let sum = |kind: &str, of: fn(&Posting) -> i64| -> i64 {
        let postings = entry.postings.iter().filter(|posting| posting.bucket.starts_with(kind));
        postings.map(of).sum()
    };
    let (adjusted, spent) =
        (|posting: &Posting| posting.adjusted, |posting: &Posting| posting.spent);
    let of_call = entry.is_of_call();
    // Postings name a bucket with what kind it is of.
    let bucket = entry.subject.split_once(':').map_or("", |(_, bucket)| bucket);
    v1::Adjustment {
        key: report.key,
        adjusted_at: to_timestamp(entry.at),
        tenant_id: tenant.as_str().to_owned(),
        bucket_id: if of_call { String::new() } else { bucket.to_owned() },
        call_id: if of_call { entry.subject.clone() } else { String::new() },
        payer_id: entry.payer.clone(),
        adjusted_duration: to_duration(Seconds(sum("p:", adjusted))),
        adjusted_money: to_money(Micros(sum("l:", adjusted)), currency),
        used_before: to_duration(report.used_before),
        used_after: to_duration(entry.used),
        charged_duration: to_duration(Seconds(sum("p:", spent))),
        charged_money: to_money(Micros(sum("l:", spent)), currency),
        shortfall_duration: to_duration(entry.shortfall_duration),
        shortfall_money: to_money(entry.shortfall_money, currency),
        reason: report.reason,
        operator: report.operator,
    }
}

fn read_page(
    tenant: &str,
    page_token: String,
    size: i32,
) -> Result<(TenantId, Option<String>, usize), Status> {
    let mut violations = FieldViolations::new();
    let tenant = violations.take("tenant_id", TenantId::new(tenant));
    violations.take("page_token", text(&page_token, MAX_TOKEN_BYTES));
    let size = violations.take("page_size", page_size(size));
    let (tenant, size) = violations.finish(tenant.zip(size))?;
    Ok((tenant, Some(page_token).filter(|token| !token.is_empty()), size))
}

fn read_blocked(
    tenant: &str,
    user: &str,
    reason: &str,
    operator: &str,
    violations: &mut FieldViolations,
) -> Option<(TenantId, PayerId)> {
    let tenant = violations.take("tenant_id", TenantId::new(tenant));
    let user = violations.take("user_id", PayerId::new(user));
    violations.take("operator", text(operator, MAX_TEXT_BYTES));
    violations.take("reason", text(reason, MAX_TEXT_BYTES));
    tenant.zip(user)
}

fn block(record: BlockRecord) -> v1::BlockRecord {
    let source = match record.by {
        BlockedBy::Operator => v1::BlockSource::Operator,
        BlockedBy::File => v1::BlockSource::OrganisationFile,
    };
    let (display_name, upn, numbers) = match record.profile {
        Some(payer) => (payer.display_name.clone(), payer.upn.clone(), payer.numbers.clone()),
        None => Default::default(),
    };
    v1::BlockRecord {
        user_id: record.payer,
        display_name,
        upn,
        numbers,
        reason: record.reason,
        blocked: record.blocked,
        occurred_at: to_timestamp(record.at),
        source: source.into(),
        operator: record.operator,
    }
}

/// Under the names that the file gives them.
fn read_payment(of: v1::Payment, violations: &mut FieldViolations) -> BTreeMap<String, String> {
    let mut payment = BTreeMap::new();
    for (name, value) in [("agreement", of.agreement), ("purchase_order", of.purchase_order)] {
        violations.take(format!("payment.{name}"), text(&value, MAX_TEXT_BYTES));
        if !value.is_empty() {
            payment.insert(name.to_owned(), value);
        }
    }
    payment
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

fn pool(pool: &PoolBalance) -> v1::Pool {
    let counter = match pool.counter.as_str() {
        "DOMESTIC" => v1::PoolCounter::Domestic,
        "INTERNATIONAL" => v1::PoolCounter::International,
        "CONFERENCE" => v1::PoolCounter::Conference,
        _ => v1::PoolCounter::Unspecified,
    };
    v1::Pool {
        pool_id: pool.id.as_str().to_owned(),
        country: pool.country.clone(),
        plan: pool.plan.clone(),
        counter: counter.into(),
        period: pool.month.clone(),
        user_id: pool.user.clone(),
        granted: to_duration(pool.granted),
        held: to_duration(pool.held),
        spent: to_duration(pool.spent),
        available: to_duration(pool.available),
    }
}

fn credits(of: &Credits, currency: &str) -> v1::Credits {
    v1::Credits {
        funded: to_money(of.funded, currency),
        held: to_money(of.held, currency),
        spent: to_money(of.spent, currency),
        expired: to_money(of.expired, currency),
        available: to_money(of.available, currency),
        lots: of.lots.iter().map(|lot| credit_lot(lot, currency)).collect(),
        adjusted: to_money(of.adjusted, currency),
        owed: to_money(of.owed, currency),
        overage: to_money(of.overage.held + of.overage.spent, currency),
        overage_held: to_money(of.overage.held, currency),
        overage_spent: to_money(of.overage.spent, currency),
        past_overage: of.past_overage.iter().map(|past| overage_month(past, currency)).collect(),
    }
}

fn overage_month(of: &Overage, currency: &str) -> v1::OverageMonth {
    v1::OverageMonth {
        period: of.month.clone(),
        held: to_money(of.held, currency),
        spent: to_money(of.spent, currency),
    }
}

fn recharge(of: &RechargeState, currency: &str) -> v1::RechargeState {
    let in_flight = of.in_flight.as_ref();
    let known = |instant: Millis| (instant > Millis::ZERO).then(|| to_timestamp(instant)).flatten();
    v1::RechargeState {
        enabled: of.enabled,
        in_flight_key: in_flight.map(|(key, _)| key.as_str().to_owned()).unwrap_or_default(),
        in_flight_amount: to_money(in_flight.map(|(_, r)| r.amount).unwrap_or_default(), currency),
        requested_at: in_flight.and_then(|(_, request)| to_timestamp(request.requested_at)),
        failure_count: u32::try_from(of.failures).unwrap_or(u32::MAX),
        next_attempt_at: known(of.next_attempt_at),
        requested_today: to_money(of.requested_today, currency),
        daily_cap: of.daily_cap.and_then(|cap| to_money(cap, currency)),
    }
}

fn credit_lot(lot: &CreditLot, currency: &str) -> v1::CreditLot {
    v1::CreditLot {
        key: lot.key.as_str().to_owned(),
        purchased_at: to_timestamp(lot.purchased_at),
        expires_at: to_timestamp(lot.expires_at),
        amount: to_money(lot.amount, currency),
        remaining: to_money(lot.remaining, currency),
        adjusted: to_money(lot.adjusted, currency),
    }
}

fn call(tenant: &TenantId, id: &CallId, call: &Call, currency: &str) -> v1::Call {
    let open = call.state.is_open();
    let known = |instant: Millis| (instant > Millis::ZERO).then(|| to_timestamp(instant)).flatten();
    let context = CallContext::decode(&call.context);
    let mut message = v1::Call {
        tenant_id: tenant.as_str().to_owned(),
        call_id: id.as_str().to_owned(),
        state: call_state(call.state).into(),
        payer_id: call.payer.clone(),
        trunk_id: call.trunk.clone(),
        decision: call.decision.map_or(v1::Decision::Unspecified, answer::decision).into(),
        authorized_at: (call.state != CallState::Ended)
            .then(|| to_timestamp(call.authorized_at))
            .flatten(),
        answered_at: known(call.answered_at),
        expires_at: open.then(|| to_timestamp(call.deadline)).flatten(),
        ended_at: known(call.ended_at),
        used_duration: to_duration(call.used.max(call.parked)),
        granted_duration: to_duration(call.granted),
        final_grant: call.final_grant(),
        charged_duration: to_duration(call.pool_spent() + call.money_duration),
        charged_money: to_money(call.money_spent(), currency),
        shortfall_duration: to_duration(call.shortfall_duration),
        shortfall_money: to_money(call.shortfall_money, currency),
        ..v1::Call::default()
    };
    if call.decision.is_some_and(|decision| decision.allowed()) {
        let lines = if open { funding_held(call) } else { funding_charged(call) };
        message.funding = answer::funding(&lines, currency);
    }
    if open {
        message.charged_duration = to_duration(Seconds::ZERO);
        message.charged_money = to_money(Micros::ZERO, currency);
    }
    if let Some(context) = context {
        message.call_type = answer::call_type(context.call_type).into();
        message.classification = context.classification.as_ref().map(answer::classification);
        message.calling_number = context.calling_number;
        message.called_number = context.called_number;
        message.decision_id = context.decision_id;
        if call.money.is_some() {
            message.deck_version = context.deck_version;
        }
    }
    message
}

fn call_state(state: CallState) -> v1::CallState {
    match state {
        CallState::Denied => v1::CallState::Denied,
        CallState::Ringing => v1::CallState::Ringing,
        CallState::Answered => v1::CallState::Answered,
        CallState::Settled => v1::CallState::Settled,
        CallState::Released => v1::CallState::Released,
        CallState::Expired => v1::CallState::Expired,
        CallState::Ended => v1::CallState::Ended,
    }
}

fn decision(tenant: &TenantId, record: DecisionRecord) -> v1::DecisionRecord {
    let DecisionRecord { entry, context, funding } = record;
    let mut message = v1::DecisionRecord {
        decided_at: to_timestamp(entry.at),
        tenant_id: tenant.as_str().to_owned(),
        call_id: entry.subject,
        payer_id: entry.payer,
        decision: entry.decision.map_or(v1::Decision::Unspecified, answer::decision).into(),
        granted_duration: to_duration(entry.granted),
        ..v1::DecisionRecord::default()
    };
    message.detail =
        entry.decision.map(|decision| detail(decision, context.as_ref())).unwrap_or_default();
    let mut currency = String::new();
    if let Some(context) = context {
        currency = context.currency;
        message.decision_id = context.decision_id;
        message.call_type = answer::call_type(context.call_type).into();
        message.calling_number = context.calling_number;
        message.called_number = context.called_number;
        message.classification = context.classification.as_ref().map(answer::classification);
        message.deck_version = context.deck_version;
        message.flags = context.flags;
        message.sip_call_id = context.sip_call_id;
        message.conference_id = context.conference_id;
        message.on_behalf_of = context.on_behalf_of;
        message.origin = answer::origin(&context.origin).into();
        message.labels = context.labels;
    }
    message.funding = answer::funding(&funding, &currency);
    message
}

/// An event as WatchEvents sends it, in protobuf JSON on one line: the body of a webhook.
pub fn event_json(event: Event, tenant: &TenantId, currency: &str) -> Result<String, String> {
    to_json_line(&event_message(event, tenant, currency)).map_err(|error| error.to_string())
}

fn event_message(event: Event, tenant: &TenantId, currency: &str) -> v1::Event {
    let Event { id, cursor, kind, entry } = event;
    let (of_call, of_bucket) = match kind {
        EventKind::PoolThreshold
        | EventKind::PoolExhausted
        | EventKind::CreditsExpired
        | EventKind::RechargeRequested
        | EventKind::RechargeSucceeded
        | EventKind::RechargeFailed => (String::new(), entry.subject.clone()),
        EventKind::CreditsDepleted | EventKind::LedgerRegressed => (String::new(), String::new()),
        _ => (entry.subject.clone(), String::new()),
    };
    let spent = |kind: &str| -> i64 {
        let postings = entry.postings.iter().filter(|posting| posting.bucket.starts_with(kind));
        postings.map(|posting| posting.spent).sum()
    };
    v1::Event {
        event_id: id,
        cursor: cursor.unwrap_or_default(),
        r#type: event_type(kind).into(),
        occurred_at: to_timestamp(entry.at),
        tenant_id: tenant.as_str().to_owned(),
        call_id: of_call,
        payer_id: entry.payer.clone(),
        bucket_id: of_bucket,
        decision: entry.decision.map_or(v1::Decision::Unspecified, answer::decision).into(),
        used_duration: to_duration(entry.used),
        charged_duration: to_duration(Seconds(spent("p:"))),
        charged_money: to_money(Micros(spent("l:")), currency),
        shortfall_duration: to_duration(entry.shortfall_duration),
        shortfall_money: to_money(entry.shortfall_money, currency),
        amount: to_money(entry.recharge_amount().unwrap_or_default(), currency),
        reason: match kind {
            EventKind::RechargeFailed | EventKind::LedgerRegressed => {
                String::from_utf8_lossy(&entry.report).into_owned()
            }
            EventKind::UnauthorizedUsage => match EndReport::decode(&entry.report).token_fault {
                fault if fault.is_empty() => fault,
                fault => format!("token {fault}"),
            },
            _ => String::new(),
        },
        granted_duration: to_duration(entry.granted),
    }
}

fn event_type(kind: EventKind) -> v1::EventType {
    match kind {
        EventKind::CallSettled => v1::EventType::CallSettled,
        EventKind::CallDenied => v1::EventType::CallDenied,
        EventKind::CallExpired => v1::EventType::CallExpired,
        EventKind::LateSettle => v1::EventType::LateSettle,
        EventKind::CreditsDepleted => v1::EventType::CreditsDepleted,
        EventKind::CreditsExpired => v1::EventType::CreditsExpired,
        EventKind::PoolThreshold => v1::EventType::PoolThreshold,
        EventKind::PoolExhausted => v1::EventType::PoolExhausted,
        EventKind::Shortfall => v1::EventType::Shortfall,
        EventKind::UnauthorizedUsage => v1::EventType::UnauthorizedUsage,
        EventKind::EmergencyCall => v1::EventType::EmergencyCall,
        EventKind::RechargeRequested => v1::EventType::RechargeRequested,
        EventKind::RechargeSucceeded => v1::EventType::RechargeSucceeded,
        EventKind::RechargeFailed => v1::EventType::RechargeFailed,
        EventKind::LedgerRegressed => v1::EventType::LedgerRegressed,
    }
}

fn usage(record: UsageRecord) -> v1::UsageRecord {
    v1::UsageRecord {
        start_time: to_timestamp(record.start),
        end_time: to_timestamp(record.end),
        duration: to_duration(record.duration),
        connection_fee: to_money(record.connection_fee, &record.currency),
        charge: to_money(record.charge, &record.currency),
        decision: record.decision.map_or(v1::Decision::Unspecified, answer::decision).into(),
        usage_id: record.usage_id,
        call_id: record.call_id,
        conference_id: record.conference_id,
        user_location: record.user_location,
        aad_object_id: record.object_id,
        upn: record.upn,
        user_display_name: record.display_name,
        caller_id: record.caller_id,
        call_type: record.call_type,
        number_type: record.number_type,
        domestic_international: record.reach,
        destination_dialed: record.destination,
        destination_number: record.destination_number,
        currency: record.currency,
        capability: record.capability,
        sip_call_id: record.sip_call_id,
    }
}

fn audited(reports: &[(TenantId, Report)]) -> v1::RunAuditResponse {
    let sum = |of: fn(&Report) -> usize| count(reports.iter().map(|(_, report)| of(report)).sum());
    let finding = |(tenant, finding): (&TenantId, &Finding)| v1::AuditFinding {
        invariant: finding.invariant.into(),
        tenant_id: tenant.as_str().to_owned(),
        key: finding.key.clone(),
        detail: finding.detail.clone(),
    };
    let findings = reports
        .iter()
        .flat_map(|(tenant, report)| report.findings.iter().map(move |found| (tenant, found)));
    let finding_count = sum(|report| report.findings.len());
    v1::RunAuditResponse {
        clean: finding_count == 0,
        finding_count,
        findings: findings.take(MAX_FINDINGS).map(finding).collect(),
        checked_tenants: count(reports.len()),
        checked_buckets: sum(|report| report.checked.buckets),
        checked_calls: sum(|report| report.checked.calls),
        checked_decisions: sum(|report| report.checked.entries),
    }
}
