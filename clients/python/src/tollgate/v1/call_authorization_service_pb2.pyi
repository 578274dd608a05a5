import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tollgate.v1 import call_pb2 as _call_pb2
from tollgate.v1 import money_pb2 as _money_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuthorizeCallRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id", "call_type", "payer_id", "calling_number", "called_number", "original_called_number", "requested_duration", "origin", "on_behalf_of", "conference_id", "sip_call_id", "trunk_id", "reports_answer", "attempt", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    CALLING_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CALLED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_CALLED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    CONFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    SIP_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TRUNK_ID_FIELD_NUMBER: _ClassVar[int]
    REPORTS_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    call_type: _call_pb2.CallType
    payer_id: str
    calling_number: str
    called_number: str
    original_called_number: str
    requested_duration: _duration_pb2.Duration
    origin: _call_pb2.CallOrigin
    on_behalf_of: str
    conference_id: str
    sip_call_id: str
    trunk_id: str
    reports_answer: bool
    attempt: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., call_type: _Optional[_Union[_call_pb2.CallType, str]] = ..., payer_id: _Optional[str] = ..., calling_number: _Optional[str] = ..., called_number: _Optional[str] = ..., original_called_number: _Optional[str] = ..., requested_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., origin: _Optional[_Union[_call_pb2.CallOrigin, str]] = ..., on_behalf_of: _Optional[str] = ..., conference_id: _Optional[str] = ..., sip_call_id: _Optional[str] = ..., trunk_id: _Optional[str] = ..., reports_answer: bool = ..., attempt: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AuthorizeCallResponse(_message.Message):
    __slots__ = ("decision", "allowed", "replayed", "grant", "denial", "classification", "funding", "decision_id", "deck_version", "warnings")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DENIAL_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECK_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    decision: _call_pb2.Decision
    allowed: bool
    replayed: bool
    grant: _call_pb2.Grant
    denial: _call_pb2.Denial
    classification: _call_pb2.Classification
    funding: _containers.RepeatedCompositeFieldContainer[_call_pb2.FundingLine]
    decision_id: str
    deck_version: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision: _Optional[_Union[_call_pb2.Decision, str]] = ..., allowed: bool = ..., replayed: bool = ..., grant: _Optional[_Union[_call_pb2.Grant, _Mapping]] = ..., denial: _Optional[_Union[_call_pb2.Denial, _Mapping]] = ..., classification: _Optional[_Union[_call_pb2.Classification, _Mapping]] = ..., funding: _Optional[_Iterable[_Union[_call_pb2.FundingLine, _Mapping]]] = ..., decision_id: _Optional[str] = ..., deck_version: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportAnswerRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id", "answered_at")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_AT_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    answered_at: _timestamp_pb2.Timestamp
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., answered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReportAnswerResponse(_message.Message):
    __slots__ = ("decision", "allowed", "replayed", "grant", "denial", "classification", "funding", "decision_id", "deck_version", "warnings")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DENIAL_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECK_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    decision: _call_pb2.Decision
    allowed: bool
    replayed: bool
    grant: _call_pb2.Grant
    denial: _call_pb2.Denial
    classification: _call_pb2.Classification
    funding: _containers.RepeatedCompositeFieldContainer[_call_pb2.FundingLine]
    decision_id: str
    deck_version: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision: _Optional[_Union[_call_pb2.Decision, str]] = ..., allowed: bool = ..., replayed: bool = ..., grant: _Optional[_Union[_call_pb2.Grant, _Mapping]] = ..., denial: _Optional[_Union[_call_pb2.Denial, _Mapping]] = ..., classification: _Optional[_Union[_call_pb2.Classification, _Mapping]] = ..., funding: _Optional[_Iterable[_Union[_call_pb2.FundingLine, _Mapping]]] = ..., decision_id: _Optional[str] = ..., deck_version: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ExtendCallRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id", "used_duration", "sequence", "requested_duration", "token")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    USED_DURATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    used_duration: _duration_pb2.Duration
    sequence: int
    requested_duration: _duration_pb2.Duration
    token: str
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., used_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., sequence: _Optional[int] = ..., requested_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class ExtendCallResponse(_message.Message):
    __slots__ = ("decision", "allowed", "replayed", "grant", "denial", "classification", "funding", "decision_id", "deck_version", "warnings")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DENIAL_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECK_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    decision: _call_pb2.Decision
    allowed: bool
    replayed: bool
    grant: _call_pb2.Grant
    denial: _call_pb2.Denial
    classification: _call_pb2.Classification
    funding: _containers.RepeatedCompositeFieldContainer[_call_pb2.FundingLine]
    decision_id: str
    deck_version: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision: _Optional[_Union[_call_pb2.Decision, str]] = ..., allowed: bool = ..., replayed: bool = ..., grant: _Optional[_Union[_call_pb2.Grant, _Mapping]] = ..., denial: _Optional[_Union[_call_pb2.Denial, _Mapping]] = ..., classification: _Optional[_Union[_call_pb2.Classification, _Mapping]] = ..., funding: _Optional[_Iterable[_Union[_call_pb2.FundingLine, _Mapping]]] = ..., decision_id: _Optional[str] = ..., deck_version: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class SettleCallRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id", "used_duration", "sequence", "q850_cause", "answered_at", "ended_at", "token", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    USED_DURATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    Q850_CAUSE_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    used_duration: _duration_pb2.Duration
    sequence: int
    q850_cause: int
    answered_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    token: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., used_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., sequence: _Optional[int] = ..., q850_cause: _Optional[int] = ..., answered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., token: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SettleCallResponse(_message.Message):
    __slots__ = ("result", "replayed", "charged_duration", "charged_money", "funding", "shortfall_duration", "shortfall_money", "recorded_duration")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    CHARGED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MONEY_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_DURATION_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_MONEY_FIELD_NUMBER: _ClassVar[int]
    RECORDED_DURATION_FIELD_NUMBER: _ClassVar[int]
    result: _call_pb2.SettleResult
    replayed: bool
    charged_duration: _duration_pb2.Duration
    charged_money: _money_pb2.Money
    funding: _containers.RepeatedCompositeFieldContainer[_call_pb2.FundingLine]
    shortfall_duration: _duration_pb2.Duration
    shortfall_money: _money_pb2.Money
    recorded_duration: _duration_pb2.Duration
    def __init__(self, result: _Optional[_Union[_call_pb2.SettleResult, str]] = ..., replayed: bool = ..., charged_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., funding: _Optional[_Iterable[_Union[_call_pb2.FundingLine, _Mapping]]] = ..., shortfall_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shortfall_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., recorded_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReleaseCallRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id", "q850_cause")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    Q850_CAUSE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    q850_cause: int
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., q850_cause: _Optional[int] = ...) -> None: ...

