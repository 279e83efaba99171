//! What machines read of the system's daemon: metrics as Prometheus reads them, and events.

use crate::user;

/// Prints each sample as Prometheus' own library understands it, and fails where it does not.
const READ: &str = r#"
import sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families
answer = urllib.request.urlopen("http://127.0.0.1:9464/metrics")
assert answer.headers["content-type"].startswith("text/plain; version=0.0.4"), answer.headers
for family in text_string_to_metric_families(answer.read().decode()):
    assert family.type in ("gauge", "counter") and family.documentation, family
    for sample in family.samples:
        print(sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items())), sample.value)
"#;

#[test]
fn prometheus_reads_the_metrics_and_a_command_is_told_of_failures() {
    let Some(host) = user::serving() else { return };
    host.write("/root/read.py", READ, 0o644);
    let own = "metrics = 9464\n[events]\ncommand = \"/usr/bin/tee --append /root/told\"\n";
    host.write("/etc/dorc/dorc.toml", own, 0o644);
    host.sh("dorc check && systemctl restart dorc");
    host.upload_backend("/srv/upload/web", "two", "exit 3");
    host.run("dorc switch web").exits_with(10);
    host.sh("for i in $(seq 20); do curl --silent --output /dev/null localhost; done");
    let read = host.sh("python3 /root/read.py");
    for line in [
        "dorc_app_phase app=web phase=steady 1.0",
        "dorc_service_state app=web colour=blue state=failed 1.0",
        "dorc_app_events_total app=web failed=true what=try 1.0",
        "dorc_broken_app_files 0.0",
    ] {
        assert!(read.lines().any(|one| one == line), "{line}\n{read}");
    }
    if read.contains("plane=kernel") {
        assert!(read.contains("dorc_service_accepted_total app=web colour=green 21.0"), "{read}");
    }
    // The active service ends by itself: that is told of, and counted.
    host.sh("systemctl kill --signal KILL green-web");
    host.sh("timeout 20 sh -c 'until grep --quiet exit /root/told; do sleep 0.1; done'");
    let told = host.sh("cat /root/told");
    let first = told.lines().next().expect("a line");
    assert!(first.contains(r#""app":"web""#) && first.contains(r#""what":"try""#), "{told}");
    assert!(told.lines().all(|line| line.contains(r#""failed":true"#)), "{told}");

    // A file that is wrong costs its own part only.
    host.sh("echo nonsense >/etc/dorc/dorc.toml");
    assert!(host.run("dorc check").stderr_text().contains("/etc/dorc/dorc.toml:1:"));
    host.sh("systemctl restart dorc && dorc status web && curl --silent localhost");
    host.run("curl --silent localhost:9464/metrics").exits_with(7);
}
