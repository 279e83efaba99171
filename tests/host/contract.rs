//! The cases of the two seams that need a host of their own: another test program, run inside a test host.

use std::path::PathBuf;

use crate::host::TestHost;

/// The newest build of the contract tests, beside this program.
fn contract_tests() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let folder = own.parent().expect("a program is in a folder").read_dir().expect("it can be read");
    let built = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("contract-") && path.extension().is_none()
    };
    folder
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(built)
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
        .expect("the contract tests are built: cargo test --test contract --no-run")
}

/// Runs the contract tests of that module inside a test host; at least so many of them.
fn pass(module: &str, least: u32) {
    let Some(host) = TestHost::boot() else { return };
    host.install(&contract_tests(), "/usr/local/bin/contract");
    let output = host.run(&format!("DORC_TEST_HOST=1 contract {module}"));
    let said = output.success();
    let passed = said.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next());
    let passed: u32 = passed.and_then(|count| count.parse().ok()).expect("a count of tests");
    let skipped = said.contains("skipped:") || output.stderr_text().contains("skipped:");
    assert!(passed >= least && !skipped, "{output}");
}

#[test]
fn systemd_passes_the_cases_of_its_seam() {
    pass("systemd", 36);
}

#[test]
fn the_kernel_plane_passes_the_cases_of_its_seam() {
    pass("kernel", 10);
}
