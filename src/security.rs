//! Who may ask for what: identities, roles, limits and TLS.
//!
//! Everything that refuses a request for who asks it is here, before the services: one table of roles
//! against RPCs ([`roles`]), one place where a caller is recognised and its tenant compared ([`guard`]).

pub mod guard;
pub mod identities;
pub mod roles;
pub mod tls;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};

use crate::metrics::{self, Reloaded};
use crate::security::identities::Identities;
use crate::security::tls::Tls;

/// Emergency calls of callers that nobody knows, each second, by all of them together. No flood of them
/// takes the machine from calls that are known; each second has room for new ones.
const STRANGERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Lines in the log about refusals, each second; further ones are counted in the next line.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// What is configured; the files are not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may ask; `None`: everybody may do everything.
    pub identities: Option<PathBuf>,
    /// Certificates of the server in PEM, its own first, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The authorities, in PEM, that clients must be certified by.
    pub client_ca: Option<PathBuf>,
    /// Whether health is told to everybody on the gRPC listeners too.
    pub open_health: bool,
}

/// Why a file of these settings cannot be used; never tells a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?}: {message}")]
pub struct BadFile {
    path: PathBuf,
    message: String,
}

impl BadFile {
    pub(crate) fn new(path: &Path, message: impl ToString) -> BadFile {
        BadFile { path: path.to_owned(), message: message.to_string() }
    }
}

/// Why requests are refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Neither a token nor a certificate.
    NoCredential,
    /// A token that nobody has, or that is malformed.
    UnknownToken,
    /// A token after its time.
    ExpiredToken,
    /// A certificate whose names are nobody's, or those of several.
    UnknownCertificate,
    /// The RPC is not for this role.
    Role,
    /// The message names a tenant that is not the caller's, or that does not exist.
    Tenant,
    /// More requests than the caller may make in this time.
    Rate,
    /// More requests at a time than the caller may have.
    InFlight,
    /// A larger message than the caller may send.
    MessageSize,
    /// Emergency calls of unknown callers, more than can be.
    Strangers,
    /// A connection without a handshake of TLS, or with a certificate that nobody vouches for.
    Handshake,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 11] = [
        Reason::NoCredential,
        Reason::UnknownToken,
        Reason::ExpiredToken,
        Reason::UnknownCertificate,
        Reason::Role,
        Reason::Tenant,
        Reason::Rate,
        Reason::InFlight,
        Reason::MessageSize,
        Reason::Strangers,
        Reason::Handshake,
    ];

    /// Its name in the log and as a label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::NoCredential => "no_credential",
            Reason::UnknownToken => "unknown_token",
            Reason::ExpiredToken => "expired_token",
            Reason::UnknownCertificate => "unknown_certificate",
            Reason::Role => "role",
            Reason::Tenant => "tenant",
            Reason::Rate => "rate",
            Reason::InFlight => "in_flight",
            Reason::MessageSize => "message_size",
            Reason::Strangers => "strangers",
            Reason::Handshake => "handshake",
        }
    }
}

/// Refusals, counted and told.
#[derive(Debug)]
pub struct Refusals {
    counts: [AtomicU64; Reason::ALL.len()],
    lines: DefaultDirectRateLimiter,
    untold: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Refusals {
            counts: Default::default(),
            lines: RateLimiter::direct(Quota::per_second(LINES_PER_SECOND)),
            untold: AtomicU64::new(0),
        }
    }
}

impl Refusals {
    /// Records one: who, from where, what for, why. Texts of the caller are escaped here and cut.
    pub fn record(&self, caller: &str, peer: &str, rpc: &str, reason: Reason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        metrics::get().refused(reason as usize);
        if self.lines.check().is_err() {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let untold = self.untold.swap(0, Ordering::Relaxed);
        let cut = |text: &str| text.chars().take(128).collect::<String>();
        let (caller, peer, rpc) = (cut(caller), cut(peer), cut(rpc));
        tracing::warn!(?caller, ?peer, ?rpc, reason = reason.name(), untold, "refused");
    }

    /// How many there were for this reason since the start.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }
}

/// See the module. Shared by all listeners.
pub struct Security {
    settings: Settings,
    /// `None`: nobody is asked who it is.
    identities: Option<ArcSwap<Identities>>,
    tls: Option<Arc<Tls>>,
    refusals: Refusals,
    strangers: DefaultDirectRateLimiter,
    /// Told at each look at the files: answers that go on are judged anew.
    looks: watch::Sender<()>,
    /// Digests of what was last read: of the identities, and of the certificates.
    read: Mutex<[Option<[u8; 32]>; 2]>,
}

impl Security {
    /// Reads what the settings name.
    pub fn load(settings: Settings) -> Result<Security, BadFile> {
        let identities = match &settings.identities {
            Some(path) => Some(Identities::parse(path, &read_text(path)?, None)?),
            None => None,
        };
        let tls = match &settings.certificate {
            Some(files) => Some(Arc::new(Tls::load(files, settings.client_ca.as_deref())?)),
            None => None,
        };
        let read = Mutex::new([identities_digest(&settings), certificates_digest(&settings)]);
        Ok(Security {
            settings,
            identities: identities.map(ArcSwap::from_pointee),
            tls,
            refusals: Refusals::default(),
            strangers: RateLimiter::direct(Quota::per_second(STRANGERS_PER_SECOND)),
            looks: watch::Sender::new(()),
            read,
        })
    }

