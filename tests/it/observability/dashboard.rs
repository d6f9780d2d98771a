//! The dashboard and the alert rules in `deploy/observability`, as far as they can be tried without a Grafana.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::installed::run;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability")
}

fn dashboard() -> Value {
    let text = fs::read_to_string(folder().join("dashboard.json")).expect("the dashboard");
    serde_json::from_str(&text).expect("JSON")
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().expect("panels")
}

/// Columns and lines that a panel takes up: from, to.
fn place(panel: &Value) -> [(u64, u64); 2] {
    let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
    [(at("x"), at("x") + at("w")), (at("y"), at("y") + at("h"))]
}

#[test]
fn the_dashboard_has_the_shape_of_one() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "tollgate");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    let panels = panels(&dashboard);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "ids are panels' own");
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let [(_, right), _] = place(panel);
        assert!(right <= 24, "{title} stands out");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        let refs: BTreeSet<&str> = targets.iter().filter_map(|target| target["refId"].as_str()).collect();
        assert_eq!(refs.len(), targets.len(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&"datasource".into(), &"prometheus".into()));
}

#[test]
fn no_panel_lies_over_another() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let overlap = |a: (u64, u64), b: (u64, u64)| a.0 < b.1 && b.0 < a.1;
    for (at, panel) in panels.iter().enumerate() {
        for other in &panels[..at] {
            let ([x, y], [u, v]) = (place(panel), place(other));
            assert!(!(overlap(x, u) && overlap(y, v)), "{} lies over {}", panel["title"], other["title"]);
        }
    }
}

#[test]
fn the_dashboard_has_a_row_for_each_concern() {
    let dashboard = dashboard();
    let rows = panels(&dashboard).iter().filter(|panel| panel["type"] == "row");
    let titles: Vec<_> = rows.filter_map(|row| row["title"].as_str()).collect();
    let expected = [
        "Traffic",
        "Refusals",
        "Latency",
        "Credits and leases",
        "Store and outage",
        "Nodes and propagation",
        "Upstreams",
        "Process",
    ];
    assert_eq!(titles, expected);
}

/// Prometheus' own parser takes each query, as the expression of a rule.
#[test]
fn every_query_of_the_dashboard_is_one() {
    let dashboard = dashboard();
    let targets = panels(&dashboard).iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<_> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(queries.len() > 50, "{}", queries.len());
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*");
        assert!(!query.contains('$'), "{query}");
        let query = serde_json::to_string(&query).expect("a text");
        let _ = writeln!(rules, "  - {{record: 'q{number}', expr: {query}}}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rules.yaml");
    fs::write(&file, rules).expect("rules");
    let told = run(Command::new("promtool").args(["check", "rules"]).arg(&file));
    assert!(told.contains(&format!("{} rules found", queries.len())), "{told}");
}

#[test]
fn every_alert_was_tried_where_it_fires_and_where_it_does_not() {
    run(Command::new("promtool").args(["check", "config", "prometheus.yaml"]).current_dir(folder()));
    run(Command::new("promtool").args(["test", "rules", "alerts.test.yaml"]).current_dir(folder()));
    let read = |name: &str| fs::read_to_string(folder().join(name)).expect("a file");
    let (rules, tests) = (read("alerts.yaml"), read("alerts.test.yaml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        let fires = format!("- alertname: {alert}\n");
        let quiet = format!("alertname: {alert}, ");
        assert!(tests.contains(&fires) && tests.contains(&quiet), "{alert} is not tried both ways");
    }
    let rules = rules.split("- alert: ").skip(1);
    for rule in rules {
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(rule.contains(part), "{rule}");
        }
    }
}
