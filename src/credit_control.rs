//! The use cases: authorize, report an answer, extend, settle, release, quote, end.
//!
//! Generic over the ledger; knows nothing of gRPC or Redis. Emergency calls are decided first, from
//! local data ([`emergency`]). Everything else is one command to the ledger, made from what the
//! [`directory`] remembers and checked by the ledger against its versions.

pub mod answer;
pub mod directives;
pub mod directory;
pub mod emergency;
pub mod erasing;
pub mod erasure;
pub mod journaled;
pub mod leases;
pub mod quote;
pub mod records;
pub mod replay;
pub mod signed_grant;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{Instrument, Level, Span};

use crate::charging::catalogue::CountryCode;
use crate::charging::decision::{Decision, Nuance};
use crate::charging::entitlement::{self, Attempt, CallType, Entitlement, Setup, Verdict};
use crate::charging::ids::{CallId, PayerId, TenantId};
use crate::charging::profile::{OnFailure, OnLostSettle, PayerKind, TenantProfile};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::{
    Answer, CallContext, Charge, EndReport, denial, explain, funding_charged, trunk,
};
use crate::credit_control::directory::{Directory, Tenant};
use crate::credit_control::emergency::RawRequest;
use crate::credit_control::leases::Leases;
use crate::credit_control::records::Records;
pub use crate::credit_control::signed_grant::SharedKeys;
use crate::credit_control::signed_grant::{TokenFault, TokenKeys};
use crate::journal::Journal;
use crate::journal::entry::Effect;
use crate::ledger::marks::Marks;
use crate::ledger::state::{Call, Terms};
use crate::ledger::{
    Answered, Authorize, Authorized, CallLimits, End, EndResult, Ended, Ending, Extend, Extended,
    Ledger, LedgerError, MoneyOffer, Offer, PayerView, PoolOffer, Proposal, Reply, Restored,
    Versions,
};
use crate::metrics::{self, Command, Degraded, Entry};

/// How often a decision is made again because the ledger answered stale, before it counts as away.
const MAX_DECISIONS: usize = 4;

/// Shortest length that is granted to a free call that names none.
const FREE_GRANT: Seconds = Seconds(4 * 3600);

/// Settings of the use cases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Length of a grant or extension that names none (D5).
    pub default_grant: Seconds,
    /// Longest length of one grant or extension (D5).
    pub max_grant: Seconds,
    /// How long a called party may ring.
    pub ringing_timeout: Seconds,
    /// What an expiry waits beyond the hard stop.
    pub grace: Seconds,
    /// How long refusals are kept for retries (contract rule 3).
    pub denied_retention: Seconds,
    /// How long ended calls are kept for repeats and late reports (contract rule 3).
    pub ended_retention: Seconds,
    /// Longest wait for the ledger; a caller's shorter deadline cuts it.
    pub ledger_timeout: Duration,
    /// Whose emergency numbers count when neither payer nor trunk says (contract rule 13).
    pub emergency_country: Option<CountryCode>,
    /// What grants are signed with at first ([`SharedKeys`]); none are without.
    pub token_keys: Option<TokenKeys>,
    /// What may be granted while the ledger is away, where a tenant wants that (D20).
    pub degraded: leases::Settings,
}

/// A request to authorize or quote a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizeRequest {
    /// Whose call.
    pub tenant: TenantId,
    /// Names the call leg (contract rule 1).
    pub call: CallId,
    /// What kind.
    pub call_type: CallType,
    /// Who is to pay.
    pub payer: PayerId,
    /// As presented; may be empty.
    pub calling_number: String,
    /// As dialled.
    pub called_number: String,
    /// As dialled before the SBC rewrote it; may be empty.
    pub original_called_number: String,
    /// How long; `None`: the server chooses.
    pub requested: Option<Seconds>,
    /// How the call came about; empty for a direct one.
    pub origin: String,
    /// Who had it made; may be empty.
    pub on_behalf_of: String,
    /// May be empty.
    pub conference_id: String,
    /// May be empty.
    pub sip_call_id: String,
    /// The SBC trunk; may be empty.
    pub trunk: String,
    /// Whether [`CreditControl::report_answer`] will follow.
    pub reports_answer: bool,
    /// The client's own.
    pub labels: BTreeMap<String, String>,
}

/// A request to end a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// Whose call.
    pub tenant: TenantId,
    /// The call leg.
    pub call: CallId,
    /// How it ended.
    pub how: Ending,
    /// What the client says about it.
    pub report: EndReport,
    /// The last grant's, as the client sent it; empty where it sent none.
    pub token: String,
}

/// A report of usage that asks for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendRequest {
    /// Whose call.
    pub tenant: TenantId,
    /// The call leg.
    pub call: CallId,
    /// Usage since answer.
    pub used: Seconds,
    /// Number of the report; `None`: newer than any before.
    pub sequence: Option<i64>,
    /// How long beyond `used`; `None`: the server chooses.
    pub requested: Option<Seconds>,
    /// The last grant's, as the client sent it; empty where it sent none.
    pub token: String,
}

