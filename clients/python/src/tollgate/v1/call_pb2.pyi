import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tollgate.v1 import money_pb2 as _money_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CallType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_TYPE_UNSPECIFIED: _ClassVar[CallType]
    CALL_TYPE_USER_OUTBOUND: _ClassVar[CallType]
    CALL_TYPE_CONFERENCE_DIAL_OUT: _ClassVar[CallType]
    CALL_TYPE_CONFERENCE_DIAL_IN: _ClassVar[CallType]
    CALL_TYPE_TOLL_FREE_INBOUND: _ClassVar[CallType]
    CALL_TYPE_USER_INBOUND: _ClassVar[CallType]

class CallOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_ORIGIN_UNSPECIFIED: _ClassVar[CallOrigin]
    CALL_ORIGIN_DIRECT: _ClassVar[CallOrigin]
    CALL_ORIGIN_TRANSFER: _ClassVar[CallOrigin]
    CALL_ORIGIN_FORWARD: _ClassVar[CallOrigin]
    CALL_ORIGIN_ADD_PARTY: _ClassVar[CallOrigin]
    CALL_ORIGIN_ON_BEHALF: _ClassVar[CallOrigin]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_ALLOWED: _ClassVar[Decision]
    DECISION_ALLOWED_FREE: _ClassVar[Decision]
    DECISION_ALLOWED_DEGRADED: _ClassVar[Decision]
    DECISION_ALLOWED_EMERGENCY: _ClassVar[Decision]
    DECISION_KEY_CONFLICT: _ClassVar[Decision]
    DECISION_CALL_ALREADY_ENDED: _ClassVar[Decision]
    DECISION_NUMBER_INVALID: _ClassVar[Decision]
    DECISION_PAYER_UNKNOWN: _ClassVar[Decision]
    DECISION_TENANT_SUSPENDED: _ClassVar[Decision]
    DECISION_FRAUD_SUSPECTED: _ClassVar[Decision]
    DECISION_POLICY_DENIED: _ClassVar[Decision]
    DECISION_DESTINATION_BLOCKED: _ClassVar[Decision]
    DECISION_NOT_ENTITLED: _ClassVar[Decision]
    DECISION_RATE_LIMITED: _ClassVar[Decision]
    DECISION_CONCURRENCY_LIMIT: _ClassVar[Decision]
    DECISION_POOL_EXHAUSTED: _ClassVar[Decision]
    DECISION_CREDITS_NOT_LICENSED: _ClassVar[Decision]
    DECISION_DESTINATION_UNRATED: _ClassVar[Decision]
    DECISION_PRICE_ABOVE_LIMIT: _ClassVar[Decision]
    DECISION_SPEND_LIMIT_REACHED: _ClassVar[Decision]
    DECISION_INSUFFICIENT_CREDITS: _ClassVar[Decision]
    DECISION_TOLL_FREE_UNFUNDED: _ClassVar[Decision]
    DECISION_LEDGER_UNAVAILABLE: _ClassVar[Decision]

class CallClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_CLASS_UNSPECIFIED: _ClassVar[CallClass]
    CALL_CLASS_EMERGENCY: _ClassVar[CallClass]
    CALL_CLASS_ON_NET: _ClassVar[CallClass]
    CALL_CLASS_DOMESTIC: _ClassVar[CallClass]
    CALL_CLASS_INTERNATIONAL: _ClassVar[CallClass]
    CALL_CLASS_TOLL_FREE_OUTBOUND: _ClassVar[CallClass]
    CALL_CLASS_TOLL_FREE_INBOUND: _ClassVar[CallClass]
    CALL_CLASS_PREMIUM: _ClassVar[CallClass]
    CALL_CLASS_INBOUND: _ClassVar[CallClass]

class NumberType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NUMBER_TYPE_UNSPECIFIED: _ClassVar[NumberType]
    NUMBER_TYPE_FIXED_LINE: _ClassVar[NumberType]
    NUMBER_TYPE_MOBILE: _ClassVar[NumberType]
    NUMBER_TYPE_FIXED_LINE_OR_MOBILE: _ClassVar[NumberType]
    NUMBER_TYPE_TOLL_FREE: _ClassVar[NumberType]
    NUMBER_TYPE_PREMIUM_RATE: _ClassVar[NumberType]
    NUMBER_TYPE_SHARED_COST: _ClassVar[NumberType]
    NUMBER_TYPE_VOIP: _ClassVar[NumberType]
    NUMBER_TYPE_PERSONAL_NUMBER: _ClassVar[NumberType]
    NUMBER_TYPE_PAGER: _ClassVar[NumberType]
    NUMBER_TYPE_UAN: _ClassVar[NumberType]
    NUMBER_TYPE_VOICEMAIL: _ClassVar[NumberType]
    NUMBER_TYPE_EMERGENCY: _ClassVar[NumberType]

class FundingSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FUNDING_SOURCE_UNSPECIFIED: _ClassVar[FundingSource]
    FUNDING_SOURCE_FREE: _ClassVar[FundingSource]
    FUNDING_SOURCE_POOL: _ClassVar[FundingSource]
    FUNDING_SOURCE_CREDITS: _ClassVar[FundingSource]
    FUNDING_SOURCE_OVERAGE: _ClassVar[FundingSource]

class FinalAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINAL_ACTION_UNSPECIFIED: _ClassVar[FinalAction]
    FINAL_ACTION_TERMINATE: _ClassVar[FinalAction]
    FINAL_ACTION_ANNOUNCE_THEN_END: _ClassVar[FinalAction]

class SettleResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SETTLE_RESULT_UNSPECIFIED: _ClassVar[SettleResult]
    SETTLE_RESULT_SETTLED: _ClassVar[SettleResult]
    SETTLE_RESULT_ALREADY_SETTLED: _ClassVar[SettleResult]
    SETTLE_RESULT_RELEASED: _ClassVar[SettleResult]
    SETTLE_RESULT_PARKED: _ClassVar[SettleResult]
    SETTLE_RESULT_ACCEPTED: _ClassVar[SettleResult]

class CallState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_STATE_UNSPECIFIED: _ClassVar[CallState]
    CALL_STATE_RINGING: _ClassVar[CallState]
    CALL_STATE_ANSWERED: _ClassVar[CallState]
    CALL_STATE_DENIED: _ClassVar[CallState]
    CALL_STATE_SETTLED: _ClassVar[CallState]
    CALL_STATE_RELEASED: _ClassVar[CallState]
    CALL_STATE_EXPIRED: _ClassVar[CallState]
    CALL_STATE_ENDED: _ClassVar[CallState]

class DirectiveType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTIVE_TYPE_UNSPECIFIED: _ClassVar[DirectiveType]
    DIRECTIVE_TYPE_REFRESH: _ClassVar[DirectiveType]
    DIRECTIVE_TYPE_END_NOW: _ClassVar[DirectiveType]
    DIRECTIVE_TYPE_WARN: _ClassVar[DirectiveType]

class DirectiveReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTIVE_REASON_UNSPECIFIED: _ClassVar[DirectiveReason]
    DIRECTIVE_REASON_FUNDS_ARRIVED: _ClassVar[DirectiveReason]
    DIRECTIVE_REASON_TENANT_SUSPENDED: _ClassVar[DirectiveReason]
    DIRECTIVE_REASON_PAYER_BLOCKED: _ClassVar[DirectiveReason]
    DIRECTIVE_REASON_FRAUD_SUSPECTED: _ClassVar[DirectiveReason]
    DIRECTIVE_REASON_OPERATOR: _ClassVar[DirectiveReason]
    DIRECTIVE_REASON_FUNDS_ENDING: _ClassVar[DirectiveReason]
