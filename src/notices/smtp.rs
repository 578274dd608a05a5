//! Mails on their way: through one SMTP relay, one mail for each address.

use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use crate::notices::Attempt;
use crate::notices::mail::Text;

/// Sends mails.
pub struct Mails {
    relay: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// Why one mail was not taken.
enum Failed {
    /// It may be, later.
    Later(String),
    /// The relay does not want this mail for this address.
    Refused(String),
}

impl Mails {
    /// Through the relay at a URL: `smtp://`, `smtps://`, or `smtp://USER:PASSWORD@HOST?tls=required`.
    pub fn new(url: &str, from: Mailbox, timeout: Duration) -> Result<Mails, String> {
        // An error says that the program has chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let relay = AsyncSmtpTransport::<Tokio1Executor>::from_url(url);
        // The error is not told: it may repeat the password.
        let relay = relay.map_err(|_| "expected the URL of an SMTP relay".to_owned())?;
        Ok(Mails { relay: relay.timeout(Some(timeout)).build(), from })
    }

    /// One attempt at one event: a mail to each of `to` that is not in `done`, which are added to it.
    ///
    /// An address that the relay does not want is given up when another was taken; when none was, the
    /// fault is more likely the relay's or the settings', and all are tried again.
    pub async fn send(
        &self,
        text: &Text,
        id: &str,
        to: &[String],
        done: &mut Vec<String>,
    ) -> Attempt {
        let (mut later, mut refused) = (None, vec![]);
        for address in to {
            if done.contains(address) {
                continue;
            }
            match self.send_one(text, id, address).await {
                Ok(()) => done.push(address.clone()),
                Err(Failed::Later(reason)) => later = Some(reason),
                Err(Failed::Refused(reason)) => refused.push(format!("{address}: {reason}")),
            }
        }
        match (later, refused.is_empty()) {
            (Some(reason), _) => Attempt::Later(reason),
            (None, true) => Attempt::Done,
            (None, false) if done.is_empty() => Attempt::Refused(refused.join("; ")),
            (None, false) => {
                let refused = refused.join("; ");
                tracing::error!(refused, "the relay does not take mails to some addresses");
                Attempt::Done
            }
        }
    }

    async fn send_one(&self, text: &Text, id: &str, to: &str) -> Result<(), Failed> {
        let wrong = |what: &dyn std::error::Error| Failed::Refused(what.to_string());
        let to: Address = to.parse().map_err(|error| wrong(&error))?;
        let from = &self.from.email;
        let envelope = Envelope::new(Some(from.clone()), vec![to.clone()]);
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(text.subject.clone())
            .message_id(Some(format!("<{id}@{}>", from.domain())))
            .header(ContentType::TEXT_PLAIN)
            // Nobody's absence note answers it (RFC 3834).
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .body(text.body.clone())
            .map_err(|error| wrong(&error))?;
        let envelope = envelope.map_err(|error| wrong(&error))?;
        let sent = self.relay.send_raw(&envelope, &message.formatted()).await;
        sent.map(|_| ()).map_err(|error| match is_of_this_mail(&error) {
            true => Failed::Refused(error.to_string()),
            false => Failed::Later(error.to_string()),
        })
    }
}

/// Whether a relay has refused a mail, rather than the connection or who makes it.
fn is_of_this_mail(error: &Error) -> bool {
    let code = error.status().map(|code| code.to_string()).unwrap_or_default();
    error.is_permanent() && (code.starts_with("55") || code == "501")
}