/// Why a use case has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UseCaseError {
    /// No call of that key.
    #[error("no such call")]
    NoSuchCall,
    /// A release after the answer.
    #[error("the call was answered; settle it with what was used")]
    AnsweredAlready,
    /// The ledger gave no outcome.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Which open calls an operator ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenCalls {
    /// This one.
    Call(CallId),
    /// Those of a payer.
    Payer(PayerId),
    /// Those of a trunk.
    Trunk(String),
    /// All of the tenant.
    All,
}

/// What `EndCalls` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedCalls {
    /// The calls that were ended, each with what it was charged.
    pub calls: Vec<(CallId, Seconds, Micros)>,
    /// How many of them were never answered.
    pub released: u32,
    /// ISO 4217 code of the tenant.
    pub currency: String,
}

/// The use cases on one ledger.
pub struct CreditControl<L> {
    ledger: Arc<L>,
    directory: Arc<Directory>,
    settings: Settings,
    records: Arc<Records>,
    /// `None` where there is none.
    journal: Option<Arc<Journal>>,
    leases: Arc<Leases>,
    token_keys: SharedKeys,
    /// What the ledger acknowledged to this sidecar.
    marks: Arc<Marks>,
    /// When this was made, by the clock that a change of the machine's time does not move.
    made: Instant,
    /// Store's clock at `made`, in milliseconds, by its last answer; before the first, this machine's.
    made_at: AtomicI64,
}

impl<L: Ledger> CreditControl<L> {
    /// Joins a ledger and settings; starts the task that delivers records of calls that were decided
    /// without the ledger, so it must be called within a runtime.
    pub fn new(ledger: Arc<L>, settings: Settings) -> Self {
        CreditControl::with_journal(ledger, settings, None)
    }

    /// The same with a journal, which [`CreditControl::drain`] brings to the ledger.
    pub fn with_journal(ledger: Arc<L>, settings: Settings, journal: Option<Arc<Journal>>) -> Self {
        let leases = Arc::new(Leases::new(settings.degraded, journal.as_deref()));
        if let Some(journal) = &journal {
            let known = journal.marks().iter();
            let known = known.map(|(tenant, mark)| (tenant.clone(), *mark));
            ledger.marks().adopt(journal.sidecar(), known);
        }
        let keys = SharedKeys::default();
        keys.set(settings.token_keys.clone());
        CreditControl::with_directory(ledger, settings, (Arc::default(), leases, keys), journal)
    }

    fn with_directory(
        ledger: Arc<L>,
        settings: Settings,
        (directory, leases, token_keys): (Arc<Directory>, Arc<Leases>, SharedKeys),
        journal: Option<Arc<Journal>>,
    ) -> Self {
        let (records, marks) = (Arc::new(Records::start(ledger.clone())), ledger.marks());
        let (made, made_at) = (Instant::now(), AtomicI64::new(local_millis()));
        CreditControl {
            ledger,
            directory,
            settings,
            records,
            journal,
            leases,
            token_keys,
            marks,
            made,
            made_at,
        }
    }