CALL_TYPE_UNSPECIFIED: CallType
CALL_TYPE_USER_OUTBOUND: CallType
CALL_TYPE_CONFERENCE_DIAL_OUT: CallType
CALL_TYPE_CONFERENCE_DIAL_IN: CallType
CALL_TYPE_TOLL_FREE_INBOUND: CallType
CALL_TYPE_USER_INBOUND: CallType
CALL_ORIGIN_UNSPECIFIED: CallOrigin
CALL_ORIGIN_DIRECT: CallOrigin
CALL_ORIGIN_TRANSFER: CallOrigin
CALL_ORIGIN_FORWARD: CallOrigin
CALL_ORIGIN_ADD_PARTY: CallOrigin
CALL_ORIGIN_ON_BEHALF: CallOrigin
DECISION_UNSPECIFIED: Decision
DECISION_ALLOWED: Decision
DECISION_ALLOWED_FREE: Decision
DECISION_ALLOWED_DEGRADED: Decision
DECISION_ALLOWED_EMERGENCY: Decision
DECISION_KEY_CONFLICT: Decision
DECISION_CALL_ALREADY_ENDED: Decision
DECISION_NUMBER_INVALID: Decision
DECISION_PAYER_UNKNOWN: Decision
DECISION_TENANT_SUSPENDED: Decision
DECISION_FRAUD_SUSPECTED: Decision
DECISION_POLICY_DENIED: Decision
DECISION_DESTINATION_BLOCKED: Decision
DECISION_NOT_ENTITLED: Decision
DECISION_RATE_LIMITED: Decision
DECISION_CONCURRENCY_LIMIT: Decision
DECISION_POOL_EXHAUSTED: Decision
DECISION_CREDITS_NOT_LICENSED: Decision
DECISION_DESTINATION_UNRATED: Decision
DECISION_PRICE_ABOVE_LIMIT: Decision
DECISION_SPEND_LIMIT_REACHED: Decision
DECISION_INSUFFICIENT_CREDITS: Decision
DECISION_TOLL_FREE_UNFUNDED: Decision
DECISION_LEDGER_UNAVAILABLE: Decision
CALL_CLASS_UNSPECIFIED: CallClass
CALL_CLASS_EMERGENCY: CallClass
CALL_CLASS_ON_NET: CallClass
CALL_CLASS_DOMESTIC: CallClass
CALL_CLASS_INTERNATIONAL: CallClass
CALL_CLASS_TOLL_FREE_OUTBOUND: CallClass
CALL_CLASS_TOLL_FREE_INBOUND: CallClass
CALL_CLASS_PREMIUM: CallClass
CALL_CLASS_INBOUND: CallClass
NUMBER_TYPE_UNSPECIFIED: NumberType
NUMBER_TYPE_FIXED_LINE: NumberType
NUMBER_TYPE_MOBILE: NumberType
NUMBER_TYPE_FIXED_LINE_OR_MOBILE: NumberType
NUMBER_TYPE_TOLL_FREE: NumberType
NUMBER_TYPE_PREMIUM_RATE: NumberType
NUMBER_TYPE_SHARED_COST: NumberType
NUMBER_TYPE_VOIP: NumberType
NUMBER_TYPE_PERSONAL_NUMBER: NumberType
NUMBER_TYPE_PAGER: NumberType
NUMBER_TYPE_UAN: NumberType
NUMBER_TYPE_VOICEMAIL: NumberType
NUMBER_TYPE_EMERGENCY: NumberType
FUNDING_SOURCE_UNSPECIFIED: FundingSource
FUNDING_SOURCE_FREE: FundingSource
FUNDING_SOURCE_POOL: FundingSource
FUNDING_SOURCE_CREDITS: FundingSource
FUNDING_SOURCE_OVERAGE: FundingSource
FINAL_ACTION_UNSPECIFIED: FinalAction
FINAL_ACTION_TERMINATE: FinalAction
FINAL_ACTION_ANNOUNCE_THEN_END: FinalAction
SETTLE_RESULT_UNSPECIFIED: SettleResult
SETTLE_RESULT_SETTLED: SettleResult
SETTLE_RESULT_ALREADY_SETTLED: SettleResult
SETTLE_RESULT_RELEASED: SettleResult
SETTLE_RESULT_PARKED: SettleResult
SETTLE_RESULT_ACCEPTED: SettleResult
CALL_STATE_UNSPECIFIED: CallState
CALL_STATE_RINGING: CallState
CALL_STATE_ANSWERED: CallState
CALL_STATE_DENIED: CallState
CALL_STATE_SETTLED: CallState
CALL_STATE_RELEASED: CallState
CALL_STATE_EXPIRED: CallState
CALL_STATE_ENDED: CallState
DIRECTIVE_TYPE_UNSPECIFIED: DirectiveType
DIRECTIVE_TYPE_REFRESH: DirectiveType
DIRECTIVE_TYPE_END_NOW: DirectiveType
DIRECTIVE_TYPE_WARN: DirectiveType
DIRECTIVE_REASON_UNSPECIFIED: DirectiveReason
DIRECTIVE_REASON_FUNDS_ARRIVED: DirectiveReason
DIRECTIVE_REASON_TENANT_SUSPENDED: DirectiveReason
DIRECTIVE_REASON_PAYER_BLOCKED: DirectiveReason
DIRECTIVE_REASON_FRAUD_SUSPECTED: DirectiveReason
DIRECTIVE_REASON_OPERATOR: DirectiveReason
DIRECTIVE_REASON_FUNDS_ENDING: DirectiveReason

class Grant(_message.Message):
    __slots__ = ("granted_duration", "refresh_after", "ringing_timeout", "hold_timeout", "final_grant", "final_action", "token")
    GRANTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    REFRESH_AFTER_FIELD_NUMBER: _ClassVar[int]
    RINGING_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    HOLD_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    FINAL_GRANT_FIELD_NUMBER: _ClassVar[int]
    FINAL_ACTION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    granted_duration: _duration_pb2.Duration
    refresh_after: _duration_pb2.Duration
    ringing_timeout: _duration_pb2.Duration
    hold_timeout: _duration_pb2.Duration
    final_grant: bool
    final_action: FinalAction
    token: str
    def __init__(self, granted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., refresh_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ringing_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hold_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., final_grant: bool = ..., final_action: _Optional[_Union[FinalAction, str]] = ..., token: _Optional[str] = ...) -> None: ...

