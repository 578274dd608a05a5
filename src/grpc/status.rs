//! Errors become a [`Status`] here and nowhere else.

use std::fmt::Display;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::administration::AdministrationError;
use crate::credit_control::UseCaseError;
use crate::ledger::LedgerError;
use crate::records::export::ExportError;

/// Most bytes of field violations in one status: details travel in a header, of which common clients
/// take 8 KiB in all, encoded by a third longer.
const MAX_DETAIL_BYTES: usize = 4096;

/// Longest description of one violation, in bytes; a longer one is cut.
const MAX_DESCRIPTION_BYTES: usize = 256;

/// What is wrong with a request, field by field, so that its sender learns of all mistakes at once.
#[derive(Debug, Default)]
pub struct FieldViolations {
    violations: Vec<FieldViolation>,
}

impl FieldViolations {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the field at `path`, such as `funding[0].money`, breaks an expectation.
    pub fn add(&mut self, path: impl Into<String>, description: impl Display) {
        let mut description = description.to_string();
        description.truncate(description.floor_char_boundary(MAX_DESCRIPTION_BYTES));
        self.violations.push(FieldViolation::new(path, description));
    }

    /// The value of a field that was read, or nothing and a violation noted.
    pub fn take<T, E: Display>(
        &mut self,
        path: impl Into<String>,
        value: Result<T, E>,
    ) -> Option<T> {
        value.map_err(|error| self.add(path, error)).ok()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// The request that was read, if nothing is wrong with it; else INVALID_ARGUMENT.
    ///
    /// `request` is `None` only where [`Self::take`] returned `None` for one of its fields.
    pub fn finish<T>(self, request: Option<T>) -> Result<T, Status> {
        match request {
            Some(request) if self.violations.is_empty() => Ok(request),
            _ => Err(self.into_status()),
        }
    }

    /// One sentence for each, for requests that are served nevertheless (contract rule 13).
    pub fn into_warnings(self) -> Vec<String> {
        self.violations.into_iter().map(|v| format!("{}: {}", v.field, v.description)).collect()
    }

    /// INVALID_ARGUMENT with a `google.rpc.BadRequest` of as many violations as a header can carry.
    pub fn into_status(self) -> Status {
        let count = self.violations.len();
        let message = match self.violations.first() {
            None => "malformed request".to_owned(),
            Some(first) if count == 1 => format!("{}: {}", first.field, first.description),
            Some(first) => {
                format!("{}: {}; {} mistakes in all", first.field, first.description, count)
            }
        };
        let mut bytes = 0;
        let listed: Vec<FieldViolation> = self
            .violations
            .into_iter()
            .take_while(|violation| {
                bytes += violation.field.len() + violation.description.len() + 8;
                bytes <= MAX_DETAIL_BYTES
            })
            .collect();
        let mut details = ErrorDetails::new();
        details.set_bad_request(listed);
        Status::with_error_details(Code::InvalidArgument, message, details)
    }
}

/// Why a use case has no answer.
pub fn use_case(error: UseCaseError) -> Status {
    match error {
        UseCaseError::NoSuchCall => Status::not_found("no such call"),
        UseCaseError::AnsweredAlready => Status::failed_precondition(error.to_string()),
        UseCaseError::Ledger(error) => ledger(error),
    }
}

/// Why an act of administration was refused.
pub fn administration(error: AdministrationError) -> Status {
    match error {
        AdministrationError::NoSuchTenant(_)
        | AdministrationError::NoSuchCall(..)
        | AdministrationError::NoSuchBucket(..)
        | AdministrationError::CallForgotten(..)
        | AdministrationError::NoSuchPayer(..)
        | AdministrationError::NoSuchRecharge(..) => Status::not_found(error.to_string()),
        AdministrationError::Refused { ref field, ref reason } => {
            let mut details = ErrorDetails::new();
            details.add_precondition_failure_violation("CONTRADICTION", field, reason);
            Status::with_error_details(Code::FailedPrecondition, error.to_string(), details)
        }
        AdministrationError::Deck(errors) => {
            let mut violations = FieldViolations::new();
            for error in errors.errors {
                violations.add("csv", format_args!("line {}: {}", error.line, error.reason));
            }
            violations.into_status()
        }
        AdministrationError::Ledger(error) => ledger(error),
    }
}

/// Why there are no usage records.
pub fn export(error: ExportError) -> Status {
    match error {
        ExportError::NoSuchTenant(_) => Status::not_found(error.to_string()),
        ExportError::Window { field, reason } => {
            let mut violations = FieldViolations::new();
            violations.add(field, reason);
            violations.into_status()
        }
        ExportError::Ledger(error) => ledger(error),
    }
}

/// Why the ledger gave no outcome. Its own words go to the log: they name hosts and stored values.
///
/// Both ways of being away are UNAVAILABLE, which common clients repeat by themselves: the same key
/// makes that safe. DEADLINE_EXCEEDED would say that the caller's patience had ended, not ours.
pub fn ledger(error: LedgerError) -> Status {
    match error {
        LedgerError::Unavailable(_) => {
            tracing::warn!(%error, "answered UNAVAILABLE");
            Status::unavailable("the ledger is out of reach; repeat the request")
        }
        LedgerError::Indeterminate(_) => {
            tracing::warn!(%error, "answered UNAVAILABLE");
            Status::unavailable(
                "the ledger did not answer in time, the request may have been carried out; \
                 repeat it with the same key",
            )
        }
        LedgerError::Corrupt(_) => {
            tracing::error!(%error, "answered INTERNAL");
            Status::internal("the ledger holds a value that cannot be read")
        }
        LedgerError::BadCursor(_) => {
            let mut violations = FieldViolations::new();
            violations.add("page_token", "expected the next_page_token of an earlier page");
            violations.into_status()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code_and_none_tells_about_hosts() {
        let secret = || "10.0.0.7:6379 said WRONGPASS".to_owned();
        for (error, code) in [
            (UseCaseError::NoSuchCall, Code::NotFound),
            (UseCaseError::AnsweredAlready, Code::FailedPrecondition),
            (LedgerError::Unavailable(secret()).into(), Code::Unavailable),
            (LedgerError::Indeterminate(secret()).into(), Code::Unavailable),
            (LedgerError::Corrupt(secret()).into(), Code::Internal),
            (LedgerError::BadCursor(secret()).into(), Code::InvalidArgument),
        ] {
            let status = use_case(error);
            assert_eq!(status.code(), code);
            assert!(!status.message().contains("10.0.0.7"), "{}", status.message());
        }
    }

    #[test]
    fn every_violation_is_in_the_details_and_the_first_in_the_message() {
        let mut violations = FieldViolations::new();
        assert_eq!(violations.take("call_id", Ok::<_, &str>(7)), Some(7));
        assert!(violations.is_empty());
        assert_eq!(violations.take::<u8, _>("tenant_id", Err("expected a name")), None);
        violations.add("labels", "expected at most 16");
        let status = violations.finish(Some(())).expect_err("two violations");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "tenant_id: expected a name; 2 mistakes in all");
        let details = status.get_details_bad_request().expect("details").field_violations;
        let fields: Vec<_> = details.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["tenant_id", "labels"]);
        assert_eq!(details[1].description, "expected at most 16");
    }

    #[test]
    fn a_request_without_violations_passes() {
        assert_eq!(FieldViolations::new().finish(Some(1)).expect("no violation"), 1);
    }

    #[test]
    fn a_thousand_violations_still_fit_into_a_header() {
        let mut violations = FieldViolations::new();
        for user in 0..1000 {
            violations.add(format!("tenants[0].users[{user}].id"), "é".repeat(1000));
        }
        let status = violations.into_status();
        assert!(status.message().ends_with("; 1000 mistakes in all"), "{}", status.message());
        assert!(status.message().len() < 400);
        assert!(status.details().len() < 6 * 1024, "{} bytes", status.details().len());
        assert!(status.get_details_bad_request().expect("details").field_violations.len() > 10);
    }

    #[test]
    fn violations_read_as_warnings_where_the_request_is_served_nevertheless() {
        let mut violations = FieldViolations::new();
        violations.add("payer_id", "expected a name");
        assert_eq!(violations.into_warnings(), ["payer_id: expected a name"]);
    }
}