    /// The same on a connection of its own, for the thread that this is called on: what is remembered is
    /// shared, what waits for the ledger is not.
    pub async fn on_this_thread(&self) -> Result<Self, LedgerError> {
        let ledger = self.ledger.on_this_thread().await?;
        let shared = (self.directory.clone(), self.leases.clone(), self.token_keys.clone());
        let (settings, journal) = (self.settings.clone(), self.journal.clone());
        Ok(CreditControl::with_directory(ledger, settings, shared, journal))
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<L> {
        &self.ledger
    }

    /// What is remembered of tenants, payers and decks.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Has this sidecar counted by another name where its own is old ([`Marks`]); the instant before which such
    /// names may be [forgotten](Ledger::forget_runs).
    pub fn rename_old_run(&self) -> Millis {
        self.marks.rename_old_run(Millis(local_millis()))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What grants are signed with from now on, on every thread.
    pub fn token_keys(&self) -> &SharedKeys {
        &self.token_keys
    }

    /// The journal, where there is one.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Decides a call that is no emergency, and holds what it may cost.
    ///
    /// A refusal is an answer; so is a ledger that is out of reach ([`Decision::LedgerUnavailable`]).
    /// That one is not stored: the same request is decided anew, and what the ledger may have held
    /// unseen is found again by its key, given back by a release, or expires.
    pub async fn authorize(&self, request: &AuthorizeRequest, deadline: Instant) -> Answer {
        if self.leases.calls() > 0
            && let Some(answer) = Box::pin(self.granted_before(request)).await
        {
            return answer;
        }
        let mut tries = 1;
        loop {
            match self.try_authorize(request, deadline).await {
                Ok(answer) => return answer,
                Err(error) => {
                    let retry = tries < 2
                        && Instant::now() < deadline
                        && self.on_failure(request) == OnFailure::RetryThenTerminate;
                    if !retry {
                        return Box::pin(self.without_ledger(request, &error)).await;
                    }
                    tries += 1;
                }
            }
        }
    }

    async fn try_authorize(
        &self,
        request: &AuthorizeRequest,
        deadline: Instant,
    ) -> Result<Answer, LedgerError> {
        let AuthorizeRequest { tenant: tenant_id, payer: payer_id, .. } = request;
        for _ in 0..MAX_DECISIONS {
            let (tenant, payer) = self.look_up(tenant_id, payer_id, deadline).await?;
            if tenant.profile().is_none() {
                return Ok(self.refuse_stranger(request, &tenant, &payer));
            }
            let (command, context) = self.command(request, &tenant, &payer);
            let reply =
                self.within(Command::Authorize, deadline, self.ledger.authorize(&command)).await?;
            self.set_clock(reply.now);
            let profile = tenant.profile();
            let refused = |decision: Decision| {
                let detail = explain(decision).to_owned();
                let denial = denial(decision, Nuance::None, detail, trunk(profile, &request.trunk));
                Answer::refused(denial, Some(context.clone()))
            };
            return Ok(match reply.outcome {
                // The ledger keeps the context as it was sent.
                Authorized::Decided(call) => {
                    self.note_sources(request, &command, profile, &call);
                    self.note(tenant_id, reply.now, || Effect::Authorized {
                        leases: vec![],
                        id: request.call.clone(),
                        call: Cow::Borrowed(&call),
                    });
                    let answer = Answer::with(&call, Some(context), profile, reply.now, false);
                    self.sign(answer, &tenant, (tenant_id, &request.call), &call, reply.now)
                }
                Authorized::Replayed(call) => {
                    self.note_standing(tenant_id, reply.now, &request.call, &call);
                    self.grant(&tenant, (tenant_id, &request.call), &call, reply.now, true)
                }
                Authorized::Conflict => refused(Decision::KeyConflict),
                Authorized::Ended => refused(Decision::CallAlreadyEnded),
                Authorized::RateLimited => refused(Decision::RateLimited),
                Authorized::Stale => {
                    if !is_of_another_month(&command, reply.now) {
                        let (ledger, stale) = (&self.ledger, command.versions);
                        let read = self.directory.refresh(ledger, tenant_id, payer_id, stale);
                        Box::pin(self.within(Command::Directory, deadline, read)).await?;
                    }
                    // By what is known now it may be an emergency call after all.
                    if let Some(answer) = self.authorize_emergency(&raw(request), deadline).await {
                        return Ok(answer);
                    }
                    continue;
                }
            });
        }
        Err(LedgerError::Unavailable(format!("{MAX_DECISIONS} decisions in a row were stale")))
    }

    /// The refusal of a call whose tenant nobody knows: an answer like any other, but there is no ledger
    /// that could keep it.
    fn refuse_stranger(
        &self,
        request: &AuthorizeRequest,
        tenant: &Tenant,
        payer: &PayerView,
    ) -> Answer {
        let setup = setup(tenant, payer);
        let verdict = entitlement::decide(&attempt(request, self.now()), &setup, &mut ());
        let (decision, nuance) = match verdict.entitlement {
            Entitlement::Refused(decision, nuance) => (decision, nuance),
            _ => (Decision::PayerUnknown, Nuance::None),
        };
        Answer::refused(denial(decision, nuance, verdict.detail, None), None)
    }

    async fn look_up(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        deadline: Instant,
    ) -> Result<(Arc<Tenant>, Arc<PayerView>), LedgerError> {
        if let (Some(tenant), Some(payer)) = self.directory.remembered(tenant, payer) {
            metrics::get().looked_up(Entry::Tenant, true);
            metrics::get().looked_up(Entry::Payer, true);
            return Ok((tenant, payer));
        }
        let read = async {
            let found = self.directory.tenant(&self.ledger, tenant).await?;
            let payer = match found.profile() {
                Some(_) => self.directory.payer(&self.ledger, tenant, payer).await?,
                None => Arc::default(),
            };
            Ok((found, payer))
        };
        Box::pin(self.within(Command::Directory, deadline, read)).await
    }

    /// The rules' verdict as a command to the ledger, and what travels with it.
    fn command(
        &self,
        request: &AuthorizeRequest,
        tenant: &Tenant,
        payer: &PayerView,
    ) -> (Authorize, CallContext) {
        let now = self.now();
        let verdict = entitlement::decide(&attempt(request, now), &setup(tenant, payer), &mut ());
        let (proposal, context) = self.propose(request, tenant, payer, verdict, now);
        let command = Authorize {
            tenant: request.tenant.clone(),
            call: request.call.clone(),
            fingerprint: fingerprint(request),
            payer: request.payer.clone(),
            trunk: request.trunk.clone(),
            versions: Versions { tenant: tenant.view.version, payer: payer.version },
            context: context.encode(),
            proposal,
            denied_retention: self.settings.denied_retention,
            ended_retention: self.settings.ended_retention,
        };
        (command, context)
    }

    fn propose(
        &self,
        request: &AuthorizeRequest,
        tenant: &Tenant,
        payer: &PayerView,
        verdict: Verdict,
        now: Millis,
    ) -> (Proposal, CallContext) {
        let mut context = self.context(request, tenant, &verdict);
        let free = verdict.entitlement == Entitlement::Free;
        let default = if free { FREE_GRANT } else { self.settings.default_grant };
        let requested = self.clamp(request.requested.unwrap_or(default), &mut context.warnings);
        let mut offer = Offer {
            decision: Decision::AllowedFree,
            month: tenant.month(now).as_ref().clone(),
            terms: self.terms(request.reports_answer, free, tenant.profile()),
            requested,
            pools: vec![],
            money: None,
            limits: limits(tenant, payer),
            when_exhausted: Decision::PoolExhausted,
            when_spend_limited: Decision::PoolExhausted,
            when_velocity_limited: Decision::FraudSuspected,
        };
        match verdict.entitlement {
            Entitlement::Refused(decision, nuance) => {
                return (Proposal::Refuse(decision, nuance), context);
            }
            Entitlement::Free => {}
            Entitlement::Funded {
                pools,
                credits,
                when_exhausted,
                when_spend_limited,
                when_velocity_limited,
            } => {
                offer.decision = Decision::Allowed;
                offer.pools = pools
                    .into_iter()
                    .map(|pool| PoolOffer {
                        family: pool.family,
                        closed_by: pool.closed_by,
                        increment: pool.increment,
                    })
                    .collect();
                let spend_limit = payer.profile.as_ref().and_then(|payer| payer.spend_limit);
                context.tariff = credits.ok();
                let profile = tenant.profile();
                offer.money = context.tariff.map(|tariff| MoneyOffer {
                    tariff,
                    spend_limit,
                    overage: profile.is_some_and(TenantProfile::has_overage),
                    velocity: profile.and_then(|tenant| tenant.spend_velocity),
                });
                offer.when_exhausted = when_exhausted;
                offer.when_spend_limited = when_spend_limited;
                offer.when_velocity_limited = when_velocity_limited;
            }
        }
        (Proposal::Grant(offer), context)
    }

    fn terms(&self, reports_answer: bool, free: bool, tenant: Option<&TenantProfile>) -> Terms {
        let lost = tenant.map(|tenant| tenant.on_lost_settle).unwrap_or_default();
        Terms {
            reports_answer,
            free,
            counted: true,
            charge_granted_when_lost: lost == OnLostSettle::Granted,
            ringing: self.settings.ringing_timeout,
            longest: Seconds::ZERO,
            grace: self.settings.grace,
        }
    }

    fn clamp(&self, requested: Seconds, warnings: &mut Vec<String>) -> Seconds {
        let most = self.settings.max_grant;
        if requested > most {
            warnings.push(format!("requested_duration is cut to {most} s"));
        }
        requested.min(most)
    }

    fn context(
        &self,
        request: &AuthorizeRequest,
        tenant: &Tenant,
        verdict: &Verdict,
    ) -> CallContext {
        CallContext {
            decision_id: uuid::Uuid::now_v7().to_string(),
            call_type: request.call_type,
            calling_number: request.calling_number.clone(),
            called_number: request.called_number.clone(),
            original_called_number: request.original_called_number.clone(),
            classification: verdict.classification.clone(),
            destination: verdict.destination.clone(),
            deck_version: tenant.deck.as_ref().map(|d| d.version().to_owned()).unwrap_or_default(),
            tariff: None,
            currency: tenant.profile().map(|t| t.currency.clone()).unwrap_or_default(),
            detail: verdict.detail.clone(),
            warnings: verdict.warnings.iter().map(|&warning| warning.to_owned()).collect(),
            flags: vec![],
            origin: request.origin.clone(),
            on_behalf_of: request.on_behalf_of.clone(),
            conference_id: request.conference_id.clone(),
            sip_call_id: request.sip_call_id.clone(),
            labels: request.labels.clone(),
        }
    }

    /// The answer when the ledger gives none: free calls go through where the rules can be asked without
    /// it (contract rule 13), calls of tenants that continue capped as far as a lease pays, all others are
    /// refused, to be tried elsewhere (D20).
    async fn without_ledger(&self, request: &AuthorizeRequest, error: &LedgerError) -> Answer {
        tracing::warn!(tenant = %request.tenant, %error, "authorize without ledger");
        if let (Some(tenant), Some(payer)) =
            self.directory.remembered(&request.tenant, &request.payer)
        {
            let (mut command, context) = self.command(request, &tenant, &payer);
            if let Proposal::Grant(offer) = &command.proposal
                && offer.terms.free
            {
                command.proposal = Proposal::Record(offer.clone());
                metrics::get().degraded(Degraded::Recorded);
                return self.decide_locally(command, tenant.profile()).await;
            }
            if matches!(error, LedgerError::Unavailable(_) | LedgerError::Indeterminate(_))
                && let Some(answer) =
                    self.authorize_degraded(request, &command, &context, &tenant).await
            {
                return answer;
            }
        }
        metrics::get().degraded(Degraded::Refused);
        let detail = error.to_string();
        let denial = denial(Decision::LedgerUnavailable, Nuance::None, detail, None);
        Answer::refused(denial, None)
    }

    /// The answer of a command that needs no ledger; its record goes there when it can.
    async fn decide_locally(&self, command: Authorize, tenant: Option<&TenantProfile>) -> Answer {
        let now = self.now();
        let call = records::granted_call(&command, now);
        self.keep_record(command).await;
        Answer::of(&call, tenant, now, false)
    }

    fn on_failure(&self, request: &AuthorizeRequest) -> OnFailure {
        let tenant = self.directory.known(&request.tenant);
        let profile = tenant.as_ref().and_then(|tenant| tenant.profile());
        profile.map_or(OnFailure::Terminate, |profile| on_failure(profile, request.call_type))
    }

    /// The call was answered: its hold moves from the ringing expiry to the in-call expiry.
    pub async fn report_answer(
        &self,
        tenant: &TenantId,
        call: &CallId,
        deadline: Instant,
    ) -> Result<Answer, UseCaseError> {
        if let Some(answer) = self.answer_degraded(tenant, call) {
            return Ok(answer);
        }
        let known = self.known_tenant(tenant, deadline).await?;
        let command = crate::ledger::Answer { tenant: tenant.clone(), call: call.clone() };
        let reply = self.within(Command::Answer, deadline, self.ledger.answer(&command)).await?;
        self.set_clock(reply.now);
        match reply.outcome {
            Answered::NotFound => {
                self.may_be_replayed(tenant)?;
                Err(UseCaseError::NoSuchCall)
            }
            Answered::Denied(call) => Ok(Answer::of(&call, known.profile(), reply.now, true)),
            Answered::Standing(call) if call.state.is_open() => {
                self.note(tenant, reply.now, || Effect::Answered {
                    id: command.call.clone(),
                    call: Cow::Borrowed(&call),
                });
                Ok(self.grant(&known, (tenant, &command.call), &call, reply.now, false))
            }
            Answered::Repeated(call) => {
                self.note_standing(tenant, reply.now, &command.call, &call);
                Ok(self.grant(&known, (tenant, &command.call), &call, reply.now, true))
            }
            Answered::Standing(call) => Ok(ended_answer(&call, known.profile())),
        }
    }

    /// Records usage, and lengthens the grant as far as funds allow.
    pub async fn extend(
        &self,
        request: &ExtendRequest,
        deadline: Instant,
    ) -> Result<Answer, UseCaseError> {
        let ExtendRequest { tenant, call, used, sequence, requested, token } = request;
        let (used, sequence) = (*used, *sequence);
        let mut warnings = vec![];
        let requested = self.clamp(requested.unwrap_or(self.settings.default_grant), &mut warnings);
        if let Some(mut answer) = self.extend_degraded(request, requested) {
            answer.warnings.append(&mut warnings);
            return Ok(answer);
        }
        let known = self.known_tenant(tenant, deadline).await?;
        let command =
            Extend { tenant: tenant.clone(), call: call.clone(), used, sequence, requested };
        let mut reply =
            self.within(Command::Extend, deadline, self.ledger.extend(&command)).await?;
        if reply.outcome == Extended::NotFound && !token.is_empty() {
            match Box::pin(self.restore((tenant, call), token, deadline)).await? {
                Ok(()) => {
                    warnings.push("the ledger had no memory of the call, its token has".to_owned());
                    reply = self
                        .within(Command::Extend, deadline, self.ledger.extend(&command))
                        .await?;
                }
                Err(fault) => tracing::warn!(%tenant, %call, %fault, "an extension's token"),
            }
        }
        self.set_clock(reply.now);
        let profile = known.profile();
        if let Extended::Denied(call)
        | Extended::Granted { call, .. }
        | Extended::Stopped(call, _) = &reply.outcome
        {
            self.note(tenant, reply.now, || Effect::Extended {
                id: command.call.clone(),
                used,
                call: Cow::Borrowed(call),
            });
        }
        let mut answer = match reply.outcome {
            Extended::NotFound => {
                self.may_be_replayed(tenant)?;
                return Err(UseCaseError::NoSuchCall);
            }
            Extended::Denied(call) => {
                tracing::warn!(%tenant, call = %command.call, "usage of a refused call");
                Answer::of(&call, profile, reply.now, true)
            }
            Extended::Ended(call) => ended_answer(&call, profile),
            Extended::Granted { call, replayed } => {
                if used > reply.now.seconds_since(call.authorized_at) + Seconds(1) {
                    warnings.push("used_duration is longer than the call has existed".to_owned());
                }
                self.grant(&known, (tenant, &command.call), &call, reply.now, replayed)
            }
            Extended::Stopped(call, decision) => {
                let detail = explain(decision).to_owned();
                let denial = denial(decision, Nuance::None, detail, trunk(profile, &call.trunk));
                Answer::refused(denial, CallContext::decode(&call.context))
            }
        };
        answer.warnings.append(&mut warnings);
        Ok(answer)
    }

    /// Ends a call: charges what was used and gives back the rest.
    ///
    /// Once begun it runs to its end even if the client leaves, or has no more time.
    pub async fn end(
        self: &Arc<Self>,
        request: EndRequest,
        deadline: Instant,
    ) -> Result<Charge, UseCaseError> {
        let control = self.clone();
        let work = async move { control.try_end(request, deadline).await };
        let running = tokio::spawn(work.in_current_span());
        let cut_off = |why: &dyn std::fmt::Display| {
            Err(LedgerError::Indeterminate(format!("the settle was cut off: {why}")).into())
        };
        match tokio::time::timeout_at(deadline, running).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(stopped)) => cut_off(&stopped),
            Err(late) => cut_off(&late),
        }
    }

