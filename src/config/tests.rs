use clap::{Args, Parser};

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    flags: Flags,
}

fn flags(arguments: &[&str]) -> Flags {
    let arguments = std::iter::once("tollgate").chain(arguments.iter().copied());
    Program::try_parse_from(arguments).expect("the flags are known").flags
}

fn from(arguments: &[&str], file: &str) -> Result<Config, Vec<String>> {
    resolve(flags(arguments), "tollgate.toml", file, Vec::new())
        .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect())
}

fn defaults() -> Config {
    from(&[], "").expect("the defaults are right")
}

/// A file of one line is at fault, for that reason.
#[track_caller]
fn check(line: &str, message: &str) {
    let key = line.split_once(' ').expect("key = value").0;
    assert_eq!(from(&[], line), Err(vec![format!("tollgate.toml line 1: {key}: {message}")]));
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = defaults();
    assert_eq!(config.ledger, LedgerUrl::Memory);
    assert_eq!(config.listen.to_string(), "127.0.0.1:7601");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:7602");
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:7603");
    assert_eq!(config.emergency_country, None);
    assert_eq!(config.default_grant, Duration::from_secs(300));
    assert_eq!(config.max_grant, Duration::from_secs(4 * 3600));
    assert_eq!(config.ringing_timeout, Duration::from_secs(180));
    assert_eq!(config.ledger_timeout, Duration::from_millis(250));
    assert_eq!(config.max_message_size, 65_536);
    assert!(!config.require_ledger_at_start);
    assert_eq!(config.journal, None);
    assert_eq!(config.journal_keep, Duration::from_secs(72 * 3600));
    assert_eq!(config.journal_size, 1 << 30);
    assert_eq!(config.degraded_call, Duration::from_secs(600));
    assert_eq!(config.degraded_per_hour, Duration::from_secs(3600));
    assert_eq!(config.degraded_money_per_hour, Micros(10_000_000));
    assert_eq!(config.degraded_lease, Duration::from_secs(600));
}

/// What `samples/tollgate.toml` must be: every key at its default, with its help.
fn sample_file() -> String {
    let mut text = "# The settings of `tollgate serve`, each with its default.\n\
         # A flag wins over its environment variable, both win over this file.\n"
        .to_owned();
    // Whatever follows the head of a table belongs to it.
    for table in [None, Some("notices")] {
        text += &table.map(|table| format!("\n[{table}]\n")).unwrap_or_default();
        for Setting { key, variable, default, help } in SETTINGS {
            let (own, name) = match key.strip_prefix("notices_") {
                Some(name) => (Some("notices"), name),
                None => (None, *key),
            };
            if own != table {
                continue;
            }
            let bare = matches!(*default, "true" | "false") || default.parse::<u32>().is_ok();
            let quote = if bare { "" } else { "\"" };
            text += &format!("\n# {help}.\n# --{}, {variable}\n", key.replace('_', "-"));
            text += &format!("{name} = {quote}{default}{quote}\n");
        }
    }
    text
}

#[test]
fn the_sample_file_has_every_key_at_its_default() {
    let sample = include_str!("../../samples/tollgate.toml");
    assert_eq!(sample, sample_file(), "the right side is what the file must be");
    assert_eq!(from(&[], sample), Ok(defaults()));
    let table: toml::Table = sample.parse().expect("the sample is TOML");
    let in_tables: usize =
        TABLES.iter().map(|name| table[*name].as_table().map_or(0, |t| t.len())).sum();
    assert_eq!(table.len() - TABLES.len() + in_tables, SETTINGS.len());
}

#[test]
fn threads_for_calls_are_as_many_as_stated_or_what_the_ledger_can_use() {
    let threads = |file: &str| from(&[], file).expect("it is right").threads_for_calls();
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(64);
    assert_eq!(threads("") as usize, cores);
    assert_eq!(threads("ledger = 'file:ledger'"), 1);
    assert_eq!(threads("ledger = 'redis://localhost'"), 1);
    assert_eq!(threads("ledger = 'redis://localhost'\ncall_threads = 3"), 3);
    assert_eq!(threads("call_threads = 1"), 1);
}

#[test]
fn a_setting_of_notices_stands_in_its_table() {
    let config = from(&[], "[notices]\ninterval = \"5s\"\n").expect("it is right");
    assert_eq!(config.notices_interval, Duration::from_secs(5));
    let flag = ["--notices-interval", "6s"];
    let config = from(&flag, "[notices]\ninterval = \"5s\"\n").expect("it is right");
    assert_eq!(config.notices_interval, Duration::from_secs(6));
    let mistakes =
        from(&[], "notices_interval = \"5s\"\n[notices]\ngrace = \"5s\"\nkeep = \"1s\"\n")
            .expect_err("there are three mistakes");
    let begin = |n: usize, text: &str| assert!(mistakes[n].starts_with(text), "{mistakes:?}");
    begin(0, "tollgate.toml line 1: notices_interval: unknown key, ");
    begin(1, "tollgate.toml line 3: notices.grace: unknown key, ");
    begin(2, "tollgate.toml line 4: notices.keep: expected a length of time from 1m to 744h");
}