class Denial(_message.Message):
    __slots__ = ("reason", "sip_status", "sip_phrase", "q850_cause", "reroute_allowed", "retry_after", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SIP_STATUS_FIELD_NUMBER: _ClassVar[int]
    SIP_PHRASE_FIELD_NUMBER: _ClassVar[int]
    Q850_CAUSE_FIELD_NUMBER: _ClassVar[int]
    REROUTE_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: Decision
    sip_status: int
    sip_phrase: str
    q850_cause: int
    reroute_allowed: bool
    retry_after: _duration_pb2.Duration
    detail: str
    def __init__(self, reason: _Optional[_Union[Decision, str]] = ..., sip_status: _Optional[int] = ..., sip_phrase: _Optional[str] = ..., q850_cause: _Optional[int] = ..., reroute_allowed: bool = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detail: _Optional[str] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("call_class", "country", "number_type", "e164")
    CALL_CLASS_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_TYPE_FIELD_NUMBER: _ClassVar[int]
    E164_FIELD_NUMBER: _ClassVar[int]
    call_class: CallClass
    country: str
    number_type: NumberType
    e164: str
    def __init__(self, call_class: _Optional[_Union[CallClass, str]] = ..., country: _Optional[str] = ..., number_type: _Optional[_Union[NumberType, str]] = ..., e164: _Optional[str] = ...) -> None: ...

class FundingLine(_message.Message):
    __slots__ = ("source", "bucket_id", "duration", "money", "rate_per_minute", "expires_at")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_ID_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    MONEY_FIELD_NUMBER: _ClassVar[int]
    RATE_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    source: FundingSource
    bucket_id: str
    duration: _duration_pb2.Duration
    money: _money_pb2.Money
    rate_per_minute: _money_pb2.Money
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, source: _Optional[_Union[FundingSource, str]] = ..., bucket_id: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., rate_per_minute: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class QuoteStep(_message.Message):
    __slots__ = ("check", "passed", "detail", "rule")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    check: str
    passed: bool
    detail: str
    rule: str
    def __init__(self, check: _Optional[str] = ..., passed: bool = ..., detail: _Optional[str] = ..., rule: _Optional[str] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("tenant_id", "call_id", "state", "call_type", "payer_id", "calling_number", "called_number", "classification", "trunk_id", "decision", "decision_id", "authorized_at", "answered_at", "expires_at", "ended_at", "used_duration", "granted_duration", "final_grant", "funding", "charged_duration", "charged_money", "shortfall_duration", "shortfall_money", "deck_version")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CALL_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    CALLING_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CALLED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    TRUNK_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZED_AT_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    USED_DURATION_FIELD_NUMBER: _ClassVar[int]
    GRANTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    FINAL_GRANT_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    CHARGED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MONEY_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_DURATION_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_MONEY_FIELD_NUMBER: _ClassVar[int]
    DECK_VERSION_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    state: CallState
    call_type: CallType
    payer_id: str
    calling_number: str
    called_number: str
    classification: Classification
    trunk_id: str
    decision: Decision
    decision_id: str
    authorized_at: _timestamp_pb2.Timestamp
    answered_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    used_duration: _duration_pb2.Duration
    granted_duration: _duration_pb2.Duration
    final_grant: bool
    funding: _containers.RepeatedCompositeFieldContainer[FundingLine]
    charged_duration: _duration_pb2.Duration
    charged_money: _money_pb2.Money
    shortfall_duration: _duration_pb2.Duration
    shortfall_money: _money_pb2.Money
    deck_version: str
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., state: _Optional[_Union[CallState, str]] = ..., call_type: _Optional[_Union[CallType, str]] = ..., payer_id: _Optional[str] = ..., calling_number: _Optional[str] = ..., called_number: _Optional[str] = ..., classification: _Optional[_Union[Classification, _Mapping]] = ..., trunk_id: _Optional[str] = ..., decision: _Optional[_Union[Decision, str]] = ..., decision_id: _Optional[str] = ..., authorized_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., answered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., used_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., granted_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., final_grant: bool = ..., funding: _Optional[_Iterable[_Union[FundingLine, _Mapping]]] = ..., charged_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., shortfall_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shortfall_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., deck_version: _Optional[str] = ...) -> None: ...

class Directive(_message.Message):
    __slots__ = ("type", "call_id", "reason", "directive_id", "payer_id", "trunk_id", "issued_at", "detail")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVE_ID_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    TRUNK_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    type: DirectiveType
    call_id: str
    reason: DirectiveReason
    directive_id: str
    payer_id: str
    trunk_id: str
    issued_at: _timestamp_pb2.Timestamp
    detail: str
    def __init__(self, type: _Optional[_Union[DirectiveType, str]] = ..., call_id: _Optional[str] = ..., reason: _Optional[_Union[DirectiveReason, str]] = ..., directive_id: _Optional[str] = ..., payer_id: _Optional[str] = ..., trunk_id: _Optional[str] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., detail: _Optional[str] = ...) -> None: ...
