import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tollgate.v1 import call_pb2 as _call_pb2
from tollgate.v1 import money_pb2 as _money_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PoolCounter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POOL_COUNTER_UNSPECIFIED: _ClassVar[PoolCounter]
    POOL_COUNTER_DOMESTIC: _ClassVar[PoolCounter]
    POOL_COUNTER_INTERNATIONAL: _ClassVar[PoolCounter]
    POOL_COUNTER_CONFERENCE: _ClassVar[PoolCounter]

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_CALL_SETTLED: _ClassVar[EventType]
    EVENT_TYPE_CALL_DENIED: _ClassVar[EventType]
    EVENT_TYPE_CALL_EXPIRED: _ClassVar[EventType]
    EVENT_TYPE_LATE_SETTLE: _ClassVar[EventType]
    EVENT_TYPE_CREDITS_DEPLETED: _ClassVar[EventType]
    EVENT_TYPE_CREDITS_EXPIRED: _ClassVar[EventType]
    EVENT_TYPE_POOL_THRESHOLD: _ClassVar[EventType]
    EVENT_TYPE_POOL_EXHAUSTED: _ClassVar[EventType]
    EVENT_TYPE_SHORTFALL: _ClassVar[EventType]
    EVENT_TYPE_UNAUTHORIZED_USAGE: _ClassVar[EventType]
    EVENT_TYPE_EMERGENCY_CALL: _ClassVar[EventType]
    EVENT_TYPE_RECHARGE_REQUESTED: _ClassVar[EventType]
    EVENT_TYPE_RECHARGE_SUCCEEDED: _ClassVar[EventType]
    EVENT_TYPE_RECHARGE_FAILED: _ClassVar[EventType]
    EVENT_TYPE_LEDGER_REGRESSED: _ClassVar[EventType]

class BlockSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLOCK_SOURCE_UNSPECIFIED: _ClassVar[BlockSource]
    BLOCK_SOURCE_OPERATOR: _ClassVar[BlockSource]
    BLOCK_SOURCE_ORGANISATION_FILE: _ClassVar[BlockSource]
POOL_COUNTER_UNSPECIFIED: PoolCounter
POOL_COUNTER_DOMESTIC: PoolCounter
POOL_COUNTER_INTERNATIONAL: PoolCounter
POOL_COUNTER_CONFERENCE: PoolCounter
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_CALL_SETTLED: EventType
EVENT_TYPE_CALL_DENIED: EventType
EVENT_TYPE_CALL_EXPIRED: EventType
EVENT_TYPE_LATE_SETTLE: EventType
EVENT_TYPE_CREDITS_DEPLETED: EventType
EVENT_TYPE_CREDITS_EXPIRED: EventType
EVENT_TYPE_POOL_THRESHOLD: EventType
EVENT_TYPE_POOL_EXHAUSTED: EventType
EVENT_TYPE_SHORTFALL: EventType
EVENT_TYPE_UNAUTHORIZED_USAGE: EventType
EVENT_TYPE_EMERGENCY_CALL: EventType
EVENT_TYPE_RECHARGE_REQUESTED: EventType
EVENT_TYPE_RECHARGE_SUCCEEDED: EventType
EVENT_TYPE_RECHARGE_FAILED: EventType
EVENT_TYPE_LEDGER_REGRESSED: EventType
BLOCK_SOURCE_UNSPECIFIED: BlockSource
BLOCK_SOURCE_OPERATOR: BlockSource
BLOCK_SOURCE_ORGANISATION_FILE: BlockSource

