//! The file of callers: who they are, how they are known, what they may do.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::security::roles::Role;
use crate::security::{BadFile, Reason};

/// Most callers of a file.
const MAX_CALLERS: usize = 10_000;

/// Longest bearer token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    callers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    tenants: Vec<String>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    tokens: Vec<TokenEntry>,
    requests_per_second: Option<NonZeroU32>,
    requests_in_flight: Option<NonZeroU32>,
    message_size: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    sha256: String,
    expires_at: Option<String>,
}

/// One caller.
pub struct Identity {
    /// In the log.
    pub name: String,
    /// What it may ask for.
    pub role: Role,
    /// Its tenants; `None`: all of them.
    tenants: Option<Vec<String>>,
    /// Requests a second.
    pub(super) rate: Option<(NonZeroU32, Arc<DefaultDirectRateLimiter>)>,
    /// Requests at a time.
    pub(super) in_flight: Option<(NonZeroU32, Arc<Semaphore>)>,
    /// Largest message, in bytes.
    pub(super) message_size: Option<NonZeroU32>,
}

impl Identity {
    /// Whether every tenant is this caller's.
    pub fn has_all_tenants(&self) -> bool {
        self.tenants.is_none()
    }

    /// Whether this tenant is this caller's.
    pub fn has_tenant(&self, tenant: &[u8]) -> bool {
        let listed = |list: &Vec<String>| list.iter().any(|own| own.as_bytes() == tenant);
        self.tenants.as_ref().is_none_or(listed)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, {:?})", self.name, self.role)
    }
}

/// All of them.
#[derive(Debug)]
pub struct Identities {
    callers: HashMap<String, Arc<Identity>>,
    certificates: HashMap<String, Arc<Identity>>,
    tokens: HashMap<[u8; 32], (Arc<Identity>, Option<Timestamp>)>,
}

impl Identities {
    /// Reads the text of a file. Limits that stay as they were in `before` go on counting.
    pub fn parse(path: &Path, text: &str, before: Option<&Self>) -> Result<Self, BadFile> {
        // The message of the parser alone: it does not repeat the text, which may hold a secret by mistake.
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            BadFile::new(path, format!("line {line}: {}", error.message()))
        })?;
        let bad = |message: String| BadFile::new(path, message);
        if file.callers.is_empty() || file.callers.len() > MAX_CALLERS {
            return Err(bad(format!("expected 1 to {MAX_CALLERS} callers")));
        }
        let (callers, certificates, tokens) = Default::default();
        let mut all = Identities { callers, certificates, tokens };
        for entry in file.callers {
            all.add(entry, before).map_err(bad)?;
        }
        Ok(all)
    }

    fn add(&mut self, entry: Entry, before: Option<&Self>) -> Result<(), String> {
        let name = entry.name;
        let well_named = (1..=128).contains(&name.len()) && !name.chars().any(char::is_control);
        if !well_named {
            return Err(format!("{name:?}: expected a name of 1 to 128 bytes, no controls"));
        }
        let wrong = |what: &str| format!("caller {name:?}: {what}");
        if entry.certificates.is_empty() && entry.tokens.is_empty() {
            return Err(wrong("expected certificates or tokens"));
        }
        let all = entry.tenants.iter().any(|tenant| tenant == "*");
        if all && entry.tenants.len() > 1 {
            return Err(wrong("expected either \"*\" alone or names of tenants"));
        }
        if entry.tenants.is_empty() && entry.role != Role::Probe {
            return Err(wrong("expected tenants, or \"*\" for all"));
        }
        let old = before.and_then(|before| before.callers.get(&name));
        let rate = entry.requests_per_second.map(|most| {
            let old = old.and_then(|old| old.rate.clone()).filter(|(was, _)| *was == most);
            let new = || (most, Arc::new(RateLimiter::direct(Quota::per_second(most))));
            old.unwrap_or_else(new)
        });
        let in_flight = entry.requests_in_flight.map(|most| {
            let old = old.and_then(|old| old.in_flight.clone()).filter(|(was, _)| *was == most);
            let permits = usize::try_from(most.get()).unwrap_or(usize::MAX);
            let new = || (most, Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))));
            old.unwrap_or_else(new)
        });
        let identity = Arc::new(Identity {
            name: name.clone(),
            role: entry.role,
            tenants: (!all).then_some(entry.tenants),
            rate,
            in_flight,
            message_size: entry.message_size,
        });
        for certificate in entry.certificates {
            let known = ["DNS:", "URI:"]
                .iter()
                .any(|kind| certificate.strip_prefix(kind).is_some_and(|rest| !rest.is_empty()));
            if !known {
                return Err(wrong(
                    "expected certificates such as DNS:sbc.example or URI:spiffe://…",
                ));
            }
            let certificate = normal(&certificate);
            if let Some(other) = self.certificates.insert(certificate, identity.clone()) {
                return Err(wrong(&format!("a certificate of {:?} too", other.name)));
            }
        }
        for token in entry.tokens {
            let hash = hex::decode(&token.sha256).ok().and_then(|hash| hash.try_into().ok());
            let hash: [u8; 32] =
                hash.ok_or_else(|| wrong("expected sha256 of a token as 64 hex digits"))?;
            let expires = token.expires_at.map(|at| at.parse::<Timestamp>()).transpose();
            let expires =
                expires.map_err(|_| wrong("expected expires_at such as 2027-01-01T00:00:00Z"))?;
            if let Some((other, _)) = self.tokens.insert(hash, (identity.clone(), expires)) {
                return Err(wrong(&format!("a token of {:?} too", other.name)));
            }
        }
        match self.callers.insert(name.clone(), identity) {
            Some(_) => Err(wrong("a name that stands twice")),
            None => Ok(()),
        }
    }

    /// How many callers.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Whether there are none; a file always has one.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// Who has this token, now.
    pub fn by_token(&self, token: &[u8]) -> Result<Arc<Identity>, Reason> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::UnknownToken);
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        let (identity, expires) = self.tokens.get(&hash).ok_or(Reason::UnknownToken)?;
        match expires {
            Some(at) if *at <= Timestamp::now() => Err(Reason::ExpiredToken),
            _ => Ok(identity.clone()),
        }
    }

    /// Who has a certificate with these names, each as `DNS:` or `URI:` and the name.
    pub fn by_certificate(&self, names: &[String]) -> Result<Arc<Identity>, Reason> {
        let mut found: Option<&Arc<Identity>> = None;
        for identity in names.iter().filter_map(|name| self.certificates.get(name)) {
            if found.is_some_and(|before| before.name != identity.name) {
                return Err(Reason::UnknownCertificate);
            }
            found = Some(identity);
        }
        found.cloned().ok_or(Reason::UnknownCertificate)
    }
}

