//! Webhooks: signed by the Standard Webhooks scheme, posted to those who may be reached.
//!
//! A receiver of a tenant's is named by the tenant's document, not by who runs the server: unless the
//! settings say otherwise it must speak https and have a public address, so that nobody reaches the
//! server's own network through it. No redirect is followed, no proxy of the environment is used, and of
//! an answer only the status is looked at.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, redirect};
use sha2::Sha256;
use url::{Host, Url};

use crate::charging::ids::TenantId;
use crate::notices::Attempt;

/// Most bytes of an answer that are read, so that its connection can be used again.
const MOST_ANSWER_BYTES: usize = 16 << 10;

/// How long that may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Shortest and longest secret, in bytes (Standard Webhooks).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Who a webhook goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    /// Where.
    pub(super) url: String,
    /// Whether the server's own settings name it, rather than a tenant's document.
    pub(super) of_server: bool,
}

/// What webhooks are signed with: of each tenant, or of all that have none of their own.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(HashMap<Option<TenantId>, Vec<Vec<u8>>>);

/// Without the secrets.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Lines, or parts between commas, of `whsec_BASE64` or `TENANT whsec_BASE64`; `#` begins a comment.
    ///
    /// The error counts the secrets and never repeats one.
    pub fn parse(text: &str) -> Result<Secrets, String> {
        let mut secrets: HashMap<_, Vec<_>> = HashMap::new();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let parts = lines.flat_map(|line| line.split(',')).map(str::trim);
        for (n, line) in parts.filter(|part| !part.is_empty()).enumerate() {
            let (tenant, secret) = match line.split_once(char::is_whitespace) {
                Some((tenant, secret)) => (Some(TenantId::new(tenant)), secret.trim()),
                None => (None, line),
            };
            let key = secret.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
            let key = key.filter(|key| SECRET_BYTES.contains(&key.len()));
            let (Ok(tenant), Some(key)) = (tenant.transpose(), key) else {
                return Err(format!(
                    "expected whsec_ and 24 to 64 bytes in base64, after a tenant or alone, in secret {}",
                    n + 1
                ));
            };
            secrets.entry(tenant).or_default().push(key);
        }
        match secrets.is_empty() {
            true => Err("expected at least one secret".to_owned()),
            false => Ok(Secrets(secrets)),
        }
    }

    /// Those that sign for a tenant.
    fn of(&self, tenant: &TenantId) -> Option<&[Vec<u8>]> {
        let found = self.0.get(&Some(tenant.clone())).or_else(|| self.0.get(&None));
        found.map(Vec::as_slice)
    }
}

/// The value of `webhook-signature`: one signature for each secret, so that one can be replaced while
/// the receiver still checks by the other.
fn signatures(secrets: &[Vec<u8>], id: &str, timestamp: u64, body: &str) -> String {
    let sign = |secret: &Vec<u8>| {
        // A key of any length is right.
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

/// Posts webhooks.
pub(super) struct Webhooks {
    /// To whom the server's settings name.
    trusted: Client,
    /// To whom tenants name.
    guarded: Client,
    secrets: Secrets,
    private: bool,
}

impl Webhooks {
    /// With the secrets of the settings; `private`: tenants' receivers may be private and of http.
    pub(super) fn new(
        secrets: Secrets,
        timeout: Duration,
        private: bool,
    ) -> Result<Webhooks, String> {
        // An error says that the program has chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .timeout(timeout)
                .connect_timeout(timeout)
                .pool_max_idle_per_host(1)
                .pool_idle_timeout(Duration::from_secs(30))
                .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        };
        let build = |client: reqwest::ClientBuilder| client.build().map_err(|error| told(&error));
        let trusted = build(client())?;
        let guarded = match private {
            true => trusted.clone(),
            false => build(client().dns_resolver(Arc::new(PublicOnly)))?,
        };
        Ok(Webhooks { trusted, guarded, secrets, private })
    }

    /// One attempt at one event.
    pub(super) async fn post(
        &self,
        to: &Receiver,
        tenant: &TenantId,
        id: &str,
        body: String,
    ) -> Attempt {
        let Some(secrets) = self.secrets.of(tenant) else {
            return Attempt::Refused("no secret is set for the tenant".to_owned());
        };
        let url = match reachable(to, self.private) {
            Ok(url) => url,
            Err(reason) => return Attempt::Refused(reason),
        };
        let client = if to.of_server { &self.trusted } else { &self.guarded };
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures(secrets, id, timestamp, &body))
            .body(body);
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Later(told(&error.without_url())),
        };
        let status = answer.status();
        let reading = async {
            let mut read = 0;
            while read <= MOST_ANSWER_BYTES
                && let Ok(Some(chunk)) = answer.chunk().await
            {
                read += chunk.len();
            }
        };
        // Where it is long or slow the connection is given up, and the status counts all the same.
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, reading).await;
        match status.as_u16() {
            200..300 => Attempt::Done,
            410 => Attempt::Refused("the receiver answered 410: it is gone for good".to_owned()),
            300..400 => Attempt::Refused(format!(
                "the receiver answered {status}: redirects are not followed"
            )),
            408 | 425 | 429 | 500.. => Attempt::Later(format!("the receiver answered {status}")),
            _ => Attempt::Refused(format!("the receiver answered {status}")),
        }
    }
}

