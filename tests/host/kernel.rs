//! The kernel plane: connections go to the active service's own socket.

use crate::user;

#[test]
fn clients_reach_the_service_itself() {
    let Some(host) = user::with_two_versions() else { return };
    let status = user::status(&host);
    assert_eq!(status["plane"], "kernel", "{status:#}\n{}", host.journal("dorc"));
    let load = user::load(&host, "--keep-alive 8 --one-shot 4 --expect one,two");
    host.sh("for _ in $(seq 20); do dorc switch web --no-wait || exit; done");
    user::nothing_lost(load);
}
