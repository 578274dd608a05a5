"""Client of Tollgate: may this call be made, who pays, and for how long.

`Tollgate` is for threads and for processes that fork, `AsyncTollgate` for asyncio. `Call` knows the
times of a running call, `run_call` leads one through its life. The messages are in `tollgate.v1`.
"""

from tollgate._keys import MAX_CALL_ID_BYTES, call_id, is_emergency
from tollgate._policy import Breaker, Retry
from tollgate._requests import CallFields, CallOrigin, CallType
from tollgate.aio import AsyncTollgate
from tollgate.answers import (
    Answer,
    Denial,
    Directive,
    EndedCalls,
    FundingLine,
    Grant,
    Money,
    Quote,
    Settlement,
    Step,
    reason_header,
)
from tollgate.call import Call, Cause, Ended, run_call
from tollgate.client import Tollgate
from tollgate.errors import (
    ClosedError,
    JournalError,
    JournalFullError,
    NoDecisionError,
    RejectedError,
    TollgateError,
    UnavailableError,
)
from tollgate.journal import Journal, Refused

__all__ = [
    "MAX_CALL_ID_BYTES",
    "Answer",
    "AsyncTollgate",
    "Breaker",
    "Call",
    "CallFields",
    "CallOrigin",
    "CallType",
    "Cause",
    "ClosedError",
    "Denial",
    "Directive",
    "Ended",
    "EndedCalls",
    "FundingLine",
    "Grant",
    "Journal",
    "JournalError",
    "JournalFullError",
    "Money",
    "NoDecisionError",
    "Quote",
    "Refused",
    "RejectedError",
    "Retry",
    "Settlement",
    "Step",
    "Tollgate",
    "TollgateError",
    "UnavailableError",
    "call_id",
    "is_emergency",
    "reason_header",
    "run_call",
]