#[test]
fn settings_of_notices_that_cannot_work_are_refused_and_secrets_never_shown() {
    let secret = format!("whsec_{}", "QUFB".repeat(8));
    let url = "https://contoso.example/hook";
    for (flags, message) in [
        (
            vec!["--notices-webhook-url", url],
            "notices_webhook_url: expected notices_webhook_secrets_file with it",
        ),
        (
            vec![
                "--notices-webhook-url",
                "http://contoso.example",
                "--notices-webhook-secrets",
                &secret,
            ],
            "notices_webhook_url: a receiver must be of https, or of http on loopback",
        ),
        (
            vec!["--notices-smtp-url", "smtp://relay.example"],
            "notices_smtp_url: expected notices_mail_from with it",
        ),
        (vec!["--notices-lease", "19s"], "notices_lease: expected at least twice notices_timeout"),
        (
            vec!["--notices-retry-first", "10m"],
            "notices_retry_longest: expected at least notices_retry_first",
        ),
        (
            vec!["--notices-webhook-secrets", "hidden"],
            "--notices-webhook-secrets or TOLLGATE_NOTICES_WEBHOOK_SECRETS: expected whsec_ and 24 to 64 bytes in base64, after a tenant or alone, in secret 1",
        ),
        (
            vec!["--notices-smtp-url", "smtp://me:hidden@relay.example"],
            "--notices-smtp-url or TOLLGATE_NOTICES_SMTP_URL: expected smtps:// or ?tls=required with a password, which anybody could read",
        ),
        (
            vec!["--notices-smtp-url", "http://me:hidden@relay.example"],
            "--notices-smtp-url or TOLLGATE_NOTICES_SMTP_URL: expected smtp://HOST, smtps://HOST, or smtp://USER:PASSWORD@HOST:587?tls=required",
        ),
        (
            vec!["--notices-mail-from", "nobody"],
            "--notices-mail-from or TOLLGATE_NOTICES_MAIL_FROM: expected a mail address such as Tollgate <tollgate@contoso.example>, found \"nobody\"",
        ),
    ] {
        assert_eq!(from(&flags, ""), Err(vec![message.to_owned()]));
    }
    let relay = "smtp://me:hidden@relay.example:587?tls=required";
    let from_me = "Tollgate <tollgate@contoso.example>";
    let all = [
        "--notices-webhook-url",
        url,
        "--notices-webhook-secrets",
        &secret,
        "--notices-smtp-url",
        relay,
        "--notices-mail-from",
        from_me,
    ];
    let config = from(&all, "").expect("all are right");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hidden") && !shown.contains("QUFB"), "{shown}");
    assert!(shown.contains("relay.example"), "{shown}");
}

#[test]
fn flags_variables_and_keys_are_one_set() {
    let command = Flags::augment_args(clap::Command::new("tollgate"));
    let arguments: Vec<_> = command.get_arguments().collect();
    assert_eq!(arguments.len(), SETTINGS.len());
    for (argument, setting) in arguments.into_iter().zip(SETTINGS) {
        assert_eq!(argument.get_id(), setting.key);
        assert_eq!(argument.get_long(), Some(setting.key.replace('_', "-").as_str()));
        let variable = format!("TOLLGATE_{}", setting.key.to_uppercase());
        assert_eq!(argument.get_env(), Some(variable.as_ref()));
        assert_eq!(setting.variable, variable);
        assert!(argument.is_hide_env_values_set());
    }
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = "grace = \"30s\"\nsweep_batch = 7\n";
    let config = from(&["--grace", "20s"], file).expect("all are right");
    assert_eq!(config.grace, Duration::from_secs(20));
    assert_eq!(config.sweep_batch, 7);
    assert_eq!(config.sweep_interval, Duration::from_secs(1));
    // What is overruled is not judged.
    assert!(from(&["--grace", "20s"], "grace = \"never\"").is_ok());
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let file = "graze = 1\nmax_grant = [1]\n\n[log]\nformat = \"text\"\n";
    let mistakes = from(&["--listen", "here", "--sweep-batch", "0"], file)
        .expect_err("there are five mistakes");
    let places: Vec<&str> =
        mistakes.iter().map(|mistake| mistake.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        places,
        [
            "tollgate.toml line 1",
            "tollgate.toml line 2",
            "tollgate.toml line 4",
            "--listen or TOLLGATE_LISTEN",
            "--sweep-batch or TOLLGATE_SWEEP_BATCH",
        ]
    );
    assert!(mistakes[0].contains("graze: unknown key, expected one of ledger, listen, "));
}

