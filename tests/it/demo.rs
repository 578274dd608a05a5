//! `tollgate demo`, the newcomer's first look.

use std::net::TcpListener;

use crate::support::process::{Files, run, tollgate};

#[test]
fn the_demo_tells_its_day_and_ends_well_while_the_default_ports_are_taken() {
    // Where one cannot be bound, somebody else has taken it.
    let _taken: Vec<_> = (7601..=7603).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
    let files = Files::default();
    let mut demo = tollgate();
    demo.args(["demo", "--once"]);
    for (flag, name) in
        [("--listen", "calls"), ("--admin-listen", "admin"), ("--http-listen", "http")]
    {
        demo.args([flag, &format!("unix:{}", files.path(name))]);
    }
    let finished = run(demo);
    assert_eq!(finished.stderr, "");
    let story = finished.succeeded();
    for line in [
        "AuthorizeCall +12065550142 ALLOWED may talk 5m0s, asks again after 4m0s; 5m0s of the pool",
        "SettleCall 6m10s SETTLED 7m0s of the pool",
        "AuthorizeCall +12065550142 POOL_EXHAUSTED SIP 403",
        "AuthorizeCall +18005550199 TOLL_FREE_UNFUNDED SIP 480",
        "AuthorizeCall 999 ALLOWED_EMERGENCY",
        "an hour later expired never answered, so nothing is charged",
        "SettleCall 1m0s SETTLED the same answer:",
        "AuthorizeCall +442079460958 KEY_CONFLICT",
        "RunAudit clean 3 buckets and 8 calls checked",
    ] {
        let told = story.lines().map(|told| told.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(told.into_iter().any(|told| told.starts_with(line)), "{line}\nin\n{story}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    for command in [&["demo", "--once"][..], &["serve"]] {
        let mut server = tollgate();
        server.args(command).args(["--listen", &address]);
        server.args(["--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        let said = run(server).failed(1);
        let expected = format!("tollgate: cannot listen on {address}: ");
        assert!(said.lines().any(|line| line.starts_with(&expected)), "{command:?}: {said}");
    }
}
