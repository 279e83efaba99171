use crate::host::TestHost;
#[test]
#[ignore = "play"]
fn play() {
    let host = TestHost::boot().unwrap();
    host.install_dorc();
    host.install_program("load", "/usr/local/bin/load");
    host.upload_backend("/srv/upload/web", "one", "ok");
    std::fs::write("/tmp/scen.leader", host.leader().to_string()).unwrap();
    while std::path::Path::new("/tmp/scen.leader").exists() { std::thread::sleep(std::time::Duration::from_millis(200)); }
}
