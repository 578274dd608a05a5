import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Organisation(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    def __init__(self, tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("id", "currency", "country", "time_zone", "billing", "overage", "rate_deck", "outbound_policy", "failure_handling", "on_lost_settle", "limits", "spend_velocity", "blocked_prefixes", "auto_recharge", "credits", "users", "service_numbers", "resource_accounts", "trunks", "state", "international_cap", "allow_unlisted_destinations", "pool_increments", "deduct_shortfall", "notices", "retention")
    class PoolIncrementsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    BILLING_FIELD_NUMBER: _ClassVar[int]
    OVERAGE_FIELD_NUMBER: _ClassVar[int]
    RATE_DECK_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_POLICY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_HANDLING_FIELD_NUMBER: _ClassVar[int]
    ON_LOST_SETTLE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SPEND_VELOCITY_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_PREFIXES_FIELD_NUMBER: _ClassVar[int]
    AUTO_RECHARGE_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    TRUNKS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INTERNATIONAL_CAP_FIELD_NUMBER: _ClassVar[int]
    ALLOW_UNLISTED_DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    POOL_INCREMENTS_FIELD_NUMBER: _ClassVar[int]
    DEDUCT_SHORTFALL_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    currency: str
    country: str
    time_zone: str
    billing: str
    overage: bool
    rate_deck: str
    outbound_policy: OutboundPolicy
    failure_handling: FailureHandling
    on_lost_settle: str
    limits: TenantLimits
    spend_velocity: SpendVelocity
    blocked_prefixes: _containers.RepeatedScalarFieldContainer[str]
    auto_recharge: AutoRecharge
    credits: _containers.RepeatedCompositeFieldContainer[CreditPurchase]
    users: _containers.RepeatedCompositeFieldContainer[User]
    service_numbers: _containers.RepeatedCompositeFieldContainer[ServiceNumber]
    resource_accounts: _containers.RepeatedCompositeFieldContainer[ResourceAccount]
    trunks: _containers.RepeatedCompositeFieldContainer[Trunk]
    state: str
    international_cap: str
    allow_unlisted_destinations: bool
    pool_increments: _containers.MessageMap[str, _duration_pb2.Duration]
    deduct_shortfall: bool
    notices: Notices
    retention: Retention
    def __init__(self, id: _Optional[str] = ..., currency: _Optional[str] = ..., country: _Optional[str] = ..., time_zone: _Optional[str] = ..., billing: _Optional[str] = ..., overage: bool = ..., rate_deck: _Optional[str] = ..., outbound_policy: _Optional[_Union[OutboundPolicy, _Mapping]] = ..., failure_handling: _Optional[_Union[FailureHandling, _Mapping]] = ..., on_lost_settle: _Optional[str] = ..., limits: _Optional[_Union[TenantLimits, _Mapping]] = ..., spend_velocity: _Optional[_Union[SpendVelocity, _Mapping]] = ..., blocked_prefixes: _Optional[_Iterable[str]] = ..., auto_recharge: _Optional[_Union[AutoRecharge, _Mapping]] = ..., credits: _Optional[_Iterable[_Union[CreditPurchase, _Mapping]]] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ..., service_numbers: _Optional[_Iterable[_Union[ServiceNumber, _Mapping]]] = ..., resource_accounts: _Optional[_Iterable[_Union[ResourceAccount, _Mapping]]] = ..., trunks: _Optional[_Iterable[_Union[Trunk, _Mapping]]] = ..., state: _Optional[str] = ..., international_cap: _Optional[str] = ..., allow_unlisted_destinations: bool = ..., pool_increments: _Optional[_Mapping[str, _duration_pb2.Duration]] = ..., deduct_shortfall: bool = ..., notices: _Optional[_Union[Notices, _Mapping]] = ..., retention: _Optional[_Union[Retention, _Mapping]] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("numbers", "records")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    numbers: _duration_pb2.Duration
    records: _duration_pb2.Duration
    def __init__(self, numbers: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., records: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Notices(_message.Message):
    __slots__ = ("emails", "webhook")
    EMAILS_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    emails: _containers.RepeatedScalarFieldContainer[str]
    webhook: str
    def __init__(self, emails: _Optional[_Iterable[str]] = ..., webhook: _Optional[str] = ...) -> None: ...

class OutboundPolicy(_message.Message):
    __slots__ = ("conference", "user")
    CONFERENCE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    conference: str
    user: str
    def __init__(self, conference: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class FailureHandling(_message.Message):
    __slots__ = ("user_outbound", "conference_dial_out", "toll_free_inbound")
    USER_OUTBOUND_FIELD_NUMBER: _ClassVar[int]
    CONFERENCE_DIAL_OUT_FIELD_NUMBER: _ClassVar[int]
    TOLL_FREE_INBOUND_FIELD_NUMBER: _ClassVar[int]
    user_outbound: str
    conference_dial_out: str
    toll_free_inbound: str
    def __init__(self, user_outbound: _Optional[str] = ..., conference_dial_out: _Optional[str] = ..., toll_free_inbound: _Optional[str] = ...) -> None: ...

class TenantLimits(_message.Message):
    __slots__ = ("concurrent_calls", "calls_per_second", "max_rate_per_minute", "max_connection_fee")
    CONCURRENT_CALLS_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MAX_RATE_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_FEE_FIELD_NUMBER: _ClassVar[int]
    concurrent_calls: int
    calls_per_second: int
    max_rate_per_minute: str
    max_connection_fee: str
    def __init__(self, concurrent_calls: _Optional[int] = ..., calls_per_second: _Optional[int] = ..., max_rate_per_minute: _Optional[str] = ..., max_connection_fee: _Optional[str] = ...) -> None: ...

class SpendVelocity(_message.Message):
    __slots__ = ("amount", "per")
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    amount: str
    per: _duration_pb2.Duration
    def __init__(self, amount: _Optional[str] = ..., per: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AutoRecharge(_message.Message):
    __slots__ = ("trigger", "amount", "daily_cap", "recharge_on")
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    DAILY_CAP_FIELD_NUMBER: _ClassVar[int]
    RECHARGE_ON_FIELD_NUMBER: _ClassVar[int]
    trigger: str
    amount: str
    daily_cap: str
    recharge_on: str
    def __init__(self, trigger: _Optional[str] = ..., amount: _Optional[str] = ..., daily_cap: _Optional[str] = ..., recharge_on: _Optional[str] = ...) -> None: ...

class CreditPurchase(_message.Message):
    __slots__ = ("key", "amount", "purchased_at", "payment")
    KEY_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PURCHASED_AT_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    key: str
    amount: str
    purchased_at: _timestamp_pb2.Timestamp
    payment: Payment
    def __init__(self, key: _Optional[str] = ..., amount: _Optional[str] = ..., purchased_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., payment: _Optional[_Union[Payment, _Mapping]] = ...) -> None: ...

class Payment(_message.Message):
    __slots__ = ("agreement", "purchase_order")
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    PURCHASE_ORDER_FIELD_NUMBER: _ClassVar[int]
    agreement: str
    purchase_order: str
    def __init__(self, agreement: _Optional[str] = ..., purchase_order: _Optional[str] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("id", "upn", "display_name", "object_id", "usage_location", "licences", "numbers", "outbound_policy", "spend_limit", "limits", "state", "emergency_address")
    ID_FIELD_NUMBER: _ClassVar[int]
    UPN_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_LOCATION_FIELD_NUMBER: _ClassVar[int]
    LICENCES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_POLICY_FIELD_NUMBER: _ClassVar[int]
    SPEND_LIMIT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EMERGENCY_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    id: str
    upn: str
    display_name: str
    object_id: str
    usage_location: str
    licences: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.RepeatedScalarFieldContainer[str]
    outbound_policy: OutboundPolicy
    spend_limit: str
    limits: UserLimits
    state: str
    emergency_address: str
    def __init__(self, id: _Optional[str] = ..., upn: _Optional[str] = ..., display_name: _Optional[str] = ..., object_id: _Optional[str] = ..., usage_location: _Optional[str] = ..., licences: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Iterable[str]] = ..., outbound_policy: _Optional[_Union[OutboundPolicy, _Mapping]] = ..., spend_limit: _Optional[str] = ..., limits: _Optional[_Union[UserLimits, _Mapping]] = ..., state: _Optional[str] = ..., emergency_address: _Optional[str] = ...) -> None: ...

class UserLimits(_message.Message):
    __slots__ = ("concurrent_calls",)
    CONCURRENT_CALLS_FIELD_NUMBER: _ClassVar[int]
    concurrent_calls: int
    def __init__(self, concurrent_calls: _Optional[int] = ...) -> None: ...

class ServiceNumber(_message.Message):
    __slots__ = ("id", "e164", "kind", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    E164_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    e164: str
    kind: str
    state: str
    def __init__(self, id: _Optional[str] = ..., e164: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class ResourceAccount(_message.Message):
    __slots__ = ("id", "usage_location", "licences", "numbers", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_LOCATION_FIELD_NUMBER: _ClassVar[int]
    LICENCES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    usage_location: str
    licences: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.RepeatedScalarFieldContainer[str]
    state: str
    def __init__(self, id: _Optional[str] = ..., usage_location: _Optional[str] = ..., licences: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Iterable[str]] = ..., state: _Optional[str] = ...) -> None: ...

class Trunk(_message.Message):
    __slots__ = ("id", "emergency_country", "responses")
    class ResponsesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: TrunkResponse
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[TrunkResponse, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    EMERGENCY_COUNTRY_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    id: str
    emergency_country: str
    responses: _containers.MessageMap[str, TrunkResponse]
    def __init__(self, id: _Optional[str] = ..., emergency_country: _Optional[str] = ..., responses: _Optional[_Mapping[str, TrunkResponse]] = ...) -> None: ...

class TrunkResponse(_message.Message):
    __slots__ = ("sip_status", "q850_cause")
    SIP_STATUS_FIELD_NUMBER: _ClassVar[int]
    Q850_CAUSE_FIELD_NUMBER: _ClassVar[int]
    sip_status: int
    q850_cause: int
    def __init__(self, sip_status: _Optional[int] = ..., q850_cause: _Optional[int] = ...) -> None: ...
