//! Uploads as people make them: each is taken when it is whole, and never before.

use crate::apps::{self, QUICK, Traffic};
use crate::host::TestHost;

/// Makes a release in `/opt/build`; `$1` is its version. It has files enough to be watched folder by folder.
const BUILD: &str = r#"
set -e
rm -rf /opt/build; mkdir -p /opt/build; cd /opt/build
cp /opt/backend backend
printf %s "$1" >version
for folder in css js img/icons/small; do
    mkdir -p assets/$folder
    for number in $(seq 50); do echo "$1 $number" >assets/$folder/$number; done
done
"#;

/// The ways, each a script for the version that `/opt/build` has; the old one is in `/srv/web`.
const WAYS: [(&str, &str); 7] = [
    ("cp over the files that are there", "cp -r /opt/build/. /srv/web/"),
    ("rsync", "rsync -a --checksum --delete /opt/build/ /srv/web/"),
    ("rsync in place", "rsync -a --checksum --delete --inplace /opt/build/ /srv/web/"),
    ("tar", "tar c -C /opt/build . | tar x -C /srv/web"),
    ("a folder moved into place", "rm -rf /srv/old; mv /srv/web /srv/old; mv /opt/build /srv/web"),
    ("emptied and filled", "rm -rf /srv/web/*; cp -r /opt/build/. /srv/web/"),
    ("the folder itself made anew", "rm -rf /srv/web; mkdir /srv/web; cp -r /opt/build/. /srv/web/"),
];

/// An app of the test backend, served as version `one`.
fn web(host: &TestHost) {
    let text = format!(
        "[service]\nstart = \"{{bin}}\"\n[health]\ninterval = \"50ms\"\npath = \"/healthz\"\n{QUICK}"
    );
    apps::backend_app(host, "web", 8080, &text);
}

fn count_releases(host: &TestHost) -> usize {
    let list = host.run("dorc releases web --json");
    list.success();
    list.json().as_array().map_or(0, Vec::len)
}

#[test]
fn every_way_to_upload_is_one() {
    let Some(host) = apps::boot() else { return };
    host.write("/opt/make", BUILD, 0o644);
    web(&host);
    for (number, (what, how)) in WAYS.into_iter().enumerate() {
        let version = format!("version {number}");
        host.sh(&format!("sh /opt/make '{version}' && {how}"));
        let switched = host.run("dorc switch web");
        assert!(switched.status.success(), "{what}: {switched}");
        let history = host.sh("dorc history web");
        assert_eq!(apps::get(&host, 8080), version, "{what}\n{switched}\n{history}");
    }
    // One release an upload, and none of them half: the old ones went, but each had all of its files.
    let history = host.sh("dorc history web");
    assert_eq!(history.matches(" take ").count(), WAYS.len() + 1, "{history}");
    let dirs = "cd /var/lib/dorc/apps/web/releases; for release in r*; do find $release -type f | wc -l; done | sort -u";
    assert_eq!(host.sh(dirs), "152");
}

#[test]
fn the_same_content_again_is_no_new_release() {
    let Some(host) = apps::boot() else { return };
    web(&host);
    host.sh("cp -r /srv/web /opt/copy; touch /opt/copy/*; rsync -a /opt/copy/ /srv/web/");
    apps::upload(&host, "web", "one", "ok");
    assert!(host.sh("dorc switch web").contains("is active already"));
    assert_eq!(count_releases(&host), 1);

    // What was good before is that release again, and comes up without being stored again.
    apps::upload(&host, "web", "two", "ok");
    apps::switch(&host, "web");
    apps::upload(&host, "web", "three", "ok");
    apps::switch(&host, "web");
    apps::upload(&host, "web", "one", "ok");
    apps::switch(&host, "web");
    assert_eq!(apps::get(&host, 8080), "one");
    assert_eq!(count_releases(&host), 3);
    assert!(apps::status(&host, "web")["state"].as_str().is_some_and(|state| state.contains("live")));
}

#[test]
fn a_switch_goes_to_what_was_uploaded_before_it() {
    let Some(host) = apps::boot() else { return };
    web(&host);
    host.sh("strip -o /opt/small /opt/backend; mv /opt/small /opt/backend");
    // The first of two uploads is at another point each time when the second one comes: settling, taken, stored, tried.
    let round = "for n in $(seq 20); do
        cd /srv/web; cp /opt/backend .new && mv .new backend && printf %s \"before $n\" >version
        sleep $(printf 0.%03d $((n * 20)))
        printf %s \"after $n\" >version
        dorc switch web >/opt/said || { cat /opt/said; exit 1; }
        test \"$(curl -s 127.0.0.1:8080)\" = \"after $n\" || { echo round $n; cat /opt/said; dorc history web; exit 1; }
    done";
    let result = host.run(round);
    assert!(result.status.success(), "{result}");
}

