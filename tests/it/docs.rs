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

/// Heads the last table of docs/RULES.md, of the rules that have no test.
const EXCUSED: &str = "## Not for a call authorizer";

/// The rows of the tables in a part of docs/RULES.md.
fn table<const N: usize>(text: &str) -> Vec<[String; N]> {
    let cells = |line: &str| {
        let cells: Vec<_> =
            line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        <[String; N]>::try_from(cells).unwrap_or_else(|_| panic!("not {N} cells: {line}"))
    };
    let is_row = |cells: &[String; N]| cells[0] != "rule" && !cells[0].starts_with('-');
    text.lines().filter(|line| line.starts_with('|')).map(cells).filter(is_row).collect()
}

/// The rules that tests show: rule, sentence, where, tests.
fn rows() -> Vec<[String; 4]> {
    table(read("docs/RULES.md").split_once(EXCUSED).expect("a table of excuses").0)
}

/// The rules that have no test: rule, sentence, why.
fn excuses() -> Vec<[String; 3]> {
    table(read("docs/RULES.md").split_once(EXCUSED).expect("a table of excuses").1)
}

/// Rules and decisions in the order of the book.
fn book() -> Vec<String> {
    let rules = (1..=91).map(|number| number.to_string());
    rules.chain((1..=30).map(|number| format!("D{number}"))).collect()
}

/// How the names of a rule's own tests begin: `rule_07_` or `d07_`.
fn prefix(rule: &str) -> String {
    match rule.strip_prefix('D') {
        Some(number) => format!("d{number:0>2}_"),
        None => format!("rule_{rule:0>2}_"),
    }
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
            is_list |= line.ends_with("on_every_ledger! {") || line == "on_any_ledger! {";
        }
    }
    found
}

#[test]
fn every_rule_and_decision_is_shown_or_excused_and_never_both() {
    let shown: Vec<_> = rows().into_iter().map(|[rule, ..]| rule).collect();
    let excused: Vec<_> = excuses().into_iter().map(|[rule, ..]| rule).collect();
    let but = |these: &[String]| {
        let others = book().into_iter().filter(|rule| !these.contains(rule));
        others.collect::<Vec<_>>()
    };
    assert_eq!(shown, but(&excused), "in the order of the book, each once");
    assert_eq!(excused, but(&shown), "in the order of the book, each once");
    for [rule, _, why] in excuses() {
        assert!(why.split_whitespace().count() > 3, "rule {rule}: no reason");
    }
}

#[test]
fn every_rule_and_decision_has_a_test_of_its_own_name() {
    let own = |test: &str| {
        let (module, name) = test.rsplit_once("::").unwrap();
        module.starts_with("tests::it::rules::").then(|| name.to_owned())
    };
    let tests: BTreeSet<_> = tests().iter().filter_map(|test| own(test)).collect();
    for [rule, _, _, named] in rows() {
        let prefix = prefix(&rule);
        let named: BTreeSet<_> = quoted(&named).filter(|name| name.starts_with(&prefix)).collect();
        let tests = tests.iter().map(String::as_str);
        let found: BTreeSet<_> = tests.filter(|name| name.starts_with(&prefix)).collect();
        assert!(!found.is_empty(), "rule {rule}: no test {prefix}…");
        assert_eq!(named, found, "rule {rule}: its row names its own tests");
    }
    for [rule, ..] in excuses() {
        let prefix = prefix(&rule);
        let found = tests.iter().find(|name| name.starts_with(&prefix));
        assert_eq!(found, None, "rule {rule} is excused");
    }
}

#[test]
fn every_rule_that_is_printed_is_in_the_book() {
    let known: BTreeSet<_> = book().into_iter().collect();
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
    for [rule, _, _, named] in rows() {
        for name in quoted(&named) {
            assert!(exists(name), "rule {rule}: there is no test {name}");
        }
    }
}

#[test]
fn every_test_that_the_pages_of_promises_name_exists() {
    let tests = tests();
    let text = read("docs/LEDGER.md") + &read("docs/RELIABILITY.md");
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
fn every_test_that_the_threat_model_names_exists() {
    let tests = tests();
    let text = read("SECURITY.md");
    let is_test = |name: &&str| name.matches('_').count() > 3 && !name.contains([' ', '=', '/']);
    let named: Vec<_> = quoted(&text).filter(is_test).collect();
    let named: Vec<_> = named.into_iter().filter(|name| !name.starts_with("tollgate_")).collect();
    assert!(named.len() > 20, "the names were found: {named:?}");
    for name in named {
        let exists = tests.iter().any(|test| test.ends_with(&format!("::{name}")));
        assert!(exists, "there is no test {name}");
    }
}

#[test]
fn the_settings_that_change_while_it_runs_are_those_of_the_table() {
    let page = read("docs/OPERATIONS.md");
    let chapter = page.split_once("## Check and change the settings").expect("a chapter").1;
    let rows = chapter
        .lines()
        .filter(|line| line.ends_with("| the configuration file |"))
        .chain(chapter.lines().filter(|line| line.contains("| the configuration file; ")));
    let mut told: Vec<_> = rows.flat_map(quoted).map(str::to_owned).collect();
    let mut known: Vec<_> =
        tollgate::config::RELOADED.iter().map(|key| (*key).to_owned()).collect();
    told.sort();
    known.sort();
    assert_eq!(told, known);
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
    let mut pages =
        ["README.md", "CHANGELOG.md", "SECURITY.md"].map(|page| root().join(page)).to_vec();
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