class Pool(_message.Message):
    __slots__ = ("pool_id", "country", "plan", "counter", "period", "user_id", "granted", "held", "spent", "available")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    country: str
    plan: str
    counter: PoolCounter
    period: str
    user_id: str
    granted: _duration_pb2.Duration
    held: _duration_pb2.Duration
    spent: _duration_pb2.Duration
    available: _duration_pb2.Duration
    def __init__(self, pool_id: _Optional[str] = ..., country: _Optional[str] = ..., plan: _Optional[str] = ..., counter: _Optional[_Union[PoolCounter, str]] = ..., period: _Optional[str] = ..., user_id: _Optional[str] = ..., granted: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., held: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., spent: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., available: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Credits(_message.Message):
    __slots__ = ("funded", "held", "spent", "expired", "available", "lots", "owed", "overage", "overage_held", "overage_spent", "past_overage", "adjusted")
    FUNDED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    LOTS_FIELD_NUMBER: _ClassVar[int]
    OWED_FIELD_NUMBER: _ClassVar[int]
    OVERAGE_FIELD_NUMBER: _ClassVar[int]
    OVERAGE_HELD_FIELD_NUMBER: _ClassVar[int]
    OVERAGE_SPENT_FIELD_NUMBER: _ClassVar[int]
    PAST_OVERAGE_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_FIELD_NUMBER: _ClassVar[int]
    funded: _money_pb2.Money
    held: _money_pb2.Money
    spent: _money_pb2.Money
    expired: _money_pb2.Money
    available: _money_pb2.Money
    lots: _containers.RepeatedCompositeFieldContainer[CreditLot]
    owed: _money_pb2.Money
    overage: _money_pb2.Money
    overage_held: _money_pb2.Money
    overage_spent: _money_pb2.Money
    past_overage: _containers.RepeatedCompositeFieldContainer[OverageMonth]
    adjusted: _money_pb2.Money
    def __init__(self, funded: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., held: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., spent: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., expired: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., available: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., lots: _Optional[_Iterable[_Union[CreditLot, _Mapping]]] = ..., owed: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., overage: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., overage_held: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., overage_spent: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., past_overage: _Optional[_Iterable[_Union[OverageMonth, _Mapping]]] = ..., adjusted: _Optional[_Union[_money_pb2.Money, _Mapping]] = ...) -> None: ...

class OverageMonth(_message.Message):
    __slots__ = ("period", "held", "spent")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    period: str
    held: _money_pb2.Money
    spent: _money_pb2.Money
    def __init__(self, period: _Optional[str] = ..., held: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., spent: _Optional[_Union[_money_pb2.Money, _Mapping]] = ...) -> None: ...

class RechargeState(_message.Message):
    __slots__ = ("enabled", "in_flight_key", "in_flight_amount", "requested_at", "failure_count", "next_attempt_at", "requested_today", "daily_cap")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_KEY_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_AT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_TODAY_FIELD_NUMBER: _ClassVar[int]
    DAILY_CAP_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    in_flight_key: str
    in_flight_amount: _money_pb2.Money
    requested_at: _timestamp_pb2.Timestamp
    failure_count: int
    next_attempt_at: _timestamp_pb2.Timestamp
    requested_today: _money_pb2.Money
    daily_cap: _money_pb2.Money
    def __init__(self, enabled: bool = ..., in_flight_key: _Optional[str] = ..., in_flight_amount: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., requested_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., failure_count: _Optional[int] = ..., next_attempt_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., requested_today: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., daily_cap: _Optional[_Union[_money_pb2.Money, _Mapping]] = ...) -> None: ...

class CreditLot(_message.Message):
    __slots__ = ("key", "purchased_at", "expires_at", "amount", "remaining", "adjusted")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PURCHASED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_FIELD_NUMBER: _ClassVar[int]
    key: str
    purchased_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    amount: _money_pb2.Money
    remaining: _money_pb2.Money
    adjusted: _money_pb2.Money
    def __init__(self, key: _Optional[str] = ..., purchased_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., amount: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., remaining: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., adjusted: _Optional[_Union[_money_pb2.Money, _Mapping]] = ...) -> None: ...

class Adjustment(_message.Message):
    __slots__ = ("key", "adjusted_at", "tenant_id", "bucket_id", "call_id", "payer_id", "adjusted_duration", "adjusted_money", "used_before", "used_after", "charged_duration", "charged_money", "shortfall_duration", "shortfall_money", "reason", "operator")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_AT_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    BUCKET_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_MONEY_FIELD_NUMBER: _ClassVar[int]
    USED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    USED_AFTER_FIELD_NUMBER: _ClassVar[int]
    CHARGED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MONEY_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_DURATION_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_MONEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    key: str
    adjusted_at: _timestamp_pb2.Timestamp
    tenant_id: str
    bucket_id: str
    call_id: str
    payer_id: str
    adjusted_duration: _duration_pb2.Duration
    adjusted_money: _money_pb2.Money
    used_before: _duration_pb2.Duration
    used_after: _duration_pb2.Duration
    charged_duration: _duration_pb2.Duration
    charged_money: _money_pb2.Money
    shortfall_duration: _duration_pb2.Duration
    shortfall_money: _money_pb2.Money
    reason: str
    operator: str
    def __init__(self, key: _Optional[str] = ..., adjusted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant_id: _Optional[str] = ..., bucket_id: _Optional[str] = ..., call_id: _Optional[str] = ..., payer_id: _Optional[str] = ..., adjusted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., adjusted_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., used_before: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., used_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., shortfall_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shortfall_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., reason: _Optional[str] = ..., operator: _Optional[str] = ...) -> None: ...

class DecisionRecord(_message.Message):
    __slots__ = ("decision_id", "decided_at", "tenant_id", "call_id", "call_type", "payer_id", "calling_number", "called_number", "classification", "decision", "granted_duration", "funding", "detail", "deck_version", "flags", "sip_call_id", "conference_id", "on_behalf_of", "origin", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    CALLING_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CALLED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    GRANTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DECK_VERSION_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    SIP_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CONFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    decided_at: _timestamp_pb2.Timestamp
    tenant_id: str
    call_id: str
    call_type: _call_pb2.CallType
    payer_id: str
    calling_number: str
    called_number: str
    classification: _call_pb2.Classification
    decision: _call_pb2.Decision
    granted_duration: _duration_pb2.Duration
    funding: _containers.RepeatedCompositeFieldContainer[_call_pb2.FundingLine]
    detail: str
    deck_version: str
    flags: _containers.RepeatedScalarFieldContainer[str]
    sip_call_id: str
    conference_id: str
    on_behalf_of: str
    origin: _call_pb2.CallOrigin
    labels: _containers.ScalarMap[str, str]
    def __init__(self, decision_id: _Optional[str] = ..., decided_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., call_type: _Optional[_Union[_call_pb2.CallType, str]] = ..., payer_id: _Optional[str] = ..., calling_number: _Optional[str] = ..., called_number: _Optional[str] = ..., classification: _Optional[_Union[_call_pb2.Classification, _Mapping]] = ..., decision: _Optional[_Union[_call_pb2.Decision, str]] = ..., granted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., funding: _Optional[_Iterable[_Union[_call_pb2.FundingLine, _Mapping]]] = ..., detail: _Optional[str] = ..., deck_version: _Optional[str] = ..., flags: _Optional[_Iterable[str]] = ..., sip_call_id: _Optional[str] = ..., conference_id: _Optional[str] = ..., on_behalf_of: _Optional[str] = ..., origin: _Optional[_Union[_call_pb2.CallOrigin, str]] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UsageRecord(_message.Message):
    __slots__ = ("usage_id", "call_id", "conference_id", "user_location", "aad_object_id", "upn", "user_display_name", "caller_id", "call_type", "number_type", "domestic_international", "destination_dialed", "destination_number", "start_time", "end_time", "duration", "connection_fee", "charge", "currency", "capability", "decision", "sip_call_id")
    USAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CONFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    USER_LOCATION_FIELD_NUMBER: _ClassVar[int]
    AAD_OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    UPN_FIELD_NUMBER: _ClassVar[int]
    USER_DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    CALLER_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_TYPE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_TYPE_FIELD_NUMBER: _ClassVar[int]
    DOMESTIC_INTERNATIONAL_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_DIALED_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_NUMBER_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FEE_FIELD_NUMBER: _ClassVar[int]
    CHARGE_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SIP_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    usage_id: str
    call_id: str
    conference_id: str
    user_location: str
    aad_object_id: str
    upn: str
    user_display_name: str
    caller_id: str
    call_type: str
    number_type: str
    domestic_international: str
    destination_dialed: str
    destination_number: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    duration: _duration_pb2.Duration
    connection_fee: _money_pb2.Money
    charge: _money_pb2.Money
    currency: str
    capability: str
    decision: _call_pb2.Decision
    sip_call_id: str
    def __init__(self, usage_id: _Optional[str] = ..., call_id: _Optional[str] = ..., conference_id: _Optional[str] = ..., user_location: _Optional[str] = ..., aad_object_id: _Optional[str] = ..., upn: _Optional[str] = ..., user_display_name: _Optional[str] = ..., caller_id: _Optional[str] = ..., call_type: _Optional[str] = ..., number_type: _Optional[str] = ..., domestic_international: _Optional[str] = ..., destination_dialed: _Optional[str] = ..., destination_number: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., connection_fee: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., charge: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., currency: _Optional[str] = ..., capability: _Optional[str] = ..., decision: _Optional[_Union[_call_pb2.Decision, str]] = ..., sip_call_id: _Optional[str] = ...) -> None: ...

class DeckProblem(_message.Message):
    __slots__ = ("line", "column", "reason")
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    line: int
    column: str
    reason: str
    def __init__(self, line: _Optional[int] = ..., column: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AuditFinding(_message.Message):
    __slots__ = ("invariant", "tenant_id", "key", "detail")
    INVARIANT_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    invariant: int
    tenant_id: str
    key: str
    detail: str
    def __init__(self, invariant: _Optional[int] = ..., tenant_id: _Optional[str] = ..., key: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_id", "cursor", "type", "occurred_at", "tenant_id", "call_id", "payer_id", "bucket_id", "decision", "used_duration", "charged_duration", "charged_money", "shortfall_duration", "shortfall_money", "amount", "reason", "granted_duration")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    BUCKET_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    USED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CHARGED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MONEY_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_DURATION_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_MONEY_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRANTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    cursor: str
    type: EventType
    occurred_at: _timestamp_pb2.Timestamp
    tenant_id: str
    call_id: str
    payer_id: str
    bucket_id: str
    decision: _call_pb2.Decision
    used_duration: _duration_pb2.Duration
    charged_duration: _duration_pb2.Duration
    charged_money: _money_pb2.Money
    shortfall_duration: _duration_pb2.Duration
    shortfall_money: _money_pb2.Money
    amount: _money_pb2.Money
    reason: str
    granted_duration: _duration_pb2.Duration
    def __init__(self, event_id: _Optional[str] = ..., cursor: _Optional[str] = ..., type: _Optional[_Union[EventType, str]] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., payer_id: _Optional[str] = ..., bucket_id: _Optional[str] = ..., decision: _Optional[_Union[_call_pb2.Decision, str]] = ..., used_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., shortfall_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shortfall_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., amount: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., reason: _Optional[str] = ..., granted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BlockRecord(_message.Message):
    __slots__ = ("user_id", "display_name", "upn", "numbers", "reason", "blocked", "occurred_at", "source", "operator")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    UPN_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    display_name: str
    upn: str
    numbers: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    blocked: bool
    occurred_at: _timestamp_pb2.Timestamp
    source: BlockSource
    operator: str
    def __init__(self, user_id: _Optional[str] = ..., display_name: _Optional[str] = ..., upn: _Optional[str] = ..., numbers: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., blocked: bool = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[_Union[BlockSource, str]] = ..., operator: _Optional[str] = ...) -> None: ...