    /// Every file of these settings that cannot be used, by the setting that names it.
    pub fn problems(settings: &Settings) -> Vec<(&'static str, BadFile)> {
        let mut problems = vec![];
        if let Some(path) = &settings.identities
            && let Err(error) =
                read_text(path).and_then(|text| Identities::parse(path, &text, None))
        {
            problems.push(("identities_file", error));
        }
        if let Some(files) = &settings.certificate
            && let Err(error) = Tls::load(files, settings.client_ca.as_deref())
        {
            problems.push(("tls_cert", error));
        }
        problems
    }

    /// What was refused.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The certificates, where there are any.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Whether callers are asked who they are.
    pub fn has_identities(&self) -> bool {
        self.identities.is_some()
    }

    /// Reads again what has changed: judged first, and what is in force stays where the new is bad. Then ends
    /// the streams of those who may not ask for them any more, be it that a token has expired.
    pub async fn reload(self: &Arc<Self>) {
        let security = self.clone();
        let mut read = self.read.lock().await;
        let before = *read;
        let reloaded = tokio::task::spawn_blocking(move || security.reload_now(before)).await;
        if let Ok(now) = reloaded {
            *read = now;
        }
        self.looks.send_replace(());
    }

    fn reload_now(&self, before: [Option<[u8; 32]>; 2]) -> [Option<[u8; 32]>; 2] {
        let now = [identities_digest(&self.settings), certificates_digest(&self.settings)];
        if now[0] != before[0]
            && let (Some(path), Some(current)) = (&self.settings.identities, &self.identities)
        {
            let new = read_text(path)
                .and_then(|text| Identities::parse(path, &text, Some(&current.load_full())));
            match new {
                Ok(new) => {
                    tracing::info!(callers = new.len(), "the identities are read again");
                    current.store(Arc::new(new));
                    metrics::get().reloaded(Reloaded::Identities, true);
                }
                Err(error) => {
                    tracing::error!(%error, "the new identities cannot be used; the old stay");
                    metrics::get().reloaded(Reloaded::Identities, false);
                }
            }
        }
        if now[1] != before[1]
            && let (Some(files), Some(tls)) = (&self.settings.certificate, &self.tls)
        {
            match tls.reload(files, self.settings.client_ca.as_deref()) {
                Ok(()) => {
                    tracing::info!("the certificates are read again");
                    metrics::get().reloaded(Reloaded::Certificates, true);
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificates cannot be used; the old stay");
                    metrics::get().reloaded(Reloaded::Certificates, false);
                }
            }
        }
        now
    }
}

/// Of one file, or of several, whether or not they can be read: another digest means that something has
/// changed. Contents are compared, as links of Kubernetes keep their times.
fn digest(paths: &[&Path]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for path in paths {
        match std::fs::read(path) {
            Ok(bytes) => {
                digest.update([1]);
                digest.update(bytes.len().to_be_bytes());
                digest.update(bytes);
            }
            Err(_) => digest.update([0]),
        }
    }
    digest.finalize().into()
}

fn identities_digest(settings: &Settings) -> Option<[u8; 32]> {
    settings.identities.as_ref().map(|path| digest(&[path]))
}

fn certificates_digest(settings: &Settings) -> Option<[u8; 32]> {
    let (certificate, key) = settings.certificate.as_ref()?;
    let paths = [Some(certificate), Some(key), settings.client_ca.as_ref()];
    let paths: Vec<&Path> = paths.into_iter().flatten().map(PathBuf::as_path).collect();
    Some(digest(&paths))
}

fn read_text(path: &Path) -> Result<String, BadFile> {
    std::fs::read_to_string(path)
        .map_err(|error| BadFile::new(path, format!("cannot be read: {error}")))
}
