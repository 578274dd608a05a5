//! Notices: what happens to a tenant, told to its administrators (rules 51 and 66).
//!
//! Follows each tenant's journal as WatchEvents does, and sends the chosen events on: as signed webhooks,
//! and as mail through a relay. How far each of the two channels of a tenant is, the ledger keeps, with a
//! lease, so that of several sidecars one sends and another goes on where it stopped when it is gone.
//!
//! At least once and in order, for each tenant and channel: an event is done with when its receiver took
//! it. A receiver that fails is tried again, with pauses that grow, and keeps back only its own channel of
//! its own tenant. The journal is the queue: nothing is kept in memory but one page a channel at work,
//! and of those a bounded number.
//!
//! Must not know gRPC or Redis, nor how an event is printed: that is given.

mod follow;
pub mod kinds;
mod mail;
mod smtp;
pub mod webhook;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::charging::ids::TenantId;
use crate::charging::units::{Millis, Seconds};
use crate::events::Event;
use crate::ledger::{Ledger, LedgerError, TenantRecord};
use crate::notices::follow::Follower;
use crate::notices::kinds::Kinds;
use crate::notices::smtp::Mails;
use crate::notices::webhook::{Receiver, Secrets, Webhooks};

/// Followers of one channel that read and send at a time; the others wait for their turn.
const AT_WORK: usize = 64;

/// Looks for new tenants and new receivers, in looks for new events.
const LOOKS_PER_REFRESH: u32 = 5;

/// An event as the JSON that a webhook carries, given the tenant and the currency of its money.
pub type Print = fn(Event, &TenantId, &str) -> Result<String, String>;

/// What notices are sent, how and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Webhooks; `None`: none are sent.
    pub webhooks: Option<WebhookSettings>,
    /// Mails; `None`: none are sent.
    pub mails: Option<MailSettings>,
    /// Tenants beside those that were applied, such as the one of calls that nobody can be charged for.
    pub also: Vec<TenantId>,
    /// Longest attempt.
    pub timeout: Duration,
    /// Time between two looks for new events.
    pub interval: Duration,
    /// How long a sidecar that is gone keeps the others waiting; more than two attempts.
    pub lease: Seconds,
    /// First pause after a failure; each further one is twice as long.
    pub first_pause: Duration,
    /// Longest pause, before jitter, which may double it.
    pub longest_pause: Duration,
    /// How old an event may become while its receiver fails; then it is given up.
    pub keep: Seconds,
}

/// How webhooks are sent.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Who is told of tenants without a receiver of their own.
    pub url: Option<String>,
    /// What they are signed with.
    pub secrets: Secrets,
    /// What they tell.
    pub kinds: Kinds,
    /// Whether tenants' receivers may be private and of http.
    pub private: bool,
}

/// How mails are sent.
#[derive(Clone)]
pub struct MailSettings {
    /// The relay.
    pub url: String,
    /// Sender.
    pub from: Mailbox,
    /// What they tell.
    pub kinds: Kinds,
}

/// Without the URL, which may hold a password.
impl fmt::Debug for MailSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailSettings({})", self.from)
    }
}

/// How an attempt to send ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attempt {
    /// The receiver took it.
    Done,
    /// It may take it when it is tried again.
    Later(String),
    /// It will not, as things are set up: told loudly, tried again rarely.
    Refused(String),
}

/// One of the ways in which a tenant is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Channel {
    Webhook,
    Mail,
}

impl Channel {
    /// Name of its reader in the ledger.
    fn name(self) -> &'static str {
        match self {
            Channel::Webhook => "webhook",
            Channel::Mail => "mail",
        }
    }
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    to: To,
    /// Of the tenant's money.
    currency: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Webhook(Receiver),
    Mail(Vec<String>),
}

/// What all followers share.
struct Shared<L> {
    ledger: Arc<L>,
    settings: Settings,
    print: Print,
    webhooks: Option<Webhooks>,
    mails: Option<Mails>,
    /// This process, in the ledger.
    owner: String,
    webhooks_at_work: Semaphore,
    mails_at_work: Semaphore,
}

/// What sends notices, made but not started.
pub struct Notices<L>(Arc<Shared<L>>);

impl<L: Ledger> Notices<L> {
    /// An error is a setting that cannot be used.
    pub fn new(ledger: Arc<L>, settings: Settings, print: Print) -> Result<Notices<L>, String> {
        let webhooks = settings.webhooks.as_ref();
        let webhooks = webhooks
            .map(|set| Webhooks::new(set.secrets.clone(), settings.timeout, set.private))
            .transpose()?;
        let mails = settings.mails.as_ref();
        let mails = mails
            .map(|set| Mails::new(&set.url, set.from.clone(), settings.timeout))
            .transpose()?;
        Ok(Notices(Arc::new(Shared {
            ledger,
            settings,
            print,
            webhooks,
            mails,
            owner: uuid::Uuid::now_v7().to_string(),
            webhooks_at_work: Semaphore::new(AT_WORK),
            mails_at_work: Semaphore::new(AT_WORK),
        })))
    }

