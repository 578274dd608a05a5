//! The way to a server: a channel, a deadline on every call, and a status in words.

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request, Status, TimeoutExpired};
use tonic_types::StatusExt;

use crate::cli::args::{Endpoint, Server, Trust};
use crate::cli::output::Failure;
use crate::proto::v1::account_service_client::AccountServiceClient;
use crate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest message either way: that of a large organisation or deck.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A client of the listener for calls.
pub type Calls = CallAuthorizationServiceClient<InterceptedService<Channel, Deadline>>;

/// A client of the listener for administration.
pub type Accounts = AccountServiceClient<InterceptedService<Channel, Deadline>>;

/// Connects to the listener for calls.
pub async fn calls(server: &Server) -> Result<Calls, Failure> {
    let channel = connect(&server.endpoint, &server.trust).await?;
    let deadline = Deadline(server.timeout, bearer(&server.trust)?);
    Ok(CallAuthorizationServiceClient::with_interceptor(channel, deadline))
}

/// Connects to the listener for administration.
pub async fn accounts(server: &Server) -> Result<Accounts, Failure> {
    let channel = connect(&server.admin_endpoint, &server.trust).await?;
    let deadline = Deadline(server.timeout, bearer(&server.trust)?);
    Ok(AccountServiceClient::with_interceptor(channel, deadline)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// Tells the server how long the client waits (`grpc-timeout`), and who it is; the channel waits no longer
/// either.
#[derive(Clone, Debug)]
pub struct Deadline(Duration, Option<MetadataValue<Ascii>>);

impl Interceptor for Deadline {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.set_timeout(self.0);
        if let Some(token) = &self.1 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// What `authorization` says of the token, where there is one.
pub fn bearer(trust: &Trust) -> Result<Option<MetadataValue<Ascii>>, Failure> {
    let Some(path) = &trust.token_file else { return Ok(None) };
    let text = read(path)?;
    let value = String::from_utf8(text).ok().map(|text| format!("Bearer {}", text.trim_end()));
    let value = value.and_then(|value| MetadataValue::try_from(value).ok());
    let expected = || Failure::new(format!("{}: expected a token of one line", path.display()));
    let mut value = value.ok_or_else(expected)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
    std::fs::read(path).map_err(cannot)
}

fn tls(trust: &Trust) -> Result<ClientTlsConfig, Failure> {
    let mut tls = match &trust.tls_ca {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&trust.tls_cert, &trust.tls_key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

async fn connect(endpoint: &Endpoint, trust: &Trust) -> Result<Channel, Failure> {
    let failed = |error: transport::Error| unreachable(endpoint, &error);
    let mut channel = transport::Endpoint::from_shared(endpoint.to_string()).map_err(failed)?;
    if matches!(endpoint, Endpoint::Url(url) if url.starts_with("https:")) {
        channel = channel.tls_config(tls(trust)?).map_err(failed)?;
    }
    channel.connect_timeout(CONNECT_TIMEOUT).connect().await.map_err(failed)
}

fn unreachable(endpoint: &Endpoint, error: &(dyn Error + 'static)) -> Failure {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    let nobody = causes()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|io| matches!(io.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound));
    if nobody {
        return Failure::new(format!(
            "nothing listens on {endpoint}; start it with `tollgate serve`"
        ));
    }
    let cause = causes().last().unwrap_or(error);
    Failure::new(format!("cannot reach {endpoint}: {cause}"))
}

/// Whether the channel of this client gave up before the server answered.
fn lost_patience(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string()
}

/// Code, message, and every field that is wrong in itself or against what stands.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if lost_patience(&status) {
            return Failure::new("DEADLINE_EXCEEDED: no answer within the --timeout");
        }
        if status.code() == Code::Unimplemented {
            return Failure::new(
                "UNIMPLEMENTED: the listener does not serve this; is --endpoint the listener for \
                 calls, and --admin-endpoint the listener for administration?",
            );
        }
        let code = code_name(status.code());
        let mut lines = vec![match status.message() {
            "" => code,
            message => format!("{code}: {message}"),
        }];
        let fields = wrong_fields(&status);
        // The server makes its message of the first one.
        if fields.first().is_some_and(|field| fields.len() > 1 || field != status.message()) {
            lines.extend(fields.iter().map(|field| format!("  {field}")));
        }
        Failure(lines)
    }
}

fn wrong_fields(status: &Status) -> Vec<String> {
    let mut fields = vec![];
    if let Some(bad) = status.get_details_bad_request() {
        let violations = bad.field_violations.into_iter();
        fields.extend(violations.map(|v| format!("{}: {}", v.field, v.description)));
    }
    if let Some(failure) = status.get_details_precondition_failure() {
        let violations = failure.violations.into_iter();
        fields.extend(violations.map(|v| format!("{}: {}", v.subject, v.description)));
    }
    fields
}

/// As the gRPC specification spells it: `INVALID_ARGUMENT`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::grpc::status::FieldViolations;

    #[test]
    fn a_status_says_its_code_its_message_and_every_field() {
        let mut violations = FieldViolations::new();
        violations.add("call_id", "expected a value");
        violations.add("labels", "expected at most 16 labels");
        let Failure(lines) = violations.into_status().into();
        assert_eq!(
            lines,
            [
                "INVALID_ARGUMENT: call_id: expected a value; 2 mistakes in all",
                "  call_id: expected a value",
                "  labels: expected at most 16 labels",
            ]
        );
        assert_eq!(Failure::from(Status::ok("")).0, ["OK"]);

        let late = Status::cancelled(TimeoutExpired(()).to_string());
        assert_eq!(Failure::from(late).0, ["DEADLINE_EXCEEDED: no answer within the --timeout"]);

        let Failure(lines) = Status::unimplemented("").into();
        assert!(lines[0].contains("the listener for administration?"), "{lines:?}");

        let mut details = ErrorDetails::new();
        details.add_precondition_failure_violation("STATE", "credits[0].key", "applied before");
        let status = Status::with_error_details(Code::FailedPrecondition, "conflict", details);
        let expected = ["FAILED_PRECONDITION: conflict", "  credits[0].key: applied before"];
        assert_eq!(Failure::from(status).0, expected);
    }

    #[test]
    fn a_single_wrong_field_is_said_once() {
        let mut violations = FieldViolations::new();
        violations.add("call_id", "expected a value");
        let Failure(lines) = violations.into_status().into();
        assert_eq!(lines, ["INVALID_ARGUMENT: call_id: expected a value"]);
    }

    #[tokio::test]
    async fn a_server_that_does_not_run_is_named_with_the_remedy() {
        let directory = tempfile::tempdir().expect("a directory");
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        for endpoint in [
            Endpoint::Unix(directory.path().join("no.sock")),
            Endpoint::Url(format!("http://{}", free.expect("a free port"))),
        ] {
            let failure = connect(&endpoint, &Trust::default()).await.expect_err("nothing listens");
            let expected = format!("nothing listens on {endpoint}; start it with `tollgate serve`");
            assert_eq!(failure.0, [expected]);
        }
    }
}
