"""What can go wrong. A denial is none of these: it is an answer (rule 2)."""

import grpc


class TollgateError(Exception):
    """The root of all errors of this package."""


class NoDecisionError(TollgateError):
    """No decision was made, or none arrived in time.

    Treat it like LEDGER_UNAVAILABLE: answer 503 with Q.850 cause 41, or take another route. `code` is
    that of the last attempt, `attempts` how many were made, `maybe_executed` whether one of them
    may have been carried out without its answer arriving.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        attempts: int = 0,
        maybe_executed: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.attempts = attempts
        self.maybe_executed = maybe_executed


class UnavailableError(NoDecisionError):
    """No sidecar answered in time: out of reach, too slow, or shedding. The same request may be sent
    again with the same key, unless it was an authorize that the client has given up."""


class RejectedError(NoDecisionError):
    """The server refused to look at the request: malformed, not permitted, no such call. Sending it
    again changes nothing. `violations` names fields, where the server did."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        attempts: int = 0,
        violations: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, code=code, attempts=attempts)
        self.violations = violations


class JournalFullError(NoDecisionError):
    """So many settles wait to be sent that no new call is asked for: its settle might be lost."""


class JournalError(TollgateError):
    """The journal cannot be used: its directory, or a write to it."""


class ClosedError(TollgateError):
    """The client was closed."""