#[test]
fn text_that_is_not_toml_is_a_mistake_with_its_line() {
    let mistakes =
        from(&[], "grace = \"5s\"\nledger = \nlisten = [\n").expect_err("it is not TOML");
    assert!(mistakes[0].starts_with("tollgate.toml line 2: "), "{mistakes:?}");
    let twice = from(&[], "grace = \"5s\"\ngrace = \"6s\"\n").expect_err("a key is there twice");
    assert_eq!(twice, ["tollgate.toml line 2: duplicate key"]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let mistakes =
        load(flags(&[]), Some(Path::new("/does/not/exist"))).expect_err("there is no such file");
    assert!(mistakes[0].to_string().starts_with("/does/not/exist: cannot be read: "));
}

#[test]
fn values_are_in_range() {
    for text in ["0s", "999ms", "25h", "5", "-5m", ""] {
        check(
            &format!("default_grant = \"{text}\""),
            &format!("expected a length of time from 1s to 24h, found {text:?}"),
        );
    }
    check("sweep_batch = 0", "expected a whole number from 1 to 10000, found \"0\"");
    check(
        "max_message_size = \"17MiB\"",
        "expected a size from 4096 to 16777216 bytes such as 64KiB, found \"17MiB\"",
    );
    check("require_ledger_at_start = 1", "expected one of true, false, found \"1\"");
    check("log_format = \"xml\"", "expected one of text, json, found \"xml\"");
    check(
        "emergency_country = \"USA\"",
        "expected an ISO 3166-1 alpha-2 country code such as US, or none, found \"USA\"",
    );
    check(
        "log_filter = \"tollgate=loud\"",
        "expected a level such as info, or targets with levels such as warn,tollgate=debug, found \"tollgate=loud\"",
    );
    for text in ["7601", "localhost", "unix:", "127.0.0.1:70000"] {
        check(
            &format!("listen = \"{text}\""),
            &format!("expected IP:PORT such as 127.0.0.1:7601, or unix:PATH, found {text:?}"),
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    assert_eq!(
        from(&["--max-grant", "1m", "--http-listen", "127.0.0.1:7602"], ""),
        Err(vec![
            "default_grant: expected at most max_grant".to_owned(),
            "http_listen: expected another address than listen and admin_listen".to_owned(),
        ])
    );
    let file = "tls_key = \"none\"\n\ntls_cert = \"/gone.pem\"\nidentities_file = \"/gone.toml\"\n";
    let said = from(&[], file).expect_err("they belong together");
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(
        said[0],
        "tollgate.toml line 3: tls_cert: expected tls_key with it, and neither alone"
    );
    assert!(
        said[1]
            .starts_with("tollgate.toml line 4: identities_file: \"/gone.toml\": cannot be read")
    );
    let any = "127.0.0.1:0";
    assert!(from(&["--listen", any, "--admin-listen", any, "--http-listen", any], "").is_ok());
}

#[test]
fn what_differs_is_named_and_what_is_reloaded_is_a_setting() {
    let changed = from(&["--grace", "20s", "--log-filter", "warn"], "").expect("all are right");
    assert_eq!(defaults().differing(&changed), ["grace", "log_filter"]);
    assert_eq!(defaults().differing(&defaults()), [""; 0]);
    for key in RELOADED {
        assert!(SETTINGS.iter().any(|setting| setting.key == *key), "{key}");
    }
}

#[test]
fn ledgers_are_known_by_their_scheme() {
    let expected = "expected memory, file:PATH, redis://HOST:PORT, rediss://HOST:PORT, redis+unix://PATH, \
                    redis+sentinel://HOST:PORT,HOST:PORT/MASTER or redis+cluster://HOST:PORT,HOST:PORT";
    for (url, shown) in [
        ("redis://localhost:6379", "redis://localhost:6379"),
        ("rediss://me:hidden@host:6380/2", "rediss://host:6380/2"),
        ("redis+unix:///run/redis.sock?pass=hidden", "redis+unix:///run/redis.sock"),
        ("redis+unix:///run/redis.sock?pass=hid@hidden", "redis+unix://"),
        (
            "redis+sentinel://me:hidden@one:1,two:2/main?sentinel_password=a@hidden",
            "redis+sentinel://one:1,two:2/main",
        ),
        ("redis+cluster://:hidden@one:1,two:2", "redis+cluster://one:1,two:2"),
    ] {
        let config = from(&["--ledger", url], "").expect("the ledger is known");
        assert_eq!(config.ledger, LedgerUrl::Redis(url.to_owned()));
        assert_eq!(config.ledger.to_string(), shown);
        assert!(!format!("{config:?}").contains("hidden"));
    }
    for path in ["ledger", "/var/lib/tollgate/ledger"] {
        let config = from(&["--ledger", &format!("file:{path}")], "").expect("the ledger is known");
        assert_eq!(config.ledger, LedgerUrl::File(path.into()));
        assert_eq!(config.ledger.to_string(), format!("file:{path}"));
    }
    for text in [
        "",
        "redis",
        "redis:",
        "redis://",
        "redis://me:secret@host:70000",
        "redis://host/main",
        "file",
        "file:",
        "file:///x",
        "postgres://me:secret@x",
    ] {
        check(&format!("ledger = \"{text}\""), expected);
    }
}
