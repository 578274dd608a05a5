//! The documents keep to the program: rules that it prints, tests that they name, links between them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the numbers of rules are printed.
const PRINTING: [&str; 3] = ["entitlement.rs", "plans.rs", "licensing.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `dir` with the extension `of`.
fn files(dir: &Path, of: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, of, into);
        } else if path.extension().is_some_and(|found| found == of) {
            into.push(path);
        }
    }
}

/// The rows of the tables in docs/RULES.md: rule, sentence, where, test.
fn rows() -> Vec<[String; 4]> {
    let text = read("docs/RULES.md");
    let cells = |line: &str| {
        let cells: Vec<_> =
            line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        <[String; 4]>::try_from(cells).unwrap_or_else(|_| panic!("not four cells: {line}"))
    };
    let is_row = |cells: &[String; 4]| cells[0] != "rule" && !cells[0].starts_with('-');
    text.lines().filter(|line| line.starts_with('|')).map(cells).filter(is_row).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The string literals of the program's own lines, without comments and tests.
fn literals(source: &str) -> Vec<String> {
    let program = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = program.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join("\n");
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn is_rule(text: &str) -> bool {
    let digits = text.strip_prefix('D').unwrap_or(text);
    !digits.is_empty() && digits.len() < 3 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Every test as `file::name`, those of the cases that run on every ledger too.
fn tests() -> BTreeSet<String> {
    let mut paths = vec![];
    files(&root().join("src"), "rs", &mut paths);
    files(&root().join("tests"), "rs", &mut paths);
    let mut found = BTreeSet::new();
    for path in paths {
        let relative = path.strip_prefix(root()).unwrap().with_extension("");
        let module = relative.to_string_lossy().replace('/', "::");
        let (mut is_test, mut is_list) = (false, false);
        for line in read(&path).lines().map(str::trim) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            is_list &= line != "}";
            let name = match line.split_once("fn ") {
                Some((_, rest)) if is_test => rest.split(['(', '<']).next(),
                _ if is_list => Some(line),
                _ => None,
            };
            if let Some(name) = name {
                found.insert(format!("{module}::{name}"));
                is_test = false;
            }
            is_list |= line.ends_with("on_every_ledger! {");
        }
    }
    found
}

#[test]
fn every_rule_and_decision_has_one_row_in_order() {
    let found: Vec<_> = rows().into_iter().map(|[rule, ..]| rule).collect();
    let rules = (1..=91).map(|number| number.to_string());
    let expected: Vec<_> = rules.chain((1..=30).map(|number| format!("D{number}"))).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_rule_that_is_printed_has_a_row() {
    let known: BTreeSet<_> = rows().into_iter().map(|[rule, ..]| rule).collect();
    let mut printed = BTreeSet::new();
    for file in PRINTING {
        for literal in literals(&read(Path::new("src/charging").join(file))) {
            if is_rule(&literal) {
                printed.insert(literal.clone());
            }
            for rest in literal.split("(rule ").skip(1) {
                printed.insert(rest.split(')').next().unwrap_or_default().to_owned());
            }
        }
    }
    assert!(printed.len() > 20, "the literals were found: {printed:?}");
    assert_eq!(printed.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn every_test_that_the_rule_book_names_exists() {
    let tests = tests();
    let exists = |name: &str| tests.iter().any(|test| test.ends_with(&format!("::{name}")));
    for [rule, _, place, named] in rows() {
        for name in quoted(&named) {
            assert!(exists(name), "rule {rule}: there is no test {name}");
        }
        let excused = place.starts_with("not in this version") || place.starts_with("cannot apply");
        assert!(excused || !named.is_empty(), "rule {rule}: neither a test nor a reason");
    }
}

#[test]
fn every_test_that_the_ledgers_page_names_exists() {
    let tests = tests();
    let text = read("docs/LEDGER.md");
    let filters = text.split("cargo test --test it ").skip(1);
    let filters: Vec<_> = filters.filter_map(|rest| rest.split(['`', ' ', ';']).next()).collect();
    assert!(!filters.is_empty());
    for filter in filters {
        let matches = |test: &String| {
            test.strip_prefix("tests::it::").is_some_and(|test| test.contains(filter))
        };
        assert!(tests.iter().any(matches), "no test matches {filter}");
    }
}

#[test]
fn every_test_that_a_fault_of_peers_names_exists() {
    let tests = tests();
    let text = read("docs/RELIABILITY.md");
    let table = text.split("## Faults of peers").nth(1).expect("the table is there");
    let rows = table.lines().take_while(|line| !line.starts_with("## "));
    let named: Vec<_> = rows.filter(|line| line.starts_with('|')).flat_map(quoted).collect();
    let of_tests = |name: &&&str| !name.contains(' ');
    assert!(named.len() > 20, "the table was read: {named:?}");
    for name in named.iter().filter(of_tests) {
        let exists = tests.iter().any(|test| test.ends_with(&format!("::{name}")));
        assert!(exists, "there is no test {name}");
    }
}

#[test]
fn every_module_that_the_rule_book_names_exists() {
    for [rule, _, place, _] in rows() {
        for name in quoted(&place).filter(|name| name.ends_with(".rs")) {
            assert!(root().join("src").join(name).is_file(), "rule {rule}: there is no {name}");
        }
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    files(&root().join("docs"), "md", &mut pages);
    files(&root().join("samples"), "md", &mut pages);
    for page in pages {
        let text = read(&page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            let target = page.parent().unwrap().join(link);
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
        }
    }
}
