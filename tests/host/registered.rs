//! Apps are registered, changed and removed.

use crate::host::TestHost;
use crate::user::{self, UPLOADS};

const APP_FILE: &str = "/etc/dorc/apps/web.toml";

/// Changes the app file with sed and takes it in.
#[track_caller]
fn update(host: &TestHost, sed: &str) -> String {
    host.sh(&format!("sed -i '{sed}' {APP_FILE} && dorc update web"))
}

fn get(host: &TestHost, path: &str) -> String {
    host.run(&format!("curl --silent 'localhost{path}'")).stdout_text()
}

#[test]
fn options_become_an_app_file() {
    let Some(host) = user::fresh() else { return };
    host.upload_backend(UPLOADS, "one", "ok");
    host.sh(&format!("{} --env MODE=fast --env 'WITH=a b$c%d' --promote-auto", user::REGISTER));

    assert_eq!(get(&host, "/env?MODE"), "fast");
    assert_eq!(get(&host, "/env?WITH"), "a b$c%d");
    host.sh("dorc check");

    // What is ready becomes active by itself.
    user::upload(&host, "two");
    user::wait_for(&host, "blue is active", |status| status["active"] == "blue");
    assert_eq!(get(&host, "/"), "two");

    let again = host.run(user::REGISTER);
    again.exits_with(1);
    assert!(again.stderr_text().contains("dorc update web"), "{again}");
}

#[test]
fn an_app_file_is_taken_as_it_is() {
    let Some(host) = user::fresh() else { return };
    host.upload_backend("/srv/shop", "one", "ok");
    let text =
        "# ours\nlisten = \"127.0.0.1:8000\"\nrelease_dir = \"/srv/shop\"\nrelease_bin = \"backend\"\n";
    host.write("/home/shop.toml", text, 0o644);
    host.sh("cd /home && dorc register -f shop.toml");
    assert_eq!(host.sh("cat /etc/dorc/apps/shop.toml"), text.trim_end());
    assert_eq!(host.sh("curl --silent localhost:8000"), "one");

    // One that is wrong leaves nothing, and the reason is said.
    host.write("/home/bad.toml", text.replace("release_bin", "release_bni"), 0o644);
    let refused = host.run("cd /home && dorc register bad -f bad.toml");
    refused.exits_with(1);
    assert!(refused.stderr_text().contains("release_bni"), "{refused}");
    host.write("/home/same.toml", text.replace("/srv/shop", "/srv/same"), 0o644);
    let refused = host.run("cd /home && dorc register same -f same.toml");
    refused.exits_with(1);
    assert!(refused.stderr_text().contains("8000"), "{refused}");
    assert_eq!(host.sh("ls /etc/dorc/apps"), "shop.toml");
}

#[test]
fn an_app_may_wait_for_its_first_release() {
    let Some(host) = user::fresh() else { return };
    let said = host.sh(user::REGISTER);
    assert!(said.contains("waits for its first release"), "{said}");
    host.run("dorc switch web").exits_with(1);

    host.upload_backend(UPLOADS, "one", "ok");
    user::wait_for(&host, "green is active", |status| status["active"] == "green");
    assert_eq!(get(&host, "/"), "one");
}

#[test]
fn a_file_that_is_put_there_by_hand_is_loaded() {
    let Some(host) = user::serving() else { return };
    host.upload_backend("/srv/api", "api one", "ok");
    host.write(
        "/etc/dorc/apps/api.toml",
        "listen = 8000\nrelease_dir = \"/srv/api\"\nrelease_bin = \"backend\"\n",
        0o644,
    );
    host.run("dorc update api").exits_with(1);
    host.sh("dorc load api && dorc switch api");
    assert_eq!(host.sh("curl --silent localhost:8000"), "api one");

    let all = host.sh("dorc status");
    assert!(all.contains("web") && all.contains("api"), "{all}");
    host.run("dorc status nothing").exits_with(1);
    host.run("dorc load nothing").exits_with(1);
}