    /// What becomes of a command to end a call, by the ledger.
    async fn end_in_ledger(
        &self,
        command: &End,
        token: &str,
        deadline: Instant,
    ) -> Result<Charge, UseCaseError> {
        let known = self.known_tenant(&command.tenant, deadline).await?;
        let currency = known.profile().map(|t| t.currency.clone()).unwrap_or_default();
        let reply = self.end_with(command, token, deadline).await?;
        self.set_clock(reply.now);
        self.note_end(command, &reply);
        match reply.outcome {
            Ended::AnsweredAlready(_) => Err(UseCaseError::AnsweredAlready),
            Ended::NotOpen | Ended::Unknown => Err(UseCaseError::NoSuchCall),
            Ended::Done { result, call, replayed } => {
                if result == EndResult::Parked && !replayed {
                    let used = call.parked;
                    tracing::warn!(tenant = %command.tenant, call = %command.call, %used,
                        "usage without a grant is parked");
                }
                Ok(charge_of(&call, result, replayed, currency))
            }
        }
    }

    /// Ends a call; one that the ledger has no memory of is put back first, where the token proves it.
    async fn end_with(
        &self,
        command: &End,
        token: &str,
        deadline: Instant,
    ) -> Result<Reply<Ended>, LedgerError> {
        let reply = self.within(Command::End, deadline, self.ledger.end(command)).await?;
        if reply.outcome != Ended::Unknown {
            return Ok(reply);
        }
        let mut known = End { has_grant: false, ..command.clone() };
        let key = (&command.tenant, &command.call);
        if token.is_empty() || !matches!(command.how, Ending::Settle(used) if used.is_positive()) {
            self.may_be_replayed(key.0)?;
        } else if let Err(fault) = Box::pin(self.restore(key, token, deadline)).await? {
            tracing::warn!(tenant = %key.0, call = %key.1, %fault, "a settle's token");
            let token_fault = fault.to_string();
            known.report = EndReport { token_fault, ..EndReport::decode(&command.report) }.encode();
        }
        self.within(Command::End, deadline, self.ledger.end(&known)).await
    }

