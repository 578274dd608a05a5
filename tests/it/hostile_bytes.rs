//! What is no client of ours comes to the listeners: the server goes on serving.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tollgate::proto::v1::{AuthorizeCallRequest, Decision};
use tonic::Code;

use crate::server::organisation;
use crate::support::messages::{authorize, settle};
use crate::support::process::Sidecar;

/// Sends the bytes and reads whatever comes until the server closes; it may close before all is sent.
fn send(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("the server accepts");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A call goes through, and nothing has panicked.
async fn assert_serves(server: &mut Sidecar, call: &str) {
    let mut calls = server.calls().await;
    let request = authorize(call, "alice", "+12065550100");
    let answer = calls.authorize_call(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Allowed, "{answer:?}");
    calls.settle_call(settle(call, 1)).await.unwrap();
    server.client(&["audit"]).succeeded();
    assert!(server.runs() && !server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn bytes_that_are_no_http2_are_turned_away() {
    let mut server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20 {
        let length = random.usize(1..64 << 10);
        let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        // Alone, and where frames are expected.
        let framed = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &noise].concat();
        for bytes in [&noise, &framed] {
            for to in [server.calls, server.administration, server.http] {
                send(to, bytes);
            }
        }
    }
    for to in [server.calls, server.administration] {
        let answer = send(to, b"GET / HTTP/1.1\r\nHost: tollgate\r\n\r\n");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_serves(&mut server, "after noise").await;
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused() {
    let mut server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let mut calls = server.calls().await;
    for bytes in [100_000, 20_000_000] {
        let request = AuthorizeCallRequest {
            sip_call_id: "x".repeat(bytes),
            ..authorize("huge", "alice", "+12065550100")
        };
        let refused = calls.authorize_call(request).await.expect_err("the message is too large");
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    }
    assert_serves(&mut server, "after the flood").await;
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_waiting() {
    let mut server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let open = |to| TcpStream::connect(to).expect("the server accepts");
    for to in [server.calls, server.administration, server.http] {
        (0..200).for_each(|_| drop(open(to)));
    }
    assert_serves(&mut server, "after they left").await;
    let _silent: Vec<TcpStream> = (0..200).map(|_| open(server.calls)).collect();
    assert_serves(&mut server, "while they wait").await;
}
