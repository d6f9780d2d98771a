//! `tollgate check`.

use serde_json::json;

use super::tool::{config, run_in};
use crate::harness::secure::Authority;

#[test]
fn a_good_file_is_praised_and_a_bad_one_taken_apart() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    run_in(folder.path(), &["check"]).expect(1).says(&["proxy.yaml"]);
    write("proxy.yaml", &config("127.0.0.1:8081"));
    let done = run_in(folder.path(), &["check"]).expect(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("proxy.yaml: OK, 1 route, 1 upstream\n", ""));

    let bad = config("127.0.0.1:8081").replace("access: core", "acess: core").replace("embedded:", "mongo:");
    write("bad.yaml", &bad);
    let line = |piece: &str| bad.lines().position(|line| line.contains(piece)).unwrap() + 1;
    let places = [format!("bad.yaml:{}:", line("mongo")), format!("bad.yaml:{}:", line("acess"))];
    let done = run_in(folder.path(), &["check", "bad.yaml"]).expect(1);
    assert_eq!(done.out, "");
    let done = done.says(&[&places[0], &places[1]]);
    assert!(done.err.contains("acess"), "{}", done.err);

    let done = run_in(folder.path(), &["check", "proxy.yaml", "bad.yaml", "none.yaml"]).expect(1);
    assert_eq!(done.out, "proxy.yaml: OK, 1 route, 1 upstream\n");
    done.says(&[&places[0], "none.yaml"]);

    let reports = run_in(folder.path(), &["check", "--json", "proxy.yaml", "bad.yaml"]).expect(1).json();
    assert_eq!(
        reports[0],
        json!({"file": "proxy.yaml", "ok": true, "routes": 1, "upstreams": 1, "problems": [], "warnings": []})
    );
    assert_eq!(
        (&reports[1]["ok"], &reports[1]["problems"][0]["line"]),
        (&json!(false), &json!(line("mongo")))
    );
    run_in(folder.path(), &["serve", "--config", "bad.yaml"]).expect(1).says(&[&places[0], &places[1]]);
}

#[test]
fn a_certificate_that_has_expired_is_told_of_and_the_file_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    Authority::new().sign_expired("gate.test").write(&at("gate.pem"), &at("gate.key"));
    let tls = config("127.0.0.1:8081").replacen(
        "127.0.0.1:0",
        "127.0.0.1:0\n    tls: {cert: gate.pem, key: gate.key}",
        1,
    );
    std::fs::write(at("proxy.yaml"), &tls).unwrap();
    let told = "listener 127.0.0.1:0: the certificate in gate.pem has expired (2021-01-01T00:00:00Z)";
    let done = run_in(folder.path(), &["check"]).expect(0);
    assert_eq!(done.out, "proxy.yaml: OK, 1 route, 1 upstream\n");
    assert_eq!(done.err, format!("proxy.yaml: warning: {told}\n"));
    let reports = run_in(folder.path(), &["check", "--json"]).expect(0).json();
    assert_eq!((&reports[0]["ok"], &reports[0]["warnings"]), (&json!(true), &json!([told])));
}
