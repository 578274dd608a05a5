//! Which request of HTTP means which RPC: read from the `google.api.http` annotations of a service.
//!
//! Of the annotations' language this is understood: literals, `{field}` of a string, and a `:verb` at the
//! end; a body of `*`, or none. A service with anything else is not served.

use http::{Method, Uri};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, ServiceDescriptor};

use crate::proto::json::{JsonError, descriptors};

/// An annotation that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// The descriptors that were built in cannot be read.
    #[error(transparent)]
    Descriptors(#[from] JsonError),
    /// No service of this name, or no annotations, are built in.
    #[error("expected descriptors of {0}")]
    Unknown(String),
    /// An annotation says more than is understood here.
    #[error("{rpc}: expected a path of literals and strings and a body of \"*\", found {found:?}")]
    Annotation {
        /// Full name of the RPC.
        rpc: String,
        /// Its path.
        found: String,
    },
}

/// All of a service.
#[derive(Debug)]
pub struct Bindings {
    /// The service.
    pub service: ServiceDescriptor,
    /// In the order of the annotations, those with a verb first.
    pub all: Vec<Binding>,
}

/// One way of asking an RPC.
#[derive(Debug)]
pub struct Binding {
    /// The method of HTTP.
    pub method: Method,
    /// The path as annotated, with fields in braces.
    pub template: String,
    /// Whether the message is in the body; else what the path leaves out is in the query.
    pub has_body: bool,
    /// The RPC.
    pub rpc: MethodDescriptor,
    /// Its path in gRPC.
    pub uri: Uri,
    segments: Vec<Segment>,
    verb: Option<String>,
}

#[derive(Debug)]
enum Segment {
    Literal(String),
    Field(FieldDescriptor),
}

/// A field and what stands for it in the path, still encoded.
pub type Captured<'a> = (FieldDescriptor, &'a str);

/// What a request means.
pub enum Found<'a> {
    /// This, with the fields that the path names.
    Binding(&'a Binding, Vec<Captured<'a>>),
    /// Nothing by its method, but something by these, separated by commas.
    OtherMethods(String),
    /// Nothing by any.
    Nothing,
}

impl Bindings {
    /// Those of the service with this full name.
    pub fn of(service: &str) -> Result<Bindings, BindingError> {
        let unknown = || BindingError::Unknown(service.to_owned());
        let pool = descriptors()?;
        let annotation = pool.get_extension_by_name("google.api.http").ok_or_else(unknown)?;
        let service = pool.get_service_by_name(service).ok_or_else(unknown)?;
        let mut all = vec![];
        for rpc in service.methods() {
            let options = rpc.options();
            if !options.has_extension(&annotation) {
                continue;
            }
            let rule = options.get_extension(&annotation);
            let Some(rule) = rule.as_message() else { continue };
            all.push(Binding::of(&rpc, rule)?);
            let more = rule.get_field_by_name("additional_bindings");
            for rule in more.iter().filter_map(|more| more.as_list()).flatten() {
                let Some(rule) = rule.as_message() else { continue };
                all.push(Binding::of(&rpc, rule)?);
            }
        }
        all.sort_by_key(|binding| binding.verb.is_none());
        Ok(Bindings { service, all })
    }

    /// What a request with this path, without its query, means.
    pub fn find<'a>(&'a self, method: &Method, path: &'a str) -> Found<'a> {
        let mut others: Vec<&str> = vec![];
        for binding in &self.all {
            match binding.captured(path) {
                Some(captured) if binding.method == *method => {
                    return Found::Binding(binding, captured);
                }
                Some(_) if !others.contains(&binding.method.as_str()) => {
                    others.push(binding.method.as_str());
                }
                _ => {}
            }
        }
        match others.is_empty() {
            true => Found::Nothing,
            false => Found::OtherMethods(others.join(", ")),
        }
    }
}

