//! The table: which role may ask for which RPC, and whose tenant the message must name.

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A session border controller.
    Sbc,
    /// The dial-out service of conferences.
    Conferencing,
    /// Administration.
    Admin,
    /// Reads, changes nothing.
    Viewer,
    /// Asks for health alone.
    Probe,
}

/// Where a message says whose data it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In its `tenant_id`, field 1.
    Tenant,
    /// The same; without one, it is about all tenants.
    TenantOrAll,
    /// In each `id` of the tenants of an organisation document: field 1 of field 1 of field 1.
    Document,
    /// It is about all tenants.
    All,
    /// It is about none.
    Nothing,
}

/// One RPC.
#[derive(Clone, Copy, Debug)]
pub struct Rpc {
    /// Its path in HTTP.
    pub path: &'static str,
    /// Who may ask.
    pub roles: &'static [Role],
    /// Whose data it is about.
    pub scope: Scope,
}

/// The path of the RPC whose emergencies are decided before anything else (contract rule 13).
pub const AUTHORIZE: &str = "/tollgate.v1.CallAuthorizationService/AuthorizeCall";

/// Paths of health begin so.
pub const HEALTH: &str = "/grpc.health.v1.Health/";

macro_rules! table {
    ($($service:literal { $($rpc:literal: $roles:expr, $scope:ident;)* })*) => {
        /// Every RPC that is served. What is not in it is refused.
        pub const RPCS: &[Rpc] = &[
            $($(Rpc {
                path: concat!("/", $service, "/", $rpc),
                roles: $roles,
                scope: Scope::$scope,
            },)*)*
        ];
    };
}

const CALLS: &[Role] = &[Role::Sbc, Role::Conferencing];
const SBC: &[Role] = &[Role::Sbc];
const QUOTE: &[Role] = &[Role::Sbc, Role::Conferencing, Role::Admin, Role::Viewer];
const ADMIN: &[Role] = &[Role::Admin];
const READ: &[Role] = &[Role::Admin, Role::Viewer];
const ANY: &[Role] = &[Role::Sbc, Role::Conferencing, Role::Admin, Role::Viewer, Role::Probe];
const REFLECTION: &[Role] = &[Role::Sbc, Role::Conferencing, Role::Admin, Role::Viewer];

table! {
    "tollgate.v1.CallAuthorizationService" {
        "AuthorizeCall": CALLS, Tenant;
        "ReportAnswer": CALLS, Tenant;
        "ExtendCall": CALLS, Tenant;
        "SettleCall": CALLS, Tenant;
        "ReleaseCall": CALLS, Tenant;
        "QuoteCall": QUOTE, Tenant;
        "EndCalls": SBC, Tenant;
        "WatchCalls": CALLS, Tenant;
    }
    "grpc.health.v1.Health" {
        "Check": ANY, Nothing;
        "List": ANY, Nothing;
        "Watch": ANY, Nothing;
    }
    "tollgate.v1.AccountService" {
        "Apply": ADMIN, Document;
        "PurchaseCredits": ADMIN, Tenant;
        "ReportRecharge": ADMIN, Tenant;
        "GetBalance": READ, Tenant;
        "GetCall": READ, Tenant;
        "ListOpenCalls": READ, Tenant;
        "ListDecisions": READ, Tenant;
        "ExportUsage": READ, Tenant;
        "WatchEvents": READ, Tenant;
        "EraseNumbers": ADMIN, Tenant;
        "CheckDeck": READ, Nothing;
        "ActivateDeck": ADMIN, All;
        "RunAudit": ADMIN, TenantOrAll;
        "AdjustBalance": ADMIN, Tenant;
        "AdjustSettlement": ADMIN, Tenant;
        "ListAdjustments": READ, Tenant;
        "BlockUser": ADMIN, Tenant;
        "UnblockUser": ADMIN, Tenant;
        "ListBlockedUsers": READ, Tenant;
        "EndOpenCalls": ADMIN, Tenant;
    }
    "grpc.reflection.v1.ServerReflection" {
        "ServerReflectionInfo": REFLECTION, Nothing;
    }
    "grpc.reflection.v1alpha.ServerReflection" {
        "ServerReflectionInfo": REFLECTION, Nothing;
    }
}

/// Whether the answer is a stream, which may go on for long.
pub fn goes_on(path: &str) -> bool {
    let rpc = path.rsplit('/').next().unwrap_or_default();
    matches!(rpc, "WatchCalls" | "WatchEvents" | "ExportUsage" | "Watch" | "ServerReflectionInfo")
}

/// The row of a path.
pub fn find(path: &str) -> Option<&'static Rpc> {
    RPCS.iter().find(|rpc| rpc.path == path)
}

