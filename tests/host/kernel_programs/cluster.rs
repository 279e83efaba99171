//! Node's cluster: the workers ask the first process for what they listen on.

use super::{Program, all_go_straight, goes_there_and_back, serving};

/// `POLICY`: who accepts.
const UPLOAD: &str = r"
    printf %s $1 >version
    cat >server.js <<'END'
#!/usr/bin/env node
const cluster = require('cluster')
cluster.schedulingPolicy = cluster.POLICY
if (cluster.isPrimary) {
  for (let count = 0; count < 3; count++) cluster.fork()
} else {
  const version = require('fs').readFileSync(__dirname + '/version')
  const server = require('http').createServer((request, answer) =>
    answer.end(request.url === '/' ? version : `${request.socket.remotePort} ${process.pid}`))
  server.listen(process.env.PORT, '127.0.0.1')
}
END
    sed -i s/POLICY/$POLICY/ server.js
    chmod +x server.js
";

/// Returns how many workers have answered.
fn with_policy(policy: &str) -> Option<usize> {
    let upload = format!("POLICY={policy}\n{UPLOAD}");
    let host =
        serving(&Program { upload: &upload, file: "release_bin = \"server.js\"\n[health]\npath = \"/\"\n" })?;
    goes_there_and_back(&host);
    let processes = all_go_straight(&host);
    processes.as_object().map(serde_json::Map::len)
}

#[test]
fn a_node_cluster_whose_first_process_accepts() {
    let Some(workers) = with_policy("SCHED_RR") else { return };
    assert_eq!(workers, 3);
}

#[test]
fn a_node_cluster_whose_workers_accept() {
    let Some(workers) = with_policy("SCHED_NONE") else { return };
    // The kernel may well give most connections to the same one.
    assert!((1..=3).contains(&workers), "{workers}");
}