#[test]
fn what_needs_a_restart_becomes_a_candidate_of_the_same_files() {
    let Some(host) = user::serving() else { return };
    update(&host, "/^\\[service\\]/a env = { MODE = \"new\" }");
    user::wait_for_warm(&host);

    assert_eq!(get(&host, "/env?MODE"), "", "nothing moves before it is told to");
    host.sh("dorc switch web");
    assert_eq!((get(&host, "/env?MODE"), get(&host, "/")), ("new".into(), "one".into()));
    let releases = host.run("dorc releases web --json").json();
    assert_eq!(releases.as_array().map(Vec::len), Some(2), "{releases}");
    assert_eq!(releases[0]["digest"], releases[1]["digest"]);
    assert_ne!(releases[0]["release"], releases[1]["release"]);
}

#[test]
fn what_needs_no_restart_takes_effect_at_once() {
    let Some(host) = user::with_two_versions() else { return };
    let pids = || (host.main_pid("green-web"), host.main_pid("blue-web"));
    let before = pids();
    let said = update(&host, "/^\\[switch\\]/a drain = \"1s\"");
    assert!(said.contains("nothing in it needs a restart"), "{said}");

    let load = user::load(&host, "--every 5ms");
    update(&host, "s/^listen.*/listen = [\"127.0.0.1:80\", \"127.0.0.1:8000\"]/");
    assert_eq!(host.sh("curl --silent localhost:8000"), "one");
    user::nothing_lost(load);
    update(&host, "s/^listen.*/listen = 8000/");
    host.run("curl --silent localhost:80").exits_with(7);
    assert_eq!(host.sh("curl --silent localhost:8000"), "one");
    assert_eq!(pids(), before);

    // The new address outlives the daemon as the old one did.
    host.sh("systemctl restart dorc && curl --silent localhost:8000");
}

#[test]
fn a_bad_change_is_refused_and_the_app_goes_on() {
    let Some(host) = user::serving() else { return };
    let before = host.main_pid("green-web");
    for bad in ["listen = 81\\nlistne = 3", "listen = \"192.0.2.1:80\"", "listen = 80\\nplane = \"warp\""] {
        let refused = host.run(&format!("sed -i 's/^listen.*/{bad}/' {APP_FILE} && dorc update web"));
        refused.exits_with(1);
        assert_eq!((get(&host, "/"), host.main_pid("green-web")), ("one".into(), before), "{bad}");
        host.sh(&format!(
            "sed -i '/^listne\\|^plane/d; s/^listen.*/listen = 80/' {APP_FILE} && dorc update web"
        ));
    }
}

#[test]
fn a_removed_app_is_gone_but_for_its_releases() {
    let Some(host) = user::with_two_versions() else { return };
    host.sh("dorc remove web");

    gone(&host);
    assert_eq!(host.sh("ls /var/lib/dorc/apps/web"), "releases");
    assert_eq!(host.sh("ls /var/lib/dorc/apps/web/releases | wc --lines"), "2");
    host.run("dorc remove web").exits_with(1);

    // It stays so, and can come again.
    host.sh("systemctl restart dorc");
    assert_eq!(host.sh("dorc status"), "no apps yet: dorc register");
    host.sh(user::REGISTER);
    assert_eq!(get(&host, "/"), "two");
}

#[test]
fn a_purged_app_is_gone_with_its_releases() {
    let Some(host) = user::with_two_versions() else { return };
    host.sh("dorc remove web --purge");

    gone(&host);
    host.run("ls -d /var/lib/dorc/apps/web /etc/dorc/apps/web.toml*").exits_with(2);
    assert_eq!(host.sh(&format!("cat {UPLOADS}/version")), "two", "what the user uploaded is the user's");
}

#[track_caller]
fn gone(host: &TestHost) {
    assert_eq!(host.sh("systemctl list-unit-files --no-legend '*-web.service'; pgrep backend || true"), "");
    assert_eq!(host.sh("systemctl list-units --all --no-legend '*-web.service'"), "");
    assert_eq!(
        host.sh("ss --listening --tcp --numeric --no-header; ls /run/dorc/env 2>/dev/null || true"),
        ""
    );
    assert_eq!(host.sh("find /etc /run /var/lib -name '*-web*' -not -path '/run/log/*'"), "");
    assert_eq!(host.sh("systemctl show dorc --property NFileDescriptorStore --value"), "0");
}
