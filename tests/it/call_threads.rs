//! Threads for calls: which of them a connection stays on.

use crate::support::messages::release;
use crate::support::process::{Sidecar, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn four_connections_are_dealt_out_evenly_among_two_threads_and_again_when_some_close() {
    let sidecar = Sidecar::ready(&["--call-threads", "2"]);
    let mut clients = vec![];
    for _ in 0..4 {
        let mut client = sidecar.calls().await;
        // Whatever the answer: the connection is served.
        let _ = client.release_call(release("unknown")).await;
        clients.push(client);
    }
    assert_eq!(sidecar.connections_of_loops(), [2, 2]);

    clients.truncate(1);
    wait_until("three are closed", || sidecar.connections_of_loops(), |loops| loops == &[1]);
    for _ in 0..3 {
        let mut client = sidecar.calls().await;
        let _ = client.release_call(release("unknown")).await;
        clients.push(client);
    }
    assert_eq!(sidecar.connections_of_loops(), [2, 2]);
}