class ReleaseCallResponse(_message.Message):
    __slots__ = ("result", "replayed", "charged_duration", "charged_money", "funding", "shortfall_duration", "shortfall_money", "recorded_duration")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    CHARGED_DURATION_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MONEY_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_DURATION_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_MONEY_FIELD_NUMBER: _ClassVar[int]
    RECORDED_DURATION_FIELD_NUMBER: _ClassVar[int]
    result: _call_pb2.SettleResult
    replayed: bool
    charged_duration: _duration_pb2.Duration
    charged_money: _money_pb2.Money
    funding: _containers.RepeatedCompositeFieldContainer[_call_pb2.FundingLine]
    shortfall_duration: _duration_pb2.Duration
    shortfall_money: _money_pb2.Money
    recorded_duration: _duration_pb2.Duration
    def __init__(self, result: _Optional[_Union[_call_pb2.SettleResult, str]] = ..., replayed: bool = ..., charged_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., charged_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., funding: _Optional[_Iterable[_Union[_call_pb2.FundingLine, _Mapping]]] = ..., shortfall_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., shortfall_money: _Optional[_Union[_money_pb2.Money, _Mapping]] = ..., recorded_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class QuoteCallRequest(_message.Message):
    __slots__ = ("tenant_id", "call_id", "call_type", "payer_id", "calling_number", "called_number", "original_called_number", "requested_duration", "origin", "on_behalf_of", "conference_id", "sip_call_id", "trunk_id", "reports_answer", "attempt", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYER_ID_FIELD_NUMBER: _ClassVar[int]
    CALLING_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CALLED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_CALLED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_DURATION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    CONFERENCE_ID_FIELD_NUMBER: _ClassVar[int]
    SIP_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TRUNK_ID_FIELD_NUMBER: _ClassVar[int]
    REPORTS_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    call_id: str
    call_type: _call_pb2.CallType
    payer_id: str
    calling_number: str
    called_number: str
    original_called_number: str
    requested_duration: _duration_pb2.Duration
    origin: _call_pb2.CallOrigin
    on_behalf_of: str
    conference_id: str
    sip_call_id: str
    trunk_id: str
    reports_answer: bool
    attempt: int
    labels: _containers.ScalarMap[str, str]
    def __init__(self, tenant_id: _Optional[str] = ..., call_id: _Optional[str] = ..., call_type: _Optional[_Union[_call_pb2.CallType, str]] = ..., payer_id: _Optional[str] = ..., calling_number: _Optional[str] = ..., called_number: _Optional[str] = ..., original_called_number: _Optional[str] = ..., requested_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., origin: _Optional[_Union[_call_pb2.CallOrigin, str]] = ..., on_behalf_of: _Optional[str] = ..., conference_id: _Optional[str] = ..., sip_call_id: _Optional[str] = ..., trunk_id: _Optional[str] = ..., reports_answer: bool = ..., attempt: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class QuoteCallResponse(_message.Message):
    __slots__ = ("decision", "allowed", "replayed", "grant", "denial", "classification", "funding", "decision_id", "deck_version", "warnings", "steps")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DENIAL_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECK_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    decision: _call_pb2.Decision
    allowed: bool
    replayed: bool
    grant: _call_pb2.Grant
    denial: _call_pb2.Denial
    classification: _call_pb2.Classification
    funding: _containers.RepeatedCompositeFieldContainer[_call_pb2.FundingLine]
    decision_id: str
    deck_version: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    steps: _containers.RepeatedCompositeFieldContainer[_call_pb2.QuoteStep]
    def __init__(self, decision: _Optional[_Union[_call_pb2.Decision, str]] = ..., allowed: bool = ..., replayed: bool = ..., grant: _Optional[_Union[_call_pb2.Grant, _Mapping]] = ..., denial: _Optional[_Union[_call_pb2.Denial, _Mapping]] = ..., classification: _Optional[_Union[_call_pb2.Classification, _Mapping]] = ..., funding: _Optional[_Iterable[_Union[_call_pb2.FundingLine, _Mapping]]] = ..., decision_id: _Optional[str] = ..., deck_version: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., steps: _Optional[_Iterable[_Union[_call_pb2.QuoteStep, _Mapping]]] = ...) -> None: ...

class EndCallsRequest(_message.Message):
    __slots__ = ("tenant_id", "trunk_id", "started_before")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TRUNK_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    trunk_id: str
    started_before: _timestamp_pb2.Timestamp
    def __init__(self, tenant_id: _Optional[str] = ..., trunk_id: _Optional[str] = ..., started_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EndCallsResponse(_message.Message):
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

class WatchCallsRequest(_message.Message):
    __slots__ = ("tenant_id", "trunk_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    TRUNK_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    trunk_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., trunk_id: _Optional[str] = ...) -> None: ...

class WatchCallsResponse(_message.Message):
    __slots__ = ("directive", "caught_up")
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    directive: _call_pb2.Directive
    caught_up: bool
    def __init__(self, directive: _Optional[_Union[_call_pb2.Directive, _Mapping]] = ..., caught_up: bool = ...) -> None: ...
