//! The main job of the repository, as a newcomer meets it: `scripts/run`, which `make run` calls.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{evidence, wait_for};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where Cargo put the binaries of this build.
fn binaries() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().expect("a folder").to_owned()
}

/// A copy of the shipped configuration on ports of its own.
fn configuration(directory: &Path) -> (PathBuf, String) {
    let shipped = fs::read_to_string(repository().join("proxy.yaml")).expect("proxy.yaml");
    let port =
        || TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let datasets = port();
    let mut text = shipped;
    for (from, to) in
        [("127.0.0.1:8080", "127.0.0.1:0"), ("127.0.0.1:8081", "127.0.0.1:0"), ("127.0.0.1:9000", &datasets)]
    {
        assert!(text.contains(from), "the shipped proxy.yaml names {from}");
        text = text.replace(from, to);
    }
    let path = directory.join("proxy.yaml");
    fs::write(&path, text).expect("a configuration");
    (path, datasets)
}

struct Job {
    child: Child,
    output: PathBuf,
}

impl Job {
    fn start(directory: &Path, config: &Path, datasets: &str, round: usize) -> Self {
        let output = directory.join(format!("output-{round}.txt"));
        let file = File::create(&output).expect("a file");
        let child = Command::new(repository().join("scripts/run"))
            .env("CONFIG", config)
            .env("DATASETS", datasets)
            .env("BIN", binaries())
            .stdin(Stdio::null())
            .stderr(file.try_clone().expect("the file"))
            .stdout(file)
            .spawn()
            .expect("scripts/run");
        Self { child, output }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The three lines to try.
    async fn lines(&self) -> Vec<String> {
        wait_for("the lines to try", || async { self.text().contains("Ctrl-C stops everything") }).await;
        let text = self.text();
        let lines: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("  curl ")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{text}");
        lines
    }

    fn stop(&mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().expect("kill");
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_secs(15) {
            if let Ok(Some(status)) = self.child.try_wait() {
                assert!(status.success(), "{status}: {}", self.text());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not stop: {}", self.text());
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Its own trap ends what it started.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

fn curl(line: &str) -> String {
    let output = Command::new("bash").args(["-c", &format!("curl {line}")]).output().expect("bash");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_three_lines_do_what_they_say_and_a_second_run_makes_no_second_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let (config, datasets) = configuration(directory.path());
    let mut job = Job::start(directory.path(), &config, &datasets, 0);
    let lines = job.lines().await;
    let passes = curl(&lines[0]);
    assert!(passes.contains("AAPL") && !passes.contains("urn:tollgate"), "{passes}");
    let refused = curl(&lines[1]);
    assert!(refused.contains("\"code\":\"domain_denied\""), "{refused}");
    let credits = curl(&lines[2]);
    assert!(credits.to_lowercase().contains("x-credits-remaining: 998"), "{credits}");
    job.stop();
    let mut again = Job::start(directory.path(), &config, &datasets, 1);
    let lines_again = again.lines().await;
    let token = |line: &str| line.split("token=").nth(1).map(|rest| rest[..35].to_owned());
    assert_eq!(token(&lines[0]), token(&lines_again[0]), "the demo token is kept");
    assert!(
        curl(&lines_again[2]).to_lowercase().contains("x-credits-remaining: 997"),
        "and so is what it used"
    );
    again.stop();
    let secret = fs::read_to_string(directory.path().join("state/secret-token")).expect("a secret token");
    for job in [&job, &again] {
        assert!(!job.text().contains(secret.trim()), "the secret token was printed");
    }
    evidence::assert_sealed(
        "nothing but the demo token's lines",
        job.text().split("Tollgate is running").next().unwrap_or_default().as_bytes(),
    );
}