/// The tenants that a message names, as it lies in its frame, as far as it can be read; `None` where it
/// cannot. Of a repeated field that is no list the last one counts, as everybody reads it.
pub fn tenants(scope: Scope, frame: &[u8]) -> Option<Vec<&[u8]>> {
    let message = message(frame)?;
    match scope {
        Scope::Nothing | Scope::All => Some(vec![]),
        Scope::Tenant => Some(vec![last(message)?.unwrap_or_default()]),
        Scope::TenantOrAll => {
            Some(last(message)?.into_iter().filter(|id| !id.is_empty()).collect())
        }
        Scope::Document => {
            let mut tenants = vec![];
            // Parts of one message that come twice are merged, lists of both are kept.
            for document in first_fields(message)? {
                for tenant in first_fields(document)? {
                    tenants.push(last(tenant)?.unwrap_or_default());
                }
            }
            Some(tenants)
        }
    }
}

/// The first message of a stream of gRPC, which is not compressed.
fn message(frame: &[u8]) -> Option<&[u8]> {
    let (head, rest) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    (head[0] == 0).then(|| rest.get(..usize::try_from(length).ok()?)).flatten()
}

fn last(message: &[u8]) -> Option<Option<&[u8]>> {
    Some(first_fields(message)?.pop())
}

/// Every field 1 of a message, which must be a text or a message. `None` where anything is malformed.
fn first_fields(mut message: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = vec![];
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let (field, kind) = (key >> 3, key & 7);
        let length = match kind {
            0 => {
                varint(&mut message)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            // Groups are of no message here.
            _ => return None,
        };
        let (value, rest) = message.split_at_checked(length)?;
        message = rest;
        match (field, kind) {
            (1, 2) => found.push(value),
            (1, _) => return None,
            _ => {}
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;

    use super::*;
    use crate::proto::json::descriptor;
    use crate::proto::v1;

    fn framed(message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        let length = u32::try_from(bytes.len()).expect("it is small");
        [&[0][..], &length.to_be_bytes(), &bytes].concat()
    }

    #[test]
    fn every_rpc_of_the_protocol_stands_in_the_table_once_with_the_scope_of_its_message() {
        let pool = descriptor("tollgate.v1.AuthorizeCallRequest").expect("it is known");
        let mut known = BTreeSet::new();
        for service in pool.parent_pool().services() {
            if !service.full_name().starts_with("tollgate.") {
                continue;
            }
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let rpc = find(&path).unwrap_or_else(|| panic!("{path} is not in the table"));
                let first = method.input().get_field(1);
                let tenant = first.is_some_and(|field| field.name() == "tenant_id");
                assert!(!method.is_client_streaming(), "{path}");
                match rpc.scope {
                    Scope::Tenant | Scope::TenantOrAll => assert!(tenant, "{path}"),
                    Scope::Document => assert!(path.ends_with("/Apply")),
                    Scope::All | Scope::Nothing => {
                        assert!(method.input().get_field_by_name("tenant_id").is_none(), "{path}");
                    }
                }
                known.insert(path);
            }
        }
        let table: Vec<_> = RPCS.iter().filter(|r| r.path.starts_with("/tollgate.")).collect();
        assert_eq!(table.len(), known.len());
    }

    #[test]
    fn tenants_are_read_as_the_decoder_reads_them() {
        let request = v1::GetCallRequest { tenant_id: "a".to_owned(), call_id: "b".to_owned() };
        assert_eq!(tenants(Scope::Tenant, &framed(&request)), Some(vec![&b"a"[..]]));
        let none = framed(&v1::GetCallRequest::default());
        assert_eq!(tenants(Scope::Tenant, &none), Some(vec![&b""[..]]));
        assert_eq!(tenants(Scope::TenantOrAll, &none), Some(vec![]));
        // Twice: the last one counts.
        let twice = [0, 0, 0, 0, 6, 10, 1, b'a', 10, 1, b'b'];
        assert_eq!(tenants(Scope::Tenant, &twice), Some(vec![&b"b"[..]]));
        let document = v1::ApplyRequest {
            organisation: Some(v1::Organisation {
                tenants: ["x", "y"]
                    .map(|id| v1::Tenant { id: id.to_owned(), ..Default::default() })
                    .into(),
            }),
        };
        let framed = framed(&document);
        let read = tenants(Scope::Document, &framed);
        assert_eq!(read, Some(vec![&b"x"[..], b"y"]));
        for malformed in [
            &[][..],
            &[1, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 10],
            &[0, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 1, 11],
            &[0, 0, 0, 0, 1, 0x80],
        ] {
            assert_eq!(tenants(Scope::Tenant, malformed), None, "{malformed:?}");
        }
    }
}