    /// Sends until `stop`, then lets others go on. Ends at once, with all it has started, when dropped.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        let (stopping, stopped) = watch::channel(false);
        let mut crew = Crew {
            shared: self.0,
            stopped,
            tasks: JoinSet::new(),
            hired: HashMap::new(),
            warned: HashSet::new(),
        };
        let every = crew.shared.settings.interval * LOOKS_PER_REFRESH;
        let refreshing = async {
            let mut last = None;
            loop {
                match crew.refresh(last).await {
                    Ok(now) => last = Some(now).or(last),
                    Err(error) => tracing::warn!(%error, "notices wait for the ledger"),
                }
                tokio::time::sleep(every).await;
            }
        };
        tokio::select! {
            () = stop => {}
            () = refreshing => {}
        }
        stopping.send_replace(true);
        while crew.tasks.join_next().await.is_some() {}
    }
}

/// The followers at work.
struct Crew<L> {
    shared: Arc<Shared<L>>,
    stopped: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    hired: HashMap<(TenantId, Channel), (watch::Sender<Target>, AbortHandle)>,
    /// Of whom it was said that they are not told, once.
    warned: HashSet<(TenantId, Channel)>,
}

impl<L: Ledger> Crew<L> {
    /// Looks who is to be told now. What was not there at the `last` look is told from then on: nothing
    /// that happened since is missed. The ledger's instant of this look.
    async fn refresh(&mut self, last: Option<Millis>) -> Result<Millis, LedgerError> {
        let mut tenants = self.shared.ledger.tenants().await?;
        tenants.extend(self.shared.settings.also.iter().cloned());
        while self.tasks.try_join_next().is_some() {}
        let mut begun = None;
        for tenant in tenants {
            let found = match self.shared.ledger.record(&tenant).await {
                Err(LedgerError::Corrupt(what)) => {
                    tracing::error!(%tenant, what, "who is told of the tenant cannot be read");
                    continue;
                }
                found => found?,
            };
            let now = *begun.get_or_insert(found.now);
            for channel in [Channel::Webhook, Channel::Mail] {
                let target = self.shared.target(channel, found.outcome.as_ref());
                self.warn_once(&tenant, channel, target.is_some(), found.outcome.as_ref());
                self.assign(&tenant, channel, target, last.unwrap_or(now));
            }
        }
        // Without any tenant there is no instant, and none is needed: the first will be new.
        Ok(begun.or(last).unwrap_or(Millis::ZERO))
    }

    /// A tenant that names somebody to be told by a channel that this server does not have.
    fn warn_once(
        &mut self,
        tenant: &TenantId,
        channel: Channel,
        is_told: bool,
        record: Option<&TenantRecord>,
    ) {
        let named =
            record.map(|record| &record.profile.notices).is_some_and(|notices| match channel {
                Channel::Webhook => notices.webhook.is_some(),
                Channel::Mail => !notices.emails.is_empty(),
            });
        if named && !is_told && self.warned.insert((tenant.clone(), channel)) {
            let channel = channel.name();
            tracing::warn!(%tenant, channel, "a tenant wants notices that this server is not set up to send");
        }
    }

    fn assign(&mut self, tenant: &TenantId, channel: Channel, to: Option<Target>, since: Millis) {
        let key = (tenant.clone(), channel);
        let Some(target) = to else {
            if let Some((_, follower)) = self.hired.remove(&key) {
                follower.abort();
            }
            return;
        };
        // One that has ended by itself met a fault of its own: it is hired anew.
        let known = self.hired.get(&key).filter(|(_, follower)| !follower.is_finished());
        if let Some((told, _)) = known {
            told.send_if_modified(|known| {
                let changed = *known != target;
                *known = target;
                changed
            });
            return;
        }
        let (tell, told) = watch::channel(target);
        let follower = Follower::new(self.shared.clone(), tenant.clone(), channel, told, since);
        let task = self.tasks.spawn(follower.run(self.stopped.clone()));
        self.hired.insert(key, (tell, task));
    }
}

impl<L> Shared<L> {
    /// Who is told of a tenant.
    fn target(&self, channel: Channel, record: Option<&TenantRecord>) -> Option<Target> {
        let profile = record.map(|record| &record.profile);
        let to = match channel {
            Channel::Webhook => {
                let set = self.settings.webhooks.as_ref()?;
                let own = profile.and_then(|profile| profile.notices.webhook.clone());
                let of_server = own.is_none();
                To::Webhook(Receiver { url: own.or_else(|| set.url.clone())?, of_server })
            }
            Channel::Mail => {
                self.mails.as_ref()?;
                let emails = profile.map(|profile| profile.notices.emails.clone());
                To::Mail(emails.filter(|emails| !emails.is_empty())?)
            }
        };
        let currency = profile.map(|profile| profile.currency.clone()).unwrap_or_default();
        Some(Target { to, currency })
    }
}

/// What a receiver knows an event by that it is sent again: the same for the same event, on every channel
/// and from every sidecar, and of no other event, of whatever tenant.
fn notice_id(tenant: &TenantId, event: &Event) -> String {
    let name = format!("{tenant}\n{}\n{}", event.id, event.entry.at);
    hex::encode(&Sha256::digest(name)[..16])
}
