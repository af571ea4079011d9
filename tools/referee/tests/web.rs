//! The page's own tests, which node runs: words, the ladder's and the plot's places.

use std::path::Path;
use std::process::Command;

#[test]
fn the_pages_own_tests_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
    let files = ["test/words.test.js", "test/diagrams.test.js", "test/login.test.js"];
    let ran = match Command::new("node").arg("--test").args(files).current_dir(folder).output() {
        Ok(ran) => ran,
        Err(error) => {
            eprintln!("skipped: node can't be started: {error}");
            return;
        }
    };
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(told.contains("pass "), "{told}");
}