    /// An error where the ledger has lost something of the tenant that is being replayed: a call that it does
    /// not know may come back at any moment.
    fn may_be_replayed(&self, tenant: &TenantId) -> Result<(), LedgerError> {
        match self.marks.is_replaying(tenant) {
            true => Err(LedgerError::Unavailable("what it has lost is being replayed".to_owned())),
            false => Ok(()),
        }
    }

    /// Ends every open call of a trunk that was authorized before an instant, each charged its last
    /// proven usage: what an SBC asks for after a restart.
    pub async fn end_calls(
        &self,
        tenant: &TenantId,
        trunk: &str,
        before: Millis,
        deadline: Instant,
    ) -> Result<EndedCalls, UseCaseError> {
        let report = |_: &Call| EndReport::default();
        let is_of = |call: &Call| call.trunk == trunk && call.authorized_at < before;
        self.end_those(tenant, is_of, report, deadline).await
    }

    /// Ends open calls for an operator, each charged its last proven usage; who watches them is told.
    /// Emergency calls only by name.
    pub async fn end_open_calls(
        &self,
        tenant: &TenantId,
        calls: &OpenCalls,
        (operator, reason): (&str, &str),
        deadline: Instant,
    ) -> Result<EndedCalls, UseCaseError> {
        let report = |call: &Call| EndReport {
            ended_by: operator.to_owned(),
            reason: reason.to_owned(),
            trunk: call.trunk.clone(),
            ..EndReport::default()
        };
        if let OpenCalls::Call(id) = calls {
            let known = self.known_tenant(tenant, deadline).await?;
            let found = self.ledger.call(tenant, id);
            let found = self.within(Command::OpenCalls, deadline, found).await?;
            let currency = known.profile().map(|t| t.currency.clone()).unwrap_or_default();
            let mut ended = EndedCalls { currency, ..EndedCalls::default() };
            let call = found.filter(|call| call.state.is_open()).ok_or(UseCaseError::NoSuchCall)?;
            self.end_one(tenant, id.clone(), report(&call), &mut ended, deadline).await?;
            return Ok(ended);
        }
        let is_of = |call: &Call| {
            call.decision != Some(Decision::AllowedEmergency)
                && match calls {
                    OpenCalls::Call(_) => false,
                    OpenCalls::Payer(payer) => call.payer == payer.as_str(),
                    OpenCalls::Trunk(trunk) => call.trunk == *trunk,
                    OpenCalls::All => true,
                }
        };
        self.end_those(tenant, is_of, report, deadline).await
    }

