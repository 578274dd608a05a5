//! The plan of the house: a room may use only the rooms it is built on.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms, each with what its files must not name.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "charging",
        &[
            "crate::ledger",
            "crate::credit_control",
            "crate::administration",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::ops",
            "crate::proto",
            "tokio",
            "tonic",
            "prost",
            "redis::",
            "tracing",
            "std::env",
            "SystemTime",
            "Instant::now",
            "async fn",
        ],
    ),
    (
        "ledger",
        &[
            "crate::credit_control",
            "crate::administration",
            "crate::records",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::ops",
            "crate::proto",
            "tonic",
            "prost",
            "charging::entitlement",
            "charging::number",
        ],
    ),
    (
        "credit_control",
        &[
            "crate::records",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::ops",
            "crate::proto",
            "tonic",
            "prost",
            "redis::",
            "ledger::redis",
            "ledger::memory",
        ],
    ),
    (
        "journal",
        &[
            "crate::credit_control",
            "crate::administration",
            "crate::records",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::ops",
            "crate::proto",
            "tonic",
            "prost",
            "redis::",
            "ledger::redis",
            "ledger::memory",
        ],
    ),
    (
        "administration",
        &[
            "crate::records",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::ops",
            "crate::proto",
            "tonic",
            "prost",
            "redis::",
            "ledger::redis",
            "ledger::memory",
        ],
    ),
    (
        "records",
        &[
            "crate::administration",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::ops",
            "crate::proto",
            "tonic",
            "prost",
            "redis::",
            "ledger::redis",
            "ledger::memory",
            "SystemTime",
        ],
    ),
    (
        "events",
        &[
            "crate::credit_control",
            "crate::administration",
            "crate::grpc",
            "crate::cli",
            "crate::proto",
            "tokio",
            "tonic",
            "redis::",
        ],
    ),
    (
        "notices",
        &[
            "crate::credit_control",
            "crate::administration",
            "crate::records",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::ops",
            "crate::proto",
            "tonic",
            "prost",
            "redis::",
            "ledger::redis",
            "ledger::memory",
        ],
    ),
    (
        "organisation",
        &[
            "crate::ledger",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::proto",
            "tokio",
            "tonic",
            "prost",
            "redis::",
        ],
    ),
    (
        "grpc",
        &[
            "redis::",
            "ledger::redis",
            "ledger::memory",
            "crate::app",
            "crate::cli",
            "crate::config",
        ],
    ),
    (
        "security",
        &[
            "crate::charging",
            "crate::ledger",
            "crate::credit_control",
            "crate::administration",
            "crate::records",
            "crate::organisation",
            "crate::grpc",
            "crate::transcoding",
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::ops",
            "redis::",
        ],
    ),
    (
        "metrics",
        &[
            "crate::ledger",
            "crate::credit_control",
            "crate::administration",
            "crate::grpc",
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::ops",
            "crate::proto",
            "tokio",
            "tonic",
            "redis::",
        ],
    ),
    (
        "transcoding",
        &[
            "crate::charging",
            "crate::ledger",
            "crate::credit_control",
            "crate::administration",
            "crate::records",
            "crate::organisation",
            "crate::cli",
            "crate::app",
            "crate::config",
            "crate::ops",
            "redis::",
        ],
    ),
];

/// How a float would be written.
const FLOATS: &[&str] =
    &["as f64", "as f32", ": f64", ": f32", "<f64", "<f32", "f64::", "f32::", "> f64", "> f32"];

#[test]
fn no_room_uses_a_room_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = vec![];
    for (room, forbidden) in FORBIDDEN {
        let files = files_of(&src, room);
        assert!(!files.is_empty(), "no file belongs to {room}");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for name in forbidden.iter().filter(|name| code.contains(*name)) {
                    faults.push(format!("{}:{}: {name}", file.display(), number + 1));
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn no_module_is_a_mod_rs_and_no_float_is_written() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&src) {
        assert_ne!(file.file_name().unwrap(), "mod.rs", "{}", file.display());
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let float = FLOATS.iter().any(|form| code.contains(form));
            assert!(!float, "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

fn files_of(src: &Path, room: &str) -> Vec<PathBuf> {
    let mut files = rust_files(&src.join(room));
    files.push(src.join(format!("{room}.rs")));
    files.retain(|file| file.is_file());
    files
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut files = vec![];
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
