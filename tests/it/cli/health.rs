//! `tollgate health`: what a container's health check runs, without a token.

use super::tool::{Done, command, config, run_in};
use crate::admin::desk::Desk;
use crate::admin::moody_store::Mood;

fn health(desk: &Desk, more: &[&str]) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &["health", "--admin", &desk.url]);
    Done::new(command.args(more).output().unwrap())
}

#[test]
fn tells_whether_the_gate_lives_and_whether_it_is_ready_without_a_token() {
    let desk = Desk::start();
    assert_eq!(health(&desk, &[]).expect(0).out, "ok\n");
    assert_eq!(health(&desk, &["--ready"]).expect(0).out, "ready\n");
    assert_eq!(health(&desk, &["--ready", "--json"]).expect(0).json()["status"], "ready");
    desk.mood(Mood::Down);
    assert_eq!(health(&desk, &[]).expect(0).out, "ok\n");
    health(&desk, &["--ready"]).expect(1).says(&["/readyz answers 503", "cannot be reached"]);
    assert_eq!(health(&desk, &["--ready", "--json"]).expect(1).json()["code"], "store_unavailable");
}

#[test]
fn finds_the_address_in_the_configuration_and_fails_where_nobody_answers() {
    let desk = Desk::start();
    let folder = tempfile::tempdir().unwrap();
    let address = desk.url.trim_start_matches("http://");
    std::fs::write(folder.path().join("proxy.yaml"), config(address)).unwrap();
    assert_eq!(run_in(folder.path(), &["health"]).expect(0).out, "ok\n");
    drop(desk);
    let nobody = run_in(folder.path(), &["health", "--admin", "http://127.0.0.1:1"]);
    nobody.expect(1).says(&["http://127.0.0.1:1/healthz does not answer"]);
}