    async fn end_those(
        &self,
        tenant: &TenantId,
        is_of: impl Fn(&Call) -> bool + Send + Sync,
        report: impl Fn(&Call) -> EndReport + Send + Sync,
        deadline: Instant,
    ) -> Result<EndedCalls, UseCaseError> {
        const PAGE: usize = 500;
        let known = self.known_tenant(tenant, deadline).await?;
        let currency = known.profile().map(|t| t.currency.clone()).unwrap_or_default();
        let mut ended = EndedCalls { currency, ..EndedCalls::default() };
        let mut cursor = None;
        loop {
            let page = self.ledger.open_calls(tenant, cursor.as_deref(), PAGE);
            let page = self.within(Command::OpenCalls, deadline, page).await?;
            let of_these = |(id, call): &(CallId, Call)| !id.is_lease() && is_of(call);
            for (id, call) in page.items.into_iter().filter(of_these) {
                self.end_one(tenant, id, report(&call), &mut ended, deadline).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(ended);
            }
        }
    }

    async fn end_one(
        &self,
        tenant: &TenantId,
        call: CallId,
        report: EndReport,
        ended: &mut EndedCalls,
        deadline: Instant,
    ) -> Result<(), LedgerError> {
        let silent = report == EndReport::default();
        let command = End {
            tenant: tenant.clone(),
            call: call.clone(),
            how: Ending::Proven,
            report: if silent { vec![] } else { report.encode() },
            ended_retention: self.settings.ended_retention,
            has_grant: false,
        };
        let reply = self.within(Command::End, deadline, self.ledger.end(&command)).await?;
        self.note_end(&command, &reply);
        if let Ended::Done { result, call: done, .. } = reply.outcome {
            ended.released += u32::from(result == EndResult::Released);
            let charged = done.pool_spent() + done.money_duration;
            ended.calls.push((call, charged, done.money_spent()));
        }
        Ok(())
    }

