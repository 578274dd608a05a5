import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tollgate.v1 import account_pb2 as _account_pb2
from tollgate.v1 import call_pb2 as _call_pb2
from tollgate.v1 import money_pb2 as _money_pb2
from tollgate.v1 import organisation_pb2 as _organisation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApplyRequest(_message.Message):
    __slots__ = ("organisation",)
    ORGANISATION_FIELD_NUMBER: _ClassVar[int]
    organisation: _organisation_pb2.Organisation
    def __init__(self, organisation: _Optional[_Union[_organisation_pb2.Organisation, _Mapping]] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("created", "updated", "unchanged", "removed", "purchases_applied", "warnings")
    CREATED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    PURCHASES_APPLIED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    created: int
    updated: int
    unchanged: int
    removed: int
    purchases_applied: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, created: _Optional[int] = ..., updated: _Optional[int] = ..., unchanged: _Optional[int] = ..., removed: _Optional[int] = ..., purchases_applied: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class PurchaseCreditsRequest(_message.Message):
    __slots__ = ("tenant_id", "key", "amount", "purchased_at", "payment")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PURCHASED_AT_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    key: str
    amount: _money_pb2.Money
    purchased_at: _timestamp_pb2.Timestamp
    payment: _organisation_pb2.Payment
    def __init__(self, tenant_id: _Optional[str] = ..., key: _Optional[str] = ..., amount: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., purchased_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., payment: _Optional[_Union[_organisation_pb2.Payment, _Mapping]] = ...) -> None: ...

class PurchaseCreditsResponse(_message.Message):
    __slots__ = ("replayed", "lot", "credits")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    LOT_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    replayed: bool
    lot: _account_pb2.CreditLot
    credits: _account_pb2.Credits
    def __init__(self, replayed: bool = ..., lot: _Optional[_Union[_account_pb2.CreditLot, _Mapping]] = ..., credits: _Optional[_Union[_account_pb2.Credits, _Mapping]] = ...) -> None: ...

class ReportRechargeRequest(_message.Message):
    __slots__ = ("tenant_id", "key", "succeeded", "failed")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    key: str
    succeeded: RechargeSucceeded
    failed: RechargeFailed
    def __init__(self, tenant_id: _Optional[str] = ..., key: _Optional[str] = ..., succeeded: _Optional[_Union[RechargeSucceeded, _Mapping]] = ..., failed: _Optional[_Union[RechargeFailed, _Mapping]] = ...) -> None: ...

class RechargeSucceeded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RechargeFailed(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ReportRechargeResponse(_message.Message):
    __slots__ = ("replayed", "lot", "credits", "recharge")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    LOT_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    RECHARGE_FIELD_NUMBER: _ClassVar[int]
    replayed: bool
    lot: _account_pb2.CreditLot
    credits: _account_pb2.Credits
    recharge: _account_pb2.RechargeState
    def __init__(self, replayed: bool = ..., lot: _Optional[_Union[_account_pb2.CreditLot, _Mapping]] = ..., credits: _Optional[_Union[_account_pb2.Credits, _Mapping]] = ..., recharge: _Optional[_Union[_account_pb2.RechargeState, _Mapping]] = ...) -> None: ...

class GetBalanceRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class GetBalanceResponse(_message.Message):
    __slots__ = ("pools", "credits", "recharge")
    POOLS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    RECHARGE_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[_account_pb2.Pool]
    credits: _account_pb2.Credits
    recharge: _account_pb2.RechargeState
    def __init__(self, pools: _Optional[_Iterable[_Union[_account_pb2.Pool, _Mapping]]] = ..., credits: _Optional[_Union[_account_pb2.Credits, _Mapping]] = ..., recharge: _Optional[_Union[_account_pb2.RechargeState, _Mapping]] = ...) -> None: ...

class GetCallRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ...) -> None: ...

class GetCallResponse(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: _call_pb2.Call
    def __init__(self, call: _Optional[_Union[_call_pb2.Call, _Mapping]] = ...) -> None: ...

class ListOpenCallsRequest(_message.Message):
    __slots__ = ("tenant_id", "page_size", "page_token")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    page_size: int
    page_token: str
    def __init__(self, tenant_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListOpenCallsResponse(_message.Message):
    __slots__ = ("calls", "next_page_token")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[_call_pb2.Call]
    next_page_token: str
    def __init__(self, calls: _Optional[_Iterable[_Union[_call_pb2.Call, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListDecisionsRequest(_message.Message):
    __slots__ = ("tenant_id", "page_size", "page_token")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    page_size: int
    page_token: str
    def __init__(self, tenant_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDecisionsResponse(_message.Message):
    __slots__ = ("decisions", "next_page_token", "records_kept_since")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECORDS_KEPT_SINCE_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[_account_pb2.DecisionRecord]
    next_page_token: str
    records_kept_since: _timestamp_pb2.Timestamp
    def __init__(self, decisions: _Optional[_Iterable[_Union[_account_pb2.DecisionRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., records_kept_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExportUsageRequest(_message.Message):
    __slots__ = ("tenant_id", "to")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    to: _timestamp_pb2.Timestamp
    def __init__(self, tenant_id: _Optional[str] = ..., to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., **kwargs) -> None: ...

class ExportUsageResponse(_message.Message):
    __slots__ = ("record", "records_kept_since")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    RECORDS_KEPT_SINCE_FIELD_NUMBER: _ClassVar[int]
    record: _account_pb2.UsageRecord
    records_kept_since: _timestamp_pb2.Timestamp
    def __init__(self, record: _Optional[_Union[_account_pb2.UsageRecord, _Mapping]] = ..., records_kept_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CheckDeckRequest(_message.Message):
    __slots__ = ("csv",)
    CSV_FIELD_NUMBER: _ClassVar[int]
    csv: bytes
    def __init__(self, csv: _Optional[bytes] = ...) -> None: ...

class CheckDeckResponse(_message.Message):
    __slots__ = ("valid", "row_count", "currency", "problem_count", "problems")
    VALID_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    row_count: int
    currency: str
    problem_count: int
    problems: _containers.RepeatedCompositeFieldContainer[_account_pb2.DeckProblem]
    def __init__(self, valid: bool = ..., row_count: _Optional[int] = ..., currency: _Optional[str] = ..., problem_count: _Optional[int] = ..., problems: _Optional[_Iterable[_Union[_account_pb2.DeckProblem, _Mapping]]] = ...) -> None: ...

class ActivateDeckRequest(_message.Message):
    __slots__ = ("deck", "csv")
    DECK_FIELD_NUMBER: _ClassVar[int]
    CSV_FIELD_NUMBER: _ClassVar[int]
    deck: str
    csv: bytes
    def __init__(self, deck: _Optional[str] = ..., csv: _Optional[bytes] = ...) -> None: ...

class ActivateDeckResponse(_message.Message):
    __slots__ = ("deck", "deck_version", "row_count", "currency", "tenant_count")
    DECK_FIELD_NUMBER: _ClassVar[int]
    DECK_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    TENANT_COUNT_FIELD_NUMBER: _ClassVar[int]
    deck: str
    deck_version: str
    row_count: int
    currency: str
    tenant_count: int
    def __init__(self, deck: _Optional[str] = ..., deck_version: _Optional[str] = ..., row_count: _Optional[int] = ..., currency: _Optional[str] = ..., tenant_count: _Optional[int] = ...) -> None: ...

class RunAuditRequest(_message.Message):
    __slots__ = ("tenant_id",)
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    def __init__(self, tenant_id: _Optional[str] = ...) -> None: ...

class RunAuditResponse(_message.Message):
    __slots__ = ("clean", "finding_count", "findings", "checked_tenants", "checked_buckets", "checked_calls", "checked_decisions")
    CLEAN_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_TENANTS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_CALLS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    clean: bool
    finding_count: int
    findings: _containers.RepeatedCompositeFieldContainer[_account_pb2.AuditFinding]
    checked_tenants: int
    checked_buckets: int
    checked_calls: int
    checked_decisions: int
    def __init__(self, clean: bool = ..., finding_count: _Optional[int] = ..., findings: _Optional[_Iterable[_Union[_account_pb2.AuditFinding, _Mapping]]] = ..., checked_tenants: _Optional[int] = ..., checked_buckets: _Optional[int] = ..., checked_calls: _Optional[int] = ..., checked_decisions: _Optional[int] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("tenant_id", "after_cursor", "until_now")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_CURSOR_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NOW_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    after_cursor: str
    until_now: bool
    def __init__(self, tenant_id: _Optional[str] = ..., after_cursor: _Optional[str] = ..., until_now: bool = ...) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("event", "records_kept_since")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    RECORDS_KEPT_SINCE_FIELD_NUMBER: _ClassVar[int]
    event: _account_pb2.Event
    records_kept_since: _timestamp_pb2.Timestamp
    def __init__(self, event: _Optional[_Union[_account_pb2.Event, _Mapping]] = ..., records_kept_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EraseNumbersRequest(_message.Message):
    __slots__ = ("tenant_id", "number", "before", "reason", "operator")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    number: str
    before: _timestamp_pb2.Timestamp
    reason: str
    operator: str
    def __init__(self, tenant_id: _Optional[str] = ..., number: _Optional[str] = ..., before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., operator: _Optional[str] = ...) -> None: ...

class EraseNumbersResponse(_message.Message):
    __slots__ = ("entry_count", "call_count", "call_id_count")
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_COUNT_FIELD_NUMBER: _ClassVar[int]
    entry_count: int
    call_count: int
    call_id_count: int
    def __init__(self, entry_count: _Optional[int] = ..., call_count: _Optional[int] = ..., call_id_count: _Optional[int] = ...) -> None: ...

class AdjustBalanceRequest(_message.Message):
    __slots__ = ("tenant_id", "key", "bucket_id", "money", "duration", "reason", "operator")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BUCKET_ID_FIELD_NUMBER: _ClassVar[int]
    MONEY_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    key: str
    bucket_id: str
    money: _money_pb2.Money
    duration: _duration_pb2.Duration
    reason: str
    operator: str
    def __init__(self, tenant_id: _Optional[str] = ..., key: _Optional[str] = ..., bucket_id: _Optional[str] = ..., money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., operator: _Optional[str] = ...) -> None: ...

class AdjustBalanceResponse(_message.Message):
    __slots__ = ("replayed", "adjustment", "pool", "credits")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    ADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    replayed: bool
    adjustment: _account_pb2.Adjustment
    pool: _account_pb2.Pool
    credits: _account_pb2.Credits
    def __init__(self, replayed: bool = ..., adjustment: _Optional[_Union[_account_pb2.Adjustment, _Mapping]] = ..., pool: _Optional[_Union[_account_pb2.Pool, _Mapping]] = ..., credits: _Optional[_Union[_account_pb2.Credits, _Mapping]] = ...) -> None: ...

class AdjustSettlementRequest(_message.Message):
    __slots__ = ("tenant_id", "key", "call_id", "used_duration", "reason", "operator")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    USED_DURATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    key: str
    call_id: str
    used_duration: _duration_pb2.Duration
    reason: str
    operator: str
    def __init__(self, tenant_id: _Optional[str] = ..., key: _Optional[str] = ..., call_id: _Optional[str] = ..., used_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., operator: _Optional[str] = ...) -> None: ...

class AdjustSettlementResponse(_message.Message):
    __slots__ = ("replayed", "adjustment", "call")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    ADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    replayed: bool
    adjustment: _account_pb2.Adjustment
    call: _call_pb2.Call
    def __init__(self, replayed: bool = ..., adjustment: _Optional[_Union[_account_pb2.Adjustment, _Mapping]] = ..., call: _Optional[_Union[_call_pb2.Call, _Mapping]] = ...) -> None: ...

class ListAdjustmentsRequest(_message.Message):
    __slots__ = ("tenant_id", "page_size", "page_token")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    page_size: int
    page_token: str
    def __init__(self, tenant_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAdjustmentsResponse(_message.Message):
    __slots__ = ("adjustments", "next_page_token", "records_kept_since")
    ADJUSTMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECORDS_KEPT_SINCE_FIELD_NUMBER: _ClassVar[int]
    adjustments: _containers.RepeatedCompositeFieldContainer[_account_pb2.Adjustment]
    next_page_token: str
    records_kept_since: _timestamp_pb2.Timestamp
    def __init__(self, adjustments: _Optional[_Iterable[_Union[_account_pb2.Adjustment, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., records_kept_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BlockUserRequest(_message.Message):
    __slots__ = ("tenant_id", "user_id", "reason", "operator")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    reason: str
    operator: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., reason: _Optional[str] = ..., operator: _Optional[str] = ...) -> None: ...

class BlockUserResponse(_message.Message):
    __slots__ = ("changed", "block")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    block: _account_pb2.BlockRecord
    def __init__(self, changed: bool = ..., block: _Optional[_Union[_account_pb2.BlockRecord, _Mapping]] = ...) -> None: ...

class UnblockUserRequest(_message.Message):
    __slots__ = ("tenant_id", "user_id", "reason", "operator")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    reason: str
    operator: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., reason: _Optional[str] = ..., operator: _Optional[str] = ...) -> None: ...

class UnblockUserResponse(_message.Message):
    __slots__ = ("changed", "block", "still_blocked")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    STILL_BLOCKED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    block: _account_pb2.BlockRecord
    still_blocked: bool
    def __init__(self, changed: bool = ..., block: _Optional[_Union[_account_pb2.BlockRecord, _Mapping]] = ..., still_blocked: bool = ...) -> None: ...

class ListBlockedUsersRequest(_message.Message):
    __slots__ = ("tenant_id", "page_size", "page_token", "include_unblocked", "to")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_UNBLOCKED_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    page_size: int
    page_token: str
    include_unblocked: bool
    to: _timestamp_pb2.Timestamp
    def __init__(self, tenant_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_unblocked: bool = ..., to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., **kwargs) -> None: ...

class ListBlockedUsersResponse(_message.Message):
    __slots__ = ("blocks", "next_page_token", "records_kept_since")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECORDS_KEPT_SINCE_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[_account_pb2.BlockRecord]
    next_page_token: str
    records_kept_since: _timestamp_pb2.Timestamp
    def __init__(self, blocks: _Optional[_Iterable[_Union[_account_pb2.BlockRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., records_kept_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EndOpenCallsRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id", "payer_id", "trunk_id", "all", "reason", "operator")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    TRUNK_ID_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    payer_id: str
    trunk_id: str
    all: bool
    reason: str
    operator: str
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., payer_id: _Optional[str] = ..., trunk_id: _Optional[str] = ..., all: bool = ..., reason: _Optional[str] = ..., operator: _Optional[str] = ...) -> None: ...

class EndOpenCallsResponse(_message.Message):
    __slots__ = ("ended_calls", "released_calls", "charged_duration", "charged_money", "call_ids")
    ENDED_CALLS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_CALLS_FIELD_NUMBER: _ClassVar[int]
    CHARGED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MONEY_FIELD_NUMBER: _ClassVar[int]
    CALL_IDS_FIELD_NUMBER: _ClassVar[int]
    ended_calls: int
    released_calls: int
    charged_duration: _duration_pb2.Duration
    charged_money: _money_pb2.Money
    call_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ended_calls: _Optional[int] = ..., released_calls: _Optional[int] = ..., charged_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., call_ids: _Optional[_Iterable[str]] = ...) -> None: ...