/// Names of DNS are the same in capitals.
pub(super) fn normal(name: &str) -> String {
    match name.starts_with("DNS:") {
        true => format!("DNS:{}", name[4..].to_ascii_lowercase()),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Identities, String> {
        Identities::parse(Path::new("callers.toml"), text, None).map_err(|error| error.to_string())
    }

    fn hash(token: &str) -> String {
        hex::encode(Sha256::digest(token))
    }

    #[test]
    fn callers_are_found_by_token_and_by_certificate() {
        let (one, old) = (hash("one"), hash("old"));
        let all = parse(&format!(
            "[[callers]]\nname = 'a'\nrole = 'sbc'\ntenants = ['x']\ncertificates = ['DNS:A.example', 'URI:spiffe://a']\n\
             tokens = [{{ sha256 = '{one}' }}, {{ sha256 = '{old}', expires_at = '2020-01-01T00:00:00Z' }}]\n\
             [[callers]]\nname = 'b'\nrole = 'probe'\ntenants = []\ncertificates = ['DNS:b.example']\n"
        ))
        .expect("it is right");
        assert_eq!(all.by_token(b"one").expect("known").name, "a");
        assert_eq!(all.by_token(b"old").expect_err("late"), Reason::ExpiredToken);
        assert_eq!(all.by_token(b"two").expect_err("nobody's"), Reason::UnknownToken);
        let names = |names: &[&str]| names.iter().map(|n| normal(n)).collect::<Vec<_>>();
        let a = all.by_certificate(&names(&["DNS:other", "DNS:a.EXAMPLE"])).expect("known");
        assert!(a.has_tenant(b"x") && !a.has_tenant(b"y") && !a.has_all_tenants());
        let both = all.by_certificate(&names(&["DNS:a.example", "DNS:b.example"]));
        assert_eq!(both.expect_err("whose is it"), Reason::UnknownCertificate);
    }

    #[test]
    fn a_file_that_is_wrong_says_where_and_never_repeats_a_token() {
        let one = hash("one");
        for (text, expected) in [
            (String::new(), "missing field `callers`"),
            ("callers = []".to_owned(), "expected 1 to 10000 callers"),
            (
                "[[callers]]\nname = 'a'\nrole = 'sbc'\ntenants = ['x']".to_owned(),
                "expected certificates or tokens",
            ),
            (
                "[[callers]]\nname = 'a'\nrole = 'king'\ntenants = ['x']".to_owned(),
                "line 3: unknown variant `king`",
            ),
            (
                "[[callers]]\nname = 'a'\nrole = 'sbc'\ntenants = ['x']\ntoken = 'hidden'".to_owned(),
                "line 5: unknown field `token`",
            ),
            (
                "[[callers]]\nname = 'a'\nrole = 'sbc'\ntenants = ['x']\ntokens = [{ sha256 = 'hidden' }]"
                    .to_owned(),
                "expected sha256 of a token as 64 hex digits",
            ),
            (
                format!("[[callers]]\nname = 'a'\nrole = 'sbc'\ntenants = ['*', 'x']\ntokens = [{{ sha256 = '{one}' }}]"),
                "either \"*\" alone",
            ),
            (
                format!("[[callers]]\nname = 'a'\nrole = 'sbc'\ntenants = ['x']\ntokens = [{{ sha256 = '{one}' }}, {{ sha256 = '{one}' }}]"),
                "a token of \"a\" too",
            ),
        ] {
            let error = parse(&text).expect_err("it is wrong");
            assert!(error.contains(expected) && !error.contains("hidden"), "{error}");
        }
    }
}