impl Binding {
    fn of(rpc: &MethodDescriptor, rule: &DynamicMessage) -> Result<Binding, BindingError> {
        let text = |name| {
            let value = rule.get_field_by_name(name)?;
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let methods = [
            ("get", Method::GET),
            ("put", Method::PUT),
            ("post", Method::POST),
            ("delete", Method::DELETE),
            ("patch", Method::PATCH),
        ];
        let pattern = methods.into_iter().find_map(|(name, method)| Some((method, text(name)?)));
        let (method, template) = pattern.unwrap_or_default();
        let body = text("body");
        let not_understood = || BindingError::Annotation {
            rpc: rpc.full_name().to_owned(),
            found: template.clone(),
        };
        let path = template.strip_prefix('/').ok_or_else(not_understood)?;
        // A verb stands behind the last segment, and no field of ours has a colon in its name.
        let (path, verb) = match path.rsplit_once(':') {
            Some((path, verb)) => (path, Some(verb.to_owned())),
            None => (path, None),
        };
        let segment = |text: &str| match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            None => (!text.contains(['{', '*', '}'])).then(|| Segment::Literal(text.to_owned())),
            Some(name) => {
                let field = rpc.input().get_field_by_name(name)?;
                let is_string = field.kind() == Kind::String && !field.is_list();
                is_string.then_some(Segment::Field(field))
            }
        };
        let segments: Option<Vec<_>> = path.split('/').map(segment).collect();
        let uri = format!("/{}/{}", rpc.parent_service().full_name(), rpc.name());
        let served = matches!(body.as_deref(), None | Some("*"))
            && !rpc.is_client_streaming()
            && !rpc.is_server_streaming();
        Ok(Binding {
            method,
            has_body: body.is_some(),
            rpc: rpc.clone(),
            uri: uri.parse().map_err(|_| not_understood())?,
            segments: segments.filter(|_| served).ok_or_else(not_understood)?,
            verb,
            template: template.clone(),
        })
    }

    /// The fields that its path names, in their order.
    pub fn path_fields(&self) -> impl Iterator<Item = &FieldDescriptor> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Field(field) => Some(field),
            Segment::Literal(_) => None,
        })
    }

    /// The fields in the path, if it is one of these.
    fn captured<'a>(&self, path: &'a str) -> Option<Vec<Captured<'a>>> {
        let path = path.strip_prefix('/')?;
        // Only the last colon is looked at: a value may have others.
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let mut given = path.split('/');
        let mut captured = vec![];
        for segment in &self.segments {
            let text = given.next()?;
            match segment {
                Segment::Literal(literal) if literal == text => {}
                Segment::Field(field) if !text.is_empty() => captured.push((field.clone(), text)),
                _ => return None,
            }
        }
        given.next().is_none().then_some(captured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: [&str; 2] =
        ["tollgate.v1.CallAuthorizationService", "tollgate.v1.AccountService"];

    #[track_caller]
    fn check(method: Method, path: &str, expected: &str) {
        let bindings = Bindings::of(SERVICES[0]).expect("annotations");
        let found = match bindings.find(&method, path) {
            Found::Binding(binding, captured) => {
                let values: Vec<_> =
                    captured.iter().map(|(f, value)| format!("{}={value}", f.name())).collect();
                format!("{} {}", binding.rpc.name(), values.join(" "))
            }
            Found::OtherMethods(methods) => format!("only {methods}"),
            Found::Nothing => "nothing".to_owned(),
        };
        assert_eq!(found.trim_end(), expected, "{method} {path}");
    }

    #[test]
    fn a_path_means_one_rpc() {
        let post = |path, expected| check(Method::POST, path, expected);
        post("/v1/tenants/t/calls:authorize", "AuthorizeCall tenant_id=t");
        post("/v1/calls:authorize", "AuthorizeCall");
        post("/v1/tenants/t/calls/a%2Fb:settle", "SettleCall tenant_id=t call_id=a%2Fb");
        post(
            "/v1/tenants/t/calls/r|a:b@c:5060:settle",
            "SettleCall tenant_id=t call_id=r|a:b@c:5060",
        );
        post("/v1/tenants/t/calls:settle", "SettleCall tenant_id=t");
        post("/v1/tenants/t/calls/:settle", "nothing");
        post("/v1/tenants//calls:authorize", "nothing");
        post("/v1/tenants/t/calls/a/b:settle", "nothing");
        post("/v1/tenants/t/calls/a:other", "nothing");
        post("/v1/tenants/t/calls/asettle", "nothing");
        post("/v1/tenants/t/calls:authorize/", "nothing");
        post("/", "nothing");
        check(Method::GET, "/v1/tenants/t/calls:authorize", "only POST");
    }

    #[test]
    fn every_unary_rpc_has_a_path_of_its_own() {
        for service in SERVICES {
            let bindings = Bindings::of(service).expect("annotations");
            for rpc in bindings.service.methods() {
                let unary = !rpc.is_client_streaming() && !rpc.is_server_streaming();
                let bound = bindings.all.iter().any(|binding| binding.rpc == rpc);
                assert_eq!(unary, bound, "{}", rpc.full_name());
            }
            for binding in &bindings.all {
                // Its own template is one of its paths, and nobody else's before.
                match bindings.find(&binding.method, &binding.template) {
                    Found::Binding(found, _) => assert_eq!(found.template, binding.template),
                    _ => panic!("{} is not found", binding.template),
                }
            }
        }
    }
}