    /// What a call that is denied, ringing or answered stands at, with its grant signed where there are keys.
    fn grant(
        &self,
        tenant: &Tenant,
        (tenant_id, id): (&TenantId, &CallId),
        call: &Call,
        now: Millis,
        replayed: bool,
    ) -> Answer {
        let answer = Answer::of(call, tenant.profile(), now, replayed);
        self.sign(answer, tenant, (tenant_id, id), call, now)
    }

    fn sign(
        &self,
        mut answer: Answer,
        tenant: &Tenant,
        (tenant_id, id): (&TenantId, &CallId),
        call: &Call,
        now: Millis,
    ) -> Answer {
        if answer.grant.is_some()
            && call.state.is_open()
            && let Some(keys) = self.token_keys.get().as_deref()
        {
            let month = tenant.month(call.authorized_at);
            let retention = self.settings.ended_retention;
            answer.token = keys.sign(tenant_id, id, call, &month, now, retention);
        }
        answer
    }

    /// Puts back a call that the ledger has no memory of, where its token proves that it was granted; it
    /// may be in the ledger by now whoever put it there.
    ///
    /// To be boxed: it is rare and large, and every call would carry it along.
    async fn restore(
        &self,
        (tenant, call): (&TenantId, &CallId),
        token: &str,
        deadline: Instant,
    ) -> Result<Result<(), TokenFault>, LedgerError> {
        let read = match self.token_keys.get().as_deref() {
            Some(keys) => keys.read(token, tenant, call, self.settings.ended_retention),
            None => Err(TokenFault::NoKeys),
        };
        let command = match read {
            Ok(command) => command,
            Err(fault) => return Ok(Err(fault)),
        };
        match self.within(Command::Restore, deadline, self.ledger.restore(&command)).await?.outcome
        {
            Restored::Restored => {
                tracing::warn!(%tenant, %call, "the ledger had no memory of a call, its token has");
                Ok(Ok(()))
            }
            Restored::Known => Ok(Ok(())),
            Restored::TooLate => Ok(Err(TokenFault::Expired)),
            Restored::NoTenant => {
                Err(LedgerError::Unavailable("it does not know the tenant any more".to_owned()))
            }
        }
    }

    /// The tenant, or an error where nobody knows it: an unknown tenant has no calls.
    async fn known_tenant(
        &self,
        tenant: &TenantId,
        deadline: Instant,
    ) -> Result<Arc<Tenant>, UseCaseError> {
        let read = self.directory.tenant(&self.ledger, tenant);
        let found = match self.directory.known(tenant) {
            Some(known) => known,
            None => self.within(Command::Directory, deadline, read).await?,
        };
        let emergencies = tenant.as_str() == emergency::UNATTRIBUTED;
        if found.profile().is_none() && !emergencies {
            return Err(UseCaseError::NoSuchCall);
        }
        Ok(found)
    }

    /// Waits for the ledger no longer than it may take; how long that was is counted as that command's.
    async fn within<T>(
        &self,
        asked: Command,
        deadline: Instant,
        command: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let begun = Instant::now();
        let limit = deadline.min(begun + self.settings.ledger_timeout);
        let late = || LedgerError::Indeterminate("no answer within the time limit".to_owned());
        let command = tokio::time::timeout_at(limit, command);
        let span = command_span(asked);
        let answer = match span.is_none() {
            true => command.await,
            false => command.instrument(span).await,
        };
        let answer = answer.unwrap_or_else(|_| Err(late()));
        metrics::get().asked(asked, begun.elapsed(), answer.as_ref().err().map(LedgerError::fault));
        answer
    }

    /// The store's clock as far as it is known here: picks the month and the deck's row, which the
    /// ledger then checks by its own.
    pub fn now(&self) -> Millis {
        Millis(self.made_at.load(Ordering::Relaxed) + self.age())
    }

    fn set_clock(&self, store: Millis) {
        self.made_at.store(store.0 - self.age(), Ordering::Relaxed);
    }

    fn age(&self) -> i64 {
        i64::try_from(self.made.elapsed().as_millis()).unwrap_or_default()
    }

    /// Delivers what is still waiting for the ledger; `false` where time ran out first.
    pub async fn flush_records(&self, limit: Duration) -> bool {
        self.records.flush(limit).await
    }
}

