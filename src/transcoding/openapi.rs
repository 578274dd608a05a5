//! The OpenAPI document of a service, made of its descriptors: paths from its annotations, schemas from
//! its messages, descriptions from the comments in the protobuf files.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
};
use serde_json::{Map, Value, json};

use crate::transcoding::bindings::{Binding, Bindings};

/// The version of OpenAPI.
const VERSION: &str = "3.1.1";

/// What every RPC may answer instead.
const STATUS: &str = "google.rpc.Status";

/// The document of what [`Bindings`] says.
pub fn document(bindings: &Bindings) -> Value {
    let mut document = Document::default();
    let mut operations = BTreeSet::new();
    let mut paths = Map::new();
    // The first way of asking an RPC has its name.
    let mut all: Vec<&Binding> = bindings.all.iter().collect();
    all.sort_by_key(|binding| binding.rpc.path().to_vec());
    for binding in all {
        let name = binding.rpc.name();
        let numbered = (2..).map(|number| format!("{name}{number}"));
        let id =
            std::iter::once(name.to_owned()).chain(numbered).find(|id| !operations.contains(id));
        let id = id.unwrap_or_default();
        let path = paths.entry(binding.template.clone()).or_insert_with(|| json!({}));
        path[binding.method.as_str().to_ascii_lowercase()] = document.operation(binding, &id);
        operations.insert(id);
    }
    document.add_status();
    let service = &bindings.service;
    let (service_name, about) =
        (service.name(), document.comment(&service.parent_file(), service.path()));
    json!({
        "openapi": VERSION,
        "info": {
            "title": format!("Tollgate {service_name}"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": about,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [{ "name": service_name, "description": about }],
        "paths": paths,
        "components": { "schemas": document.schemas },
    })
}

#[derive(Default)]
struct Document {
    schemas: BTreeMap<String, Value>,
    /// Of each file: the comment at each path in it.
    comments: BTreeMap<String, BTreeMap<Vec<i32>, String>>,
}

impl Document {
    fn operation(&mut self, binding: &Binding, id: &str) -> Value {
        let rpc = &binding.rpc;
        let mut parameters = vec![];
        let in_path: Vec<u32> = binding.path_fields().map(FieldDescriptor::number).collect();
        for field in rpc.input().fields() {
            let place = match in_path.contains(&field.number()) {
                true => "path",
                false if binding.method == Method::GET => "query",
                false => continue,
            };
            let name = match place {
                "path" => field.name(),
                _ => field.json_name(),
            };
            parameters.push(json!({
                "name": name,
                "in": place,
                "required": place == "path",
                "description": self.comment(&field.parent_message().parent_file(), field.path()),
                "schema": self.value(&field.kind()),
            }));
        }
        let comment = self.comment(&rpc.parent_service().parent_file(), rpc.path());
        let mut operation = json!({
            "operationId": id,
            "tags": [rpc.parent_service().name()],
            "summary": comment.split(['.', ':', ';']).next().unwrap_or_default(),
            "description": comment,
            "parameters": parameters,
            "responses": {
                "200": { "description": "The answer.", "content": self.content(&rpc.output()) },
                "default": {
                    "description": "No answer: the status of gRPC, with the status of HTTP that goes with it.",
                    "content": { "application/json": { "schema": reference(STATUS) } },
                },
            },
        });
        if binding.has_body {
            let content = self.content(&rpc.input());
            operation["requestBody"] = json!({
                "description": "Fields that the path names may be left out here.",
                "required": in_path.len() < required(&rpc.input()),
                "content": content,
            });
        }
        operation
    }

    fn content(&mut self, message: &MessageDescriptor) -> Value {
        json!({ "application/json": { "schema": self.message(message) } })
    }

    /// A value of this kind; what it refers to is in the schemas afterwards.
    fn value(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({ "type": "integer", "format": "int32" })
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX })
            }
            // JSON's numbers are not exact that far: 64 bits are written as text.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" })
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" })
            }
            Kind::Double | Kind::Float => json!({ "type": "number" }),
            Kind::Enum(of) => self.enumeration(of),
            Kind::Message(of) => self.message(of),
        }
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => {
                return json!({ "type": "string", "format": "date-time" });
            }
            "google.protobuf.Duration" => {
                return json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["60s"] });
            }
            _ => {}
        }
        let name = message.full_name();
        if !self.schemas.contains_key(name) {
            // Before its fields: a message may be within itself.
            self.schemas.insert(name.to_owned(), Value::Null);
            let schema = self.object(message);
            self.schemas.insert(name.to_owned(), schema);
        }
        reference(name)
    }

    fn object(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.field(&field);
            let comment = self.comment(&message.parent_file(), field.path());
            schema["description"] = comment.into();
            properties.insert(field.json_name().to_owned(), schema);
        }
        json!({
            "type": "object",
            "description": self.comment(&message.parent_file(), message.path()),
            "properties": properties,
        })
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = self.value(&entry.map_entry_value_field().kind());
                json!({ "type": "object", "additionalProperties": values })
            }
            kind if field.cardinality() == Cardinality::Repeated => {
                json!({ "type": "array", "items": self.value(&kind) })
            }
            kind => self.value(&kind),
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptor) -> Value {
        let name = of.full_name();
        if !self.schemas.contains_key(name) {
            let file = of.parent_file();
            let mut about = self.comment(&file, of.path());
            for value in of.values() {
                about +=
                    &format!("\n\n- `{}`: {}", value.name(), self.comment(&file, value.path()));
            }
            let names: Vec<_> = of.values().map(|value| value.name().to_owned()).collect();
            let schema = json!({ "type": "string", "description": about, "enum": names });
            self.schemas.insert(name.to_owned(), schema);
        }
        reference(name)
    }

    /// By hand: details are of any type, named by `@type`, which its descriptor cannot say.
    fn add_status(&mut self) {
        let schema = json!({
            "type": "object",
            "description": "Why there is no answer.",
            "properties": {
                "code": { "type": "integer", "format": "int32", "description": "The code of gRPC." },
                "message": { "type": "string", "description": "For people." },
                "details": {
                    "type": "array",
                    "description": "Among them google.rpc.BadRequest, which names each field that is wrong.",
                    "items": {
                        "type": "object",
                        "properties": { "@type": { "type": "string" } },
                        "required": ["@type"],
                        "additionalProperties": true,
                    },
                },
            },
        });
        self.schemas.insert(STATUS.to_owned(), schema);
    }

    /// The comment before the declaration at this path, its lines joined; paragraphs stay.
    fn comment(&mut self, file: &FileDescriptor, path: &[i32]) -> String {
        let of_file = self.comments.entry(file.name().to_owned()).or_insert_with(|| {
            let proto = file.file_descriptor_proto();
            let locations = proto.source_code_info.iter().flat_map(|info| &info.location);
            let joined = |comment: &str| {
                let paragraphs = comment.split("\n\n").map(|paragraph| {
                    paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
                });
                paragraphs.collect::<Vec<_>>().join("\n\n")
            };
            locations.map(|at| (at.path.clone(), joined(at.leading_comments()))).collect()
        });
        of_file.get(path).cloned().unwrap_or_default()
    }
}

/// How many fields a comment calls required.
fn required(message: &MessageDescriptor) -> usize {
    let proto = message.parent_file();
    let locations = proto.file_descriptor_proto().source_code_info.iter().flat_map(|i| &i.location);
    let of_message = |path: &[i32]| message.fields().any(|field| field.path() == path);
    let is_required = |comment: &str| comment.split_whitespace().any(|w| w.starts_with("Required"));
    locations.filter(|at| of_message(&at.path) && is_required(at.leading_comments())).count()
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