/// Whether a webhook may be posted there, or why not.
fn reachable(to: &Receiver, private: bool) -> Result<Url, String> {
    let url = Url::parse(&to.url).map_err(|error| format!("expected a URL: {error}"))?;
    let local = match url.host() {
        None => return Err("expected a URL with a host".to_owned()),
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
    };
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => None,
    };
    if !to.of_server && !private {
        if url.scheme() != "https" {
            return Err("the receivers of tenants must be of https".to_owned());
        }
        if literal.is_some_and(|address| !is_public(address)) {
            return Err("the receivers of tenants must have public addresses".to_owned());
        }
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if local || private => Ok(url),
        _ => Err("a receiver must be of https, or of http on loopback".to_owned()),
    }
}

/// Whether the setting of a server's own receiver can be used.
pub fn check_own(url: &str, private: bool) -> Result<(), String> {
    reachable(&Receiver { url: url.to_owned(), of_server: true }, private).map(|_| ())
}

/// Finds public addresses only.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|found| is_public(found.ip())).collect();
            match public.is_empty() {
                true => Err("the receiver has no public address".into()),
                false => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address is of the internet, by the registries of special addresses of IANA.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, .., g, h] = address.segments();
    // Addresses that stand for one of IPv4: mapped, NAT64, 6to4.
    let embedded = |high: u16, low: u16| {
        let ([p, q], [r, s]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(p, q, r, s))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] => embedded(g, h),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(g, h),
        [0x2002, high, low, ..] => embedded(high, low),
        // Global unicast, without documentation, Teredo, and what serves protocols.
        _ => {
            (0x2000..0x4000).contains(&a)
                && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
                && a != 0x3fff
        }
    }
}

/// An error with what caused it, which is where the reason stands.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_signature_is_that_of_the_standard_s_own_example() {
        let secrets = Secrets::parse(SECRET).expect("a secret");
        let secrets = secrets.of(&TenantId::literal("contoso")).expect("it is for all");
        let signed = signatures(
            secrets,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_of_tenants_or_of_all_and_several_sign() {
        let other = format!("whsec_{}", STANDARD.encode([7; 32]));
        let text = format!("# old, new\n{SECRET}\n\n{other}\nfabrikam {other}\n");
        let secrets = Secrets::parse(&text).expect("secrets");
        let of = |tenant| secrets.of(&TenantId::literal(tenant)).expect("secrets").len();
        assert_eq!((of("contoso"), of("fabrikam")), (2, 1));
        let both =
            signatures(secrets.of(&TenantId::literal("contoso")).unwrap_or_default(), "i", 1, "b");
        let parts: Vec<&str> = both.split(' ').collect();
        assert!(parts.len() == 2 && parts.iter().all(|part| part.starts_with("v1,")), "{both}");
        assert!(!format!("{secrets:?}").contains("whsec"));
        let own = Secrets::parse(&format!("fabrikam {SECRET}")).expect("a secret");
        assert_eq!(own.of(&TenantId::literal("contoso")), None);
        for wrong in ["", "# none", "hidden", "whsec_c2hvcnQ=", "a b whsec_x", "whsec_%%%"] {
            let error = Secrets::parse(wrong).expect_err("it is none");
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
    }

    #[track_caller]
    fn check(url: &str, of_server: bool, private: bool, allowed: bool) {
        let found = reachable(&Receiver { url: url.to_owned(), of_server }, private);
        assert_eq!(found.is_ok(), allowed, "{url}: {found:?}");
    }

    #[test]
    fn a_tenant_s_receiver_is_public_and_of_https_unless_the_server_allows_more() {
        for (url, tenant, server, private) in [
            ("https://contoso.example/hook", true, true, true),
            ("https://8.8.8.8/", true, true, true),
            ("https://10.0.0.1/", false, true, true),
            ("https://[::1]/", false, true, true),
            ("https://169.254.169.254/", false, true, true),
            ("http://contoso.example/", false, false, true),
            ("http://127.0.0.1:8080/", false, true, true),
            ("http://localhost/", false, true, true),
            ("http://[::1]/", false, true, true),
            ("http://127.1/", false, true, true),
            ("http://0x7f000001/", false, true, true),
            ("ftp://contoso.example/", false, false, false),
            ("file:///etc/passwd", false, false, false),
            ("contoso.example", false, false, false),
        ] {
            check(url, false, false, tenant);
            check(url, true, false, server);
            check(url, false, true, private);
        }
    }

    #[test]
    fn addresses_that_are_not_of_the_internet_are_known() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }
}