/// The part of a trace that a command to the ledger is; none where the request is not traced.
fn command_span(asked: Command) -> Span {
    const TRACED: &str = "tollgate::trace";
    let is_traced = || Span::current().metadata().is_some_and(|about| about.target() == TRACED);
    match tracing::enabled!(target: TRACED, Level::TRACE) && is_traced() {
        true => tracing::trace_span!(target: TRACED, "ledger", command = asked.word()),
        false => Span::none(),
    }
}

/// What the tenant wants for calls of that type while the ledger is away (D20).
fn on_failure(tenant: &TenantProfile, call_type: CallType) -> OnFailure {
    let handling = tenant.failure_handling;
    match call_type {
        CallType::UserOutbound => handling.user_outbound,
        CallType::ConferenceDialOut => handling.conference_dial_out,
        CallType::TollFreeInbound => handling.toll_free_inbound,
        CallType::ConferenceDialIn | CallType::UserInbound => OnFailure::Terminate,
    }
}

fn local_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or_default()
}

/// Whether the ledger, whose clock says `now`, called a command stale for its month alone.
fn is_of_another_month(command: &Authorize, now: Millis) -> bool {
    matches!(&command.proposal, Proposal::Grant(offer) if !offer.month.contains(now))
}

/// A request as emergency calls are told from.
fn raw(request: &AuthorizeRequest) -> RawRequest<'_> {
    RawRequest {
        tenant: request.tenant.as_str(),
        call: request.call.as_str(),
        call_type: Some(request.call_type),
        payer: request.payer.as_str(),
        calling_number: &request.calling_number,
        called_number: &request.called_number,
        original_called_number: &request.original_called_number,
        trunk: &request.trunk,
        reports_answer: request.reports_answer,
        unvouched: "",
    }
}

/// What entitlement looks at of a request.
fn attempt(request: &AuthorizeRequest, at: Millis) -> Attempt<'_> {
    Attempt {
        call_type: request.call_type,
        calling_number: &request.calling_number,
        called_number: &request.called_number,
        transferred: matches!(request.origin.as_str(), "TRANSFER" | "FORWARD"),
        on_behalf: is_on_behalf(request),
        at,
    }
}

/// Whether somebody calls out by the payer (rule 72), who is not just named as calling by himself.
fn is_on_behalf(request: &AuthorizeRequest) -> bool {
    let of = request.on_behalf_of.as_str();
    request.origin == "ON_BEHALF" && !of.is_empty() && of != request.payer.as_str()
}

/// What entitlement looks at of a tenant.
fn setup<'a>(tenant: &'a Tenant, payer: &'a PayerView) -> Setup<'a> {
    Setup {
        tenant: tenant.profile(),
        numbers: &tenant.view.numbers,
        payer: payer.profile.as_deref(),
        barred: payer.barred,
        deck: tenant.deck.as_deref(),
    }
}

fn limits(tenant: &Tenant, payer: &PayerView) -> CallLimits {
    let of_tenant = tenant.profile().map(|tenant| tenant.limits).unwrap_or_default();
    CallLimits {
        // A service number has no callers of its own to be busy for.
        payer_calls: payer
            .profile
            .as_ref()
            .filter(|payer| payer.kind != PayerKind::TollFreeNumber)
            .and_then(|payer| payer.concurrent_calls),
        tenant_calls: of_tenant.concurrent_calls,
        calls_per_second: of_tenant.calls_per_second,
    }
}

/// Digest of the fields that change money (contract rule 3), 128 bits as hex.
fn fingerprint(request: &AuthorizeRequest) -> String {
    let requested = request.requested.map_or(-1, |seconds| seconds.0).to_string();
    let fields = [
        request.tenant.as_str(),
        request.call_type.name(),
        request.payer.as_str(),
        &request.calling_number,
        &request.called_number,
        &request.original_called_number,
        &requested,
        // Decides which licence of a resource account pays (rules 70, 72 and 73).
        if is_on_behalf(request) { "ON_BEHALF OF ANOTHER" } else { &request.origin },
    ];
    let mut digest = Sha256::new();
    for field in fields {
        digest.update(field.len().to_be_bytes());
        digest.update(field.as_bytes());
    }
    hex::encode(&digest.finalize()[..16])
}

fn ended_answer(call: &Call, tenant: Option<&TenantProfile>) -> Answer {
    let decision = Decision::CallAlreadyEnded;
    let detail = explain(decision).to_owned();
    let denial = denial(decision, Nuance::None, detail, trunk(tenant, &call.trunk));
    Answer::refused(denial, CallContext::decode(&call.context))
}

fn charge_of(call: &Call, result: EndResult, replayed: bool, currency: String) -> Charge {
    let recorded = if result == EndResult::Parked { call.parked } else { call.used };
    Charge {
        result,
        // Another usage is no repeat of the request, even though the ledger changes nothing.
        replayed: replayed && result != EndResult::AlreadySettled,
        charged_duration: call.pool_spent() + call.money_duration,
        charged_money: call.money_spent(),
        funding: funding_charged(call),
        shortfall_duration: call.shortfall_duration,
        shortfall_money: call.shortfall_money,
        recorded_duration: recorded,
        currency,
    }
}