/// Writes like `scp` on a bad line: half, a pause that is longer than `settle`, the rest.
const SLOWLY: &str = r#"
import os, sys, time
content = open("/opt/backend", "rb").read()
open("/srv/web/version", "w").write("two")
with open("/srv/web/backend", "wb") as file:
    file.write(content[:len(content) // 2])
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
    file.write(content[len(content) // 2:])
"#;

#[test]
fn a_file_that_is_still_open_is_waited_for() {
    let Some(host) = apps::boot() else { return };
    host.write("/opt/slowly.py", SLOWLY, 0o644);
    web(&host);
    let writer = host.spawn("python3 /opt/slowly.py");
    writer.wait_for("half", apps::SOON);
    let switch = host.spawn("dorc switch web");
    switch.wait_for("backend is still open for writing", apps::SOON);
    assert!(host.sh("dorc status").contains("backend is still open for writing"));
    let busy = host.run("dorc switch web --no-wait");
    assert!(busy.exits_with(14).stderr_text().contains("still open for writing"), "{busy}");

    writer.wait().success();
    switch.wait().success();
    assert_eq!(apps::get(&host, 8080), "two");
    assert_eq!(count_releases(&host), 2);
}

#[test]
fn one_that_stopped_half_way_is_never_run() {
    let Some(host) = apps::boot() else { return };
    web(&host);
    host.sh("printf two >/srv/web/version; head -c 3000000 /opt/backend >/srv/web/backend");
    let switch = host.spawn("dorc switch web");
    switch.wait_for("is not whole yet: its ELF headers reach", apps::SOON);
    assert!(host.sh("dorc status web").contains("is not whole yet"));
    host.run("dorc switch web --timeout 500ms").exits_with(14);

    host.sh("tail -c +3000001 /opt/backend >>/srv/web/backend");
    switch.wait().success();
    assert_eq!(apps::get(&host, 8080), "two");
    assert_eq!(count_releases(&host), 2);
}

#[test]
fn what_comes_during_a_drain_waits_and_the_newest_wins() {
    let Some(host) = apps::boot() else { return };
    web(&host);
    host.sh("sed -i 's/drain = \"1s\"/drain = \"60s\"/' /etc/dorc/apps/web.toml; dorc update web");
    let traffic = Traffic::start(&host, 8080, "one,two,four");
    apps::upload(&host, "web", "two", "ok");
    apps::await_status(&host, "web", "/state", "ready to switch");
    let slow = host.spawn("curl -sS --fail --max-time 30 '127.0.0.1:8080/slow?ms=6000'");
    host.wait_until(apps::SOON, "the slow request is on its way", || {
        (apps::status(&host, "web")["green"]["connections"].as_u64() > Some(3)).then_some(())
    });
    host.sh("dorc switch web --no-wait");
    let old = host.main_pid("green-web.service").expect("it drains");

    apps::upload(&host, "web", "three", "ok");
    let queued = host.wait_until(apps::SOON, "the third one waits", || {
        apps::status(&host, "web")["queued"].as_str().map(str::to_owned)
    });
    assert!(host.sh("dorc status web").contains(&queued));
    apps::upload(&host, "web", "four", "ok");
    let switch = host.spawn("dorc switch web");
    assert_eq!(host.main_pid("green-web.service"), Some(old), "it has a connection still");

    assert_eq!(slow.wait().success(), "one");
    // The busy clients would keep the drain of the second switch going until it is cut.
    traffic.end_without_failure();
    switch.wait().success();
    assert_eq!(apps::get(&host, 8080), "four");
    assert!(!host.journal("green-web.service").contains("version three"), "a newer one took its place");
}

/// A few hundred uploads of a program by a writer of no manners at all.
const UPLOADS: &str = r#"
import os, random, shutil, sys, time
seed = int(sys.argv[1])
random.seed(seed)
content = open("/opt/small", "rb").read()
def pause():
    time.sleep(random.choice([0, 0, 0, 0.005, 0.02, 0.06]))
def write(path, mode, part):
    with open(path, mode) as file:
        for at in range(0, len(part), 1 << 19):
            file.write(part[at:at + (1 << 19)]); file.flush(); pause()
for number in range(250):
    os.chdir("/srv/web")
    version = f"v{number}"
    whole = content + version.encode()
    way = random.randrange(5)
    if way == 0:
        write("backend", "wb", whole)
    elif way == 1:
        # Broken off and taken up again, with the file closed between.
        at = random.randrange(1, len(content))
        write("backend", "wb", whole[:at]); time.sleep(random.choice([0, 0.1])); write("backend", "ab", whole[at:])
    elif way == 2:
        write(".new", "wb", whole); os.chmod(".new", 0o755); os.rename(".new", "backend")
    elif way == 3:
        os.unlink("backend"); pause(); write("backend", "wb", whole); os.chmod("backend", 0o755)
    else:
        os.mkdir("/srv/next"); shutil.copy("version", "/srv/next"); write("/srv/next/backend", "wb", whole)
        os.chmod("/srv/next/backend", 0o755)
        os.rename("/srv/web", "/srv/last"); os.rename("/srv/next", "/srv/web"); shutil.rmtree("/srv/last")
    pause()
    with open("/srv/web/version", "w") as file: file.write(version)
    if random.random() < 0.3: time.sleep(random.random() * 0.4)
print(version)
"#;

#[test]
fn hundreds_of_rude_uploads_and_no_bad_candidate() {
    let Some(host) = apps::boot() else { return };
    web(&host);
    host.sh("strip -o /opt/small /opt/backend; sed -i 's/settle = \"200ms\"/settle = \"50ms\"/' /etc/dorc/apps/web.toml; dorc update web");
    host.write("/opt/uploads.py", UPLOADS, 0o644);
    let traffic = Traffic::start(&host, 8080, "one");

    let last = host.sh("python3 /opt/uploads.py 17");
    traffic.end_without_failure();
    apps::switch(&host, "web");

    assert_eq!(apps::get(&host, 8080), last);
    let history = "/var/lib/dorc/apps/web/history.jsonl";
    let taken: u32 = host.sh(&format!("grep -c '\"what\":\"take\"' {history}")).parse().expect("a number");
    assert!(taken > 20, "{taken} taken");
    // Neither a candidate that failed, nor anything that was called wrong for good.
    let not_done = host.run(&format!("grep -v '\"result\":\"done\"' {history}")).stdout_text();
    assert!(!not_done.contains("\"try\""), "{not_done}");
}
